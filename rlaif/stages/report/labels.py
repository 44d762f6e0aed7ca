"""What the judgments say about themselves: statuses, position bias, consistency, agreement between principles."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from rlaif import metrics
from rlaif.records import FIRST, TIE, Judgment

BINS = 20  # of every histogram over [0, 1]
MAX_MATRIX = 24  # principles in the agreement table; more do not fit on a page
_SAMPLES = 3

Floats = NDArray[np.float64]
Counts = NDArray[np.int_]


@dataclass(frozen=True)
class Failure:
    """Judgments that are no labels, grouped by status and reason, with a few of their ids."""

    status: str
    reason: str
    n: int
    ids: list[str]


@dataclass(frozen=True)
class PrincipleRow:
    """One principle (or the rubric). `decisiveness`: mean |p − ½| of the order-averaged probability, in [0, ½]."""

    name: str
    n: int
    n_ok: int
    n_pairs: int
    consistency: metrics.Estimate | None
    first_rate: metrics.Estimate | None
    decisiveness: float | None


@dataclass(frozen=True)
class CriterionRow:
    """One criterion of a pointwise judge."""

    name: str
    n: int
    n_null: int
    summary: dict[str, float] | None
    counts: Counts
    edges: list[float]


@dataclass
class Labels:
    """`order_map[i, j]`: pairs with P(A better) in bin i when A was shown first, in bin j when shown second.

    `agreement[a][b]`: share of pairs on which principles a and b name the same winner.
    """

    n: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    rubrics: Counter[str] = field(default_factory=Counter)
    templates: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    n_pairs: int = 0  # pairs of responses with a verdict under any principle
    consistency: metrics.Estimate | None = None
    first_rate: metrics.Estimate | None = None
    p_first: Counts | None = None
    order_map: Counts | None = None
    label_mass: Counts | None = None
    low_mass: float | None = None  # the 5 % quantile of the mass
    principles: list[PrincipleRow] = field(default_factory=list)
    agreement: dict[str, dict[str, metrics.Agreement]] = field(default_factory=dict)
    criteria: list[CriterionRow] = field(default_factory=list)


# (judge, prompt, response, response) → the probabilities that the first named response is better,
# where it was shown first and where it was shown second
_Pair = tuple[str, str, str, str]
_Shown = tuple[list[float], list[float]]


def p_first(judgment: Judgment) -> float:
    """P(the response shown first is better), a tie counting half; NaN without a verdict."""
    if judgment.status != "ok":
        return float("nan")
    if judgment.probabilities is not None:
        return judgment.probabilities.get(FIRST, 0.0) + 0.5 * judgment.probabilities.get(TIE, 0.0)
    return {None: float("nan"), FIRST: 1.0, TIE: 0.5}.get(judgment.verdict, 0.0)


def standard_of(judgment: Judgment) -> str:
    """What the judgment was made by: its principle, else its rubric, else the judge."""
    return judgment.principle or judgment.rubric or judgment.judge


def measure(judgments: Iterable[Judgment]) -> Labels:
    """One pass over the judgments; memory grows with the pairs, not with the texts."""
    labels = Labels()
    asked: Counter[str] = Counter()
    usable: Counter[str] = Counter()
    first: dict[str, list[float]] = defaultdict(list)
    pairs: dict[str, dict[_Pair, _Shown]] = defaultdict(dict)
    mass: list[float] = []
    failures: dict[tuple[str, str], list[str]] = defaultdict(list)
    failed: Counter[tuple[str, str]] = Counter()
    scores: dict[str, list[float | None]] = defaultdict(list)
    for judgment in judgments:
        _count(labels, judgment)
        if judgment.label_mass is not None:
            mass.append(judgment.label_mass)
        name = standard_of(judgment)
        asked[name] += 1
        if judgment.status != "ok":
            key = (judgment.status, judgment.reason or "no reason given")
            failed[key] += 1
            if failed[key] <= _SAMPLES:
                failures[key].append(judgment.id)
        elif judgment.kind == "pairwise" and len(judgment.response_ids) == 2:
            p = p_first(judgment)
            usable[name] += not math.isnan(p)
            if not math.isnan(p) and not judgment.meta.get("identical"):  # those tie without being asked
                first[name].append(p)
                _note(pairs[name], judgment, p)
        for criterion, score in (judgment.scores or {}).items():
            scores[criterion].append(score)
    labels.failures = [Failure(*key, n, failures[key]) for key, n in failed.most_common()]
    labels.criteria = [_criterion(name, values) for name, values in scores.items()]
    if mass:
        labels.label_mass = share_histogram(mass)
        labels.low_mass = float(np.quantile(mass, 0.05))
    _summarise_pairs(labels, asked, usable, first, pairs)
    return labels


def share_histogram(values: Iterable[float] | Floats, low: float = 0.0) -> Counts:
    """Counts of values in [low, 1] over BINS equal bins; what lies outside stands in the outermost."""
    x = np.clip(np.asarray(list(values), dtype=np.float64), low, 1.0)
    return np.histogram(x[~np.isnan(x)], bins=BINS, range=(low, 1.0))[0]


def _count(labels: Labels, judgment: Judgment) -> None:
    labels.n += 1
    labels.statuses[judgment.status] += 1
    labels.kinds[judgment.kind] += 1
    labels.models[judgment.model] += 1
    labels.rubrics[judgment.rubric] += 1
    labels.templates[judgment.template_sha256] += 1


def _note(pairs: dict[_Pair, _Shown], judgment: Judgment, p: float) -> None:
    one, other = judgment.response_ids
    a, b = sorted((one, other))
    shown = pairs.setdefault((judgment.member or judgment.judge, judgment.prompt_id, a, b), ([], []))
    if one == a:
        shown[0].append(p)
    else:
        shown[1].append(1 - p)


def _orders(shown: Iterable[_Shown]) -> tuple[Floats, Floats, Floats]:
    """P(A better) where A was shown first, where second, and averaged over the orders that there are."""
    rows = [(_mean(first), _mean(second)) for first, second in shown]
    both = np.asarray(rows, dtype=np.float64).reshape(-1, 2)
    there = ~np.isnan(both)
    n_there = there.sum(axis=1)
    sums = np.where(there, both, 0.0).sum(axis=1)
    average = np.where(n_there > 0, sums / np.maximum(n_there, 1), np.nan)
    return both[:, 0], both[:, 1], average


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _summarise_pairs(
    labels: Labels,
    asked: Mapping[str, int],
    usable: Mapping[str, int],
    first: Mapping[str, list[float]],
    pairs: Mapping[str, Mapping[_Pair, _Shown]],
) -> None:
    everything: list[tuple[Floats, Floats]] = []
    winners: dict[str, dict[_Pair, float]] = {}
    for name in asked:
        a, b, average = _orders(pairs.get(name, {}).values())
        everything.append((a, b))
        winners[name] = dict(zip(pairs.get(name, {}), metrics.outcomes(average).tolist(), strict=True))
        labels.principles.append(
            PrincipleRow(
                name=name,
                n=asked[name],
                n_ok=usable.get(name, 0),
                n_pairs=a.size,
                consistency=metrics.order_consistency(a, b),
                first_rate=metrics.first_position_rate(first.get(name, [])),
                decisiveness=float(np.nanmean(np.abs(average - 0.5))) if a.size else None,
            )
        )
    labels.n_pairs = len({pair for of_one in pairs.values() for pair in of_one})
    labels.principles.sort(key=lambda row: row.name)
    shown_first = [p for values in first.values() for p in values]
    if not shown_first:
        return
    a, b = (np.concatenate(side) for side in zip(*everything, strict=True))
    labels.consistency = metrics.order_consistency(a, b)
    labels.first_rate = metrics.first_position_rate(shown_first)
    labels.p_first = share_histogram(shown_first)
    both = ~(np.isnan(a) | np.isnan(b))
    if both.any():
        labels.order_map = np.histogram2d(a[both], b[both], bins=BINS, range=[[0, 1], [0, 1]])[0].astype(int)
    labels.agreement = _agreements(winners)


def _agreements(winners: Mapping[str, Mapping[_Pair, float]]) -> dict[str, dict[str, metrics.Agreement]]:
    """Between every two principles that judged some pair both; pairs that either calls a tie are left out."""
    found: dict[str, dict[str, metrics.Agreement]] = {}
    for one, other in combinations(sorted(winners)[:MAX_MATRIX], 2):
        shared = winners[one].keys() & winners[other].keys()
        decided = [
            (winners[one][k], winners[other][k]) for k in shared if 0.5 not in (winners[one][k], winners[other][k])
        ]
        agreement = metrics.agreement([a for a, _ in decided], [b for _, b in decided])
        if agreement is not None:
            found.setdefault(one, {})[other] = agreement
            found.setdefault(other, {})[one] = agreement
    return found


def _criterion(name: str, values: list[float | None]) -> CriterionRow:
    known = [v for v in values if v is not None]
    counts, edges = (
        np.histogram(known, bins=min(BINS, max(len(set(known)), 1))) if known else (np.zeros(1, int), [0, 1])
    )
    return CriterionRow(
        name=name,
        n=len(values),
        n_null=len(values) - len(known),
        summary=metrics.describe(known),
        counts=np.asarray(counts),
        edges=[float(edge) for edge in edges],
    )
