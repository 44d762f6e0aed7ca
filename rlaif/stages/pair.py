"""Judgments → preferences: orders averaged before any threshold, in the order of the prompts, with no randomness.

Everything is computed on the difference d = P(a better) − P(b better) in [−1, 1], where a and b are the two responses
sorted by id. A tie adds nothing to it, and mirroring a judgment changes its sign and no bit more. Then, for one pair
and each judge (a member of a panel, or the only one):

1. per principle or criterion: what the shown orders give together, under `pair.order_policy`. Averaged (the default),
   the position bias of a judge adds the same amount with opposite signs to the two orders, so it cancels;
2. over principles: the mean weighted by the rubric or constitution; a hard criterion that one side fails decides
   alone.

Then over the members of a panel, under `pair.panel`; and probability = (1 + |d|) / 2 that the better one is better.

A judgment that is not "ok" counts for nothing. Where both orders were asked (`meta["orders"] == "both"`) and one of
them failed, that principle is left out: one order alone carries the position bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from rlaif.config import PairSection
from rlaif.errors import DataError
from rlaif.records import Dropped, Judgment, Preference, Response, make_id
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.calibration.applying import LabelMap, label_map
from rlaif.stages.pairing.filters import Traits, above_quantiles, traits_of, unfit
from rlaif.stages.pairing.gold import load_gold
from rlaif.stages.pairing.orders import Opinion, opinion
from rlaif.stages.pairing.panels import assemble
from rlaif.stages.pairing.standards import Standards
from rlaif.stages.pairing.votes import Ids, ids_of, meetings_of, members_of, principles_in
from rlaif.stages.selectors import ROUNDING, Comparison, selector

STAGE = "pair"
Results = dict[str, dict[Ids, Comparison | str]]  # prompt id → the pair's ids, sorted → comparison, or why not


class Comparisons(NamedTuple):
    """What became of every pair that was judged. `panel`: figures for the manifest, {} for one judge alone."""

    results: Results
    panel: dict[str, Any]


def pair(
    judgments: Iterable[Judgment],
    section: PairSection,
    weights: Mapping[str, float] | None = None,
    standards: Standards | None = None,
    responses: Iterable[Response] | None = None,
) -> tuple[list[Preference], list[Dropped]]:
    """Preferences, and the pairs that gave none, with the reason (docs/formats.md lists them).

    `standards`: of what judged, for weights, scales and hard criteria; `weights`: principle id → weight, where they
    say nothing; `section.principle_weights` goes before both; else 1. `responses`: for rules about their lengths or
    likelihood.
    What a selector leaves out is not dropped: it was never to become a preference.
    Errors: DataError (a judgment contradicts itself), ConfigError (selector, weights, panel).
    """
    selector(section)  # a wrong name is said before the work
    traits = {row.id: traits_of(row) for row in responses or ()}
    return _selected(comparisons(judgments, section, weights, standards).results, section, traits)


def compared(
    judgments: Iterable[Judgment],
    section: PairSection,
    weights: Mapping[str, float] | None = None,
    standards: Standards | None = None,
) -> Iterator[tuple[str, dict[Ids, Comparison | str]]]:
    """Prompt by prompt, what became of each pair (its two ids, sorted): a comparison, or why there is none.

    Arguments and errors as for `pair`.
    """
    yield from comparisons(judgments, section, weights, standards).results.items()


def comparisons(
    judgments: Iterable[Judgment],
    section: PairSection,
    weights: Mapping[str, float] | None = None,
    standards: Standards | None = None,
) -> Comparisons:
    """The same, all at once: what a panel's members weigh depends on all that they said."""
    weighed = (standards or Standards()).weighed(weights or {}, section.principle_weights)
    gold = load_gold(section.panel_gold) if section.panel_gold else None
    meetings = meetings_of(judgments, weighed)
    weighed.check(principles_in(meetings))
    said: dict[tuple[str, Ids], dict[str | None, Opinion | str]] = {}
    for prompt_id, pairs in meetings.items():
        for ids, meeting in pairs.items():
            members = members_of(meeting) if ids[0] != ids[1] else []
            said[prompt_id, ids] = {m: opinion(meeting, m, section.order_policy, weighed) for m in members}
    panel = assemble(said, section, gold)
    results: Results = {prompt_id: {} for prompt_id in meetings}
    for (prompt_id, ids), found in said.items():
        results[prompt_id][ids] = panel.combine((prompt_id, ids), found)
    n_ties = sum(_is_tie(c) for pairs in results.values() for c in pairs.values())
    return Comparisons(results, panel.figures | {"ties": n_ties} if panel.figures else {})


