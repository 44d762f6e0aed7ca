"""Judges × order policies: accuracy against what a label costs, and which to choose.

A row's accuracy is over the pairs with a winner that the judge has a verdict for; a tie, and a pair of which the
policy says nothing, is ½. (`right_labels` is over the labels that are left.) Two rows are compared on the pairs that
both have, prompt by prompt. Chosen is the cheapest row whose accuracy is not below the best one's: the interval of
the paired difference reaches 0. With little gold that says little: the reason names how much could be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlaif import metrics
from rlaif.stages.calibration.figures import DIGITS, Figures, Json, plain
from rlaif.stages.calibration.views import ONE_ORDER, Floats, View, correct

CHANCE = 0.5
FIRST_POLICY = "average"


class Row(NamedTuple):
    """`right`: (N,) of gold's pairs: 1, ½ or 0, NaN where the judge has no verdict or people name no winner. Costs
    are of one label; `money` is None without prices.
    """

    judge: str
    policy: str
    kind: str
    right: Floats
    accuracy: metrics.Estimate | None
    right_labels: metrics.Estimate | None
    labels: int  # pairs that get a label: a verdict, and no tie
    pairs: int
    calls: float
    tokens: float
    money: float | None

    @property
    def name(self) -> str:
        return f"{self.judge} ({self.policy})"


def rows_of(views: Sequence[View], figures: Figures) -> list[Row]:
    """One row for each judge and order policy; `random_one` is what one order alone, picked at random, would give."""
    found = []
    for view in views:
        judged = ~np.isnan(view.policies[FIRST_POLICY])
        several = view.asks_both
        for policy, p in view.policies.items():
            if several or policy == FIRST_POLICY:  # without two orders every policy is the same
                found.append(_row(view, policy, [np.where(judged & np.isnan(p), 0.5, p)], 1.0, figures))
        if several:
            found.append(_row(view, ONE_ORDER, list(view.shown), 0.5, figures))
    return found


def _row(view: View, policy: str, looks: Sequence[Floats], share: float, figures: Figures) -> Row:
    """`looks`: the probabilities that a label may be made of, each as likely; `share`: of the judge's cost."""
    right = np.stack([correct(p, figures.truth) for p in looks])
    decided = np.stack([~np.isnan(p) & (metrics.outcomes(p) != 0.5) for p in looks])
    labels = float(decided.sum()) / len(looks)
    each = share / labels if labels else 0.0
    cost = view.cost
    of_labels = np.where(decided, right, np.nan).ravel()
    right = right.mean(axis=0)
    return Row(
        judge=view.name,
        policy=policy,
        kind=view.kind,
        right=right,
        accuracy=metrics.proportion(right, figures.clusters, figures.rng),
        right_labels=metrics.proportion(of_labels, np.tile(figures.clusters, len(looks)), figures.rng),
        labels=round(labels),
        pairs=right.size,
        calls=cost.calls * each,
        tokens=cost.tokens * each,
        money=None if cost.money is None else cost.money * each,
    )


def choose(rows: Sequence[Row], figures: Figures) -> Json:
    """{"judge", "policy", "reason", "by"}; judge and policy are null where none is better than chance."""
    able = [row for row in rows if row.accuracy is not None and (row.accuracy.low or 0.0) > CHANCE and row.labels]
    unit, price = _unit(rows)
    if not able:
        return {"judge": None, "policy": None, "by": unit, "reason": "no judge is better than chance with confidence"}
    best = min(able, key=lambda row: (-_value(row), price(row)))
    good = [row for row in able if row is best or _not_below(difference(best, row, figures))]
    chosen = min(good, key=lambda row: (price(row), -_value(row)))
    gap = difference(best, chosen, figures)
    reason = _reason(chosen, best, good, gap, "{:,.4g}" if unit == "money" else f"{{:,.4g}} {unit}", price)
    return {"judge": chosen.judge, "policy": chosen.policy, "by": unit, "reason": reason}


def difference(best: Row, other: Row, figures: Figures) -> metrics.Estimate | None:
    """Accuracy of `other` minus that of `best`, over the pairs that both have a verdict for."""
    return metrics.paired_difference(best.right, other.right, figures.clusters, figures.rng)


def _not_below(gap: metrics.Estimate | None) -> bool:
    return gap is not None and (gap.value >= 0 or (gap.high is not None and gap.high >= 0))


def _unit(rows: Sequence[Row]) -> tuple[str, Any]:
    """What a label's cost is counted in: money where engines have prices, else tokens, else calls."""
    if all(row.money is not None for row in rows) and any(row.money for row in rows):
        return "money", lambda row: row.money
    return ("tokens", lambda row: row.tokens) if any(row.tokens for row in rows) else ("calls", lambda row: row.calls)


def _value(row: Row) -> float:
    return row.accuracy.value if row.accuracy else 0.0


def _reason(chosen: Row, best: Row, good: Sequence[Row], gap: metrics.Estimate | None, cost: str, price: Any) -> str:
    if chosen is best:
        others = f"; not below it and dearer: {', '.join(row.name for row in good if row is not best)}"
        others = others if len(good) > 1 else ""
        return f"the most accurate, {_value(best):.3f}, at {cost.format(price(best))} a label{others}"
    lost = f", at most {-gap.low:.3f} less" if gap is not None and gap.low is not None and gap.low < 0 else ""
    return (
        f"the cheapest of {len(good)} whose accuracy is not below the best one's: {_value(chosen):.3f} at "
        f"{cost.format(price(chosen))} a label, against {_value(best):.3f} at {price(best):,.4g} ({best.name}){lost} "
        "with 95 % confidence"
    )


def table(rows: Sequence[Row], figures: Figures) -> list[Json]:
    """The comparison for calibration.json, the most accurate first."""
    ranked = sorted(rows, key=lambda row: (-_value(row), row.name))
    found = []
    for row in ranked:
        costs = {"calls": row.calls, "tokens": row.tokens, "money": row.money}
        found.append(
            {
                "judge": row.judge,
                "kind": row.kind,
                "policy": row.policy,
                "accuracy": plain(row.accuracy),
                "right_labels": plain(row.right_labels),
                "to_best": plain(difference(ranked[0], row, figures)),
                "labels": row.labels,
                "pairs": row.pairs,
                "per_label": {name: None if cost is None else round(cost, DIGITS) for name, cost in costs.items()},
            }
        )
    return found
