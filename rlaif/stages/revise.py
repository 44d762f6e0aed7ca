"""Revisions: a model reviews each response under sampled principles and writes it anew, round by round.

The original, every critique and every revision are kept in revisions.jsonl; `export.kinds: [revised]` makes the last
revision of each response a demonstration for supervised training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from rlaif.judges.base import Task
from rlaif.judges.revision import RevisionChain
from rlaif.records import Dropped, Prompt, Response, Revision
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.judge import grouped

STAGE = "revise"


def run(context: Context) -> dict[str, Any]:
    """The stage: responses.jsonl → revisions.jsonl. A chain that broke off is in dropped.jsonl. Returns counts."""
    section = context.config.revise
    assert section is not None
    chain = RevisionChain.from_section(section, context.engine)
    todo = list(revision_tasks(context, context.config.seed))
    dropped: list[Dropped] = []
    statuses: Counter[str] = Counter()
    unchanged = 0

    def revisions() -> Iterator[Revision]:
        nonlocal unchanged
        jobs = (chain(task) for task in todo)
        for task, found in zip(todo, context.drive(STAGE, [section.engine], jobs, len(todo)), strict=True):
            if not found:
                dropped.append(Dropped(stage=STAGE, reason="no_principle_applies", id=task.responses[0].id))
            for revision in found:
                statuses[revision.status] += 1
                unchanged += revision.changed is False
                if revision.status != "ok":
                    reason, detail = f"revision_{revision.status}", revision.reason or ""
                    dropped.append(Dropped(stage=STAGE, reason=reason, id=revision.id, detail=detail))
                yield revision

    n = context.folder.write("revisions", revisions())
    context.folder.drop(STAGE, dropped)
    return {
        "responses": len(todo),
        "revisions": n,
        "unchanged": unchanged,
        "statuses": dict(sorted(statuses.items())),
        "dropped": count_reasons(dropped),
    }


def revision_tasks(context: Context, seed: int) -> Iterator[Task]:
    """One for each response of the run, in the order of the prompts."""
    responses = list(context.folder.read("responses", Response))
    for prompt, of_prompt in grouped(context.folder.read("prompts", Prompt), responses):
        for response in of_prompt:
            yield Task(prompt=prompt, responses=[response], seed=seed)
