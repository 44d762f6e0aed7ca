"""Panels: every expected number is derived by hand, from scipy, or from judges made to measure."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest

from rlaif.metrics import panel

NAN = math.nan
checked = settings(max_examples=50, deadline=None, derandomize=True)


def judges(rng, accuracies, n, *, copies=()):
    """(votes, truth) of independent judges; `copies`: of whom further rows are copies."""
    truth = rng.choice([-1.0, 1.0], n)
    right = rng.random((len(accuracies), n)) < np.asarray(accuracies)[:, None]
    votes = np.where(right, truth, -truth)
    return np.vstack([votes, *(votes[i] for i in copies)]), truth


# --- gold ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (3, 20), (18, 50), (25, 25)])
def test_the_interval_is_the_exact_one(correct, n):
    expected = binomtest(correct, n).proportion_ci(method="exact")
    assert panel.exact_interval(correct, n) == pytest.approx((expected.low, expected.high))


def test_without_gold_the_interval_says_nothing():
    assert panel.exact_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("correct", "n", "flag"),
    [
        (0, 0, "no_gold"),
        (15, 50, "below_chance"),  # .30, interval up to .446
        (18, 50, "not_above_chance"),  # .36, interval up to .508: it may be bad luck
        (25, 50, "not_above_chance"),
        (25.5, 50, None),  # a tie counts half
        (40, 50, None),
    ],
)
def test_who_is_below_chance_is_said_only_where_gold_shows_it(correct, n, flag):
    assert panel.Standing.of(correct, n).flag == flag


def test_accuracy_is_shrunk_by_one_right_and_one_wrong():
    assert panel.Standing.of(3, 3).accuracy == pytest.approx(4 / 5)
    assert panel.Standing.of(0, 0).accuracy == 0.5


def test_right_on_gold_counts_ties_half_and_leaves_out_what_is_missing():
    votes = [[1, 0, -1, NAN], [1, 1, 1, 1]]
    assert panel.right_on(votes, [1, 1, 1, -1]) == [(1.5, 3), (3.0, 4)]


# --- how many judges it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rho", "expected"), [(0.0, 3.0), (1.0, 1.0), (0.5, 1.5), (-0.3, 3.0)])
def test_the_effective_number_is_the_design_effect(rho, expected):
    correlations = np.full((3, 3), rho)
    np.fill_diagonal(correlations, 1.0)
    assert panel.effective_number(correlations) == pytest.approx(expected)


def test_independent_judges_count_each_and_copies_once():
    rng = np.random.default_rng(0)
    accuracies = [0.8, 0.7, 0.75]
    votes, _ = judges(rng, accuracies, 20_000)
    errors = panel.correlations_of(votes, accuracies)
    assert errors[~np.eye(3, dtype=bool)] == pytest.approx(0.0, abs=0.03)
    assert panel.effective_number(errors) == pytest.approx(3, abs=0.1)
    # verdicts agree because they are right: s s' has mean (2p − 1)(2q − 1)
    assert panel.correlations_of(votes)[0, 1] == pytest.approx(0.6 * 0.4, abs=0.02)
    same, _ = judges(rng, [0.7], 5_000, copies=[0, 0])
    assert panel.effective_number(panel.correlations_of(same, [0.7] * 3)) == pytest.approx(1, abs=0.02)


def test_the_effective_number_of_one_judge_or_of_judges_that_never_met_is_unknown():
    assert panel.effective_number(panel.correlations_of(np.array([[1.0, -1.0]]))) is None
    assert panel.effective_number(panel.correlations_of(np.array([[1.0, NAN], [NAN, 1.0]]))) is None


# --- weights -------------------------------------------------------------------------------------------------------


def test_log_odds_of_independent_judges():
    assert panel.log_odds([0.9, 0.5, 0.2]) == pytest.approx([math.log(9), 0.0, 0.0])


def test_pool_weights_solve_the_normal_equations():
    # Two independent judges: E[s s'] = [[1, μν], [μν, 1]], so w = (μ(1 − ν²), ν(1 − μ²)) / (1 − μ²ν²).
    mu, nu = 0.8, 0.4
    weights, left = panel.pool_weights([0.9, 0.7], np.array([[1, mu * nu], [mu * nu, 1]]))
    whole = 1 - (mu * nu) ** 2
    assert weights == pytest.approx([mu * (1 - nu**2) / whole, nu * (1 - mu**2) / whole])
    assert left == pytest.approx(1 - mu * weights[0] - nu * weights[1])


def test_copies_of_a_judge_share_its_weight():
    rng = np.random.default_rng(1)
    votes, _ = judges(rng, [0.85, 0.65], 4_000, copies=[1, 1, 1, 1])
    accuracy = [0.85] + [0.65] * 5
    weights, _ = panel.pool_weights(accuracy, panel.moments(votes))
    alone, _ = panel.pool_weights(accuracy[:2], panel.moments(votes[:2]))
    assert weights[0] == pytest.approx(alone[0], rel=0.02)
    assert weights[1:].sum() == pytest.approx(alone[1], rel=0.05)
    independent = panel.log_odds(accuracy)
    assert independent[1:].sum() > independent[0], "taken as independent, the five would overrule the good one"


def test_a_vote_of_an_independent_member_weighs_its_log_odds_and_copies_share_them():
    p, q = 0.9, 0.7
    product = (2 * p - 1) * (2 * q - 1)  # E[s s'] of independent members
    assert panel.vote_log_odds([p, q], np.array([[1, product], [product, 1]])) == pytest.approx(
        panel.log_odds([p, q]), rel=1e-6
    )
    copies = panel.vote_log_odds([0.8, 0.8], np.array([[1 + 1e-6, 1], [1, 1 + 1e-6]]))
    assert copies.sum() == pytest.approx(math.log(4), rel=1e-3)


def test_members_at_or_below_chance_have_weight_0_and_are_never_inverted():
    rng = np.random.default_rng(2)
    votes, _ = judges(rng, [0.8, 0.1, 0.5], 500)
    weights, _ = panel.pool_weights([0.8, 0.1, 0.5], panel.moments(votes))
    assert weights[0] > 0 and weights[1:].tolist() == [0.0, 0.0]
    assert panel.pool_weights([0.3, 0.4], panel.moments(votes[:2]))[0].tolist() == [0.0, 0.0]


def test_moments_of_few_pairs_are_shrunk_to_their_diagonal():
    votes = np.array([[1.0, -1, 1], [1, 1, -1]])
    found = panel.moments(votes)
    assert np.diag(found) == pytest.approx([1, 1], abs=1e-5)
    assert abs(found[0, 1]) < 1 / 3  # the plain one


# --- together ------------------------------------------------------------------------------------------------------


def test_majority_counts_what_was_given():
    votes = np.array([[1, 1, NAN, NAN], [1, -1, 0, NAN], [-1, 0, -1, NAN]])
    assert panel.majority(votes)[:3] == pytest.approx([1 / 3, 0, -1 / 2])
    assert math.isnan(panel.majority(votes)[3])


def test_dawid_skene_finds_the_accuracies_of_independent_judges_from_little_gold():
    rng = np.random.default_rng(3)
    accuracies = [0.9, 0.8, 0.7, 0.6]
    votes, truth = judges(rng, accuracies, 3_000)
    anchored = np.arange(3_000) < 60
    gold = panel.right_on(votes[:, anchored], truth[anchored])
    found = panel.dawid_skene(votes, gold, anchored)
    assert found.accuracy == pytest.approx(accuracies, abs=0.03)
    assert found.weights == pytest.approx(panel.log_odds(accuracies), abs=0.25)
    right = np.mean(found.difference(votes) * truth > 0)
    assert right >= np.mean(votes[0] == truth)


def test_a_crowd_that_errs_together_does_not_flip_the_labels():
    """Five copies of a judge that is wrong on 65 %, and one that is right on 85 %: the majority is the wrong one."""
    rng = np.random.default_rng(4)
    votes, truth = judges(rng, [0.85, 0.35], 1_000, copies=[1, 1, 1, 1])
    anchored = np.arange(1_000) < 50
    gold = panel.right_on(votes[:, anchored], truth[anchored])
    rest = votes[:, ~anchored]
    assert np.mean(panel.majority(rest) * truth[~anchored] > 0) < 0.4
    for moment in (None, panel.moments(votes)):
        said = panel.dawid_skene(votes, gold, anchored, moment).difference(rest)
        assert np.mean(said * truth[~anchored] > 0) == pytest.approx(np.mean(rest[0] == truth[~anchored]))


def test_gold_is_not_counted_twice():
    votes = np.array([[1.0, 1, 1, 1], [1, -1, 1, -1]])
    gold = panel.right_on(votes, [1, 1, 1, 1])
    found = panel.dawid_skene(votes, gold, [True] * 4)
    assert found.accuracy == pytest.approx([5 / 6, 3 / 6])  # all pairs are gold: shrunk shares and no more


matrices = arrays(
    np.float64, st.tuples(st.integers(2, 4), st.integers(1, 8)), elements=st.sampled_from([-1, 0, 1, NAN])
)


@given(matrices, st.randoms(use_true_random=False))
@checked
def test_which_response_is_called_first_means_nothing(votes, rng):
    """Mirrored columns give the mirrored answer bit for bit, and the same weights."""
    flips = np.array([rng.choice([-1.0, 1.0]) for _ in range(votes.shape[1])])
    gold = [(rng.randint(0, 10), 10) for _ in votes]
    mirrored = votes * flips
    one = panel.dawid_skene(votes, gold, None, panel.moments(votes))
    other = panel.dawid_skene(mirrored, gold, None, panel.moments(mirrored))
    assert one.weights.tolist() == other.weights.tolist()
    assert (one.difference(votes) * flips).tolist() == other.difference(mirrored).tolist()
    assert np.array_equal(panel.majority(votes) * flips, panel.majority(mirrored), equal_nan=True)
    assert np.array_equal(panel.correlations_of(votes), panel.correlations_of(mirrored), equal_nan=True)
