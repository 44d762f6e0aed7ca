"""Means, proportions, win rates, correlations, and their intervals.

Pure functions over one-dimensional arrays. A value that could not be had is NaN or None in the input and is left out,
never counted as a number; what cannot be computed (nothing left, no variation) comes back as None, never as NaN.
Randomness comes from the rng that is passed in. Probabilities and rates are in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Column = ArrayLike | Sequence[float | None]  # (N,) numbers; None or NaN: could not be had
RESAMPLES = 2000
_CELLS = 4_000_000  # of one block of bootstrap weights: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval. `n` counts values, not clusters.

    `low` and `high` are None where nothing can be said about the spread (one cluster only).
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float] | None:
    """Score interval of a proportion (Wilson 1927): it stays in [0, 1] and is not empty at 0 or n successes.

    `successes` may hold halves (ties); a tie varies less than a coin, so the interval is then a little wide.
    """
    if n <= 0:
        return None
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean(
    values: Column,
    clusters: ArrayLike,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    n_resamples: int = RESAMPLES,
) -> Estimate | None:
    """Mean with a percentile bootstrap interval that resamples whole clusters.

    clusters: one label per value, usually the prompt: responses to one prompt are not independent, so resampling rows
    would give an interval that is too narrow (Cameron, Gelbach & Miller 2008, "pairs cluster bootstrap").
    """
    x, groups = _kept(values, clusters)
    if x.size == 0:
        return None
    sums, counts = _by_cluster(x, groups)
    value = float(x.mean())
    if sums.size < 2:
        return Estimate(value, None, None, x.size)
    means = _bootstrap_means(sums, counts, rng, n_resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), x.size)


def proportion(
    values: Column,
    clusters: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
    *,
    level: float = 0.95,
    n_resamples: int = RESAMPLES,
) -> Estimate | None:
    """Mean of values in [0, 1]: Wilson's interval, or with clusters a cluster bootstrap.

    A bootstrap of values that are all equal has no width whatever the number of clusters; there Wilson's interval
    over the number of clusters is given instead, so that 5 wins of 5 do not look like certainty.
    Errors: ValueError for clusters without an rng and for values outside [0, 1].
    """
    x, groups = _kept(values, np.arange(_floats(values).size) if clusters is None else clusters)
    if x.size == 0:
        return None
    if x.min() < 0 or x.max() > 1:
        raise ValueError(f"values of a proportion must be in [0, 1], got {x.min():g} to {x.max():g}")
    value, n_clusters = float(x.mean()), np.unique(groups).size
    if clusters is not None and n_clusters < x.size:
        if rng is None:
            raise ValueError("clusters need an rng")
        found = mean(x, groups, rng, level=level, n_resamples=n_resamples)
        if found is not None and found.low is not None and found.low != found.high:
            return found
    interval = wilson(value * n_clusters, n_clusters, level)
    assert interval is not None
    return Estimate(value, *interval, x.size)


def win_rate(
    scores: Column, clusters: ArrayLike | None = None, rng: np.random.Generator | None = None, **options: Any
) -> Estimate | None:
    """Share of comparisons won, ties ½. scores: 1 win, ½ tie, 0 loss, NaN no verdict. See `proportion`."""
    x, _ = _kept(scores, np.zeros(_floats(scores).size))
    if not np.isin(x, (0.0, 0.5, 1.0)).all():
        raise ValueError("scores of a win rate are 1 (win), 0.5 (tie) or 0 (loss); see outcomes()")
    return proportion(scores, clusters, rng, **options)


def outcomes(probabilities: Column, tie_margin: float = 1e-9) -> Floats:
    """P(ours is better), both orders already averaged → 1 win, ½ tie (|p − ½| ≤ tie_margin), 0 loss; NaN stays."""
    p = _floats(probabilities)
    won = np.where(p > 0.5, 1.0, 0.0)
    return np.where(np.isnan(p), np.nan, np.where(np.abs(p - 0.5) <= tie_margin, 0.5, won))


def paired_difference(
    before: Column,
    after: Column,
    clusters: ArrayLike,
    rng: np.random.Generator,
    *,
    level: float = 0.95,
    n_resamples: int = RESAMPLES,
) -> Estimate | None:
    """Mean of after − before over rows that have both, with a cluster bootstrap interval (see `mean`)."""
    difference = _floats(after) - _floats(before)
    return mean(difference, clusters, rng, level=level, n_resamples=n_resamples)


def order_consistency(one_order: Column, other_order: Column) -> Estimate | None:
    """Share of pairs whose winner is the same whichever response was shown first (Wilson's interval).

    Both arrays hold P(response A is better), A the same response in both. Exactly ½ names nobody: two ties agree,
    a tie and a winner do not.
    """
    a, b = outcomes(one_order), outcomes(other_order)
    both = ~(np.isnan(a) | np.isnan(b))
    return proportion((a[both] == b[both]).astype(float))


def first_position_rate(p_first: Column) -> Estimate | None:
    """Share of judgments whose verdict is the response shown first, ties ½ (Wilson's interval).

    Without position bias this is ½ when every pair is shown in both orders or in a random one.
    """
    return proportion(outcomes(p_first))


def correlations(columns: Mapping[str, Column], min_n: int = 3) -> dict[str, dict[str, float | None]]:
    """Pearson's r between every two columns, over the rows that both have: how principles agree on the same pairs.

    columns: name → (N,) P(the same one of the two responses is better). None: fewer than `min_n` shared rows, or a
    column that does not vary over them. Errors: ValueError for columns of different length.
    """
    data = {name: _floats(values) for name, values in columns.items()}
    if len({x.size for x in data.values()}) > 1:
        raise ValueError("columns differ in length: " + ", ".join(f"{k} {v.size}" for k, v in data.items()))
    return {a: {b: _pearson(data[a], data[b], min_n) for b in data} for a in data}


def describe(values: Column) -> dict[str, float] | None:
    """Mean, standard deviation (n − 1), quantiles and n: for lengths, margins, scores."""
    x, _ = _kept(values, np.zeros(_floats(values).size))
    if x.size == 0:
        return None
    p10, median, p90 = (float(q) for q in np.quantile(x, [0.1, 0.5, 0.9]))
    sd = float(x.std(ddof=1)) if x.size > 1 else 0.0
    return {"mean": float(x.mean()), "sd": sd, "p10": p10, "median": median, "p90": p90, "n": int(x.size)}


def length_controlled_win_rate(scores: Column, length_differences: Column) -> float | None:
    """The win rate to expect if both responses were of the same length.

    The intercept of a least-squares fit score = a + b · tanh(Δ / sd(Δ)), clipped to [0, 1]; Δ = our length − theirs,
    in any unit. It is the length term of length-controlled AlpacaEval (Dubois et al. 2024, 2404.04475) with a linear
    link instead of a logistic one: closed form, and defined when every comparison is won. None: fewer than 3 rows,
    or Δ is the same in all of them and not 0.
    """
    score, delta = _kept(scores, _floats(length_differences))
    if score.size < 3:
        return None
    spread = float(delta.std())
    if spread == 0:  # all differ by the same: only equal lengths tell anything
        return float(score.mean()) if delta[0] == 0 else None
    x = np.tanh(delta / spread)
    slope = float(np.sum((x - x.mean()) * (score - score.mean())) / np.sum((x - x.mean()) ** 2))
    return float(np.clip(score.mean() - slope * x.mean(), 0.0, 1.0))


def _floats(values: Column) -> Floats:
    """(N,) float64; None becomes NaN. Errors: ValueError for anything that is not one-dimensional."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"expected one dimension, got shape {x.shape}")
    return x


def _kept(values: Column, other: ArrayLike) -> tuple[Floats, NDArray[Any]]:
    """The rows where neither side is missing. Errors: ValueError for different lengths."""
    x, y = _floats(values), np.asarray(other)
    if x.shape != y.shape:
        raise ValueError(f"lengths differ: {x.size} and {y.size}")
    keep = ~np.isnan(x)
    if y.dtype.kind == "f":
        keep &= ~np.isnan(y)
    return x[keep], y[keep]


def _by_cluster(x: Floats, groups: NDArray[Any]) -> tuple[Floats, Floats]:
    _, index = np.unique(groups, return_inverse=True)
    return np.bincount(index, weights=x).astype(np.float64), np.bincount(index).astype(np.float64)


def _bootstrap_means(sums: Floats, counts: Floats, rng: np.random.Generator, n_resamples: int) -> Floats:
    """(n_resamples,) means, each over as many clusters as there are, drawn with replacement."""
    n = sums.size
    block = max(1, min(n_resamples, _CELLS // n))
    parts = []
    for start in range(0, n_resamples, block):
        weights = rng.multinomial(n, np.full(n, 1 / n), size=min(block, n_resamples - start))
        parts.append((weights @ sums) / (weights @ counts))
    return np.concatenate(parts)


def _pearson(a: Floats, b: Floats, min_n: int) -> float | None:
    both = ~(np.isnan(a) | np.isnan(b))
    x, y = a[both], b[both]
    if x.size < min_n or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.clip(np.corrcoef(x, y)[0, 1], -1.0, 1.0))
