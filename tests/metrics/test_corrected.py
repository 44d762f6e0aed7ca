"""Expected values are derived by hand in the comments, taken from a library, or from a published table."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif import metrics


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def gold(sensitivity: float, specificity: float, n: int) -> tuple[list[float], list[float]]:
    """`n` pairs that a won and `n` that b won, of which the judge gets these shares right."""
    hit, miss = round(sensitivity * n), round(specificity * n)
    return [1.0] * hit + [0.0] * (n - hit) + [0.0] * miss + [1.0] * (n - miss), [1.0] * n + [0.0] * n


def corrected(
    outcomes: list[float], verdicts: list[float], truths: list[float], **options: bool
) -> metrics.Corrected:
    found = metrics.corrected_rate(
        outcomes, range(len(outcomes)), verdicts, truths, range(len(truths)), rng(), **options
    )
    assert found is not None
    return found


def test_rogan_and_gladen() -> None:
    # raw .58, sensitivity .9, specificity .7: (.58 + .7 − 1)/(.9 + .7 − 1) = .28/.6
    found = corrected([1.0] * 58 + [0.0] * 42, *gold(0.9, 0.7, 100), symmetric=False)
    assert (found.sensitivity, found.specificity) == (0.9, 0.7)
    assert found.corrected is not None and found.corrected.value == pytest.approx(0.28 / 0.6)
    assert not found.clipped and found.reason is None


def test_symmetric_correction_uses_the_accuracy() -> None:
    # both sides together: accuracy .8, so (.62 + .8 − 1)/.6
    found = corrected([1.0] * 62 + [0.0] * 38, *gold(0.9, 0.7, 100))
    assert (found.sensitivity, found.specificity) == (0.8, 0.8)
    assert found.corrected is not None and found.corrected.value == pytest.approx(0.7)


def test_the_interval_holds_the_uncertainty_of_gold() -> None:
    outcomes = [1.0] * 300 + [0.0] * 200
    little, much = (corrected(outcomes, *gold(0.8, 0.8, n)).corrected for n in (30, 1000))
    assert little and much and None not in (little.low, little.high, much.low, much.high)
    assert little.high - little.low > 1.15 * (much.high - much.low)
    # delta method: var = (raw(1−raw)/N + (1−π)²·se(1−se)/n₁ + π²·…)/J²; with gold of 2,000 told both ways nearly
    # only the raw rate's: √(.24/500)/.6 = .0365
    assert (much.high - much.low) / 2 == pytest.approx(1.96 * 0.0365, rel=0.15)


def test_coverage_of_the_interval() -> None:
    """True rate .6 seen through a judge that is right in .8 of the pairs, gold of 150 pairs: 95 % intervals hold."""
    draw = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        truth = draw.random(200) < 0.6
        seen = np.where(draw.random(200) < 0.8, truth, ~truth).astype(float)
        y = draw.random(150) < 0.5
        verdicts = np.where(draw.random(150) < 0.8, y, ~y).astype(float)
        found = metrics.corrected_rate(seen, range(200), verdicts, y.astype(float), range(150), draw, n_resamples=400)
        assert found and found.corrected and found.corrected.low is not None and found.corrected.high is not None
        held += found.corrected.low <= 0.6 <= found.corrected.high
    assert held / 200 >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)


def test_a_rate_outside_is_clipped_and_says_so() -> None:
    found = corrected([1.0] * 95 + [0.0] * 5, *gold(0.8, 0.8, 200))  # (.95 − .2)/.6 = 1.25
    assert found.corrected is not None and found.corrected.value == 1 and found.clipped
    assert found.corrected.high == 1


@pytest.mark.parametrize(
    ("verdicts", "truths", "said"),
    [
        (*gold(0.5, 0.5, 40), "no better than chance"),
        (*gold(0.3, 0.4, 40), "no better than chance"),
        (*gold(0.6, 0.6, 10), "with confidence"),
        ([], [], "lacks"),
    ],
    ids=["coin", "below chance", "too little gold", "no gold"],
)
def test_it_refuses_where_nothing_can_be_said(verdicts: list[float], truths: list[float], said: str) -> None:
    found = corrected([1.0, 0.0, 1.0], verdicts, truths)
    assert found.corrected is None and said in (found.reason or "")
    assert found.raw.value == pytest.approx(2 / 3)


def test_one_sided_gold_cannot_correct_what_has_sides() -> None:
    found = corrected([1.0, 0.0], [1.0] * 20, [1.0] * 20, symmetric=False)
    assert found.specificity is None and "lacks" in (found.reason or "")
    assert metrics.corrected_rate([None], ["p"], [1.0], [1.0], ["p"], rng()) is None
