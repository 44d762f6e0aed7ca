"""Strengths from comparisons: against values by hand, published ones, and strengths that made the data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif.metrics.ranking import borda, bradley_terry, comparisons_of, elo

WEAK = 1e4  # a prior so wide that it changes nothing


def test_two_items_are_apart_by_the_log_odds_of_their_wins() -> None:
    """3 wins of 4: the maximum is where σ(d) = ¾, so d = ln 3."""
    found = bradley_terry([0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0], prior_sd=WEAK)
    assert found.strengths == pytest.approx([math.log(3) / 2, -math.log(3) / 2], abs=1e-6)
    assert found.probability(0, 1) == pytest.approx(0.75)
    assert found.difference(1, 0) == pytest.approx(-0.5)


def test_a_soft_outcome_is_so_many_wins() -> None:
    """¾ with weight 4 is 3 wins and 1 loss, whichever way round it is told."""
    hard = bradley_terry([0, 0, 1, 0], [1, 1, 0, 1], [1, 1, 0, 0])
    soft = bradley_terry([0], [1], [0.75], weights=[4])
    assert soft.strengths == pytest.approx(hard.strengths, abs=1e-9)
    assert soft.covariance == pytest.approx(hard.covariance, abs=1e-9)


def test_an_undefeated_item_stays_finite() -> None:
    """One win, sd 1: ln σ(d) − d²/4 is greatest where 1 − σ(d) = d/2; the curvature there gives the covariance."""
    found = bradley_terry([0], [1], [1])
    d = float(found.strengths[0] - found.strengths[1])
    p = 1 / (1 + math.exp(-d))
    assert 1 - p == pytest.approx(d / 2, abs=1e-9)
    # H = [[1 + v, −v], [−v, 1 + v]], v = p(1 − p); its inverse has (1 + v) / (1 + 2v) on the diagonal
    v = p * (1 - p)
    assert found.sd == pytest.approx([math.sqrt((1 + v) / (1 + 2 * v))] * 2)


def test_davidsons_ties_in_closed_form() -> None:
    """8 wins, 6 ties, 2 losses: P(first) : P(second) = 4 = e^d, and ν = 6 / √(8·2) = 1.5 (Davidson 1970)."""
    outcomes = [[1, 0, 0]] * 8 + [[0, 1, 0]] * 6 + [[0, 0, 1]] * 2
    found = bradley_terry([0] * 16, [1] * 16, outcomes, prior_sd=WEAK)
    assert found.strengths[0] - found.strengths[1] == pytest.approx(math.log(4), abs=1e-6)
    assert found.log_tie == pytest.approx(math.log(1.5), abs=1e-6)
    assert found.probability(0, 1) == pytest.approx((8 + 3) / 16)


def test_soft_ties_count_as_they_are() -> None:
    one = bradley_terry([0], [1], [[0.5, 0.375, 0.125]], weights=[16], prior_sd=WEAK)
    assert one.difference(0, 1) == pytest.approx(0.375)


def test_the_place_is_told_from_the_strength() -> None:
    """Whoever is shown first wins 3 of 4: nobody is stronger, and first place is worth ln 3."""
    found = bradley_terry([0] * 4 + [1] * 4, [1] * 4 + [0] * 4, [1, 1, 1, 0] * 2, order_effect=True, prior_sd=WEAK)
    assert found.strengths == pytest.approx([0, 0], abs=1e-6)
    assert found.order == pytest.approx(math.log(3), abs=1e-6)
    assert found.probability(0, 1) == pytest.approx(0.5)


def test_published_strengths() -> None:
    """Citations among statistics journals (Stigler 1994); estimates as in the vignette of R's BradleyTerry2 (Turner &
    Firth 2012): Biometrika 0, Communications in Statistics −2.9491, JASA −0.4796, JRSS-B 0.2690."""
    wins = {
        (0, 1): 730, (1, 0): 33, (0, 2): 498, (2, 0): 320, (0, 3): 221, (3, 0): 284,
        (1, 2): 68, (2, 1): 813, (1, 3): 17, (3, 1): 276, (2, 3): 142, (3, 2): 325,
    }  # fmt: skip
    winners, losers = zip(*wins, strict=True)
    found = bradley_terry(winners, losers, [1] * len(wins), weights=list(wins.values()), prior_sd=WEAK)
    assert found.strengths - found.strengths[0] == pytest.approx([0, -2.9491, -0.4796, 0.2690], abs=5e-5)


def test_recovers_what_made_the_data() -> None:
    rng = np.random.default_rng(3)
    truth = np.array([1.5, 0.7, 0.2, -0.3, -0.8, -1.3])
    first = rng.integers(0, 6, 6000)
    second = (first + rng.integers(1, 6, 6000)) % 6
    u = (truth[first] - truth[second] + 0.4) / 2
    weight = np.stack([np.exp(u), np.full(6000, 0.8), np.exp(-u)], axis=1)
    drawn = (rng.random((6000, 1)) > np.cumsum(weight / weight.sum(1, keepdims=True), axis=1)).sum(1)
    found = bradley_terry(first, second, np.eye(3)[drawn], order_effect=True)
    assert found.strengths == pytest.approx(truth - truth.mean(), abs=0.15)
    assert found.order == pytest.approx(0.4, abs=0.1)
    assert found.log_tie == pytest.approx(math.log(0.8), abs=0.1)
    inside = np.abs(found.strengths - (truth - truth.mean())) < 3 * found.sd
    assert inside.all()


def test_nothing_known_is_the_prior() -> None:
    found = bradley_terry([], [], [], 3, prior_sd=2.0)
    assert found.strengths == pytest.approx([0, 0, 0])
    assert found.sd == pytest.approx([2, 2, 2])


@pytest.mark.parametrize(
    ("first", "second", "outcomes", "says"),
    [
        ([0], [1, 0], [1], "shapes differ"),
        ([0], [1], [1.5], "probabilities"),
        ([0], [1], [[0.5, 0.5, 0.5]], "probabilities"),
        ([0], [1], [float("nan")], "probabilities"),
        ([2], [2], [1], "two different items"),
        ([-1], [2], [1], "numbered from 0"),
    ],
)
def test_wrong_arguments(first: list[int], second: list[int], outcomes: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        bradley_terry(first, second, outcomes)


def test_elo_by_hand() -> None:
    """Equal ratings: a win moves K/2. Then 1016 against 984 is expected to win 1 / (1 + 10^(−32/400))."""
    assert elo([0], [1], [1], 2, k=32)[0] == pytest.approx([1016, 984])
    expected = 1 / (1 + 10 ** (-32 / 400))
    moved = 32 * (0.5 - expected)
    assert elo([0, 1], [1, 0], [1, 0.5], 2, k=32)[0] == pytest.approx([1016 + moved, 984 - moved])


def test_elo_over_orders_is_seeded_and_keeps_the_sum() -> None:
    games = ([0, 1, 2, 0], [1, 2, 0, 2], [1, 1, 0, 0.5])
    one, same = (elo(*games, 3, np.random.default_rng(1), k=16, n_orders=50) for _ in range(2))
    assert (one == same).all()
    assert one.shape == (50, 3)
    assert one.sum(axis=1) == pytest.approx(np.full(50, 3000.0))
    assert np.unique(one.round(6), axis=0).shape[0] > 1, "ratings depend on the order of the games"


def test_borda_is_the_mean_share_of_the_others_behind() -> None:
    """a: 1, 1, ½ of two others; b: ½, 0, 1; c: 0, ½, 0."""
    found = borda([["a", "b", "c"], ["a", "c", "b"], ["b", "a", "c"]])
    assert list(found) == ["a", "b", "c"]
    assert found == pytest.approx({"a": 2.5 / 3, "b": 1.5 / 3, "c": 0.5 / 3})
    assert borda([["a", "b"], ["c"]]) == {"a": 1.0, "c": 0.5, "b": 0.0}
    with pytest.raises(ValueError, match="twice"):
        borda([["a", "a"]])


def test_a_ranking_as_pairs() -> None:
    assert comparisons_of("abc") == [("a", "b"), ("a", "c"), ("b", "c")]
