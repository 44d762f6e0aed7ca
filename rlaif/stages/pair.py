"""Judgments → preferences: orders averaged before any threshold, in the order of the prompts, with no randomness.

Everything is computed on the difference d = P(a better) − P(b better) in [−1, 1], where a and b are the two responses
sorted by id. A tie adds nothing to it, and mirroring a judgment changes its sign and no bit more. Then, for one pair:

1. per principle: the mean of d over the judgments of each shown order, then the mean of the two orders. The position
   bias of a judge adds the same amount with opposite signs to the two orders, so it cancels;
2. over principles: the mean weighted by the constitution;
3. probability = (1 + |d|) / 2 that the better one is better, judge_margin = |d|.

A judgment that is not "ok" counts for nothing. Where both orders were asked (`meta["orders"] == "both"`) and one of
them failed, that principle is left out: one order alone carries the position bias.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from math import fsum
from typing import Any

from rlaif.config import PairSection, Pipeline
from rlaif.errors import ConfigError, DataError
from rlaif.records import FIRST, SECOND, TIE, Dropped, Judgment, Preference, Response, make_id
from rlaif.rubric import load_constitution
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.selectors import ROUNDING, Comparison, selector

STAGE = "pair"
_VERDICTS = {FIRST: 1.0, SECOND: -1.0, TIE: 0.0}


def pair(
    judgments: Iterable[Judgment], section: PairSection, weights: Mapping[str, float] | None = None
) -> tuple[list[Preference], list[Dropped]]:
    """Preferences, and the pairs that gave none: no_usable_judgment, one_order_failed, same_response, zero_weight,
    tie, below_margin, contradiction.

    `weights`: principle id → weight, from the constitution; `section.principle_weights` goes before it; else 1.
    What a selector leaves out is not dropped: it was never to become a preference.
    Errors: DataError (a judgment contradicts itself), ConfigError (selector, weights, pointwise judgments).
    """
    select = selector(section.select)
    preferences: list[Preference] = []
    dropped: list[Dropped] = []
    for prompt_id, results in compared(judgments, section, weights):
        usable = [result for result in results.values() if not isinstance(result, str)]
        failed = {ids: reason for ids, reason in results.items() if isinstance(reason, str)}
        dropped.extend(_drop(prompt_id, ids, reason) for ids, reason in failed.items())
        for chosen in select(usable) if usable else ():
            ids = (min(chosen.first_id, chosen.second_id), max(chosen.first_id, chosen.second_id))
            if ids in failed:  # a selector may infer a pair that did not meet, never one whose judgments failed
                continue
            reason = chosen.drop or _weak(chosen.difference, section.min_margin)
            if reason:
                dropped.append(_drop(prompt_id, ids, reason))
            else:
                preferences.append(_preference(chosen))
    return preferences, dropped


def compared(
    judgments: Iterable[Judgment], section: PairSection, weights: Mapping[str, float] | None = None
) -> Iterator[tuple[str, dict[tuple[str, str], Comparison | str]]]:
    """Prompt by prompt, what became of each pair (its two ids, sorted): a comparison, or why there is none.

    Arguments and errors as for `pair`.
    """
    meetings = _meetings(judgments)
    weight_of = _weights(section, weights, meetings)
    for prompt_id, pairs in meetings.items():
        yield prompt_id, {ids: _compare(prompt_id, ids, meeting, weight_of) for ids, meeting in pairs.items()}


def run(context: Context) -> dict[str, Any]:
    """The stage: judgments.jsonl → preferences.jsonl. Returns counts.

    Errors: DataError when a judgment names a response of another prompt, or one that is not in responses.jsonl.
    """
    config, folder = context.config, context.folder
    owner = {response.id: response.prompt_id for response in folder.read("responses", Response)}
    met: set[str] = set()
    n_judgments = 0

    def checked() -> Iterator[Judgment]:
        nonlocal n_judgments
        for judgment in folder.read("judgments", Judgment):
            _check_ids(judgment, owner)
            n_judgments += 1
            met.add(_pair_id(judgment.prompt_id, *judgment.response_ids))
            yield judgment

    preferences, dropped = pair(checked(), config.pair or PairSection(), constitution_weights(config))
    folder.write("preferences", preferences)
    folder.drop(STAGE, dropped)
    return {
        "judgments": n_judgments,
        "comparisons": len(met),
        "preferences": len(preferences),
        "not_selected": len(met - {row.id for row in preferences} - {row.id for row in dropped}),
        "dropped": count_reasons(dropped),
    }


def constitution_weights(config: Pipeline) -> dict[str, float] | None:
    """Principle weights of the constitution that judged."""
    if config.judge is None or config.judge.constitution is None:
        return None
    return {principle.id: principle.weight for principle in load_constitution(config.judge.constitution).principles}


def _check_ids(judgment: Judgment, owner: Mapping[str, str]) -> None:
    for response_id in judgment.response_ids:
        prompt_id = owner.get(response_id)
        if prompt_id != judgment.prompt_id:
            whose = f"belongs to prompt {prompt_id}" if prompt_id else "is not in the responses"
            raise DataError(
                f"judgment {judgment.id} of prompt {judgment.prompt_id}: its response {response_id} {whose}"
            )


class _Meeting:
    """The judgments of one pair, folded: per principle and shown order, the differences and whence they came."""

    __slots__ = ("asked_both", "votes")

    def __init__(self) -> None:
        self.asked_both: set[str | None] = set()  # principles for which both orders were asked
        # principle → ([(d, judgment id) shown as (a, b)], [the same shown as (b, a)])
        self.votes: dict[str | None, tuple[list[tuple[float, str]], list[tuple[float, str]]]] = {}


_Meetings = dict[str, dict[tuple[str, str], _Meeting]]


def _meetings(judgments: Iterable[Judgment]) -> _Meetings:
    meetings: _Meetings = {}
    for judgment in judgments:
        if judgment.kind != "pairwise":
            raise ConfigError(
                f"pair: judgment {judgment.id} is {judgment.kind}; only pairwise judgments can be paired so far"
            )
        if len(judgment.response_ids) != 2:
            raise DataError(
                f"judgment {judgment.id}: a pairwise judgment has 2 responses, not {judgment.response_ids}"
            )
        shown, other = judgment.response_ids
        ids = (shown, other) if shown <= other else (other, shown)
        meeting = meetings.setdefault(judgment.prompt_id, {}).setdefault(ids, _Meeting())
        if judgment.superseded:  # it counts for nothing; a pair that has no other judgment is dropped, not forgotten
            continue
        if judgment.meta.get("orders") == "both":
            meeting.asked_both.add(judgment.principle)
        if judgment.status == "ok":
            votes = meeting.votes.setdefault(judgment.principle, ([], []))
            mirrored = shown != ids[0]
            votes[mirrored].append((_difference(judgment, mirrored), judgment.id))
    return meetings


def _difference(judgment: Judgment, mirrored: bool) -> float:
    """P(a better) − P(b better), bit for bit the negative for the mirrored judgment."""
    if judgment.probabilities is None:
        if judgment.verdict not in _VERDICTS:
            raise DataError(f"judgment {judgment.id}: verdict {judgment.verdict!r} is none of {', '.join(_VERDICTS)}")
        difference = _VERDICTS[judgment.verdict]
    else:
        p = judgment.probabilities
        first, second, tie = p.get(FIRST, 0.0), p.get(SECOND, 0.0), p.get(TIE, 0.0)
        total = first + second + tie
        if not p.keys() <= _VERDICTS.keys() or min(first, second, tie) < 0 or not abs(total - 1) < 1e-3:
            raise DataError(f"judgment {judgment.id}: {p} are not probabilities of {', '.join(_VERDICTS)}")
        difference = (first - second) / total
    return -difference if mirrored else difference


def _compare(
    prompt_id: str, ids: tuple[str, str], meeting: _Meeting, weights: Mapping[str | None, float]
) -> Comparison | str:
    """One pair's comparison, or the reason why there is none."""
    if ids[0] == ids[1]:
        return "same_response"
    if not meeting.votes:
        return "no_usable_judgment"
    usable = {
        principle: votes
        for principle, votes in meeting.votes.items()
        if all(votes) or principle not in meeting.asked_both
    }
    if not usable:
        return "one_order_failed"
    per_principle = {
        principle: _mean([_mean([d for d, _ in votes]) for votes in orders if votes])
        for principle, orders in usable.items()
    }
    total = fsum(weights.get(principle, 1.0) for principle in usable)
    if total <= 0:
        return "zero_weight"
    difference = fsum(weights.get(principle, 1.0) * d for principle, d in per_principle.items()) / total
    return Comparison(
        prompt_id=prompt_id,
        first_id=ids[0],
        second_id=ids[1],
        difference=difference,
        judgment_ids=[judgment_id for orders in usable.values() for votes in orders for _, judgment_id in votes],
        by_principle={principle: d for principle, d in per_principle.items() if principle is not None},
        consistent=_consistent(usable, weights),
    )


