"""Logistic regression against scikit-learn and against truths that were planted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from rlaif import metrics


def planted(
    beta: tuple[float, float], rng: np.random.Generator, n: int = 600, per: int = 1
) -> tuple[np.ndarray, ...]:
    """y, x = (1, a normal), clusters of `per` rows that share their row of x and a random shift."""
    clusters = np.repeat(np.arange(n // per), per)
    z = np.repeat(rng.normal(size=n // per), per)
    x = np.column_stack([np.ones(n), z])
    shift = np.repeat(rng.normal(scale=2.0, size=n // per), per) if per > 1 else 0.0
    p = 1 / (1 + np.exp(-(x @ np.asarray(beta) + shift)))
    return (rng.random(n) < p).astype(float), x, clusters


def test_coefficients_are_those_of_scikit_learn() -> None:
    y, x, clusters = planted((0.3, -0.7), np.random.default_rng(0))
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x[:, 1:], y)
    found = metrics.logistic(y, x, clusters)
    assert found is not None
    assert [e.value for e in found] == pytest.approx([model.intercept_[0], model.coef_[0, 0]], abs=1e-5)
    assert all(e.n == 600 for e in found)


def test_one_by_two_table_by_hand() -> None:
    """An intercept alone is the log-odds, and its robust variance n/(n−1) · 1/(n p (1 − p))."""
    y = [1.0] * 30 + [0.0] * 10
    (found,) = metrics.logistic(y, [[1.0]] * 40, range(40)) or []
    half = 2.022691 * (40 / 39 / (40 * 0.75 * 0.25)) ** 0.5  # t(0.975, 39)
    assert (found.value, found.low, found.high) == pytest.approx(
        (np.log(3), np.log(3) - half, np.log(3) + half), abs=1e-5
    )


def test_a_tie_is_half_of_each() -> None:
    (halves,) = metrics.logistic([0.5] * 10 + [1.0] * 10, [[1.0]] * 20, range(20)) or []
    assert halves.value == pytest.approx(np.log(3))


@pytest.mark.parametrize("per", [1, 6], ids=["independent", "clustered"])
def test_intervals_cover_the_planted_truth(per: int) -> None:
    """200 draws: 95 % intervals cover in 0.95 ± 3 standard errors (0.0154); ignoring clusters they do not."""
    rng = np.random.default_rng(1)
    covered = naive = 0
    for _ in range(200):
        y, x, clusters = planted((0.0, 0.0), rng, per=per)  # 0: a shared shift does not attenuate it
        found, wrong = metrics.logistic(y, x, clusters), metrics.logistic(y, x, np.arange(y.size))
        assert found is not None and wrong is not None
        covered += found[1].low <= 0 <= found[1].high  # type: ignore[operator]
        naive += wrong[1].low <= 0 <= wrong[1].high  # type: ignore[operator]
    assert 0.90 <= covered / 200 <= 1.0
    assert per == 1 or naive / 200 < 0.88


@pytest.mark.parametrize(
    ("y", "x", "clusters"),
    [
        ([0, 0, 0, 1, 1, 1], [[1, -3], [1, -2], [1, -1], [1, 1], [1, 2], [1, 3]], range(6)),
        ([1, 1, 1, 1], [[1.0]] * 4, range(4)),
        ([0, 1, 0, 1, 1], [[1, 2]] * 5, range(5)),
        ([0, 1, 0, 1], [[1.0]] * 4, [0, 0, 1, 1]),
        ([], np.empty((0, 1)), []),
    ],
    ids=["a line separates them", "one side always wins", "columns depend", "too few clusters", "nothing"],
)
def test_no_finite_answer_is_none(y: list[float], x: object, clusters: object) -> None:
    assert metrics.logistic(y, x, list(clusters)) is None  # type: ignore[arg-type, call-overload]


def test_wrong_shapes_and_values_are_errors() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        metrics.logistic([0, 1], [[1.0]] * 3, [0, 1])
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        metrics.logistic([0, 2], [[1.0]] * 2, [0, 1])
