"""A cascade: the cheap judge first, a stronger one only where it is not sure.

Everything that was asked is returned. Judgments that a later member overruled are `superseded` and count for nothing;
so are those of a comparison that nobody was sure of, where there is a promise to keep. What is promised, and when, is
said in `rlaif/metrics/selective.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges.base import Judge, JudgeRun, Task, lead, planned
from rlaif.judges.section import EngineOf, find_standard
from rlaif.paths import resolve
from rlaif.records import Judgment, Prompt, Request, make_id
from rlaif.rubric import Constitution

if TYPE_CHECKING:
    from rlaif.metrics.selective import CascadePlan, Plan

DOMAIN = "domain"


class Opinion(NamedTuple):
    """What the judgments of one comparison come to: P(a better) of the two ids sorted, None without a verdict.

    `doubt`: why there is no confidence, whatever the probability: "no_verdict" or "orders_disagree".
    """

    probability: float | None
    doubt: str | None

    @property
    def confidence(self) -> float:
        """max(P, 1 − P) after averaging orders; ½ where there is a doubt."""
        return 0.5 if self.probability is None or self.doubt else max(self.probability, 1 - self.probability)


def opinion(judgments: Sequence[Judgment], weights: Mapping[str, float] | None = None) -> Opinion:
    """Of one comparison: per principle and shown order the mean, then the mean of the orders, then over principles.

    A judgment without a verdict is a doubt about the whole: what is missing might have said the opposite.
    """
    votes: dict[str | None, tuple[list[float], list[float]]] = {}
    for judgment in judgments:
        if judgment.superseded:  # within a member that is made of judges itself
            continue
        d = lead(judgment)
        if d is None:
            return Opinion(None, "no_verdict")
        mirrored = judgment.response_ids != sorted(judgment.response_ids)
        votes.setdefault(judgment.principle, ([], []))[mirrored].append(-d if mirrored else d)
    weight = {principle: (weights or {}).get(principle or "", 1.0) for principle in votes}
    total = fsum(weight.values())
    if total <= 0:
        return Opinion(None, "no_verdict")
    in_both = {principle: orders for principle, orders in votes.items() if all(orders)}
    by_order = [fsum(weight[p] * _mean(orders[order]) for p, orders in in_both.items()) for order in (0, 1)]
    d = fsum(weight[p] * _mean([_mean(order) for order in orders if order]) for p, orders in votes.items()) / total
    doubt = "orders_disagree" if by_order[0] * by_order[1] < 0 else None
    return Opinion((1 + d) / 2, doubt)


def for_calibration(judgments: Sequence[Judgment], a_id: str, weights: Mapping[str, float] | None = None) -> float:
    """P(`a_id` better) of one comparison as `metrics.selective.calibrate_cascade` wants it: NaN without a verdict, ½
    where the orders disagree. What is calibrated is what the cascade goes by."""
    if not judgments:
        return float("nan")
    said = opinion(judgments, weights)
    if said.probability is None:
        return float("nan")
    if said.doubt:
        return 0.5
    return said.probability if a_id == min(judgments[0].response_ids) else 1 - said.probability


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


class CascadeJudge:
    """Asks `members`, cheap to strong, until one is sure.

    `plan`: the confidence that each must have, by slice. A member is unsure where a verdict is missing (a reply that
    cannot be read, a refusal, no reply), where the two orders name different winners, and below its threshold. Where
    a plan is promised, a comparison that even the last member is unsure of is withheld: its judgments are superseded,
    `meta["withheld"]` says so. Elsewhere the last member's judgments stand as they are.
    `weights`: member → principle → weight, as `pair` uses them.
    Each judgment says in `meta` whether it is `promised`, or why a later member was asked (`escalated`).
    """

    arity = 2

    @classmethod
    def from_section(cls, section: JudgeSection, engine_of: EngineOf, *, role: str, where: str) -> CascadeJudge:
        """The judge that a config describes. `options`: `threshold`, one for all but the last and without a promise,
        or `thresholds`, a file that `rlaif calibrate` wrote. Errors: ConfigError."""
        from rlaif.judges import build

        if len(section.members) < 2:
            raise ConfigError(f"{where}.members: a cascade has two members or more, cheap first")
        options = dict(section.options)
        members, weights = {}, {}
        for name in section.members:
            member = section.member(name)
            members[name] = build(member, engine_of, where=f"{where}.members.{name}")
            standard = find_standard(member)
            if isinstance(standard, Constitution):
                weights[name] = {principle.id: principle.weight for principle in standard.principles}
        plan = _plan_of(list(members), options.pop("threshold", None), options.pop("thresholds", None), where)
        if options:
            unknown = ", ".join(sorted(options))
            raise ConfigError(f"{where}.options: a cascade takes threshold or thresholds, not {unknown}")
        try:
            return cls(members=members, plan=plan, weights=weights)
        except ConfigError as error:
            raise ConfigError(f"{where}.{error}") from None

    def __init__(
        self,
        *,
        members: Mapping[str, Judge],
        plan: CascadePlan,
        weights: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        wrong = next((name for name, judge in members.items() if judge.arity != 2), None)
        if wrong is not None:
            raise ConfigError(f"members.{wrong}: a cascade needs judges of two responses")
        if list(members) != plan.members:
            raise ConfigError(
                f"members: {', '.join(members)}: the thresholds are for {', '.join(plan.members)}, in that order"
            )
        self.members, self.plan_of, self.weights = members, plan, weights or {}

    def __call__(self, task: Task) -> JudgeRun:
        """The judgments of every member that was asked, in that order."""
        plan = self._slice(task.prompt)
        asked = [(name, threshold) for name, threshold in plan.thresholds.items() if threshold is not None]
        judgments: list[Judgment] = []
        for place, (name, threshold) in enumerate(asked):
            found = yield from self.members[name](task)
            found = [_of_member(judgment, name) for judgment in found]
            if plan.promised:
                self._check_known(name, found)
            if not found:  # no principle applies; another judge may have one that does
                continue
            said = opinion(found, self.weights.get(name))
            is_last = place == len(asked) - 1
            if said.confidence > 0.5 and said.confidence >= threshold:
                return [*judgments, *(_noted(judgment, promised=plan.promised) for judgment in found)]
            if is_last and not plan.promised:
                return [*judgments, *(_noted(judgment, promised=False) for judgment in found)]
            why = said.doubt or "unsure"
            note = {"withheld": why} if is_last else {"escalated": why}
            judgments += [_noted(judgment, superseded=True, **note) for judgment in found]
        return judgments

    def plan(self, task: Task) -> list[Request]:
        """All that the task may ask: every member that the slice's plan names."""
        thresholds = self._slice(task.prompt).thresholds
        asked = [self.members[name] for name, threshold in thresholds.items() if threshold is not None]
        return [request for judge in asked for request in planned(judge, task)]

    def outlook(self) -> list[str]:
        """By slice: from which confidence each answers, how many reached the last on gold, and what is promised."""
        wanted, sure = self.plan_of.agreement, self.plan_of.confidence
        lines = []
        for name, plan in self.plan_of.slices.items():
            asked = ", ".join(f"{who} from {level:g}" for who, level in plan.thresholds.items() if level is not None)
            last = self.plan_of.members[-1]
            share = (
                "not known before, at most all" if not plan.asked else f"typically {plan.asked[last]:.0%}, as on gold"
            )
            promise = (
                f"promised: {wanted:g} agreement at {sure:g}" if plan.promised else f"no promise ({plan.reason})"
            )
            lines.append(f"cascade, slice {name or '(no value)'}: {asked}; asked of {last}: {share}; {promise}")
        return lines

    def _slice(self, prompt: Prompt) -> Plan:
        from rlaif.metrics.selective import EVERYTHING, NO_VALUE

        plans, slice_by = self.plan_of.slices, self.plan_of.slice_by
        if slice_by is None:
            return plans[EVERYTHING]
        value = prompt.domain if slice_by == DOMAIN else prompt.meta.get(slice_by)
        return plans.get(NO_VALUE if value is None else str(value), plans[EVERYTHING])

    def _check_known(self, name: str, judgments: Sequence[Judgment]) -> None:
        """Errors: ConfigError where the promise was made for another judge than the one that gave `judgments`."""
        what = self.plan_of.what.get(name, {})
        for judgment in judgments:
            said = {
                "models": judgment.model,
                "rubrics": judgment.rubric,
                "templates": judgment.template_sha256,
                "orders": judgment.meta.get("orders"),
            }
            for key, known in what.items():
                value = said.get(key)
                if judgment.status == "ok" and value and value not in known:
                    raise ConfigError(
                        f"options.thresholds: member {name!r} was calibrated with {key} {', '.join(known)}, but "
                        f"judgment {judgment.id} is by {value}: run `rlaif calibrate` with this judge"
                    )


