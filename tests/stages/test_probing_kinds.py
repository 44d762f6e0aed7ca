"""The judge that a guard asks, on scripted engines: one that compares sees both orders, one that scores each text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.config import Pipeline, validate
from rlaif.stages.base import Context
from rlaif.stages.probing import probe_judge
from rlaif.store import RunFolder

COMPARES = [{"match": r"<?GOOD.*BAD", "reply": "Verdict: A"}, {"match": "BAD.*GOOD", "reply": "Verdict: B"}]
SCORES = [
    {"match": "GOOD", "reply": json.dumps({"rationale": "", "scores": {"good": 4}})},
    {"match": "BAD", "reply": json.dumps({"rationale": "", "scores": {"good": 2}})},
]
STANDARD = "id: one\nversion: 1\nname: One\ndescription: One.\n" + (
    "principles: [{id: good, weight: 1, texts: [Choose the good one.]}]\n"
)


@pytest.mark.parametrize(("judge", "replies"), [("pairwise", COMPARES), ("pointwise", SCORES)])
def test_p_of_the_policys_response(judge: str, replies: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "standard.yaml").write_text(STANDARD)
    raw = {
        "run": str(tmp_path / "run"),
        "engines": {"second": {"engine": "scripted", "replies": replies, "model": "second"}},
        "judge": {"engine": "second", "judge": judge, "constitution": str(tmp_path / "standard.yaml")},
        "train": {"sft": {"model": "m", "guard": {"probes": "p.jsonl", "judge": "second"}}},
    }
    config = validate(Pipeline, raw, "test")
    with RunFolder(config.run) as folder:
        asked = probe_judge(Context(config, folder, quiet=True), "sft")
        assert asked is not None
        prompts = ["one", "one", "two"]
        assert asked(prompts, ["BAD", "GOOD it is", "BAD"], ["GOOD", "BAD it is", "GOOD"]) == [1, 0, 1]
