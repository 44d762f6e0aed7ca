"""All of a prompt's responses at once, put in order: one judgment for each order in which they are shown.

Lists favour some places over others. So the same responses are shown in several orders, each with its reverse, and
recorded apart; `pair` puts the rankings together.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import factorial
from typing import Any, NamedTuple

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges.base import JudgeRun, Task
from rlaif.judges.section import EngineOf, need_standard, refuse, standard_arguments
from rlaif.judges.standard import Applied, StandardJudge
from rlaif.judges.verdicts_ranking import Ranking, labels_for
from rlaif.records import Judgment, Prompt, Reply, Request, Response

_ORDERS = {"both": 2, "random": 1, "given": 1}


class _Look(NamedTuple):
    """One question: these responses in this order, under this principle (or the whole rubric)."""

    shown: list[Response]
    applied: Applied
    permutation: int


class ListwiseJudge(StandardJudge):
    """Ranks N responses. `permutations`: in how many orders they are shown, at most N!; every second one is the
    reverse of the one before, so that with an even number each pair stands in both orders equally often. `as_given`:
    in the order in which they come instead.

    Responses with the same text are shown once: a ranking has no ties, so `response_ids` ends with those that were
    not shown, they stand next to their twin in `ranking`, and `meta["identical"]` has the groups.
    """

    arity = 0
    frames = ("listwise",)

    @classmethod
    def from_section(cls, section: JudgeSection, engine_of: EngineOf, *, role: str, where: str) -> ListwiseJudge:
        """The judge that a config describes; `orders: both` is 2 permutations, `random` and `given` are 1, where
        `options: {permutations: n}` says nothing else. Errors: ConfigError."""
        need_standard(section, where)
        refuse(section, where, ties=section.ties, clamp=section.clamp is not None, samples=section.samples > 1)
        if section.read not in ("auto", "text"):
            raise ConfigError(f"{where}.read: {section.read}: a ranking is many tokens; use text (or auto)")
        permutations = section.options.get("permutations", _ORDERS[section.orders])
        if type(permutations) is not int or permutations < 1:
            raise ConfigError(
                f"{where}.options.permutations: expected a whole number of at least 1, got {permutations!r}"
            )
        arguments = {
            **standard_arguments(section, engine_of, role=role, frame="listwise"),
            **section.options,
            "permutations": permutations,
            "as_given": section.orders == "given",
        }
        return cls(**arguments)

    def __init__(self, *, permutations: int = 2, as_given: bool = False, **standard: Any) -> None:
        super().__init__(**standard)
        self.permutations, self.as_given = permutations, as_given

    def __call__(self, task: Task) -> JudgeRun:
        """Judgments for a task of two or more responses; [] when no principle applies to the prompt."""
        twins = _twins(task.responses)
        looks = self._looks(task, [group[0] for group in twins])
        if len(twins) == 1:
            return [self._identical(task, look, twins) for look in looks]
        replies = yield [self._request(task, look) for look in looks]
        return [self._judgment(task.prompt, look, reply, twins) for look, reply in zip(looks, replies, strict=True)]

    def _looks(self, task: Task, distinct: list[Response]) -> list[_Look]:
        rng = task.rng()
        standards = self.applied(task.prompt, rng)
        orders = [distinct] if self.as_given else permuted(distinct, self.permutations, rng)
        return [_Look(shown, applied, i) for applied in standards for i, shown in enumerate(orders)]

    def _request(self, task: Task, look: _Look) -> Request:
        ranking = Ranking(labels=labels_for(len(look.shown)))
        messages = self.messages(task.prompt, look.shown, look.applied, ranking.instruction, ranking.labels)
        return self.text_request(messages, (task.prompt.id, *(shown.id for shown in look.shown)), task.seed)

    def _judgment(self, prompt: Prompt, look: _Look, reply: Reply, twins: Sequence[list[Response]]) -> Judgment:
        labels = labels_for(len(look.shown))
        parsed = Ranking(labels=labels).parse(reply)
        ranking = None
        if parsed.order is not None:
            group_of = {group[0].id: group for group in twins}
            named = dict(zip(labels, look.shown, strict=True))
            ranking = [twin.id for label in parsed.order for twin in group_of[named[label].id]]
        return self._record(
            prompt, look, [reply], twins,
            status=parsed.status, ranking=ranking, rationale=parsed.rationale, reason=parsed.reason,
        )  # fmt: skip

    def _identical(self, task: Task, look: _Look, twins: Sequence[list[Response]]) -> Judgment:
        """The same text every time: nobody needs to be asked, and the ranking means nothing but a tie."""
        return self._record(task.prompt, look, [], twins, ranking=[response.id for response in twins[0]])

    def _record(
        self,
        prompt: Prompt,
        look: _Look,
        replies: Sequence[Reply],
        twins: Sequence[list[Response]],
        **said: Any,
    ) -> Judgment:
        unseen = [twin for group in twins for twin in group[1:]]
        groups = [[twin.id for twin in group] for group in twins if len(group) > 1]
        meta = {"permutation": look.permutation, **({"identical": groups} if groups else {})}
        return self.judgment(
            prompt, [*look.shown, *unseen], look.applied, replies, kind="listwise", meta=meta, **said
        )


def permuted(items: Sequence[Response], n: int, rng: random.Random) -> list[list[Response]]:
    """`n` different orders, or all there are; each second one the reverse of the one before."""
    wanted = min(n, factorial(len(items)))
    orders: list[list[Response]] = []
    seen: set[tuple[str, ...]] = set()
    while len(orders) < wanted:
        order = rng.sample(list(items), len(items))
        for candidate in (order, order[::-1]):
            key = tuple(item.id for item in candidate)
            if key not in seen and len(orders) < wanted:
                seen.add(key)
                orders.append(candidate)
    return orders


def _twins(responses: Sequence[Response]) -> list[list[Response]]:
    """Responses with the same text together, in the order of the first of each."""
    by_text: dict[str, list[Response]] = {}
    for response in responses:
        by_text.setdefault(response.text, []).append(response)
    return list(by_text.values())
