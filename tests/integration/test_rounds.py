"""On-policy rounds as a user runs them: the shipped tiny policy is trained for a few steps, a stub server judges.

Slow: models are loaded and trained, a minute in all on two cores.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run_helpers import (
    finish,
    kill,
    manifest,
    rlaif,
    rows,
    start,
    succeed,
    tables,
    wait_for,
    wait_until_gone,
    write_config,
)
from stub_server import StubHandle

from rlaif import pipeline
from rlaif.config import Pipeline, validate
from rlaif.errors import BudgetReached, GateFailed

pytestmark = pytest.mark.integration

POLICY = "shipped:data/tiny/policy"
PROMPTS = "shipped:data/tiny/prompts.jsonl"


def rounds_config(url: str, run: str, **rounds: Any) -> dict[str, Any]:
    judge = {"engine": "openai", "model": "stub", "base_url": url, "name": "the-judge", "price": {"prompt": 1.0}}
    return {
        "run": run,
        "seed": 2,
        "rounds": {"n": 2, "prompts_per_round": 8, **rounds},
        "engines": {"policy": {"engine": "transformers", "model": POLICY, "dtype": "float32"}, "judge": judge},
        "prompts": {"path": PROMPTS},
        "generate": {"samplers": [{"engine": "policy", "n": 3, "max_tokens": 24}]},
        "judge": {"rubric": "helpfulness"},
        "pair": {"select": "all_pairs"},
        "export": {"formats": ["jsonl"], "test_fraction": 0.2},
        "train": {"dpo": {"model": POLICY, "args": {"max_steps": 3, "learning_rate": 1e-3}}},
        "evaluate": {"prompts": {"path": "shipped:data/tiny/heldout.jsonl", "limit": 8}, "max_tokens": 24},
        "report": {},
    }


def of(raw: dict[str, Any], **sections: Any) -> Pipeline:
    return validate(Pipeline, {**raw, **sections}, "test")


def everything_told(config: Pipeline) -> list[str]:
    told: list[str] = []
    pipeline.run(config, quiet=True, in_process=True, say=told.append)
    return told


def journals(run: Path) -> list[str]:
    """Keys of all replies that were paid for, of the run and all its rounds."""
    paths = [run / "journal.jsonl", *sorted(run.glob("rounds/*/journal.jsonl"))]
    return [row["key"] for path in paths if path.exists() for row in rows(path)]


def weights(model: Path) -> bytes:
    return (model / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(_stub_process: StubHandle, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Two rounds, unbroken."""
    _stub_process.reset()
    run = tmp_path_factory.mktemp("rounds") / "run"
    raw = rounds_config(_stub_process.url, str(run))
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as the commands that it is compared with: sums of several threads end in other digits
    try:
        everything_told(of(raw))
    finally:
        torch.set_num_threads(n_threads)
    return raw, run


def test_each_round_is_a_run_that_starts_from_the_one_before(whole: tuple[dict[str, Any], Path]) -> None:
    _, run = whole
    first, second = run / "rounds" / "1", run / "rounds" / "2"
    for folder in (first, second):
        assert {"prompts.jsonl", "dataset", "models", "evaluation", "report.html"} <= {
            p.name for p in folder.iterdir()
        }
        assert manifest(folder)["seed"] == 2
    asked = [[row["id"] for row in rows(folder / "prompts.jsonl")] for folder in (first, second)]
    assert len(asked[0]) == len(asked[1]) == 8 and not set(asked[0]) & set(asked[1])
    start, trained = (
        manifest(second)["engines"]["policy"]["identity"],
        manifest(first)["engines"]["trained"]["identity"],
    )
    assert start == trained != manifest(first)["engines"]["policy"]["identity"]
    record = json.loads((second / "models" / "dpo" / "training.json").read_text())
    assert record["model"] == str(first / "models" / "dpo")
    assert weights(run / "models" / "dpo") == weights(second / "models" / "dpo") != weights(first / "models" / "dpo")
    assert manifest(run)["engines"]["policy"]["identity"] == manifest(first)["engines"]["policy"]["identity"]


