"""Judgments: which of a prompt's responses meet, and what the judge says of them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from rlaif.driver import Job
from rlaif.errors import DataError
from rlaif.judges import build
from rlaif.judges.base import Task
from rlaif.records import Dropped, Judgment, Prompt, Response
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.choosing import choose

Pairs = Literal["all", "adjacent", "listed"]
LISTED = "lineups"  # in a prompt's meta: which pairs were recorded, as lists of response ids


def run(context: Context) -> dict[str, Any]:
    section = context.config.judge
    assert section is not None
    judge = build(section, context.engine)
    dropped: list[Dropped] = []
    seed = context.config.seed
    responses = list(context.folder.read("responses", Response))
    groups = grouped(context.folder.read("prompts", Prompt), responses)
    todo = list(tasks(groups, judge.arity, section.pairs, seed, dropped))
    n_candidates = len(todo)
    chosen: dict[str, int] = {}
    if section.choose is not None:
        todo, chosen = choose(context, section.choose, todo)
    statuses: Counter[str] = Counter()
    n_superseded: Counter[bool] = Counter()

    def judgments() -> Iterator[Judgment]:
        jobs: Iterable[Job[list[Judgment]]] = (judge(task) for task in todo)
        results = context.drive("judge", section.roles, jobs, len(todo))
        for task, found in zip(todo, results, strict=True):
            if not found:
                reason = "no_principle_applies"
                if section.reference == "require" and task.prompt.reference is None:
                    reason = "no_reference"
                dropped.append(Dropped(stage="judge", reason=reason, id=task.id))
            for judgment in found:
                statuses[judgment.status] += 1
                n_superseded[judgment.superseded] += 1
                if judgment.status != "ok":
                    reason = f"judgment_{judgment.status}"
                    dropped.append(
                        Dropped(stage="judge", reason=reason, id=judgment.id, detail=judgment.reason or "")
                    )
                yield judgment

    n_judgments = context.folder.write("judgments", judgments())
    context.folder.drop("judge", dropped)
    return {
        "comparisons": len(todo),
        **({"not_chosen": n_candidates - len(todo), "chosen": chosen} if section.choose else {}),
        "judgments": n_judgments,
        "statuses": dict(sorted(statuses.items())),
        **({"superseded": n_superseded[True]} if n_superseded[True] else {}),
        "dropped": count_reasons(dropped),
        **_example(dropped),
    }


def _example(dropped: list[Dropped]) -> dict[str, str]:
    """What the first judgment without a verdict says of itself: mostly all of them have one and the same cause."""
    detail = next((row.detail for row in dropped if row.detail), None)
    return {"example": detail} if detail else {}


def grouped(prompts: Iterable[Prompt], responses: Iterable[Response]) -> Iterator[tuple[Prompt, list[Response]]]:
    """Each prompt with its responses, in the prompts' order. Errors: DataError for a response to no prompt."""
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    for prompt in prompts:
        yield prompt, by_prompt.pop(prompt.id, [])
    if by_prompt:
        orphan = next(iter(by_prompt.values()))[0]
        raise DataError(f"response {orphan.id}: its prompt {orphan.prompt_id} is not among the prompts")


def tasks(
    groups: Iterable[tuple[Prompt, list[Response]]], arity: int, pairs: Pairs, seed: int, dropped: list[Dropped]
) -> Iterator[Task]:
    """What the judge looks at: single responses (arity 1), pairs (2), or all of a prompt's at once (0)."""
    for prompt, responses in groups:
        if len(responses) < (1 if arity == 1 else 2):
            reason = "no_response" if not responses else "too_few_responses"
            dropped.append(Dropped(stage="judge", reason=reason, id=prompt.id))
            continue
        for chosen in _lineups(prompt, responses, arity, pairs):
            yield Task(prompt=prompt, responses=list(chosen), seed=seed)


def _lineups(prompt: Prompt, responses: list[Response], arity: int, pairs: Pairs) -> Iterable[tuple[Response, ...]]:
    if arity != 1 and pairs == "listed" and LISTED in prompt.meta:
        by_id = {response.id: response for response in responses}
        return [tuple(by_id[name] for name in ids) for ids in prompt.meta[LISTED] if len(ids) == 2 or arity == 0]
    if arity == 0:
        return [tuple(responses)]
    if arity == 2 and pairs == "adjacent" and len(responses) > 2:
        return zip(responses, [*responses[1:], responses[0]], strict=True)
    return itertools.combinations(responses, arity)


def count_lineups(prompt: Prompt, n_responses: int, arity: int, pairs: Pairs) -> int:
    """How many tasks a prompt with `n_responses` makes, for a plan."""
    if arity != 1 and pairs == "listed" and LISTED in prompt.meta:
        return len(prompt.meta[LISTED])
    if n_responses < (1 if arity == 1 else 2):
        return 0
    if arity != 2:
        return n_responses if arity == 1 else 1
    return n_responses if pairs == "adjacent" and n_responses > 2 else n_responses * (n_responses - 1) // 2
