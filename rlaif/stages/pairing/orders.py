"""One member's opinion of one pair: orders first, under an order policy, then principles with their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from rlaif.stages.pairing.standards import Standards
from rlaif.stages.pairing.votes import Meeting, Said
from rlaif.stages.selectors import ROUNDING


@dataclass(frozen=True)
class Opinion:
    """`difference`: d over principles. `by_principle`: d of each. `orders`: d of each shown order alone, over the
    principles that have both. `margin`: in the judge's own unit, None where it is that of `difference`."""

    difference: float
    by_principle: dict[str | None, float]
    orders: tuple[float, float] | None
    margin: float | None
    judgment_ids: tuple[str, ...]


def opinion(meeting: Meeting, member: str | None, policy: str, standards: Standards) -> Opinion | str:
    """What the member says of the pair, or the reason why it says nothing that is sound."""
    said = {principle: found for (name, principle), found in meeting.said.items() if name == member and found.votes}
    if not said:
        return "not_judged" if member in meeting.unshared else "no_usable_judgment"
    said = {principle: found for principle, found in said.items() if not found.one_order_failed}
    if not said:
        return "one_order_failed"
    settled = {principle: POLICIES[policy](looks_of(found)) for principle, found in said.items()}
    by_principle = {principle: d for principle, d in settled.items() if d is not None}
    if not by_principle:
        return "orders_disagree"
    used = {principle: said[principle] for principle in by_principle}
    weights = {principle: standards.weight(found.ref, principle) for principle, found in used.items()}
    if fsum(weights.values()) <= 0:
        return "zero_weight"
    gate = meeting.gates.get(member)
    return Opinion(
        difference=weighed(by_principle, weights) if gate is None else gate,
        by_principle=by_principle,
        orders=_orders(used, weights),
        margin=_margin(used, weights) if gate is None else None,
        judgment_ids=tuple(dict.fromkeys(i for found in used.values() for i in _ids(found))),
    )


def weighed(values: Mapping[str | None, float], weights: Mapping[str | None, float]) -> float:
    """Weighted mean."""
    return fsum(weights[name] * value for name, value in values.items()) / fsum(weights[name] for name in values)


def looks_of(said: Said) -> list[float]:
    """d of each look, the mean over its votes (several samples of one order count as one)."""
    looks: dict[int | str | None, list[float]] = {}
    for vote in said.votes:
        looks.setdefault(vote.look, []).append(vote.difference)
    return [mean(values) for values in looks.values()]


def mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


# -- order policies: the looks' differences → d, or None where the policy gives no label -----------------------------


def sign(difference: float) -> int:
    """The verdict: 1 for a, −1 for b, 0 for a tie."""
    return 0 if abs(difference) <= ROUNDING else 1 if difference > 0 else -1


def _vote(looks: Sequence[float]) -> float:
    """The verdict that all looks share, else a tie."""
    verdicts = {sign(look) for look in looks}
    return float(verdicts.pop()) if len(verdicts) == 1 else 0.0


def _net(looks: Sequence[float]) -> float:
    """(verdicts for a − verdicts for b) / looks."""
    return sum(sign(look) for look in looks) / len(looks)


def _agree(looks: Sequence[float]) -> float | None:
    """The mean where all looks share one verdict, else nothing."""
    return mean(looks) if len({sign(look) for look in looks}) == 1 else None


POLICIES: dict[str, Callable[[Sequence[float]], float | None]] = {
    "average": mean,
    "vote": _vote,
    "net": _net,
    "agree": _agree,
}


# -- what else is told of a pair -------------------------------------------------------------------------------------


def _orders(used: Mapping[str | None, Said], weights: Mapping[str | None, float]) -> tuple[float, float] | None:
    per_order: tuple[dict[str | None, float], dict[str | None, float]] = ({}, {})
    for principle, said in used.items():
        shown = [[vote.difference for vote in said.votes if vote.order == order] for order in (0, 1)]
        if all(shown) and weights[principle] > 0:
            for found, differences in zip(per_order, shown, strict=True):
                found[principle] = mean(differences)
    if not per_order[0]:
        return None
    return weighed(per_order[0], weights), weighed(per_order[1], weights)


def consistent(orders: tuple[float, float] | None) -> bool | None:
    """Whether each shown order alone names the same winner; None where neither names one or one order was asked.

    Orders that contradict each other exactly cancel to a tie, and are inconsistent all the same.
    """
    if orders is None or not any(map(sign, orders)):
        return None
    return sign(orders[0]) == sign(orders[1])


def _margin(used: Mapping[str | None, Said], weights: Mapping[str | None, float]) -> float | None:
    """Difference of the weighted mean scores; None where not all of it comes from scores."""
    margins = {principle: said.margin for principle, said in used.items() if said.margin is not None}
    return weighed(margins, weights) if len(margins) == len(used) else None


def _ids(said: Said) -> Iterable[str]:
    """In the order (a, b) first, as read within each."""
    return (i for vote in sorted(said.votes, key=lambda vote: vote.order or 0) for i in vote.judgment_ids)
