"""Histories worked out by hand, and what is to be done about them."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif.config.guarding import Limit
from rlaif.training.guard.decision import Probe, Rules, broken_at_start, decide

N = 40  # prompts, one response each


def probe(step: int, wins: float | None = None, reward: float | None = None, **figures: float) -> Probe:
    """`wins`: the share of prompts won, the first ones, so that probes are paired."""
    values: dict[str, Any] = {}
    if wins is not None:
        values["win_rate"] = [float(at < round(wins * N)) for at in range(N)]
        figures["win_rate"] = wins
    if reward is not None:
        values["reward"] = [reward + at / 100 for at in range(N)]
        figures["reward"] = reward
    return Probe(step, figures, values)


def rules(by: str | None = "win_rate", *, patience: int | None = 3, fall: float = 0.1, **limits: Limit) -> Rules:
    return Rules(limits, by, fall, patience, tuple(range(N)))


def test_quality_that_rises_goes_on_and_the_newest_is_best() -> None:
    found = decide([probe(0, 0.5, 0), probe(10, 0.6, 1), probe(20, 0.7, 2)], rules())
    assert (found.stop, found.why, found.best) == (False, None, 2)
    assert found.best_why == "the highest win_rate within the limits, 0.700"


def test_a_sure_fall_stops() -> None:
    found = decide([probe(0, 0.5), probe(10, 0.8), probe(20, 0.5)], rules())
    assert found.stop and found.best == 1
    assert found.why is not None and found.why.startswith("win_rate has fallen by 0.300 [")
    assert found.why.endswith("since step 10: over-optimised")


def test_a_fall_that_may_be_chance_does_not() -> None:
    """As many prompts are won anew as are lost, but for five: the paired difference is −.125, its interval over 0."""
    old = Probe(10, {"win_rate": 0.5}, {"win_rate": [1.0] * 20 + [0.0] * 20})
    new = Probe(20, {"win_rate": 0.375}, {"win_rate": [0.0] * 20 + [1.0] * 15 + [0.0] * 5})
    assert not decide([old, new], rules()).stop


def test_nor_a_sure_one_that_is_small() -> None:
    assert not decide([probe(0, 0.8), probe(10, 0.75)], rules(fall=0.1)).stop


@pytest.mark.parametrize(
    ("rewards", "stops"), [([0, 1, 2, 3, 4], True), ([0, 1, 1, 1, 1], False), ([0, 1, 0, 0, 0], False)]
)
def test_patience_ends_while_the_reward_rises(rewards: list[float], stops: bool) -> None:
    """Best at the second probe, three more without a rise: only a reward that has gone on makes it over-optimised."""
    history = [
        probe(10 * at, wins, reward)
        for at, (wins, reward) in enumerate(zip([0.5, 0.6, 0.6, 0.575, 0.6], rewards, strict=True))
    ]
    assert not decide(history[:-1], rules()).stop
    found = decide(history, rules())
    assert (found.stop, found.best) == (stops, 1)
    if stops:
        told = "win_rate has not risen for 3 probes, since step 10, while the reward rose by 3.000"
        assert str(found.why).startswith(told)
    assert not decide(history, rules(patience=None)).stop


def test_a_limit_stops_and_what_breaks_it_is_never_kept() -> None:
    """The last probe has the highest quality, and refuses too much."""
    limits = {"refusal_rate": Limit(max_rise=0.1)}
    history = [
        probe(0, 0.5, refusal_rate=0.05),
        probe(10, 0.6, refusal_rate=0.15),
        probe(20, 0.9, refusal_rate=0.2),
    ]
    found = decide(history, rules(**limits))
    assert found.stop and found.best == 1
    assert found.why == "refusal_rate is 0.2, above 0.15 (max_rise 0.1, 0.05 at the start)"
    assert not decide(history[:2], rules(**limits)).stop  # 0.15 is allowed


@pytest.mark.parametrize(
    ("limit", "value", "why"),
    [
        (Limit(min=0.9), 0.8, "x is 0.8, below 0.9 (min 0.9, 1 at the start)"),
        (Limit(max=1.5), 1.6, "x is 1.6, above 1.5 (max 1.5, 1 at the start)"),
        (Limit(max_fall=0.1), 0.8, "x is 0.8, below 0.9 (max_fall 0.1, 1 at the start)"),
        (Limit(min_ratio=0.5), 0.4, "x is 0.4, below 0.5 (min_ratio 0.5, 1 at the start)"),
        (Limit(max_ratio=2), 2.1, "x is 2.1, above 2 (max_ratio 2, 1 at the start)"),
    ],
)
def test_each_kind_of_limit(limit: Limit, value: float, why: str) -> None:
    assert decide([Probe(0, {"x": 1.0}), Probe(1, {"x": value})], rules(None, x=limit)).why == why
    assert not decide([Probe(0, {"x": 1.0}), Probe(1, {"x": 1.0})], rules(None, x=limit)).stop


def test_a_figure_that_could_not_be_had_breaks_nothing() -> None:
    """At the start: only absolute limits hold. Now: none does."""
    limit = {"x": Limit(max_rise=0.1, max=3.0)}
    assert not decide([Probe(0, {"x": None}), Probe(1, {"x": 2.0})], rules(None, **limit)).stop
    assert not decide([Probe(0, {"x": 1.0}), Probe(1, {"x": None})], rules(None, **limit)).stop
    assert decide([Probe(0, {"x": None}), Probe(1, {"x": 4.0})], rules(None, **limit)).stop


def test_without_quality_the_last_one_within_the_limits_is_kept() -> None:
    history = [Probe(0, {"x": 1.0}), Probe(1, {"x": 1.0}), Probe(2, {"x": 5.0})]
    found = decide(history, rules(None, x=Limit(max=2.0)))
    assert found.stop and found.best == 1 and found.best_why.startswith("the last probe within the limits")


def test_probes_without_a_verdict_are_passed_over() -> None:
    """A judge that failed: no quality there, no stop because of it, and it is not the best."""
    history = [probe(0, 0.5), probe(10, 0.6), Probe(20, {"win_rate": None}, {"win_rate": [None] * N})]
    found = decide(history, rules())
    assert not found.stop and found.best == 1


def test_a_start_outside_absolute_limits() -> None:
    limits = {"x": Limit(max=0.5, max_rise=0.1)}
    assert broken_at_start(Probe(0, {"x": 0.6}), limits) == ["x is 0.6, above 0.5 (max 0.5)"]
    assert broken_at_start(Probe(0, {"x": 0.4}), limits) == []
