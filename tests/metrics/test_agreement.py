"""Expected values are derived by hand in the comments, taken from a library, or from a published table."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from rlaif import metrics
from rlaif.metrics.resampling import estimate

NAN = math.nan


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_agreement_and_kappa() -> None:
    # 2×2 table yes/yes 20, yes/no 5, no/yes 10, no/no 15: pₒ = .7, pₑ = .5·.6 + .5·.4 = .5, κ = .4
    ours = ["y"] * 25 + ["n"] * 25
    theirs = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    found = metrics.agreement([*ours, None], [*theirs, "y"])
    assert found is not None and found.n == 50
    assert found.accuracy.value == 0.7 and found.kappa == pytest.approx(0.4)


def test_kappa_without_variation_is_none() -> None:
    found = metrics.agreement(["y", "y"], ["y", "y"])
    assert found is not None and found.accuracy.value == 1 and found.kappa is None


def test_kappa_below_chance() -> None:
    found = metrics.agreement(["a", "b"], ["b", "a"])  # pₒ = 0, pₑ = ½
    assert found is not None and found.kappa == -1


def test_kappa_has_the_librarys_value_and_an_interval_around_it() -> None:
    draw = random.Random(3)
    truth = [draw.choice("abt") for _ in range(200)]
    ours = [label if draw.random() < 0.6 else draw.choice("abt") for label in truth]
    found = metrics.cohen_kappa(ours, truth, range(200), rng())
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(cohen_kappa_score(ours, truth), abs=1e-12)
    # asymptotic standard error √(pₒ(1 − pₒ)/n)/(1 − pₑ) with pₒ ≈ .73, pₑ ≈ ⅓: .047
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.047, abs=0.02)
    assert found.low < found.value < found.high


def test_kappa_resamples_prompts_not_rows() -> None:
    """Every prompt ten times over: ten facts, not a hundred."""
    truth = ["a", "b"] * 5
    ours = ["a"] * 8 + ["b"] * 2
    rows = metrics.cohen_kappa(ours * 10, truth * 10, range(100), rng())
    prompts = metrics.cohen_kappa(ours * 10, truth * 10, list(range(10)) * 10, rng())
    assert rows and prompts and rows.low is not None and prompts.low is not None
    assert rows.value == prompts.value
    assert prompts.low < rows.low - 0.1


def test_what_never_varies_has_no_interval() -> None:
    found = metrics.cohen_kappa(["a", "b", "a"], ["a", "b", "a"], "xyz", rng())
    assert found is not None and (found.value, found.low, found.high) == (1.0, None, None)
    assert metrics.cohen_kappa(["a", None], [None, "b"], "xy", rng()) is None
    alone = estimate(lambda w: w.sum(axis=1), ["p", "p"], rng())
    assert alone is not None and (alone.value, alone.low) == (2.0, None)


# Four observers, twelve units, ordinal values 1 to 5 with missing ones: Krippendorff, "Computing Krippendorff's
# Alpha-Reliability" (2011), example C; α = .743 nominal, .815 ordinal, .849 interval.
PUBLISHED = [
    [1, 1, NAN, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [None, 5, 5, 5],
    [None, NAN, 1, 1],
    [None, 3, None, None],
]


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level: metrics.agreement, alpha: float) -> None:
    found = metrics.krippendorff_alpha(PUBLISHED, range(12), rng(), level=level)
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(alpha, abs=5e-4)
    assert found.n == 11  # the last unit has one rater
    assert found.low < found.value < found.high <= 1


def test_alpha_of_ordered_words_needs_their_order() -> None:
    words = {1: "worst", 2: "bad", 3: "fair", 4: "good", 5: "best"}
    named = [[words.get(x) if x == x else None for x in (v or NAN for v in row)] for row in PUBLISHED]
    found = metrics.krippendorff_alpha(named, range(12), rng(), level="ordinal", order=list(words.values()))
    assert found is not None and found.value == pytest.approx(0.815, abs=5e-4)


def test_alpha_needs_two_raters_and_two_labels() -> None:
    assert metrics.krippendorff_alpha([["a", None], [None, "b"]], "xy", rng()) is None
    assert metrics.krippendorff_alpha([["a", "a"], ["a", "a"]], "xy", rng()) is None


def test_rank_correlation_is_the_librarys_and_has_an_interval() -> None:
    draw = np.random.default_rng(4)
    x = draw.integers(1, 6, 120)
    y = x + draw.normal(0, 1.5, 120)
    found = metrics.rank_correlation(x, y, range(120), rng())
    assert found is not None and found.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    assert metrics.rank_correlation([1, 2, 3], [1, 1, 1], range(3), rng()) is None


def test_auroc_counts_pairs() -> None:
    # true items .9 .5 .4; false ones .5 .1. Of six pairs: .9 wins 2; .5 wins 1 and ties 1; .4 wins 1: 4.5 / 6
    found = metrics.auroc([0.9, 0.5, 0.4, 0.5, 0.1, None], [1, 1, 1, 0, 0, 1], list("abcdef"), rng())
    assert found is not None and found.value == pytest.approx(0.75) and found.n == 5


def test_auroc_is_the_librarys_also_for_weighted_rows() -> None:
    draw = np.random.default_rng(1)
    y = draw.integers(0, 2, 300)
    scores = np.round(draw.random(300) + 0.5 * y, 1)  # many ties
    found = metrics.auroc(scores, y, np.arange(300), rng())
    assert found is not None and found.value == pytest.approx(roc_auc_score(y, scores), abs=1e-12)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high
    # a prompt that stands three times counts three times
    three = metrics.auroc(np.append(scores, [scores[0]] * 2), np.append(y, [y[0]] * 2), np.arange(302), rng())
    assert three is not None
    weighted = roc_auc_score(y, scores, sample_weight=[3, *[1] * 299])
    assert three.value == pytest.approx(weighted, abs=1e-12)


def test_auroc_of_one_class_is_none() -> None:
    assert metrics.auroc([0.1, 0.9], [1, 1], ["p", "q"], rng()) is None
    assert metrics.auroc([], [], [], rng()) is None
    with pytest.raises(ValueError, match="0 or 1"):
        metrics.auroc([0.1], [0.5], ["p"], rng())
