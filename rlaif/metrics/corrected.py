"""A rate as a judge sees it, corrected by how often the judge is wrong (Rogan & Gladen 1978, American Journal of
Epidemiology 107, equation 2):

    true rate = (raw rate + specificity − 1) / (sensitivity + specificity − 1)

sensitivity: P(the judge says a | people say a); specificity: P(the judge says b | people say b). It holds where the
judge errs on the rated pairs as it does on gold: gold should be drawn from the same kind of pairs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlaif.metrics.rates import RESAMPLES, Column, Estimate, Floats, _floats, mean
from rlaif.metrics.resampling import row_weights


@dataclass(frozen=True)
class Corrected:
    """`raw` and `corrected` rate, each with its interval; `corrected` is None where it is refused, and `reason` says
    why. `clipped`: the corrected rate fell outside [0, 1] and was set to the border.
    """

    raw: Estimate
    sensitivity: float | None
    specificity: float | None
    corrected: Estimate | None
    clipped: bool = False
    reason: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def corrected_rate(
    outcomes: Column,
    clusters: ArrayLike,
    gold_verdicts: Column,
    gold_truths: Column,
    gold_clusters: ArrayLike,
    rng: np.random.Generator,
    *,
    symmetric: bool = True,
    level: float = 0.95,
    n_resamples: int = RESAMPLES,
) -> Corrected | None:
    """`outcomes` (1 won, ½ tie, 0 lost, NaN no verdict), corrected by the judge's verdicts on gold.

    gold_verdicts: as `outcomes`, of a against b; gold_truths: 1 where people say a, 0 where b; rows that lack either
    are left out. `symmetric`: which response is called a is chance, so sensitivity and specificity are one rate, the
    judge's accuracy; False where a and b mean something (ours against theirs). The interval resamples both sets by
    cluster, so it holds the uncertainty of the calibration too. None: no outcome. Refused: sensitivity + specificity
    − 1 ≤ 0 (the judge is no better than chance on gold), in the data or in so many resamples that the interval would
    be a guess; or gold lacks one side.
    """
    raw = mean(outcomes, clusters, rng, level=level, n_resamples=n_resamples)
    if raw is None:
        return None
    verdicts, truths, groups = _gold(gold_verdicts, gold_truths, gold_clusters, symmetric)
    sides = _sides(np.ones((1, truths.size)), verdicts, truths)
    sensitivity, specificity = (None if np.isnan(side[0]) else float(side[0]) for side in sides)
    if sensitivity is None or specificity is None:
        return Corrected(raw, sensitivity, specificity, None, reason="gold lacks pairs that one side won")
    skill = sensitivity + specificity - 1
    if skill <= 0:
        reason = f"sensitivity + specificity − 1 = {skill:.3f}: on gold the judge is no better than chance"
        return Corrected(raw, sensitivity, specificity, None, reason=reason)
    value = (raw.value + specificity - 1) / skill
    x, rows = _rows(outcomes, clusters)
    samples = _resampled(x, rows, verdicts, truths, groups, rng, n_resamples)
    low = high = None
    if samples is None:
        reason = "sensitivity + specificity − 1 is not above 0 with confidence: too little gold, or too weak a judge"
        return Corrected(raw, sensitivity, specificity, None, reason=reason)
    if samples.size:
        low, high = (float(q) for q in np.quantile(samples, [(1 - level) / 2, (1 + level) / 2]))
    clipped = not 0 <= value <= 1
    found = Estimate(min(1.0, max(0.0, value)), low, high, raw.n)
    return Corrected(raw, sensitivity, specificity, found, clipped)


def _gold(verdicts: Column, truths: Column, clusters: ArrayLike, symmetric: bool) -> tuple[Floats, Floats, Any]:
    v, y, groups = _floats(verdicts), _floats(truths), np.asarray(clusters)
    keep = ~(np.isnan(v) | np.isnan(y)) & np.isin(y, (0.0, 1.0))
    v, y, groups = v[keep], y[keep], groups[keep]
    if symmetric:  # every pair told from both sides
        return np.concatenate([v, 1 - v]), np.concatenate([y, 1 - y]), np.concatenate([groups, groups])
    return v, y, groups


def _sides(weights: Floats, verdicts: Floats, truths: Floats) -> tuple[Floats, Floats]:
    """(B,) sensitivities and specificities; a tie of the judge is half of each."""
    with np.errstate(divide="ignore", invalid="ignore"):
        sensitivity = (weights @ (verdicts * truths)) / (weights @ truths)
        specificity = (weights @ ((1 - verdicts) * (1 - truths))) / (weights @ (1 - truths))
    return sensitivity, specificity


def _rows(values: Column, clusters: ArrayLike) -> tuple[Floats, Any]:
    x = _floats(values)
    keep = ~np.isnan(x)
    return x[keep], np.asarray(clusters)[keep]


def _resampled(
    outcomes: Floats, rows: Any, verdicts: Floats, truths: Floats, groups: Any, rng: np.random.Generator, n: int
) -> Floats | None:
    """Corrected rates of resamples, clipped to [0, 1]; None where more than 1 in 40 has no skill left: the interval's
    own tail would then be made of resamples in which nothing can be said.
    """
    raws = np.concatenate([weights @ outcomes / weights.sum(axis=1) for weights in row_weights(rows, rng, n)])
    sides = [_sides(weights, verdicts, truths) for weights in row_weights(groups, rng, n)]
    sensitivity, specificity = (np.concatenate(side) for side in zip(*sides, strict=True))
    skill = sensitivity + specificity - 1
    usable = skill > 0  # NaN, where a resample lacks one side, is not
    if (~usable).mean() > 1 / 40:
        return None
    found: Floats = np.clip((raws[usable] + specificity[usable] - 1) / skill[usable], 0, 1)
    return found
