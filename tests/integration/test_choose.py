"""Judge some pairs, train an ensemble on them, let it choose the next ones: on the tiny world, in two commands."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_helpers import manifest, rows, succeed, tiny_config, write_config

pytestmark = pytest.mark.integration  # trains four small models and loads the shipped ones


def test_labels_accumulate_from_run_to_run(tmp_path: Path) -> None:
    config = tiny_config(prompts=10, n=3)
    reward = {
        "model": "shipped:data/tiny/judge",
        "soft_labels": True,
        "ensemble": 2,
        "args": {"num_train_epochs": 1, "per_device_train_batch_size": 8, "max_length": 256},
    }
    choose = {"by": "random", "n_pairs": 12, "reward": "run:reward"}
    path = write_config(
        tmp_path / "p.yaml", config, judge={**config["judge"], "choose": choose}, pair={"select": "all_pairs"},
        train={"reward": reward}, export={"formats": ["jsonl"], "test_fraction": 0.0},
    )  # fmt: skip
    succeed("run", path, cwd=tmp_path)
    run = tmp_path / "run"
    first = rows(run / "lineups.jsonl")
    judged = {tuple(sorted(row["response_ids"])) for row in rows(run / "judgments.jsonl")}
    assert len(first) == len(judged) == 12
    more = ("--set", "judge.choose.by=thompson", "--set", "judge.choose.n_pairs=20")
    succeed("run", path, *more, cwd=tmp_path)
    found = rows(run / "lineups.jsonl")
    assert found[:12] == first
    assert [row["by"] for row in found[12:]] == ["thompson"] * 8
    counts = manifest(run)["stages"]["judge"]["counts"]
    assert (counts["comparisons"], counts["chosen"]) == (20, {"random": 12, "thompson": 8})
    n_preferences = len(rows(run / "preferences.jsonl"))
    assert manifest(run)["stages"]["reward"]["counts"]["rows"] == n_preferences > 12
    outcome = succeed("run", path, *more, cwd=tmp_path)
    assert manifest(run)["last_run"]["sent"] == 0, "the ensemble is another one now, and nothing more is wanted"
    assert "pair: up to date" in outcome.out + outcome.err
