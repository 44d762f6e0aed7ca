"""A panel of two local models and a scripted judge, as a user runs it.

Slow: the stage has three processes, and two of them load torch and a model, about 20 s of one core.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_helpers import manifest, rows, succeed, wait_until_gone, write_config

pytestmark = pytest.mark.integration

N_PROMPTS = 5
N_PRINCIPLES = 2


def config() -> dict:
    local = {"engine": "transformers", "dtype": "float32"}
    return {
        "run": "run",
        "engines": {
            "one": {**local, "model": "shipped:data/tiny/judge"},
            "two": {**local, "model": "shipped:data/tiny/second-judge"},
            "rule": {"engine": "scripted", "default": "Verdict: A"},
        },
        "prompts": {"path": "answers.jsonl"},
        "judge": {
            "judge": "panel",
            "constitution": "tiny-world",
            "principles": N_PRINCIPLES,
            "members": {
                "first": {"engine": "one", "read": "logprobs"},
                "second": {"engine": "two", "read": "logprobs"},
                "biased": {"engine": "rule", "read": "text"},
            },
        },
        "pair": {"select": "all_pairs", "panel": "majority"},
    }


def test_each_model_of_a_panel_has_a_process_of_its_own(tmp_path: Path) -> None:
    answers = [
        {
            "id": f"p{i}",
            "prompt": f"What is the capital of {country}?",
            "responses": ["It is Rome.", "Go away! Bananas."],
        }
        for i, country in enumerate(["Italy", "France", "Spain", "Japan", "Peru"])
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    write_config(tmp_path / "p.yaml", config())
    plan = succeed("run", "p.yaml", "--dry-run", cwd=tmp_path).out
    each = 2 * N_PROMPTS * N_PRINCIPLES
    for role in ("one", "two", "rule"):
        assert f"judge: {role}" in plan
    succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    run = tmp_path / "run"
    judgments = rows(run / "judgments.jsonl")
    assert {row["status"] for row in judgments if "status" in row} <= {"ok"}
    members = [row["member"] for row in judgments]
    assert {name: members.count(name) for name in set(members)} == dict.fromkeys(("first", "second", "biased"), each)
    stage = manifest(run)["stages"]["judge"]
    # The first process asks `one`; the second `two`, and finds `one` recorded; the last `rule`, and finds both.
    assert stage["requests"] == {"sent": 3 * each, "from_journal": each + 2 * each, "failed": 0, "retried": 0}
    figures = manifest(run)["stages"]["pair"]["counts"]["panel"]
    assert (figures["pairs"], set(figures["members"])) == (N_PROMPTS, {"first", "second", "biased"})
    assert figures["n_effective"] is not None
    again = succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    assert again.out.splitlines()[:3] == ["prompts: up to date", "judge: up to date", "pair: up to date"]
    wait_until_gone(tmp_path, 10)
