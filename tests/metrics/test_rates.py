"""Expected values are derived by hand in the comments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif import metrics
from rlaif.metrics import rates

NAN = math.nan


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # p = .5, n = 10, z² = 3.8415: centre .5; half = 1.96/1.38415 · √(.025 + .0096) = .2634
        (5, 10, 0.2366, 0.7634),
        # p = 0: low 0; high = z²/(n + z²) = 3.8415/13.8415
        (0, 10, 0.0, 0.2775),
        # p = 1: mirrored
        (10, 10, 0.7225, 1.0),
        # p = .5, n = 1 (one tie): half = 1.96/4.8415 · √(.25 + .9604) = .4454
        (0.5, 1, 0.0546, 0.9454),
    ],
)
def test_wilson(successes: float, n: int, low: float, high: float) -> None:
    assert metrics.wilson(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_wilson_of_nothing() -> None:
    assert metrics.wilson(0, 0) is None


@given(n=st.integers(1, 500), part=st.floats(0, 1))
def test_wilson_holds_the_rate(n: int, part: float) -> None:
    interval = metrics.wilson(part * n, n)
    assert interval is not None
    assert 0 <= interval[0] <= part + 1e-12 and part - 1e-12 <= interval[1] <= 1


def test_win_rate_counts_ties_as_half_and_leaves_out_missing() -> None:
    found = metrics.win_rate([1, 1, 0, 0.5, None, NAN])  # (1 + 1 + 0 + ½) / 4
    assert found is not None
    assert (found.value, found.n) == (0.625, 4)
    assert (found.low, found.high) == metrics.wilson(2.5, 4)


def test_win_rate_refuses_probabilities() -> None:
    with pytest.raises(ValueError, match="outcomes"):
        metrics.win_rate([0.7])


def test_outcomes() -> None:
    found = metrics.outcomes([0.9, 0.5, 0.1, None, 0.5 + 1e-12])
    assert found[:3].tolist() == [1, 0.5, 0] and math.isnan(found[3]) and found[4] == 0.5


def test_clusters_of_one_fall_back_to_wilson() -> None:
    scores = [1, 0, 1, 1]
    assert metrics.win_rate(scores, ["a", "b", "c", "d"], rng()) == metrics.win_rate(scores)


def test_cluster_bootstrap_is_wider_than_rows() -> None:
    """Ten prompts, each won or lost ten times over: ten facts, not a hundred."""
    scores, prompts = np.repeat([1, 0] * 5, 10), np.repeat(np.arange(10), 10)
    found, rows = metrics.win_rate(scores, prompts, rng()), metrics.win_rate(scores)
    assert found and rows and found.low is not None and found.high is not None and rows.low is not None
    assert found.value == rows.value == 0.5
    # sd of a mean of ten coins is √(.25/10) = .158, so about ½ ± .31
    assert found.low == pytest.approx(0.19, abs=0.03) and found.high == pytest.approx(0.81, abs=0.03)
    assert found.low < rows.low


def test_all_won_is_not_certainty() -> None:
    found = metrics.win_rate([1] * 10, np.repeat(np.arange(5), 2), rng())
    # five prompts: Wilson's low at 5 of 5 is 5/(5 + 3.8415)
    assert found is not None and found.value == 1 and found.low == pytest.approx(0.5655, abs=1e-4)


def test_clusters_need_an_rng() -> None:
    with pytest.raises(ValueError, match="rng"):
        metrics.win_rate([1, 0], ["a", "a"])


def test_mean_of_two_clusters_is_enumerable() -> None:
    """Clusters {0, 0} and {3}: resamples give 0 (¼), 1 (½) and 3 (¼), so the 95 % interval is [0, 3]."""
    found = metrics.mean([0, 0, 3], ["a", "a", "b"], rng())
    assert found == metrics.Estimate(1.0, 0.0, 3.0, 3)


def test_mean_of_one_cluster_has_no_interval() -> None:
    assert metrics.mean([1, 2], ["a", "a"], rng()) == metrics.Estimate(1.5, None, None, 2)


def test_same_rng_same_interval() -> None:
    values, prompts = np.arange(40.0), np.arange(40) // 4
    assert metrics.mean(values, prompts, rng()) == metrics.mean(values, prompts, rng())


def test_blocks_of_the_bootstrap_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    values, prompts = np.arange(200.0), np.arange(200) // 2
    whole = metrics.mean(values, prompts, rng())
    monkeypatch.setattr(rates, "_CELLS", 1000)
    assert metrics.mean(values, prompts, rng()) == whole


def test_bootstrap_covers() -> None:
    """A 95 % interval over 40 clusters holds the true mean in about 95 of 100 trials (here at least 88)."""
    draws, hits = np.random.default_rng(1), 0
    for _ in range(200):
        effect = np.repeat(draws.normal(size=40), 3)
        found = metrics.mean(effect + draws.normal(size=120), np.repeat(np.arange(40), 3), draws, n_resamples=300)
        assert found and found.low is not None and found.high is not None
        hits += found.low <= 0 <= found.high
    assert hits >= 176


def test_paired_difference() -> None:
    found = metrics.paired_difference([0, 0.2, 0.4, None], [0.5, 0.7, 0.9, 1.0], list("abcd"), rng())
    assert found is not None and found.n == 3
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_order_consistency() -> None:
    # same winner, other winner, two ties, tie and winner, missing: 2 of 4
    found = metrics.order_consistency([0.9, 0.9, 0.5, 0.5, 0.9], [0.6, 0.4, 0.5, 0.7, None])
    assert found is not None and (found.value, found.n) == (0.5, 4)


def test_first_position_rate() -> None:
    found = metrics.first_position_rate([0.9, 0.8, 0.5, 0.1])  # (1 + 1 + ½ + 0) / 4
    assert found is not None and found.value == 0.625


def test_correlations() -> None:
    found = metrics.correlations(
        {"up": [0.1, 0.2, 0.3, None], "down": [0.9, 0.8, 0.7, 0.1], "flat": [0.5, 0.5, 0.5, 0.5]}
    )
    assert found["up"]["up"] == pytest.approx(1) and found["up"]["down"] == pytest.approx(-1)
    assert found["up"]["flat"] is None and found["flat"]["flat"] is None
    # r of (1,2,3) and (1,3,2): Σdxdy = 1, √(2·2) = 2
    assert metrics.correlations({"a": [1, 2, 3], "b": [1, 3, 2]})["a"]["b"] == pytest.approx(0.5)
    assert metrics.correlations({"a": [1, 2], "b": [1, 2]})["a"]["b"] is None
    assert metrics.correlations({}) == {}


def test_describe() -> None:
    found = metrics.describe([1, 2, 3, None])
    assert found == {
        "mean": 2.0,
        "sd": 1.0,
        "p10": pytest.approx(1.2),
        "median": 2.0,
        "p90": pytest.approx(2.8),
        "n": 3,
    }
    assert metrics.describe([4]) == {"mean": 4.0, "sd": 0.0, "p10": 4.0, "median": 4.0, "p90": 4.0, "n": 1}


def test_length_controlled_win_rate() -> None:
    # The longer always wins and lengths are balanced: nothing is left of the wins but a coin.
    assert metrics.length_controlled_win_rate([1, 1, 0, 0], [5, 5, -5, -5]) == pytest.approx(0.5)
    # Ours is longer in three of four, and only length decides: Δ = (5, 5, 5, −5), sd = √18.75, x = ±tanh(5/4.330),
    # score = ½ + x/(2·|x|) exactly, so the intercept is ½ although the raw rate is ¾.
    assert metrics.length_controlled_win_rate([1, 1, 1, 0], [5, 5, 5, -5]) == pytest.approx(0.5)
    # Wins that have nothing to do with length stay.
    assert metrics.length_controlled_win_rate([1, 0, 1, 0], [5, 5, -5, -5]) == pytest.approx(0.5)
    assert metrics.length_controlled_win_rate([1, 1, 1], [3, -1, 2]) == pytest.approx(1.0)
    assert metrics.length_controlled_win_rate([1, 0, 1], [0, 0, 0]) == pytest.approx(2 / 3)
    assert metrics.length_controlled_win_rate([1, 0, 1], [7, 7, 7]) is None


@pytest.mark.parametrize("nothing", [[], [None], [NAN, NAN]], ids=["empty", "none", "nan"])
def test_nothing_in_gives_none_out(nothing: list[float]) -> None:
    keys = ["p"] * len(nothing)
    assert metrics.mean(nothing, keys, rng()) is None
    assert metrics.proportion(nothing) is None
    assert metrics.win_rate(nothing) is None
    assert metrics.paired_difference(nothing, nothing, keys, rng()) is None
    assert metrics.order_consistency(nothing, nothing) is None
    assert metrics.first_position_rate(nothing) is None
    assert metrics.agreement([None] * len(nothing), nothing) is None
    assert metrics.brier(nothing, nothing) is None
    assert metrics.expected_calibration_error(nothing, nothing) is None
    assert metrics.describe(nothing) is None
    assert metrics.length_controlled_win_rate(nothing, nothing) is None


def test_faults_are_named() -> None:
    with pytest.raises(ValueError, match="lengths differ: 2 and 1"):
        metrics.brier([0.1, 0.2], [1])
    with pytest.raises(ValueError, match="shape"):
        metrics.describe([[1, 2]])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        metrics.proportion([1.5])
    with pytest.raises(ValueError, match="differ in length"):
        metrics.correlations({"a": [1], "b": [1, 2]})
