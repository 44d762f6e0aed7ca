"""Logistic regression with intervals that allow for clusters. Pure; what has no finite answer comes back as None."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rlaif.metrics.rates import Column, Estimate, Floats

_STEPS = 50  # of Newton; where there is an answer it takes under ten
_SEPARATED = 30.0  # log-odds that data of finite size cannot support


def logistic(
    y: Column, x: Sequence[Sequence[float]] | Floats, clusters: ArrayLike, *, level: float = 0.95
) -> list[Estimate] | None:
    """Coefficients of logit E[y] = x β, in log-odds for each unit of x, with cluster-robust intervals.

    y: (N,) in [0, 1]; a tie is ½ (fractional logit by quasi-likelihood, Papke & Wooldridge 1996). x: (N, K), a column
    of ones where an intercept is wanted. clusters: (N,) labels. Intervals: the sandwich over clusters with the CR1
    correction and Student's t on (clusters − 1) (Cameron & Miller 2015, section II and VI).
    None: fewer than K + 2 clusters, columns that depend on each other, or data that a line separates, where the
    coefficient is infinite. Errors: ValueError for y outside [0, 1] or other lengths.
    """
    outcome, design, groups = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64), np.asarray(clusters)
    if design.ndim != 2 or not outcome.shape == groups.shape == design.shape[:1]:
        raise ValueError(f"shapes differ: y {outcome.shape}, x {design.shape}, clusters {groups.shape}")
    if outcome.size and not (outcome.min() >= 0 and outcome.max() <= 1):
        raise ValueError("y must be in [0, 1]")
    n, k = design.shape
    _, which = np.unique(groups, return_inverse=True)
    n_clusters = int(which.max()) + 1 if n else 0
    if n_clusters < k + 2 or np.linalg.matrix_rank(design) < k:
        return None
    beta = _fit(outcome, design)
    if beta is None:
        return None
    p = _sigmoid(design @ beta)
    bread = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    scores = np.zeros((n_clusters, k))
    np.add.at(scores, which, design * (outcome - p)[:, None])
    correction = n_clusters / (n_clusters - 1) * (n - 1) / (n - k)
    covariance = correction * bread @ (scores.T @ scores) @ bread
    from scipy import stats

    half = float(stats.t.ppf(0.5 + level / 2, n_clusters - 1)) * np.sqrt(np.diag(covariance))
    return [Estimate(float(b), float(b - h), float(b + h), n) for b, h in zip(beta, half, strict=True)]


def _fit(y: Floats, x: Floats) -> Floats | None:
    """Newton's method with halved steps; None where the likelihood has no finite maximum."""
    beta: Floats = np.zeros(x.shape[1])
    likelihood = _likelihood(y, x @ beta)
    gained: float
    for _ in range(_STEPS):
        p = _sigmoid(x @ beta)
        try:
            step = np.asarray(np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]), x.T @ (y - p)), np.float64)
        except np.linalg.LinAlgError:
            return None
        scale = 1.0
        while (after := _likelihood(y, x @ (beta + scale * step))) < likelihood - 1e-12 and scale > 1e-6:
            scale /= 2
        beta, gained, likelihood = np.asarray(beta + scale * step, np.float64), after - likelihood, after
        if np.abs(x @ beta).max() > _SEPARATED:
            return None
        if np.abs(scale * step).max() < 1e-9 or 0 <= gained < 1e-12:
            return beta
    return None


def _sigmoid(z: Floats) -> Floats:
    p: Floats = np.exp(-np.logaddexp(0.0, -z))
    return p


def _likelihood(y: Floats, z: Floats) -> float:
    return float(np.sum(y * z - np.logaddexp(0.0, z)))
