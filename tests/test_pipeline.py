"""Which stages run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif import pipeline
from rlaif.config import Pipeline, validate
from rlaif.records import Reply, Request

FAILING = {"now": True}


@pytest.fixture
def config(tmp_path: Path) -> Pipeline:
    held_out = [{"prompt": f"Held out {i}?"} for i in range(3)]
    (tmp_path / "held.jsonl").write_text("\n".join(map(json.dumps, held_out)))
    raw: dict[str, Any] = {
        "run": str(tmp_path / "run"),
        "engines": {
            "old": {"engine": "scripted", "function": "test_pipeline:failing", "model": "old"},
            "new": {"engine": "scripted", "function": "test_pipeline:answer_well", "model": "new"},
            "judge": {"engine": "scripted", "default": "Verdict: A"},
        },
        "judge": {"rubric": "helpfulness", "read": "text"},
        "evaluate": {"prompts": {"path": str(tmp_path / "held.jsonl")}, "before": "old", "after": "new"},
    }
    return validate(Pipeline, raw, "p.yaml")


def failing(request: Request) -> Reply:
    from rlaif.errors import RequestFailed

    text = str(request.messages[-1]["content"])
    if FAILING["now"] and text == "Held out 0?":
        raise RequestFailed("server", "gone")
    return Reply(text=f"{text} old")


def answer_well(request: Request) -> Reply:
    return Reply(text=f"{request.messages[-1]['content']} new")


def test_retry_error_asks_again_for_what_evaluate_did_not_get(
    config: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAILING, "now", True)
    first = pipeline.run(config, ["evaluate"], quiet=True)["stages"]["evaluate"]
    assert (first["counts"]["comparisons"], first["requests"]["failed"]) == (2, 1)
    monkeypatch.setitem(FAILING, "now", False)
    same = pipeline.run(config, ["evaluate"], quiet=True)
    assert same["stages"]["evaluate"] == first, "up to date until it is asked for"
    again = pipeline.run(config, ["evaluate"], quiet=True, retry="error")["stages"]["evaluate"]
    assert (again["counts"]["comparisons"], again["requests"]["failed"]) == (3, 0)
    assert again["requests"]["sent"] == 3, "the missing sample, and both orders of its comparison"
