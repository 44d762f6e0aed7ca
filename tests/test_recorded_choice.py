"""Choosing comparisons of a recorded GPT-4 tournament beside chance, at equal calls."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from shared_data import shared

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
tournaments = import_module("selection_tournaments")


def test_bounds_find_the_best_with_fewer_calls_than_chance() -> None:
    """30 of 80 prompts, two seeds, 10 of 28 comparisons. The benchmark has all of them."""
    data = tournaments.replay.load(shared("qlora") / "vicuna_pairwise_gpt4.jsonl.gz")[:30]
    best = {
        rule: np.mean([tournaments.play(data, rule, seed, (10,))[10]["best_kept"] for seed in (0, 1)])
        for rule in ("random", "upper_bound")
    }
    assert best["upper_bound"] > best["random"] + 0.03


@pytest.mark.parametrize("rule", tournaments.PLAYED)
def test_every_rule_asks_as_often(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn tournaments: one call a prompt and step, no pair twice."""
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(tournaments, "measures", lambda tables: asked.extend(
        (table.recorded.task.prompt.id, *sorted(judgment.response_ids)) for table in tables
        for judgment in table.judgments
    ) or {})  # fmt: skip
    tournaments.play(tournaments.replay.simulated(n_prompts=3, n=5), rule, 0, (4,))
    assert len(asked) == len(set(asked)) == 12
    assert {prompt: sum(key[0] == prompt for key in asked) for prompt in ("q0", "q1", "q2")} == dict.fromkeys(
        ("q0", "q1", "q2"), 4
    )
