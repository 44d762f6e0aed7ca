"""Members of a panel → one comparison, and what the panel is worth.

A member's opinion of a pair is settled before (orders, then principles). Here the members meet, under `pair.panel`:
mean, majority, weighted by accuracy on gold, or Dawid–Skene anchored on gold (see `rlaif.metrics.panel`). A member
that gold shows to be below chance has weight 0 under each of them. One judge alone is a panel of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum, tanh
from typing import Any

import numpy as np

from rlaif.config import PairSection
from rlaif.errors import ConfigError, DataError
from rlaif.metrics.panel import (
    BELOW_CHANCE,
    Standing,
    correlations_of,
    dawid_skene,
    effective_number,
    moments,
    pool_weights,
    right_on,
)
from rlaif.metrics.rates import Floats
from rlaif.stages.pairing.gold import GoldLabels
from rlaif.stages.pairing.orders import Opinion, consistent, sign, weighed
from rlaif.stages.pairing.votes import Ids
from rlaif.stages.selectors import Comparison

Opinions = dict[str | None, Opinion]  # of one pair, by member
Pair = tuple[str, Ids]  # prompt id, response ids
# the most telling reason first
_WHY = ("orders_disagree", "one_order_failed", "not_judged", "zero_weight", "no_usable_judgment")


@dataclass(frozen=True)
class Panel:
    """How the members' opinions become one. `figures`: for the manifest; {} where there is no panel."""

    policy: str
    weights: Mapping[str, float] = field(default_factory=dict)
    log_odds: Mapping[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)

    def combine(self, pair: Pair, found: Mapping[str | None, Opinion | str]) -> Comparison | str:
        """The comparison, or the reason why there is none."""
        if pair[1][0] == pair[1][1]:
            return "same_response"
        opinions = {member: said for member, said in found.items() if isinstance(said, Opinion)}
        if not opinions:
            reasons = set(found.values()) | {"no_usable_judgment"}
            return next(reason for reason in _WHY if reason in reasons)
        weights = {member: self.weights.get(member or "", 1.0) for member in opinions}
        counted = {member: said for member, said in opinions.items() if weights[member] > 0}
        if not counted:
            return "zero_weight"
        orders = {member: said.orders for member, said in counted.items() if said.orders is not None}
        first, second = ({member: shown[i] for member, shown in orders.items()} for i in (0, 1))
        both = (weighed(first, weights), weighed(second, weights)) if orders else None
        prompt_id, (first_id, second_id) = pair
        return Comparison(
            prompt_id=prompt_id,
            first_id=first_id,
            second_id=second_id,
            difference=self._difference(counted, weights),
            judgment_ids=[i for said in counted.values() for i in said.judgment_ids],
            by_principle=_by_principle(counted, weights),
            consistent=consistent(both),
            margin=_margin(counted, weights),
        )

    def _difference(self, opinions: Opinions, weights: Mapping[str | None, float]) -> float:
        differences = {member: said.difference for member, said in opinions.items()}
        if self.policy == "majority":
            return sum(map(sign, differences.values())) / len(differences)
        if self.policy == "dawid_skene":
            return tanh(fsum(self.log_odds.get(member or "", 0.0) * sign(d) for member, d in differences.items()) / 2)
        return weighed(differences, weights)


def assemble(
    said: Mapping[Pair, Mapping[str | None, Opinion | str]], section: PairSection, gold: GoldLabels | None
) -> Panel:
    """The panel of all that was `said`. Errors: ConfigError, DataError."""
    table = {pair: {m: o for m, o in found.items() if isinstance(o, Opinion)} for pair, found in said.items()}
    members = sorted({name for opinions in table.values() for name in opinions if name is not None})
    if not members:
        if gold is not None:  # also where the policy needs it
            raise ConfigError("pair.panel_gold: no usable judgment names a member of a panel")
        return Panel(section.panel)
    if gold is None and all(len(opinions) < 2 for opinions in table.values()):
        return Panel(section.panel)  # members that took turns, as in a cascade, and never met
    pairs = sorted(pair for pair, opinions in table.items() if any(name is not None for name in opinions))
    votes = _votes(table, pairs, members)
    standings = _standings(members, votes, pairs, gold) if gold is not None else None
    weights, log_odds = _weights(section.panel, members, votes, pairs, standings, gold)
    if not any(weights.values()):
        counts = ", ".join(f"{name} {found.correct:g}/{found.n}" for name, found in (standings or {}).items())
        raise DataError(f"pair.panel: no member is better than chance on gold: {counts}")
    figures = {
        "policy": section.panel,
        "pairs": len(pairs),
        **_effective(votes, members, standings),
        "members": {
            name: {"weight": round(weights[name], 6), "judged": int((~np.isnan(row)).sum())}
            | (standings[name].as_dict() if standings else {})
            for name, row in zip(members, votes, strict=True)
        },
        "flagged": {name: found.flag for name, found in (standings or {}).items() if found.flag},
    }
    return Panel(section.panel, weights, log_odds, figures)


