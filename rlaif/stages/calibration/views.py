"""What one judge said of gold, aggregated exactly as labels are: everything goes through `stages.pair.compared`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Any

import msgspec
import numpy as np

from rlaif import metrics
from rlaif.config import JudgeSection, PairSection, Price
from rlaif.judges import find_standard
from rlaif.records import Judgment
from rlaif.stages import pair as pairing
from rlaif.stages.calibration.gold import Pair
from rlaif.stages.pairing.orders import POLICIES
from rlaif.stages.pairing.standards import Standards

Floats = metrics.Floats
ONE_ORDER = "random_one"
_NOT_JUDGED = "not_judged"


@dataclass(frozen=True)
class Cost:
    """What the labels of gold take to make, whether or not their replies were in the journal already. `money`: in the
    unit of the engines' prices, None without prices.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    money: float | None

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass
class View:
    """One judge's answers about gold's pairs, in their order. NaN: no usable judgment.

    `p`: P(a better) as labels are made (`pair` of the config, both orders where the judge asks both). `shown`:
    (2, N) the same from the judgments that showed a first, and from those that showed b first; all NaN for judges
    that do not compare two. `policies`: order policy → P(a better) under it.
    """

    name: str
    section: JudgeSection  # as the config has it
    kind: str
    p: Floats
    shown: Floats
    policies: dict[str, Floats]
    unusable: dict[str, int]  # reason → pairs
    statuses: dict[str, int]  # of the judgments
    cost: Cost
    judgments: dict[str, list[Judgment]]  # pair id → those about both of its responses
    all: list[Judgment] = field(repr=False, default_factory=list)

    @property
    def asks_both(self) -> bool:
        return bool((~np.isnan(self.shown)).all(axis=0).any())


def view(
    name: str,
    section: JudgeSection,
    judgments: Sequence[Judgment],
    pairs: Sequence[Pair],
    pair_section: PairSection,
    prices: Mapping[str, Price],
) -> View:
    """`judgments`: one judge's, of all of gold. Errors: as `stages.pair.compared`."""
    fold = _Fold(section, pair_section, pairs)
    p, unusable = fold.probabilities(judgments)
    by_pair: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        if len(judgment.response_ids) == 2:
            by_pair.setdefault(pairing.pair_id(judgment.prompt_id, *judgment.response_ids), []).append(judgment)
    return View(
        name=name,
        section=section,
        kind=next((judgment.kind for judgment in judgments), ""),
        p=p,
        shown=np.stack([fold.probabilities(_one_order(judgments, pairs, first))[0] for first in (True, False)]),
        policies={policy: fold.probabilities(judgments, policy)[0] for policy in policies()},
        unusable=unusable,
        statuses=dict(sorted(Counter(judgment.status for judgment in judgments).items())),
        cost=cost_of(judgments, prices),
        judgments=by_pair,
        all=list(judgments),
    )


def policies() -> tuple[str, ...]:
    """The order policies of the pair stage."""
    return tuple(POLICIES)


class _Fold:
    """The pair stage's aggregation, told from gold's side."""

    def __init__(self, section: JudgeSection, pair_section: PairSection, pairs: Sequence[Pair]) -> None:
        self.standards = Standards.of(section)
        self.section = pair_section
        self.pairs = pairs

    def probabilities(
        self, judgments: Iterable[Judgment], policy: str | None = None
    ) -> tuple[Floats, dict[str, int]]:
        """(N,) P(a better), and why the others have none. `policy`: instead of the pair section's own."""
        section = self.section.model_copy(update={"order_policy": policy}) if policy else self.section
        said = {
            (prompt_id, ids): result
            for prompt_id, results in pairing.compared(judgments, section, standards=self.standards)
            for ids, result in results.items()
        }
        reasons: Counter[str] = Counter()
        p = np.full(len(self.pairs), nan)
        for index, pair in enumerate(self.pairs):
            ids = (min(pair.a.id, pair.b.id), max(pair.a.id, pair.b.id))
            result = said.get((pair.prompt.id, ids), _NOT_JUDGED)
            if isinstance(result, str):
                reasons[result] += 1
            else:
                lead = result.difference if result.first_id == pair.a.id else -result.difference
                p[index] = (1 + min(1.0, max(-1.0, lead))) / 2
        return p, dict(sorted(reasons.items()))


def _one_order(judgments: Iterable[Judgment], pairs: Sequence[Pair], a_first: bool) -> list[Judgment]:
    """The pairwise judgments that showed a first (or b), as if no other order had been asked."""
    shown = ((pair.prompt.id, pair.a.id, pair.b.id) for pair in pairs)
    wanted = {(prompt_id, a, b) if a_first else (prompt_id, b, a) for prompt_id, a, b in shown}
    return [
        msgspec.structs.replace(judgment, meta={**judgment.meta, "orders": "random"})
        for judgment in judgments
        if judgment.kind == "pairwise" and (judgment.prompt_id, *judgment.response_ids) in wanted
    ]


def cost_of(judgments: Iterable[Judgment], prices: Mapping[str, Price]) -> Cost:
    """Each reply once, also where several judgments were read from it. Failed requests have no reply and no cost."""
    calls: set[str] = set()
    prompt_tokens = completion_tokens = 0
    money = 0.0
    for judgment in judgments:
        new = set(judgment.reply_keys) - calls
        if not new:
            continue
        calls |= new
        prompt_tokens += judgment.usage.prompt_tokens
        completion_tokens += judgment.usage.completion_tokens
        price = prices.get(judgment.judge, Price())
        money += judgment.usage.prompt_tokens * price.prompt + judgment.usage.completion_tokens * price.completion
    priced = any(price.prompt or price.completion for price in prices.values())
    return Cost(len(calls), prompt_tokens, completion_tokens, money / 1e6 if priced else None)


def correct(p: Floats, truth: Floats) -> Floats:
    """(N,) 1: names the better response, ½: names none, 0: the worse one; NaN without a verdict or a winner."""
    found: Floats = np.where(np.isnan(truth), np.nan, 1 - np.abs(metrics.outcomes(p) - truth))
    return found


def provenance(view_: View, identities: Mapping[str, str]) -> dict[str, Any]:
    """What judged: enough to tell whether two calibrations, or a calibration and labels, are of the same judge."""
    judgments = view_.all
    standard = find_standard(view_.section)
    return {
        "kind": view_.kind,
        "judge": view_.section.judge,
        "orders": view_.section.orders,
        "models": sorted({judgment.model for judgment in judgments} - {""}),
        "rubrics": sorted({judgment.rubric for judgment in judgments} - {""}),
        "standard_sha256": _digest(standard),
        "templates": sorted({judgment.template_sha256 for judgment in judgments} - {""}),
        "engines": {role: identities[role] for role in view_.section.roles},
        "section": view_.section.model_dump(mode="json", exclude_defaults=True),
    }


def _digest(standard: Any) -> str | None:
    from rlaif.digests import path_sha256

    return path_sha256(standard.path) or None if standard is not None and standard.path else None
