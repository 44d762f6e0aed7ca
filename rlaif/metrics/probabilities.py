"""What probabilities are worth: Brier score, calibration error, the reliability diagram, log loss.

P(a better) and its mirror P(b better) = 1 − P(a better) are one statement, and which response is called a is chance.
So these are taken of `folded` probabilities: how sure the judge is of the response it names, and whether it is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlaif.metrics.rates import RESAMPLES, Column, Estimate, Floats, _floats, _kept, mean
from rlaif.metrics.resampling import estimate

_LEAST = 1e-6  # a probability of exactly 0 or 1 costs at most 13.8 nats


def folded(probabilities: Column, truths: Column) -> tuple[Floats, Floats]:
    """P(a better) and whether a is better → (confidence in [½, 1], 1 if the named response is better, else 0).

    Exactly ½ names nobody and is half right. NaN stays NaN.
    """
    p, y = _floats(probabilities), _floats(truths)
    right = np.where(p > 0.5, y, 1 - y)
    return np.maximum(p, 1 - p), np.where(p == 0.5, 0.5 + 0 * y, right)


def brier(probabilities: Column, truths: Column) -> float | None:
    """Mean of (p − y)², y in {0, 1} or a probability (Brier 1950): 0 is perfect, ¼ is always saying ½."""
    p, y = _kept(probabilities, _floats(truths))
    return None if p.size == 0 else float(np.mean((p - y) ** 2))


def brier_score(
    probabilities: Column, truths: Column, clusters: ArrayLike, rng: np.random.Generator, **options: Any
) -> Estimate | None:
    """`brier` with an interval (see `mean`). The same for P(a better) and its mirror."""
    return mean((_floats(probabilities) - _floats(truths)) ** 2, clusters, rng, **options)


def log_loss(
    probabilities: Column, truths: Column, clusters: ArrayLike, rng: np.random.Generator, **options: Any
) -> Estimate | None:
    """Mean of −y·ln p − (1 − y)·ln(1 − p) in nats, p kept 1e-6 away from 0 and 1; always saying ½ costs 0.693."""
    return mean(log_losses(probabilities, truths), clusters, rng, **options)


def log_losses(probabilities: Column, truths: Column) -> Floats:
    """(N,) what `log_loss` is the mean of."""
    p, y = np.clip(_floats(probabilities), _LEAST, 1 - _LEAST), _floats(truths)
    found: Floats = -(y * np.log(p) + (1 - y) * np.log1p(-p))
    return found


def reliability(probabilities: Column, truths: Column, n_bins: int = 10) -> list[dict[str, float]]:
    """The reliability diagram: equal-width bins of p that hold anything, as {low, high, predicted, observed, n}."""
    p, y = _kept(probabilities, _floats(truths))
    which = _bins(p, n_bins)
    rows = []
    for index in np.unique(which):
        inside = which == index
        rows.append(
            {
                "low": float(index / n_bins),
                "high": float((index + 1) / n_bins),
                "predicted": float(p[inside].mean()),
                "observed": float(y[inside].mean()),
                "n": int(inside.sum()),
            }
        )
    return rows


def expected_calibration_error(probabilities: Column, truths: Column, n_bins: int = 10) -> float | None:
    """Σ (n_b / N) · |observed_b − predicted_b| over bins (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    p, y = _kept(probabilities, _floats(truths))
    return None if p.size == 0 else float(_errors(p, y, n_bins)(np.ones((1, p.size)))[0])


def calibration_error(
    probabilities: Column,
    truths: Column,
    clusters: ArrayLike,
    rng: np.random.Generator,
    *,
    n_bins: int = 10,
    n_resamples: int = RESAMPLES,
) -> Estimate | None:
    """`expected_calibration_error` with an interval. Few rows a bin make it too large, also for a perfect judge: read
    it beside the Brier score, and compare it between judges on the same rows only.
    """
    p, y = _floats(probabilities), _floats(truths)
    keep = ~(np.isnan(p) | np.isnan(y))
    p, y = p[keep], y[keep]
    return estimate(_errors(p, y, n_bins), np.asarray(clusters)[keep], rng, n_resamples=n_resamples)


def _errors(p: Floats, y: Floats, n_bins: int) -> Any:
    """Row weights → calibration errors: Σ_b |Σ_{i in b} w_i (y_i − p_i)| / Σ w."""
    inside = np.zeros((p.size, n_bins))
    inside[np.arange(p.size), _bins(p, n_bins)] = y - p
    return lambda weights: np.abs(weights @ inside).sum(axis=1) / weights.sum(axis=1)


def _bins(p: Floats, n_bins: int) -> Any:
    """(N,) equal-width bins; p = 1 belongs to the last."""
    return np.minimum((p * n_bins).astype(int), n_bins - 1)