def test_a_reply_is_paid_for_once_in_all_rounds_together(whole: tuple[dict[str, Any], Path]) -> None:
    """A policy's held-out answers serve the round that trains it, the next one, and the last comparison."""
    _, run = whole
    keys = journals(run)
    assert len(keys) == len(set(keys)) == manifest(run)["requests"]["sent"]
    assert not [row for row in rows(run / "journal.jsonl") if row["role"] in ("policy", "trained")]
    assert manifest(run)["stages"]["evaluate"]["requests"]["from_journal"] >= 16
    last = [row["text"] for row in rows(run / "evaluation" / "responses.jsonl") if row["source"] == "after"]
    assert last == [
        row["text"] for row in rows(run / "rounds/2/evaluation/responses.jsonl") if row["source"] == "after"
    ]
    cost = sum(manifest(run / "rounds" / name)["stages"]["judge"]["cost"] for name in "12")
    assert manifest(run)["stages"]["rounds"]["cost"] >= cost > 0


def test_the_report_has_a_row_for_each_round_and_show_finds_prompts(whole: tuple[dict[str, Any], Path]) -> None:
    _, run = whole
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count('href="rounds/') == 2 and "The result is the policy of round 2." in page
    figures = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert figures["requests"]["sent"] == len(journals(run))
    told = json.loads((run / "rounds.json").read_text(encoding="utf-8"))
    assert figures["rounds"] == told and [row["prompts"] for row in told["rounds"]] == [8, 8]
    prompt = rows(run / "rounds" / "2" / "prompts.jsonl")[0]["id"]
    shown = succeed("show", run, prompt, cwd=run.parent).out
    assert "-- round 2: " in shown and f"prompt {prompt}" in shown and "-- round 1: " not in shown
    assert rlaif("show", run, "nosuch", cwd=run.parent).one_line.endswith(
        "no round has an id that starts with 'nosuch'"
    )


def test_the_same_again_asks_nothing_and_one_round_more_is_one_round(
    whole: tuple[dict[str, Any], Path], _stub_process: StubHandle, tmp_path: Path
) -> None:
    """On a copy in another place: what was trained there counts by its weights, not by its path."""
    raw, run = whole
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    before, asked = tables(moved / "rounds" / "2"), _stub_process.stats()["requests"]
    told = everything_told(of(raw, run=str(moved)))
    assert told[:2] == ["round 1: up to date", "round 2: up to date"] and "evaluate: up to date" in told
    assert manifest(moved)["last_run"]["sent"] == 0 and _stub_process.stats()["requests"] == asked
    assert tables(moved / "rounds" / "2") == before
    n_before = len(journals(moved))
    budget = {"max_requests": 30}  # round 3 samples 24, and then begins to judge
    with pytest.raises(BudgetReached, match=r"max_requests 30: 30 sent"):
        everything_told(of(raw, run=str(moved), rounds={"n": 3, "prompts_per_round": 8}, budget=budget))
    assert len(journals(moved)) == n_before + 30
    assert manifest(moved)["last_run"]["sent"] == 30 and manifest(moved)["stages"]["rounds"]["status"] == "stopped"
    told = everything_told(of(raw, run=str(moved), rounds={"n": 3, "prompts_per_round": 8}))
    assert told[:2] == ["round 1: up to date", "round 2: up to date"]
    assert told[2].startswith("round 3: prompts: up to date") and any("round 3: dpo: " in line for line in told)
    keys = journals(moved)
    assert len(keys) == len(set(keys))
    assert weights(moved / "models" / "dpo") == weights(moved / "rounds" / "3" / "models" / "dpo")
    assert tables(moved / "rounds" / "1") == tables(run / "rounds" / "1")