def _consistent(
    usable: Mapping[str | None, tuple[list[tuple[float, str]], ...]], weights: Mapping[str | None, float]
) -> bool | None:
    """Whether each order, over the principles that have both, names the same winner; None where neither names one.

    Orders that contradict each other exactly cancel to a tie, and are inconsistent all the same.
    """
    both = {principle: orders for principle, orders in usable.items() if all(orders)}
    if not both:
        return None
    one, other = (
        fsum(weights.get(principle, 1.0) * _mean([d for d, _ in orders[order]]) for principle, orders in both.items())
        for order in (0, 1)
    )
    if max(abs(one), abs(other)) <= ROUNDING:
        return None
    return min(one, other) > ROUNDING or max(one, other) < -ROUNDING


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _weights(
    section: PairSection, given: Mapping[str, float] | None, meetings: _Meetings
) -> Mapping[str | None, float]:
    weights: dict[str | None, float] = {}
    weights.update(given or {})
    weights.update(section.principle_weights)
    seen = {principle for pairs in meetings.values() for meeting in pairs.values() for principle in meeting.votes}
    known = sorted({principle for principle in seen if principle is not None} | set(given or {}))
    for principle, weight in section.principle_weights.items():
        if known and principle not in known:
            close = get_close_matches(principle, known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
            raise ConfigError(f"pair.principle_weights: no principle {principle!r}{hint}")
        if not 0 <= weight < float("inf"):
            raise ConfigError(f"pair.principle_weights.{principle}: a weight is 0 or more, got {weight}")
    return weights


def _weak(difference: float, min_margin: float) -> str | None:
    """Why a difference does not make a preference; |p − ½| is half of it."""
    if abs(difference) < ROUNDING:
        return "tie"
    return "below_margin" if abs(difference) / 2 < min_margin - ROUNDING else None


def _preference(c: Comparison) -> Preference:
    first_wins = c.difference > 0
    margin = min(1.0, abs(c.difference))
    sign = 1 if first_wins else -1
    return Preference(
        id=_pair_id(c.prompt_id, c.first_id, c.second_id),
        prompt_id=c.prompt_id,
        chosen_id=c.first_id if first_wins else c.second_id,
        rejected_id=c.second_id if first_wins else c.first_id,
        probability=(1 + margin) / 2,
        judge_margin=margin,
        judgment_ids=c.judgment_ids,
        by_principle={principle: (1 + sign * d) / 2 for principle, d in c.by_principle.items()},
        consistent=c.consistent,
    )


def _pair_id(prompt_id: str, *response_ids: str) -> str:
    return make_id(prompt_id, *sorted(response_ids))


def _drop(prompt_id: str, ids: tuple[str, str], reason: str) -> Dropped:
    detail = f"prompt {prompt_id}: {ids[0]}, {ids[1]}"
    return Dropped(stage=STAGE, reason=reason, id=_pair_id(prompt_id, *ids), detail=detail)