def _of_member(judgment: Judgment, name: str) -> Judgment:
    """Two members may ask the same model under the same rubric: the id tells them apart."""
    member = f"{name}/{judgment.member}" if judgment.member else name
    return msgspec.structs.replace(judgment, member=member, id=make_id(name, judgment.id))


def _noted(judgment: Judgment, *, superseded: bool = False, **note: Any) -> Judgment:
    return msgspec.structs.replace(
        judgment, superseded=superseded or judgment.superseded, meta={**judgment.meta, **note}
    )


def _plan_of(members: list[str], threshold: Any, path: Any, where: str) -> CascadePlan:
    """The plan that the options describe. Errors: ConfigError."""
    if (threshold is None) == (path is None):
        raise ConfigError(
            f"{where}.options: a cascade needs threshold (a number from 0.5 to 1) or thresholds (a file that "
            "`rlaif calibrate` wrote), one of them"
        )
    if path is not None:
        return read_plan(path, members, f"{where}.options.thresholds")
    return one_threshold(members, threshold, f"{where}.options.threshold")


def one_threshold(members: Sequence[str], threshold: Any, where: str = "threshold") -> CascadePlan:
    """The same threshold for all but the last, which answers everything; nothing is promised. Errors: ConfigError."""
    from rlaif.metrics.selective import EVERYTHING, CascadePlan, Plan

    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0.5 <= threshold <= 1:
        raise ConfigError(f"{where}: a number from 0.5 to 1, got {threshold!r}")
    levels: dict[str, float | None] = {name: float(threshold) for name in members[:-1]}
    plan = Plan({**levels, members[-1]: 0.0}, promised=False, reason="not calibrated")
    return CascadePlan(list(members), None, None, {EVERYTHING: plan})


def read_plan(path: Any, members: Sequence[str], where: str) -> CascadePlan:
    """The plan in a JSON file. Errors: ConfigError."""
    from rlaif.metrics.selective import EVERYTHING, CascadePlan

    try:
        plan = msgspec.json.decode(resolve(str(path), Path()).read_bytes(), type=CascadePlan)
    except OSError as error:
        raise ConfigError(f"{where}: {path}: cannot read: {error.strerror or error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {path}: not a file of thresholds: {error}") from None
    if plan.version != CascadePlan.version:
        raise ConfigError(f"{where}: {path}: version {plan.version}, this rlaif reads {CascadePlan.version}")
    if plan.members != list(members):
        raise ConfigError(
            f"{where}: {path} is for the members {', '.join(plan.members)}, the config has {', '.join(members)}"
        )
    bad = next((name for name, one in plan.slices.items() if set(one.thresholds) != set(members)), None)
    if bad is not None or EVERYTHING not in plan.slices:
        raise ConfigError(f"{where}: {path}: slice {bad or EVERYTHING!r}: needs a threshold or null for every member")
    return plan
