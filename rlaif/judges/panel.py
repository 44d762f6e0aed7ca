"""Several judges of the same responses, each for itself: other models, rubrics, prompts, or ways of asking.

They are asked at once and recorded apart, each judgment under its member's name. What they say together is decided by
`pair` (`pair.panel`), never here.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges import build
from rlaif.judges.base import Judge, JudgeRun, Task, planned, together
from rlaif.judges.section import EngineOf
from rlaif.records import Judgment, Request, make_id

_LOOKS_AT = {0: "all responses of a prompt", 1: "single responses", 2: "pairs of responses"}


class PanelJudge:
    """`members`: name → judge; all of one arity."""

    @classmethod
    def from_section(cls, section: JudgeSection, engine_of: EngineOf, *, role: str, where: str) -> PanelJudge:
        """One judge for each of `section.members`. `role` is not asked: members name their own engines.

        Errors: ConfigError: fewer than two members, members made of members, members that look at different things.
        """
        if section.options:
            raise ConfigError(f"{where}.options: a panel has none; give them to a member")
        if len(section.members) < 2:
            raise ConfigError(
                f"{where}.members: a panel has two members or more, this one has {len(section.members)}"
            )
        members: dict[str, Judge] = {}
        for name in section.members:
            own, place = section.member(name), f"{where}.members.{name}"
            if own.members:
                raise ConfigError(f"{place}: a member of a panel asks one engine and has no members of its own")
            members[name] = build(own, engine_of, where=place)
        _same_arity(members, where)
        return cls(members)

    def __init__(self, members: Mapping[str, Judge]) -> None:
        self.members = dict(members)
        self.arity = next(iter(self.members.values())).arity

    def __call__(self, task: Task) -> JudgeRun:
        """Every member's judgments, in the members' order."""
        found = yield from together([judge(task) for judge in self.members.values()])
        return [_of(name, row) for name, rows in zip(self.members, found, strict=True) for row in rows]

    def plan(self, task: Task) -> list[Request]:
        return [request for judge in self.members.values() for request in planned(judge, task)]


def _of(name: str, judgment: Judgment) -> Judgment:
    """Two members may ask one engine under one rubric: the name keeps their judgments apart."""
    return msgspec.structs.replace(judgment, id=make_id(judgment.id, name), member=name)


def _same_arity(members: Mapping[str, Judge], where: str) -> None:
    (first, judge), *others = members.items()
    for name, other in others:
        if other.arity != judge.arity:
            raise ConfigError(
                f"{where}.members: {first} looks at {_LOOKS_AT[judge.arity]} and {name} at {_LOOKS_AT[other.arity]}; "
                "the members of a panel look at the same"
            )
