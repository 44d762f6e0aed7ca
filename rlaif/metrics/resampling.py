"""Intervals of any figure by the cluster bootstrap: rows get the weights of the clusters that were drawn.

A statistic here is a function of row weights, so that one matrix product does all resamples at once:
`statistic(weights)` with weights of shape (B, N) returns (B,) values, NaN where a resample does not have one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from rlaif.metrics.rates import RESAMPLES, Estimate, Floats

Statistic = Callable[[Floats], Floats]
_CELLS = 4_000_000  # of one block of weights: 32 MB
_MOST_LOST = 0.5  # share of the resamples that may lack the figure


def estimate(
    statistic: Statistic,
    clusters: ArrayLike,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    n_resamples: int = RESAMPLES,
) -> Estimate | None:
    """`statistic` over all rows, with a percentile interval over resampled clusters (Cameron, Gelbach & Miller 2008).

    clusters: (N,) one label a row, usually the prompt. None: no rows, or the figure cannot be had from them. No
    interval: one cluster, a figure that most resamples lack, or one that is the same in all of them (all right, say):
    a bootstrap of that has no width, and says nothing about how sure it is.
    """
    index = _codes(clusters)
    if index.size == 0:
        return None
    value = float(statistic(np.ones((1, index.size)))[0])
    if np.isnan(value):
        return None
    values = np.concatenate([statistic(block) for block in row_weights(index, rng, n_resamples)])
    known = values[~np.isnan(values)]
    if index.max() == 0 or known.size < _MOST_LOST * values.size or np.ptp(known) < 1e-12:
        return Estimate(value, None, None, index.size)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), index.size)


def row_weights(clusters: ArrayLike, rng: np.random.Generator, n_resamples: int) -> Iterator[Floats]:
    """Blocks of (B, N) weights: how often each row's cluster was drawn, as many clusters as there are."""
    index = _codes(clusters)
    n = int(index.max()) + 1
    block = max(1, min(n_resamples, _CELLS // index.size))
    for start in range(0, n_resamples, block):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(block, n_resamples - start))
        yield drawn[:, index].astype(np.float64)


def _codes(clusters: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.intp]]:
    """(N,) cluster numbers from 0."""
    return np.unique(np.asarray(clusters), return_inverse=True)[1]
