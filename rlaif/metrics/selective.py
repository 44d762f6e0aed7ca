"""When a judge may be believed: thresholds on its confidence under which it agrees with people as often as wanted.

Selective evaluation as in "Trust or Escalate" (Jung et al. 2024, arXiv 2407.18370): a judge answers only where it is
sure, and how sure it must be is calibrated on gold, with an exact bound on the risk and a fixed sequence of tests.
What is tested here is the cascade as a whole: that each judge alone is right above its threshold would say nothing of
the comparisons that the judges before it were unsure of, which are all that it sees.

**The promise** of a plan for a slice. Gold is a random draw from the comparisons that the cascade will see, one of a
prompt, in each of which people name a winner. With probability 1 − δ over that draw: of all such comparisons of the
slice that the cascade answers under the plan, whichever judge answers, the last one among them, it names people's
winner in a share of at least 1 − α. An answer is a winner named by a judge that is sure; a comparison that no judge
is sure of is withheld from the labels. Nothing is said of one judge's share of the answers alone, of comparisons that
people call a tie, or of other prompts, responses and models than gold's. Slices are promised one by one: of ten
promises at δ = 0.1 one may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaif.metrics.rates import Column, Floats

EVERYTHING = "*"  # the slice of all that is in no other
NO_VALUE = ""  # the slice of what has no value in the column that slices
# Confidences from strict to lax. Fixed beforehand: a grid that followed the labels would break the bound.
LEVELS = (1.0, 0.99, 0.98, 0.95, 0.925, 0.9, 0.875, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)
_Mask = NDArray[np.bool_]


def risk_upper_bound(errors: int, n: int, delta: float) -> float:
    """The one-sided Clopper–Pearson bound (1934): the true risk is above it with probability δ at most. n = 0: 1."""
    from scipy.stats import beta

    return 1.0 if errors >= n else float(beta.ppf(1 - delta, errors + 1, n - errors))


def least_n(alpha: float, delta: float) -> int:
    """How many answers without one error it takes to show a risk of at most α: (1 − α)ⁿ ≤ δ."""
    return math.ceil(round(math.log(delta) / math.log(1 - alpha), 9))


@dataclass(frozen=True)
class Plan:
    """What a cascade does in one slice, and what is known of it from gold.

    `thresholds`: member → the confidence from which its winner is the answer; None: it is not asked. Without a
    promise the last member answers everything. `n`: gold comparisons with a winner; of them `answered`, of these
    `errors` (another winner than people's). `risk_bound`: upper bound on the risk at the level of its test. `asked`:
    member → share of gold comparisons that reach it. `reason`: why nothing is promised.
    """

    thresholds: dict[str, float | None]
    promised: bool
    n: int = 0
    answered: int = 0
    errors: int = 0
    risk_bound: float | None = None
    asked: dict[str, float] | None = None
    reason: str = ""


@dataclass(frozen=True)
class CascadePlan:
    """Plans by slice, and what they were made for. As JSON, what `judge: cascade` reads (`options.thresholds`)."""

    members: list[str]  # cheap to strong
    agreement: float | None  # 1 − α, the wanted share; None: nothing was calibrated
    confidence: float | None  # 1 − δ
    slices: dict[str, Plan]
    slice_by: str | None = None  # domain, or a column of the prompts' meta
    # member → its models, rubrics, templates, orders: what was calibrated, and a promise is for no other
    what: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    version: int = 1

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Outcome(NamedTuple):
    """What a cascade did: comparisons answered, answers that are not people's, the share that reached each member."""

    answered: int
    errors: int
    asked: list[float]


class _Cascade(NamedTuple):
    """Gold seen by the members in turn: (K, N) confidences (½ where there is no verdict), and whether they agree."""

    confidence: Floats
    right: _Mask

    def run(self, thresholds: Sequence[float | None]) -> Outcome:
        """Who answers what."""
        waiting = np.ones(self.confidence.shape[1], dtype=bool)
        errors = answered = 0
        asked = []
        for confidence, right, threshold in zip(self.confidence, self.right, thresholds, strict=True):
            if threshold is None:
                asked.append(0.0)
                continue
            asked.append(float(waiting.mean()) if waiting.size else 0.0)
            sure = waiting & (confidence >= threshold) & (confidence > 0.5)
            answered += int(sure.sum())
            errors += int((sure & ~right).sum())
            waiting &= ~sure
        return Outcome(answered, errors, asked)


def calibrate_cascade(
    probabilities: Mapping[str, Column],
    truths: Column,
    slices: Sequence[str] | None = None,
    *,
    agreement: float = 0.9,
    confidence: float = 0.9,
    max_escalated: float | None = None,
    slice_by: str | None = None,
    clusters: Sequence[Any] | None = None,
    rng: np.random.Generator | None = None,
) -> CascadePlan:
    """The plan that answers with the cheapest members it can promise for.

    probabilities: member → (N,) P(a is better) of the same N gold comparisons, orders averaged; ½ where the two
    orders name different winners (it counts as unsure), NaN where there is no verdict. Members from cheap to strong.
    truths: (N,) 1 where people prefer a, 0 where b, NaN where neither (left out). slices: (N,), NO_VALUE for none, or
    None for one of all. agreement = 1 − α and confidence = 1 − δ: see the module. max_escalated: of a slice's
    comparisons, the share that may reach the last member; a plan over it is not taken, and where nothing else can be
    promised the budget is kept and the promise is not made. clusters: (N,), usually the prompt; of each, one
    comparison is drawn with `rng`, since the bound is for independent ones. Errors: ValueError for no member,
    different lengths, numbers outside (0, 1), clusters without an rng.
    """
    for name, value in (("agreement", agreement), ("confidence", confidence)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: a share between 0 and 1, got {value}")
    if not probabilities:
        raise ValueError("a cascade has at least one member")
    truth = np.asarray(truths, dtype=np.float64)
    p = np.array([np.asarray(column, dtype=np.float64) for column in probabilities.values()])
    labels = np.asarray([EVERYTHING] * truth.size if slices is None else list(slices), dtype=object)
    if slices is not None:  # of a slice that gold does not have, nothing is known: no gold may stand in for it
        labels[labels == EVERYTHING] = NO_VALUE
    if p.shape[1:] != truth.shape or labels.shape != truth.shape:
        raise ValueError(f"lengths differ: probabilities {p.shape[1:]}, truths {truth.shape}, slices {labels.shape}")
    gold = _cascade(p, truth)
    usable = ~np.isnan(truth)
    if clusters is not None:
        usable &= _one_of_each(clusters, usable, rng)
    members = list(probabilities)
    plans = {}
    for label in sorted(set(labels)):
        here = usable & (labels == label)
        part = _Cascade(gold.confidence[:, here], gold.right[:, here])
        plans[label] = _plan(members, part, 1 - agreement, 1 - confidence, max_escalated)
    if EVERYTHING not in plans:
        plans[EVERYTHING] = last_alone(members, "no gold of this slice")
    return CascadePlan(members, agreement, confidence, plans, slice_by)


def apply_plan(plan: Plan, probabilities: Mapping[str, Column], truths: Column) -> Outcome:
    """What the plan makes of other comparisons; arguments as for `calibrate_cascade`, without ties of people."""
    p = np.array([np.asarray(probabilities[name], dtype=np.float64) for name in plan.thresholds])
    return _cascade(p, np.asarray(truths, dtype=np.float64)).run(list(plan.thresholds.values()))


def _cascade(p: Floats, truth: Floats) -> _Cascade:
    p = np.where(np.isnan(p), 0.5, p)
    return _Cascade(np.maximum(p, 1 - p), (p > 0.5) == (truth == 1))


def _one_of_each(clusters: Sequence[Any], usable: _Mask, rng: np.random.Generator | None) -> _Mask:
    if rng is None:
        raise ValueError("clusters need an rng")
    candidates = rng.permutation(np.flatnonzero(usable))
    labels = np.asarray([str(cluster) for cluster in clusters])
    _, first = np.unique(labels[candidates], return_index=True)
    drawn = np.zeros(usable.size, dtype=bool)
    drawn[candidates[first]] = True
    return drawn


def last_alone(members: Sequence[str], reason: str) -> Plan:
    """Nothing promised: the last member answers everything, the others are not asked."""
    return Plan({name: 0.0 if name == members[-1] else None for name in members}, promised=False, reason=reason)


def _plan(members: list[str], gold: _Cascade, alpha: float, delta: float, max_escalated: float | None) -> Plan:
    """The most wanted plan that passed its test."""
    budgeted = max_escalated is not None and len(members) > 1
    passed = [
        (thresholds, outcome, delta * share)
        for steps, share in _sequences(len(members))
        for thresholds, outcome in _last_passed(gold, steps, alpha, delta * share)
    ]
    within = [found for found in passed if not budgeted or found[1].asked[-1] <= (max_escalated or 0)]
    if within:
        thresholds, outcome, level = min(within, key=lambda found: _first_asked(found[0]))
        return _described(members, thresholds, outcome, gold, level, promised=True)
    why = "every plan that could be promised escalates more than the budget" if passed else _why(gold, alpha)
    if budgeted:
        kept = _within_budget(len(members), gold, max_escalated or 0.0)
        return _described(members, kept, gold.run(kept), gold, delta, promised=False, reason=why)
    alone = list(last_alone(members, why).thresholds.values())
    return _described(members, alone, gold.run(alone), gold, delta, promised=False, reason=why)


def _first_asked(thresholds: Sequence[float | None]) -> int:
    return next(place for place, threshold in enumerate(thresholds) if threshold is not None)


def _sequences(n_members: int) -> Iterator[tuple[list[list[float | None]], float]]:
    """Sequences of thresholds from strict to lax, each with its share of δ (the shares sum to 1, so that all that
    pass hold together), the most wanted first: those with a cheap first member, and among them those whose last
    member answers wherever it names a winner before those where it must be as sure as the others.

    One member: its own thresholds. More: half of δ for cascades that begin from the last member alone and then let
    cheaper ones answer, under ever lower thresholds; half for one threshold for all, the last alone among them.
    """
    starts = range(n_members - 1)
    for start in starts:
        skipped: list[float | None] = [None] * start
        n_before = n_members - 1 - start
        alone: list[float | None] = [*[None] * (n_members - 1), 0.5]
        yield [alone, *([*skipped, *[level] * n_before, 0.5] for level in LEVELS)], 0.5 / len(starts)
        yield [[*skipped, *[level] * (n_before + 1)] for level in LEVELS], 0.5 / n_members
    yield [[*[None] * (n_members - 1), level] for level in LEVELS], 0.5 / n_members if starts else 1.0


def _last_passed(
    gold: _Cascade, steps: Sequence[Sequence[float | None]], alpha: float, delta: float
) -> list[tuple[Sequence[float | None], Outcome]]:
    """Fixed-sequence testing: the last step before the first that fails, none if the first does (Bauer 1991; Learn
    then Test, Angelopoulos et al. 2021, arXiv 2110.01052). H₀ of a step: the risk of what it answers is above α.

    A step that answers so little that not even no error would do is passed over, not failed: it depends on how sure
    the judges are and not on whether they are right.
    """
    last: list[tuple[Sequence[float | None], Outcome]] = []
    for thresholds in steps:
        outcome = gold.run(thresholds)
        if outcome.answered < least_n(alpha, delta):
            continue
        if risk_upper_bound(outcome.errors, outcome.answered, delta) > alpha:
            break
        last = [(thresholds, outcome)]
    return last


def _within_budget(n_members: int, gold: _Cascade, max_escalated: float) -> list[float | None]:
    """The strictest common threshold whose share of escalations is within the budget; the laxest, if none is."""
    for level in LEVELS:
        thresholds: list[float | None] = [*[level] * (n_members - 1), 0.0]
        if gold.run(thresholds).asked[-1] <= max_escalated:
            return thresholds
    return [*[0.5] * (n_members - 1), 0.0]


def _why(gold: _Cascade, alpha: float) -> str:
    answered, errors, _ = gold.run([*[None] * (len(gold.confidence) - 1), 0.5])
    return (
        f"the last judge alone answers {answered} of {gold.right.shape[1]} gold comparisons, {errors} of them not as "
        f"people do: that does not show a risk of at most {alpha:.3g}"
    )


def _described(
    members: list[str],
    thresholds: Sequence[float | None],
    outcome: Outcome,
    gold: _Cascade,
    delta: float,
    *,
    promised: bool,
    reason: str = "",
) -> Plan:
    return Plan(
        thresholds=dict(zip(members, thresholds, strict=True)),
        promised=promised,
        n=gold.right.shape[1],
        answered=outcome.answered,
        errors=outcome.errors,
        risk_bound=round(risk_upper_bound(outcome.errors, outcome.answered, delta), 6),
        asked={name: round(share, 6) for name, share in zip(members, outcome.asked, strict=True)},
        reason=reason,
    )