def run(context: Context) -> dict[str, Any]:
    """The stage: judgments.jsonl → preferences.jsonl. Returns counts.

    Errors: DataError when a judgment names a response of another prompt, or one that is not in responses.jsonl.
    """
    config, folder = context.config, context.folder
    section = config.pair or PairSection()
    traits = {response.id: traits_of(response) for response in folder.read("responses", Response)}
    n_judgments = 0

    def checked() -> Iterator[Judgment]:
        nonlocal n_judgments
        for judgment in folder.read("judgments", Judgment):
            _check_ids(judgment, traits)
            n_judgments += 1
            yield judgment

    selector(section)
    found = comparisons(checked(), section, standards=Standards.of(config.judge))
    mapping = label_map(section, folder)
    preferences, dropped = _selected(found.results, section, traits, mapping)
    folder.write("preferences", preferences)
    folder.drop(STAGE, dropped)
    met = {pair_id(prompt_id, *ids) for prompt_id, pairs in found.results.items() for ids in pairs}
    return {
        "judgments": n_judgments,
        "comparisons": len(met),
        "preferences": len(preferences),
        "not_selected": len(met - {row.id for row in preferences} - {row.id for row in dropped}),
        "dropped": count_reasons(dropped),
        **({"panel": found.panel} if found.panel else {}),
        **({"calibration": mapping.provenance} if mapping else {}),
    }


def _check_ids(judgment: Judgment, traits: Mapping[str, Traits]) -> None:
    for response_id in judgment.response_ids:
        prompt_id = traits[response_id].prompt_id if response_id in traits else None
        if prompt_id != judgment.prompt_id:
            whose = f"belongs to prompt {prompt_id}" if prompt_id else "is not in the responses"
            raise DataError(
                f"judgment {judgment.id} of prompt {judgment.prompt_id}: its response {response_id} {whose}"
            )


def _selected(
    results: Results, section: PairSection, traits: Mapping[str, Traits], mapping: LabelMap | None = None
) -> tuple[list[Preference], list[Dropped]]:
    select = selector(section)
    preferences: list[Preference] = []
    dropped: list[Dropped] = []
    for prompt_id, pairs in results.items():
        usable = [_measured(result, traits) for result in pairs.values() if not isinstance(result, str)]
        failed = {ids: reason for ids, reason in pairs.items() if isinstance(reason, str)}
        dropped.extend(_drop(prompt_id, ids, reason) for ids, reason in failed.items())
        for chosen in select(usable) if usable else ():
            ids = ids_of(chosen.first_id, chosen.second_id)
            if ids in failed:  # a selector may infer a pair that did not meet, never one whose judgments failed
                continue
            chosen = mapping(chosen) if mapping else chosen
            reason = chosen.drop or unfit(chosen, section)
            if reason:
                dropped.append(_drop(prompt_id, ids, reason))
            else:
                preferences.append(_preference(chosen))
    kept, fallen = above_quantiles(preferences, section, traits)
    dropped.extend(_drop(p.prompt_id, _sorted_ids(p), reason) for p, reason in fallen)
    return kept, dropped


def _measured(c: Comparison, traits: Mapping[str, Traits]) -> Comparison:
    """With the lengths of its responses, where they are known."""
    first, second = traits.get(c.first_id), traits.get(c.second_id)
    if first is None or second is None:
        return c
    return msgspec.structs.replace(c, first_length=first.length, second_length=second.length)


def _sorted_ids(preference: Preference) -> Ids:
    return ids_of(preference.chosen_id, preference.rejected_id)


def _is_tie(found: Comparison | str) -> bool:
    return not isinstance(found, str) and abs(found.difference) < ROUNDING


def _preference(c: Comparison) -> Preference:
    first_wins = c.difference > 0
    certainty = min(1.0, abs(c.difference))
    sign = 1 if first_wins else -1
    return Preference(
        id=pair_id(c.prompt_id, c.first_id, c.second_id),
        prompt_id=c.prompt_id,
        chosen_id=c.first_id if first_wins else c.second_id,
        rejected_id=c.second_id if first_wins else c.first_id,
        probability=(1 + certainty) / 2,
        judge_margin=certainty if c.margin is None else max(0.0, sign * c.margin),
        judgment_ids=c.judgment_ids,
        by_principle={principle: (1 + sign * d) / 2 for principle, d in c.by_principle.items()},
        consistent=c.consistent,
    )


def pair_id(prompt_id: str, *response_ids: str) -> str:
    """A preference's id: the same whoever won."""
    return make_id(prompt_id, *sorted(response_ids))


def _drop(prompt_id: str, ids: Ids, reason: str) -> Dropped:
    detail = f"prompt {prompt_id}: {ids[0]}, {ids[1]}"
    return Dropped(stage=STAGE, reason=reason, id=pair_id(prompt_id, *ids), detail=detail)
