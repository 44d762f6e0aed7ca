"""Judgments of a rollout → one number for each completion, in [0, 1], or the reason why there is none.

A judge that compares: the mean of P(it is better than the other) over the others that it was compared with, put
together from orders, principles and members as `pair` does; one with the same text is a tie, ½. A listwise judge's is
then the share of the others that it was ranked above. A pointwise judge: the weighted mean of the scores, each on its
scale made [0, 1], and 1 less where a hard criterion fails; of a panel, the mean over its members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import fsum

from rlaif.config import PairSection
from rlaif.records import Judgment
from rlaif.stages import pair
from rlaif.stages.live.groups import Group
from rlaif.stages.pairing.scores import Scored
from rlaif.stages.pairing.standards import Standards
from rlaif.stages.pairing.votes import Ids, ids_of
from rlaif.stages.selectors import Comparison

Found = float | str  # a score, or why there is none
_LEAST_SHARE = 0.5  # of a completion's comparisons must have a verdict
ALONE, NO_OPPONENT, NOTHING_APPLIES = "alone", "no_opponent", "no_principle_applies"


def compared(
    groups: Sequence[Group],
    judgments: Sequence[Judgment],
    section: PairSection,
    standards: Standards,
    *,
    fill: bool = False,
) -> dict[int, Found]:
    """Place → score, by a judge that compares. `fill`: those that did not meet are compared by a Bradley–Terry model
    of those that did (a tournament, whose opponents are not alike). Errors: as `pair.comparisons`."""
    results = pair.comparisons(judgments, section, standards=standards).results
    scores: dict[int, Found] = {}
    for group in groups:
        met = dict(results.get(group.prompt.id, {}))
        if fill:
            met |= _inferred(group, met)
        scores |= {place: _mean_win(group, place, met) for place in group.written}
    return scores


def pointwise(
    groups: Sequence[Group], judgments: Sequence[Judgment], section: PairSection, standards: Standards
) -> dict[int, Found]:
    """Place → score, by a judge of single responses. Errors: ConfigError, DataError."""
    weighed = standards.weighed({}, section.principle_weights)
    by_prompt: dict[str, list[Judgment]] = {}
    for judgment in judgments:
        by_prompt.setdefault(judgment.prompt_id, []).append(judgment)
    scores: dict[int, Found] = {}
    for group in groups:
        own = by_prompt.get(group.prompt.id, [])
        scored = Scored()
        for judgment in own:
            scored.add(judgment)
        why = _failures(own)
        for place, response in group.written.items():
            values = [scored.value(member, response.id, weighed) for member in scored.members()]
            usable = [value for value in values if value is not None]
            if values and len(usable) == len(values):
                scores[place] = fsum(usable) / len(usable)
            else:
                scores[place] = why.get(response.id, "not_judged") if values else NOTHING_APPLIES
    return scores


def _failures(judgments: Sequence[Judgment]) -> dict[str, str]:
    """Response id → what the first judgment without a verdict says of itself."""
    found: dict[str, str] = {}
    for row in judgments:
        if row.status != "ok" and not row.superseded:
            for response_id in row.response_ids:
                found.setdefault(response_id, f"judgment_{row.status}")
    return found


def _mean_win(group: Group, place: int, met: Mapping[Ids, Comparison | str]) -> Found:
    own = group.written[place].id
    asked = got = total = 0.0
    reasons: Counter[str] = Counter()
    for other, weight in _others(group, place).items():
        if other == own:
            asked, got, total = asked + weight, got + weight, total + weight / 2
            continue
        result = met.get(ids_of(own, other))
        if result is None:
            continue
        asked += weight
        if isinstance(result, str):
            reasons[result] += 1
        else:
            ahead = result.difference if result.first_id == own else -result.difference
            got, total = got + weight, total + weight * (1 + ahead) / 2
    if got and got >= _LEAST_SHARE * asked:
        return total / got
    if reasons:
        return reasons.most_common(1)[0][0]
    if not _others(group, place):
        return ALONE if group.opponents is None else NO_OPPONENT
    return NOTHING_APPLIES


def _others(group: Group, place: int) -> Counter[str]:
    """Response id → how many times it stands against the completion at `place`."""
    if group.opponents is not None:
        return Counter(response.id for response in group.opponents)
    return Counter(response.id for at, response in group.written.items() if at != place)


def _inferred(group: Group, met: Mapping[Ids, Comparison | str]) -> dict[Ids, Comparison]:
    from rlaif.metrics.ranking import bradley_terry

    usable = [found for found in met.values() if not isinstance(found, str)]
    number = {response.id: at for at, response in enumerate(group.distinct)}
    if len(usable) < len(number) - 1:
        return {}
    model = bradley_terry(
        [number[c.first_id] for c in usable],
        [number[c.second_id] for c in usable],
        [min(1.0, max(0.0, (1 + c.difference) / 2)) for c in usable],
        len(number),
    )
    names = sorted(number)
    return {
        (a, b): Comparison(
            prompt_id=group.prompt.id,
            first_id=a,
            second_id=b,
            difference=model.difference(number[a], number[b]),
            judgment_ids=[],
        )
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if (a, b) not in met
    }