def test_a_failed_gate_keeps_the_last_good_policy(whole: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    raw, run = whole
    mine = tmp_path / "gated"
    shutil.copytree(run, mine)
    done = json.loads((run / "rounds.json").read_text(encoding="utf-8"))["rounds"]
    ratios = [row["figures"]["length_ratio"]["value"] for row in done]
    if ratios[0] == ratios[1]:
        pytest.fail("the two rounds cannot be told apart by a gate")
    between = sum(ratios) / 2
    most = {"length_ratio": {"max": between} if ratios[1] > ratios[0] else {"min": between}}
    config = write_config(tmp_path / "p.yaml", raw, run=str(mine), rounds={**raw["rounds"], "gates": most})
    failed = rlaif("run", config, "--quiet", cwd=tmp_path)
    assert failed.code == 3
    assert failed.one_line.startswith("rlaif: round 2: gate failed: length_ratio ")
    assert failed.one_line.endswith("; the policy of round 1 stays")
    assert weights(mine / "models" / "dpo") == weights(mine / "rounds" / "1" / "models" / "dpo")
    assert manifest(mine)["stages"]["rounds"]["status"] == "gate_failed" and manifest(mine)["last_run"]["sent"] == 0
    page = (mine / "report.html").read_text(encoding="utf-8")
    assert "Round 2 was stopped: gate failed: length_ratio" in page and "failed: length_ratio" in page
    with pytest.raises(GateFailed, match=r"labelled .* the starting policy stays"):
        everything_told(of(raw, run=str(mine), rounds={**raw["rounds"], "gates": {"labelled": {"max": 0.1}}}))
    assert not (mine / "models" / "dpo").exists()


def test_killed_in_the_middle_of_a_round(
    whole: tuple[dict[str, Any], Path], _stub_process: StubHandle, tmp_path: Path
) -> None:
    """kill -9 while round 2 judges, with a second process refused meanwhile; the same command ends with the same
    bytes, and asks nothing again. Without evaluations, which another test kills."""
    raw, run = whole
    config = write_config(tmp_path / "p.yaml", raw, run="run", evaluate=None)
    mine = tmp_path / "run"
    _stub_process.reset()
    _stub_process.set(latency_ms=60)
    process = start(["run", config, "--quiet"], tmp_path)
    journal = mine / "rounds" / "2" / "journal.jsonl"

    def judging() -> bool:
        return journal.exists() and journal.read_bytes().count(b"\n") > 24  # the samples, and something more

    wait_for(judging, every_s=0.005, timeout_s=180)
    assert process.poll() is None and not (mine / "rounds" / "2" / "judgments.jsonl").exists()
    second = rlaif("run", config, "--quiet", cwd=tmp_path)
    if process.poll() is None:
        kill(process)
    else:
        finish(process)
    assert second.code == 2 and "another rlaif process is working on this run folder" in second.one_line
    wait_until_gone(mine, 10)
    _stub_process.set(latency_ms=0)
    again = succeed("run", config, "--quiet", cwd=tmp_path)
    assert "round 1: up to date" in again.out
    for name in ("1", "2"):
        found, expected = tables(mine / "rounds" / name), tables(run / "rounds" / name)
        card = "dataset/README.md"  # it names the policy's folder
        assert {**found, card: ""} == {**expected, card: ""}
        assert weights(mine / "rounds" / name / "models" / "dpo") == weights(run / "rounds" / name / "models" / "dpo")
    keys = journals(mine)
    assert len(keys) == len(set(keys)), "no reply was paid for twice"


def test_part_of_a_pipeline_in_rounds_is_refused(whole: tuple[dict[str, Any], Path]) -> None:
    _, run = whole
    refused = rlaif("judge", run, cwd=run.parent)
    assert refused.code == 2
    assert f"`rlaif judge {run}/rounds/1` works on one that is there" in refused.one_line
