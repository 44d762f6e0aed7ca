"""How far labels agree: a judge with people, people among themselves. Each figure with an interval.

Labels are anything that compares; None (for numbers also NaN) is a label that could not be had, and its item is left
out, never counted as an answer. Intervals resample whole clusters, usually prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaif.metrics.rates import RESAMPLES, Column, Estimate, Floats, _floats, proportion
from rlaif.metrics.resampling import estimate

Level = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True)
class Agreement:
    """`accuracy`: share of equal labels. `kappa`: agreement beyond chance, None where chance alone explains all."""

    accuracy: Estimate
    kappa: float | None
    n: int


def agreement(ours: Sequence[Any], theirs: Sequence[Any]) -> Agreement | None:
    """Two raters on the same items: accuracy and Cohen's κ = (pₒ − pₑ) / (1 − pₑ) (Cohen 1960, eq. 1).

    An item that either rater left at None is left out.
    """
    table, _ = _confusion(ours, theirs)
    n = table.shape[0]
    if n == 0:
        return None
    accuracy = proportion(np.einsum("nkk->n", table))
    assert accuracy is not None
    kappa = float(_kappa(table.sum(axis=0, keepdims=True).astype(np.float64))[0])
    return Agreement(accuracy, None if np.isnan(kappa) else kappa, n)


def cohen_kappa(
    ours: Sequence[Any],
    theirs: Sequence[Any],
    clusters: Sequence[Any],
    rng: np.random.Generator,
    *,
    n_resamples: int = RESAMPLES,
) -> Estimate | None:
    """Cohen's κ as in `agreement`, with an interval. None: no item that both labelled, or only one label in all."""
    table, kept = _confusion(ours, theirs)
    groups = [cluster for cluster, keep in zip(clusters, kept, strict=True) if keep]
    return estimate(
        lambda weights: _kappa(np.einsum("bn,nkl->bkl", weights, table, optimize=True)),
        groups,
        rng,
        n_resamples=n_resamples,
    )


def _confusion(ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[Floats, list[bool]]:
    """(n, K, K): a 1 for each item's two labels; and which of all items have both."""
    kept = [a is not None and b is not None for a, b in zip(ours, theirs, strict=True)]
    pairs = [(a, b) for a, b, keep in zip(ours, theirs, kept, strict=True) if keep]
    codes = {label: code for code, label in enumerate(dict.fromkeys(label for pair in pairs for label in pair))}
    table = np.zeros((len(pairs), len(codes), len(codes)))
    for row, (a, b) in enumerate(pairs):
        table[row, codes[a], codes[b]] = 1.0
    return table, kept


def _kappa(tables: Floats) -> Floats:
    """(B,) κ of (B, K, K) weighted confusion tables; NaN where chance explains all."""
    total = tables.sum(axis=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.einsum("bkk->b", tables) / total
        expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
        return np.where(expected < 1 - 1e-12, (observed - expected) / (1 - expected), np.nan)


def krippendorff_alpha(
    ratings: Sequence[Sequence[Any]],
    clusters: Sequence[Any],
    rng: np.random.Generator,
    *,
    level: Level = "nominal",
    order: Sequence[Any] | None = None,
    n_resamples: int = 500,
) -> Estimate | None:
    """Krippendorff's α over any number of raters with missing labels (Krippendorff 2011), with an interval.

    ratings: (items, raters), None for a missing label. `order`: the labels from least to most, for "ordinal" labels
    that do not sort by themselves; for "interval" they are numbers. `n` counts items that two raters labelled. None:
    no such item, or only one label in all. The value is the krippendorff package's; an item drawn k times in the
    bootstrap counts k times.
    """
    usable = [[label for label in row if not _missing(label)] for row in ratings]
    kept = [row for row in usable if len(row) > 1]
    groups = [cluster for cluster, row in zip(clusters, usable, strict=True) if len(row) > 1]
    domain = sorted({label for row in kept for label in row}, key=None if order is None else list(order).index)
    if len(domain) < 2:
        return None
    code = {label: index for index, label in enumerate(domain)}
    counts = np.zeros((len(kept), len(domain)))
    for index, row in enumerate(kept):
        for label in row:
            counts[index, code[label]] += 1
    numbers = np.asarray(domain if level == "interval" else range(len(domain)), dtype=np.float64)

    def alphas(weights: Floats) -> Floats:
        return np.asarray([_alpha(np.repeat(counts, row, axis=0), numbers, level) for row in weights.astype(int)])

    return estimate(alphas, groups, rng, n_resamples=n_resamples)


def _alpha(counts: Floats, domain: Floats, level: Level) -> float:
    """α of (items, labels) counts; NaN where fewer than two labels are left."""
    import krippendorff

    used = counts.sum(axis=0) > 0
    if used.sum() < 2:
        return float("nan")
    return float(
        krippendorff.alpha(value_counts=counts[:, used], value_domain=domain[used], level_of_measurement=level)
    )


def rank_correlation(
    ours: Column,
    theirs: Column,
    clusters: ArrayLike,
    rng: np.random.Generator,
    *,
    n_resamples: int = 500,
) -> Estimate | None:
    """Spearman's ρ, ties at their mean rank, with an interval. None: fewer than 3 items, or one that never varies."""
    from scipy.stats import spearmanr

    x, y = _floats(ours), _floats(theirs)
    keep = ~(np.isnan(x) | np.isnan(y))
    x, y = x[keep], y[keep]

    def rho(weights: Floats) -> Floats:
        found = []
        for row in weights.astype(int):
            a, b = np.repeat(x, row), np.repeat(y, row)
            varies = a.size > 2 and np.ptp(a) > 0 and np.ptp(b) > 0
            found.append(float(spearmanr(a, b).statistic) if varies else np.nan)
        return np.asarray(found)

    return estimate(rho, np.asarray(clusters)[keep], rng, n_resamples=n_resamples)


def _missing(label: Any) -> bool:
    return label is None or (isinstance(label, float) and np.isnan(label))


def auroc(
    scores: Column,
    truths: Column,
    clusters: ArrayLike,
    rng: np.random.Generator,
    *,
    n_resamples: int = RESAMPLES,
) -> Estimate | None:
    """Area under the ROC curve: P(a true item scores above a false one), ties ½ (Hanley & McNeil 1982).

    truths: 1 or 0. None: one class only. The value equals scikit-learn's `roc_auc_score`, which takes one resample at
    a time; here all of them are counted at once.
    """
    x, y = _floats(scores), _floats(truths)
    keep = ~(np.isnan(x) | np.isnan(y))
    x, y, groups = x[keep], y[keep], np.asarray(clusters)[keep]
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("truths of an AUROC are 0 or 1")
    order = np.argsort(x, kind="stable")
    starts = np.flatnonzero(np.diff(x[order], prepend=np.nan) != 0) if x.size else np.zeros(0, dtype=int)
    true = y[order] == 1
    return estimate(lambda weights: _area(weights[:, order], true, starts), groups, rng, n_resamples=n_resamples)


def _area(weights: Floats, true: NDArray[np.bool_], starts: NDArray[np.intp]) -> Floats:
    """(B,) areas, of items in the order of their scores; `starts`: where a new score begins."""
    positive = np.add.reduceat(weights * true, starts, axis=1)
    negative = np.add.reduceat(weights * ~true, starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative
    pairs = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        area = (positive * (below + negative / 2)).sum(axis=1) / pairs
    return np.where(pairs > 0, area, np.nan)
