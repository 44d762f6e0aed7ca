"""Judgments → votes: what each judgment says of two responses, whatever kind it is.

A vote is the difference d = P(a better) − P(b better) in [−1, 1], where a and b are the two responses sorted by id. A
tie adds nothing to it, and mirroring a judgment changes its sign and no bit more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

from rlaif.errors import DataError
from rlaif.records import FIRST, SECOND, TIE, Judgment
from rlaif.stages.pairing.scores import Scored
from rlaif.stages.pairing.standards import Standards

Ids = tuple[str, str]  # two response ids, sorted
Key = tuple[str | None, str | None]  # (member, principle or criterion)
_VERDICTS = {FIRST: 1.0, SECOND: -1.0, TIE: 0.0}


class Vote(NamedTuple):
    """`order`: 0 where a was shown before b, 1 where after, None where they were not shown together.

    `look`: votes of one look are averaged before anything else. Pairwise: the order. Listwise: the judgment.
    Pointwise: all of them.
    """

    difference: float
    judgment_ids: tuple[str, ...]
    order: int | None
    look: int | str | None


@dataclass
class Said:
    """All votes on one pair by one member under one principle."""

    ref: str  # the rubric's or constitution's id@version
    votes: list[Vote] = field(default_factory=list)
    asked_both: bool = False  # pairwise: both orders were asked
    margin: float | None = None  # pointwise: difference of the scores, each on its scale made [0, 1] where it has one

    @property
    def one_order_failed(self) -> bool:
        return self.asked_both and len({vote.order for vote in self.votes}) < 2


@dataclass
class Meeting:
    """All that was said of one pair."""

    said: dict[Key, Said] = field(default_factory=dict)
    gates: dict[str | None, float] = field(default_factory=dict)  # member → d, where just one failed a hard criterion
    unshared: set[str | None] = field(default_factory=set)  # members who scored both, but no criterion of both

    def at(self, judgment: Judgment) -> Said:
        return self.said.setdefault((judgment.member, judgment.principle), Said(judgment.rubric))

    def add(self, judgment: Judgment, vote: Vote) -> None:
        self.at(judgment).votes.append(vote)


Meetings = dict[str, dict[Ids, Meeting]]  # prompt id → pair → what was said


def meetings_of(judgments: Iterable[Judgment], standards: Standards) -> Meetings:
    """Every pair that was judged. Failed judgments and superseded ones say nothing, but the pair is not forgotten.

    Errors: DataError where a judgment contradicts itself, ConfigError where a hard criterion cannot be applied.
    """
    meetings: Meetings = {}
    scored: dict[str, Scored] = {}
    for judgment in judgments:
        pairs = meetings.setdefault(judgment.prompt_id, {})
        if judgment.kind == "pairwise":
            _add_pairwise(pairs, judgment)
        elif judgment.kind == "listwise":
            _add_listwise(pairs, judgment)
        else:
            scored.setdefault(judgment.prompt_id, Scored()).add(judgment)
    for prompt_id, found in scored.items():
        _add_pointwise(meetings[prompt_id], found, standards)
    return meetings


def ids_of(one: str, other: str) -> Ids:
    return (one, other) if one <= other else (other, one)


def _at(pairs: dict[Ids, Meeting], one: str, other: str) -> Meeting:
    return pairs.setdefault(ids_of(one, other), Meeting())


def _add_pairwise(pairs: dict[Ids, Meeting], judgment: Judgment) -> None:
    if len(judgment.response_ids) != 2:
        raise DataError(f"judgment {judgment.id}: a pairwise judgment has 2 responses, not {judgment.response_ids}")
    shown, other = judgment.response_ids
    meeting = _at(pairs, shown, other)
    if judgment.superseded:
        return
    if judgment.meta.get("orders") == "both":
        meeting.at(judgment).asked_both = True
    if judgment.status == "ok":
        order = int(shown > other)
        d = _difference(judgment)
        meeting.add(judgment, Vote(-d if order else d, (judgment.id,), order, order))


def _difference(judgment: Judgment) -> float:
    """P(first better) − P(second better), in the order shown."""
    if judgment.probabilities is None:
        if judgment.verdict not in _VERDICTS:
            raise DataError(f"judgment {judgment.id}: verdict {judgment.verdict!r} is none of {', '.join(_VERDICTS)}")
        return _VERDICTS[judgment.verdict]
    p = judgment.probabilities
    first, second, tie = p.get(FIRST, 0.0), p.get(SECOND, 0.0), p.get(TIE, 0.0)
    total = first + second + tie
    if not p.keys() <= _VERDICTS.keys() or min(first, second, tie) < 0 or not abs(total - 1) < 1e-3:
        raise DataError(f"judgment {judgment.id}: {p} are not probabilities of {', '.join(_VERDICTS)}")
    return (first - second) / total


def _add_listwise(pairs: dict[Ids, Meeting], judgment: Judgment) -> None:
    """Each pair of a ranking is a certain vote; d of a pair is then its mean over the permutations shown."""
    shown = judgment.response_ids
    counts = judgment.status == "ok" and not judgment.superseded
    ranking = judgment.ranking if counts else None
    if counts and (ranking is None or len(set(shown)) != len(shown) or sorted(ranking) != sorted(shown)):
        raise DataError(f"judgment {judgment.id}: the ranking {ranking} is no order of the responses shown, {shown}")
    place = {response_id: i for i, response_id in enumerate(ranking or ())}
    twins = {i: group[0] for group in judgment.meta.get("identical", []) for i in group}  # the first one was shown
    for one, other in combinations(shown, 2):  # one was shown before other
        meeting = _at(pairs, one, other)
        if ranking is None:
            continue
        mirrored = one > other
        same_text = one in twins and twins[one] == twins.get(other)
        d = 0.0 if same_text else 1.0 if (place[one] < place[other]) != mirrored else -1.0
        unseen = any(twins.get(i, i) != i for i in (one, other))
        meeting.add(judgment, Vote(d, (judgment.id,), None if unseen else int(mirrored), judgment.id))


def _add_pointwise(pairs: dict[Ids, Meeting], scored: Scored, standards: Standards) -> None:
    for ids in scored.pairs():
        meeting = _at(pairs, *ids)
        for member in scored.members():
            compared = scored.compare(member, *ids, standards)
            if compared is None:
                continue
            if not compared.items:
                meeting.unshared.add(member)
            if compared.gate is not None:
                meeting.gates[member] = compared.gate
            for name, item in compared.items.items():
                said = meeting.said.setdefault((member, name), Said(item.ref))
                said.votes.append(Vote(item.difference, item.judgment_ids, None, None))
                said.margin = item.margin


def principles_in(meetings: Meetings) -> Iterator[str | None]:
    return (principle for pairs in meetings.values() for meeting in pairs.values() for _, principle in meeting.said)


def members_of(meeting: Meeting) -> list[str | None]:
    """Those who said something of the pair, sorted by name."""
    return sorted({member for member, _ in meeting.said} | meeting.unshared, key=lambda name: name or "")
