"""What a policy wrote in one rollout, as prompts with responses, and what a judge is to look at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlaif.judges.base import Task
from rlaif.records import Message, Prompt, Response, make_id
from rlaif.stages.judge import Pairs, tasks

Against = Literal["group", "responses", "reference"]
SOURCE = "policy"  # who wrote the responses


@dataclass(frozen=True)
class Group:
    """One prompt of a rollout. `written`: of each completion, by its place in the rollout; the same text is the same
    response. `opponents`: fixed responses that each is compared with; None where they meet one another."""

    prompt: Prompt
    written: dict[int, Response] = field(default_factory=dict)
    opponents: Sequence[Response] | None = None

    @property
    def distinct(self) -> list[Response]:
        return list({response.id: response for response in self.written.values()}.values())


class Known:
    """The run's own prompts, so that their ids, domains and references are the same here, with `opponents`."""

    def __init__(
        self, prompts: Iterable[Prompt] = (), responses: Iterable[Response] = (), n_opponents: int = 1
    ) -> None:
        self._prompts = {_key(prompt.messages): prompt for prompt in prompts}
        self._responses: dict[str, list[Response]] = {}
        for response in responses:
            found = self._responses.setdefault(response.prompt_id, [])
            if len(found) < n_opponents:
                found.append(response)

    def prompt(self, row: Mapping[str, Any]) -> Prompt:
        messages = messages_of(row["prompt"])
        own = self._prompts.get(_key(messages))
        if own is not None:
            return own
        return Prompt(
            id=make_id(_key(messages)), messages=messages, reference=row.get("reference"), domain=row.get("domain")
        )

    def opponents(self, prompt: Prompt, against: Against) -> list[Response] | None:
        if against == "group":
            return None
        if against == "responses":
            return self._responses.get(prompt.id, [])
        if against == "reference" and prompt.reference is not None:
            return [Response(id=make_id(prompt.id, "reference"), prompt_id=prompt.id, text=prompt.reference)]
        return []


def messages_of(prompt: str | Sequence[Message]) -> list[Message]:
    """As a run has them: the role and the content of each turn."""
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [{"role": turn["role"], "content": turn["content"]} for turn in prompt]


def text_of(completion: str | Sequence[Message]) -> str:
    """What is judged: of a conversation the last turn, without what the model thought before."""
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def grouped(rows: Sequence[Mapping[str, Any]], known: Known, against: Against) -> list[Group]:
    """Rows of a rollout by prompt, in the order in which prompts first come."""
    groups: dict[str, Group] = {}
    for place, row in enumerate(rows):
        prompt = known.prompt(row)
        group = groups.get(prompt.id)
        if group is None:
            opponents = known.opponents(prompt, against)
            if against == "reference":  # whoever is compared with it must not be held against it too
                prompt = _without_reference(prompt)
            group = groups[prompt.id] = Group(prompt, {}, opponents)
        text = text_of(row["completion"])
        response_id = make_id(prompt.id, "written", text)
        group.written[place] = Response(id=response_id, prompt_id=prompt.id, text=text, source=SOURCE)
    return list(groups.values())


def tasks_of(group: Group, arity: int, pairs: Pairs, seed: int) -> list[Task]:
    """What the judge looks at: each distinct response once (arity 1), or with the others, or with its opponents."""
    prompt, distinct = group.prompt, group.distinct
    if arity == 1 or group.opponents is None:
        return list(tasks([(prompt, distinct)], arity, pairs, seed, []))
    if not group.opponents:
        return []
    lineups = [(one, other) for one in distinct for other in group.opponents]
    if arity == 0:
        return [Task(prompt=prompt, responses=[one, *group.opponents], seed=seed) for one in distinct]
    return [Task(prompt=prompt, responses=list(lineup), seed=seed) for lineup in lineups]


def _without_reference(prompt: Prompt) -> Prompt:
    return Prompt(id=prompt.id, messages=prompt.messages, domain=prompt.domain, meta=prompt.meta)


def _key(messages: Sequence[Message]) -> str:
    return json.dumps([[turn["role"], turn["content"]] for turn in messages], ensure_ascii=False)
