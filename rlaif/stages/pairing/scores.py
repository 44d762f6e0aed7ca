"""Pointwise judgments of one prompt's responses → differences, criterion by criterion, from two distributions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import fsum, isfinite
from typing import NamedTuple

from rlaif.errors import DataError
from rlaif.records import Judgment
from rlaif.stages.pairing.standards import Standards

Distribution = dict[float, float]  # score → probability


class Item(NamedTuple):
    """One criterion, judged for both."""

    difference: float  # P(a scores higher) − P(b scores higher), the two scores independent
    margin: float  # score of a − score of b
    ref: str
    judgment_ids: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """`items`: criterion → what it says; only those that were judged for both. `gate`: d where exactly one of the two
    fails a hard criterion."""

    items: dict[str, Item]
    gate: float | None


class _Score(NamedTuple):
    mean: float
    distribution: Distribution
    ref: str
    judgment_ids: tuple[str, ...]


class Scored:
    """The pointwise judgments of one prompt."""

    def __init__(self) -> None:
        self._judgments: dict[tuple[str | None, str], list[Judgment]] = defaultdict(list)  # (member, response)
        self._cache: dict[tuple[str | None, str], dict[str, _Score | None]] = {}

    def add(self, judgment: Judgment) -> None:
        """Errors: DataError where it is not about one response."""
        if len(judgment.response_ids) != 1:
            raise DataError(
                f"judgment {judgment.id}: a pointwise judgment has 1 response, not {judgment.response_ids}"
            )
        self._judgments[judgment.member, judgment.response_ids[0]].append(judgment)

    def members(self) -> list[str | None]:
        return sorted({member for member, _ in self._judgments}, key=lambda name: name or "")

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every two responses, sorted by id; responses whose judgments all failed among them."""
        return combinations(sorted({response_id for _, response_id in self._judgments}), 2)

    def compare(self, member: str | None, a: str, b: str, standards: Standards) -> Compared | None:
        """None where the member has no usable judgment of one of them."""
        one, other = self._scores(member, a), self._scores(member, b)
        if not one or not other:
            return None
        items, passes = {}, []
        for name in sorted(one.keys() & other.keys()):
            x, y = one[name], other[name]
            if x is None or y is None:
                continue
            items[name] = _item(name, x, y, standards)
            threshold = standards.passing(x.ref, name)
            if threshold is not None:
                passes.append((_at_least(x.distribution, threshold), _at_least(y.distribution, threshold)))
        return Compared(items, _gate(passes))

    def value(self, member: str | None, response_id: str, standards: Standards) -> float | None:
        """One response alone: the weighted mean of its scores, each on its scale made [0, 1] where it has one; less 1
        where it fails a hard criterion, so that none that fails is worth as much as one that passes.

        None where a judgment of it failed, a criterion that counts was not judged, or none counts: what is left would
        be another unit than that of the other responses.
        """
        judgments = [row for row in self._judgments.get((member, response_id), ()) if not row.superseded]
        if not judgments or any(row.status != "ok" for row in judgments):
            return None
        found = self._scores(member, response_id)
        refs = {name: score.ref for name, score in found.items() if score is not None}
        weights = {name: standards.weight(refs.get(name, judgments[0].rubric), name) for name in found}
        total = fsum(weights.values())
        if total <= 0 or any(score is None and weights[name] > 0 for name, score in found.items()):
            return None
        mean, fails = 0.0, False
        for name, score in found.items():
            if score is not None:
                scale, least = standards.scale(score.ref, name), standards.passing(score.ref, name)
                on_scale = score.mean if scale is None else (score.mean - scale.min) / (scale.max - scale.min)
                mean += weights[name] / total * on_scale
                fails = fails or (least is not None and _at_least(score.distribution, least) < 0.5)
        return mean - fails

    def _scores(self, member: str | None, response_id: str) -> dict[str, _Score | None]:
        """Criterion → score, None where it was not judged. Several judgments under one criterion count alike."""
        key = (member, response_id)
        if key not in self._cache:
            found: dict[str, list[tuple[Judgment, float, Distribution]]] = defaultdict(list)
            names: dict[str, None] = {}
            for judgment in sorted(self._judgments.get(key, ()), key=lambda judgment: judgment.id):
                if judgment.status == "ok" and not judgment.superseded:
                    for name, score in _scores_of(judgment).items():
                        names[name] = None
                        if score is not None:
                            found[name].append((judgment, score, _distribution(judgment, name, score)))
            self._cache[key] = {name: _mean(found[name]) if found[name] else None for name in names}
        return self._cache[key]


def _scores_of(judgment: Judgment) -> dict[str, float | None]:
    scores = judgment.scores
    if not scores or any(score is not None and not isfinite(score) for score in scores.values()):
        raise DataError(f"judgment {judgment.id}: {scores} are not scores")
    return scores


def _distribution(judgment: Judgment, name: str, score: float) -> Distribution:
    """Of one judgment, made to sum to 1; all on the score where the judgment has none."""
    steps = (judgment.distributions or {}).get(name)
    if steps is None:
        return {score: 1.0}
    try:
        found = {float(step): p for step, p in steps.items()}
    except ValueError:
        raise DataError(f"judgment {judgment.id}: distribution of {name!r}: a step is no number: {steps}") from None
    total = fsum(found.values())
    if not found or min(found.values()) < 0 or not abs(total - 1) < 1e-3:
        raise DataError(f"judgment {judgment.id}: distribution of {name!r}: {steps} are not probabilities")
    return {step: p / total for step, p in found.items()}


def _mean(several: Sequence[tuple[Judgment, float, Distribution]]) -> _Score:
    steps = sorted({step for _, _, distribution in several for step in distribution})
    n = len(several)
    return _Score(
        mean=fsum(score for _, score, _ in several) / n,
        distribution={
            step: fsum(distribution.get(step, 0.0) for _, _, distribution in several) / n for step in steps
        },
        ref=several[0][0].rubric,
        judgment_ids=tuple(judgment.id for judgment, _, _ in several),
    )


def _item(name: str, x: _Score, y: _Score, standards: Standards) -> Item:
    margin = x.mean - y.mean
    scale = standards.scale(x.ref, name)
    if scale is not None:
        margin /= scale.max - scale.min
    return Item(dominance(x.distribution, y.distribution), margin, x.ref, x.judgment_ids + y.judgment_ids)


def dominance(x: Distribution, y: Distribution) -> float:
    """P(X > Y) − P(Y > X) of independent X and Y; exactly the negative with the two exchanged."""
    higher = fsum(p * q for i, p in x.items() for j, q in y.items() if i > j)
    lower = fsum(p * q for i, p in x.items() for j, q in y.items() if i < j)
    return higher - lower


def _at_least(distribution: Distribution, threshold: float) -> float:
    return fsum(p for step, p in distribution.items() if step >= threshold)


def _gate(passes: Sequence[tuple[float, float]]) -> float | None:
    """P(a passes) − P(b passes), each the least over the hard criteria, where one side's is below ½ and the other's
    is not: its sign is then certain."""
    if not passes:
        return None
    a, b = (min(side) for side in zip(*passes, strict=True))
    return a - b if (a < 0.5) != (b < 0.5) else None
