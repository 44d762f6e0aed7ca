"""Promises: the bound by hand, what a plan may say, and how often promises are wrong when all that is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from rlaif.metrics.selective import (
    EVERYTHING,
    LEVELS,
    NO_VALUE,
    _sequences,
    apply_plan,
    calibrate_cascade,
    least_n,
    risk_upper_bound,
)

SURE, UNSURE = 1.0, 0.5


def test_the_bound_in_closed_form() -> None:
    """No error in n: (1 − bound)ⁿ = δ. All wrong, or nothing seen: 1."""
    assert risk_upper_bound(0, 22, 0.1) == pytest.approx(1 - 0.1 ** (1 / 22))
    assert risk_upper_bound(7, 7, 0.1) == 1.0
    assert risk_upper_bound(0, 0, 0.1) == 1.0


@pytest.mark.parametrize(("errors", "n"), [(1, 40), (3, 50), (17, 159)])
def test_at_the_bound_so_few_errors_have_probability_delta(errors: int, n: int) -> None:
    assert binom.cdf(errors, n, risk_upper_bound(errors, n, 0.1)) == pytest.approx(0.1)


def test_how_many_answers_it_takes() -> None:
    """0.9²¹ = 0.109 > 0.1 ≥ 0.9²² = 0.098; 0.5³ = 0.125 exactly."""
    assert least_n(0.1, 0.1) == 22
    assert least_n(0.5, 0.125) == 3


def test_the_shares_of_delta_sum_to_one() -> None:
    for n in (1, 2, 3, 4):
        sequences = list(_sequences(n))
        assert math.fsum(share for _, share in sequences) == pytest.approx(1)
        assert all(len(thresholds) == n for steps, _ in sequences for thresholds in steps)


def one_judge(n: int, errors: int, **options: float) -> tuple[bool, float | None]:
    right = np.arange(n) >= errors
    plan = calibrate_cascade({"j": [SURE] * n}, right.astype(float), **options).slices[EVERYTHING]
    return plan.promised, plan.risk_bound


@pytest.mark.parametrize(
    ("n", "errors", "promised"),
    # one error: 0.9³⁸ + 38·0.1·0.9³⁷ = 0.095 ≤ 0.1, at 37 it is 0.104
    [(21, 0, False), (22, 0, True), (37, 1, False), (38, 1, True), (0, 0, False)],
)
def test_one_judge_is_promised_from_so_many_on(n: int, errors: int, promised: bool) -> None:
    assert one_judge(n, errors)[0] is promised


def test_a_plan_says_what_was_seen() -> None:
    probabilities = {"cheap": [SURE] * 60 + [UNSURE] * 38 + [float("nan")] * 2, "strong": [SURE] * 95 + [UNSURE] * 5}
    found = calibrate_cascade(probabilities, [1.0] * 100)
    plan = found.slices[EVERYTHING]
    assert plan.promised
    assert plan.thresholds == {"cheap": 0.5, "strong": 0.5}
    assert (plan.n, plan.answered, plan.errors) == (100, 95, 0)
    assert plan.asked == {"cheap": 1.0, "strong": 0.4}
    at_half = 1 - (0.1 / 2) ** (1 / 95)  # there are two kinds of plan
    assert plan.risk_bound == pytest.approx(at_half, abs=1e-6)
    assert found.as_dict()["slices"]["*"]["thresholds"] == plan.thresholds


def test_a_cheap_judge_that_is_sure_and_wrong_is_left_out() -> None:
    truth = [1.0] * 100
    probabilities = {"cheap": [1.0] * 60 + [0.0] * 40, "strong": [1.0] * 100}
    plan = calibrate_cascade(probabilities, truth).slices[EVERYTHING]
    assert plan.promised
    assert plan.thresholds == {"cheap": None, "strong": 0.5}
    assert plan.asked == {"cheap": 0.0, "strong": 1.0}


def test_the_threshold_goes_as_low_as_can_be_promised() -> None:
    """Right whenever it is sure by .9, wrong every second time at .6."""
    p = [0.9] * 100 + [0.6] * 100
    truth = [1.0] * 100 + [1.0, 0.0] * 50
    plan = calibrate_cascade({"j": p}, truth).slices[EVERYTHING]
    assert plan.promised
    assert plan.thresholds == {"j": 0.65}, "0.65 answers the same 100 comparisons, 0.6 all"
    assert (plan.answered, plan.errors) == (100, 0)


def test_it_refuses_and_says_why() -> None:
    plan = calibrate_cascade({"cheap": [SURE] * 50, "strong": [SURE] * 50}, [1.0, 0.0] * 25).slices[EVERYTHING]
    assert not plan.promised
    assert plan.thresholds == {"cheap": None, "strong": 0.0}, "everything goes to the last, which answers everything"
    assert "answers 50 of 50 gold comparisons, 25 of them not as people do" in plan.reason


def test_slices_stand_for_themselves_and_an_unknown_one_is_promised_nothing() -> None:
    probabilities = {"cheap": [SURE] * 200, "strong": [SURE] * 200}
    truth = [1.0] * 100 + [1.0, 0.0] * 50
    plan = calibrate_cascade(probabilities, truth, ["easy"] * 100 + ["hard"] * 100, slice_by="domain")
    assert plan.slices["easy"].promised and plan.slices["easy"].thresholds["cheap"] == 0.5
    assert not plan.slices["hard"].promised
    assert plan.slices[EVERYTHING].thresholds == {"cheap": None, "strong": 0.0}
    assert plan.slices[EVERYTHING].reason == "no gold of this slice"
    without = calibrate_cascade(
        probabilities, [1.0] * 200, [EVERYTHING] * 100 + ["x"] * 100, slice_by="domain"
    ).slices
    assert without[NO_VALUE].promised and without["x"].promised and not without[EVERYTHING].promised


def test_the_budget_goes_before_the_promise() -> None:
    """The cheap judge is right when sure, and is sure of 40 %: no promise at 20 % escalated, one at 70 %."""
    rng = np.random.default_rng(0)
    p_cheap = np.where(np.arange(200) < 80, 0.95, np.where(rng.random(200) < 0.6, 0.6, 0.4))
    probabilities = {"cheap": p_cheap, "strong": [SURE] * 200}
    wide = calibrate_cascade(probabilities, [1.0] * 200, max_escalated=0.7).slices[EVERYTHING]
    assert wide.promised and wide.asked is not None and wide.asked["strong"] == pytest.approx(0.6)
    tight = calibrate_cascade(probabilities, [1.0] * 200, max_escalated=0.2).slices[EVERYTHING]
    assert not tight.promised
    assert tight.asked is not None and tight.asked["strong"] <= 0.2
    assert tight.thresholds["strong"] == 0.0
    assert "budget" in tight.reason


def test_ties_of_people_are_left_out_and_a_prompt_counts_once() -> None:
    truth = [1.0] * 30 + [float("nan")] * 10
    plan = calibrate_cascade({"j": [SURE] * 40}, truth).slices[EVERYTHING]
    assert (plan.n, plan.promised) == (30, True)
    clusters = [f"p{i // 2}" for i in range(40)]
    plan = calibrate_cascade({"j": [SURE] * 40}, truth, clusters=clusters, rng=np.random.default_rng(0))
    assert plan.slices[EVERYTHING].n == 15
    with pytest.raises(ValueError, match="rng"):
        calibrate_cascade({"j": [SURE] * 40}, truth, clusters=clusters)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="agreement: a share between 0 and 1, got 1"):
        calibrate_cascade({"j": [1.0]}, [1.0], agreement=1)
    with pytest.raises(ValueError, match="at least one member"):
        calibrate_cascade({}, [1.0])
    with pytest.raises(ValueError, match="lengths differ"):
        calibrate_cascade({"j": [1.0, 1.0]}, [1.0])


def test_a_judge_just_below_what_is_wanted_is_promised_no_oftener_than_delta() -> None:
    """Every plan answers with a risk of .101 here, so every promise is wrong; 600 draws of 150 gold comparisons."""
    rng = np.random.default_rng(1)
    for members in (1, 2):
        wrong = 0
        for _ in range(600):
            p = {f"m{i}": rng.choice([0.5, 0.7, 0.9, 1.0], 150) for i in range(members)}
            truth = (rng.random(150) > 0.101).astype(float)
            wrong += calibrate_cascade(p, truth).slices[EVERYTHING].promised
        assert wrong / 600 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 600)
        assert wrong > 0, "the bound is not so loose that it never promises at the limit"


def test_promises_hold_where_the_risk_grows_as_confidence_falls() -> None:
    """Calibrated on 120, the plan's true risk is what it does on 40,000; it is above α in at most δ of the draws."""
    rng = np.random.default_rng(2)

    def world(n: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        truth = np.ones(n)
        columns = {}
        for name, skill in (("cheap", 0.5), ("strong", 0.8)):
            confidence = rng.choice(LEVELS, n)
            right = rng.random(n) < np.clip(0.5 + skill * (confidence - 0.5), 0, 1) + 0.1 * (name == "strong")
            columns[name] = np.where(right, confidence, 1 - confidence)
        return columns, truth

    everything = world(40_000)
    promised = broken = 0
    for _ in range(300):
        plan = calibrate_cascade(*world(120), agreement=0.8).slices[EVERYTHING]
        if plan.promised:
            promised += 1
            found = apply_plan(plan, *everything)
            broken += found.errors / found.answered > 0.2
    assert promised > 30
    assert broken / 300 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 300)