def _votes(table: Mapping[Pair, Opinions], pairs: list[Pair], members: list[str]) -> Floats:
    """(M, N) verdicts; pairs sorted, so that the order of the judgments cannot reach a last bit."""
    found = np.full((len(members), len(pairs)), np.nan)
    row = {name: i for i, name in enumerate(members)}
    for column, pair in enumerate(pairs):
        for name, said in table[pair].items():
            if name is not None:
                found[row[name], column] = sign(said.difference)
    return found


def _standings(members: list[str], votes: Floats, pairs: list[Pair], gold: GoldLabels) -> dict[str, Standing]:
    if gold.counts is not None:
        missing = [name for name in members if name not in gold.counts]
        if missing:
            known = ", ".join(sorted(gold.counts)) or "nobody"
            raise ConfigError(f"pair.panel_gold: {gold.path}: nothing about member {missing[0]!r}; it has: {known}")
        return {name: Standing.of(*gold.counts[name]) for name in members}
    columns = [i for i, pair in enumerate(pairs) if pair in gold.winners]
    if not columns:
        raise DataError(
            f"pair.panel_gold: {gold.path}: it has {len(gold.winners):,} pairs with a winner, and none of them was "
            "judged in this run"
        )
    truth = [gold.winners[pairs[i]] for i in columns]
    counts = right_on(votes[:, columns], truth)
    return {name: Standing.of(*found) for name, found in zip(members, counts, strict=True)}


def _weights(
    policy: str,
    members: list[str],
    votes: Floats,
    pairs: list[Pair],
    standings: Mapping[str, Standing] | None,
    gold: GoldLabels | None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Member → weight, and member → log-odds of one vote (Dawid–Skene only)."""
    if standings is None or gold is None:
        return dict.fromkeys(members, 1.0), {}
    able = {name: float(found.flag != BELOW_CHANCE) for name, found in standings.items()}
    if policy in ("mean", "majority"):
        return able, {}
    moment = moments(votes)
    if policy == "weighted":
        accuracy = [standings[name].accuracy for name in members]
        found, _ = pool_weights(accuracy, moment, (~np.isnan(votes)).mean(axis=1))
        return dict(zip(members, found.tolist(), strict=True)), {}
    anchored = [pair in gold.winners for pair in pairs]
    counts = [(standings[name].correct, standings[name].n) for name in members]
    log_odds = dict(zip(members, dawid_skene(votes, counts, anchored, moment).weights.tolist(), strict=True))
    return log_odds, log_odds


def _effective(votes: Floats, members: list[str], standings: Mapping[str, Standing] | None) -> dict[str, Any]:
    accuracy = [standings[name].accuracy for name in members] if standings else None
    found = effective_number(correlations_of(votes, accuracy))
    return {
        "n_effective": None if found is None else round(found, 3),
        "n_effective_of": ("verdicts", "errors")[standings is not None],
    }


def _by_principle(opinions: Opinions, weights: Mapping[str | None, float]) -> dict[str, float]:
    found: dict[str, dict[str | None, float]] = {}
    for member, said in opinions.items():
        for principle, d in said.by_principle.items():
            if principle is not None:
                found.setdefault(principle, {})[member] = d
    return {principle: weighed(differences, weights) for principle, differences in found.items()}


def _margin(opinions: Opinions, weights: Mapping[str | None, float]) -> float | None:
    margins = {member: said.margin for member, said in opinions.items() if said.margin is not None}
    return weighed(margins, weights) if len(margins) == len(opinions) else None
