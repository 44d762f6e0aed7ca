"""Which of all candidate pairs the judge is asked about (`judge.choose`), and the list of those chosen so far.

lineups.jsonl remembers the choice, batch by batch: with a larger `n_pairs`, another rule or a newer ensemble, the
pairs that were chosen before stay in front, and only what is missing is chosen. So labels accumulate: judge some at
random, train an ensemble on them, choose the next ones by it, and so on. Without the file all is chosen anew.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlaif.config import ChooseSection
from rlaif.judges.base import Task
from rlaif.paths import RUN
from rlaif.records import Lineup
from rlaif.stages.base import Context

TABLE = "lineups"
Key = tuple[str, ...]  # prompt id, response ids sorted


def choose(context: Context, section: ChooseSection, tasks: Sequence[Task]) -> tuple[list[Task], dict[str, int]]:
    """The tasks to judge, in the order given, and how many pairs each rule has chosen. Writes lineups.jsonl before
    anything is asked. Errors: ConfigError (no ensemble), StoreError (`run:reward` that this run has not trained)."""
    by_key: dict[Key, list[Task]] = {}
    for task in tasks:
        by_key.setdefault(_key(task.prompt.id, [response.id for response in task.responses]), []).append(task)
    lineups = list(context.folder.read(TABLE, Lineup)) if context.folder.table(TABLE).exists() else []
    known = {_key_of(row): row for row in lineups if _key_of(row) in by_key}  # others: of responses that went
    missing = section.count(len(by_key)) - len(known)
    if missing > 0:
        batch = 1 + max((row.batch for row in lineups), default=-1)
        left = [found[0] for key, found in by_key.items() if key not in known]
        for key in _ordered(context, section, left)[:missing]:
            known[key] = Lineup(prompt_id=key[0], response_ids=list(key[1:]), by=section.by, batch=batch)
            lineups.append(known[key])
    context.folder.write(TABLE, lineups)
    asked = dict(itertools.islice(known.items(), section.count(len(by_key))))
    chosen = [task for key, found in by_key.items() if key in asked for task in found]
    return chosen, dict(sorted(Counter(row.by for row in asked.values()).items()))


def _key_of(row: Lineup) -> Key:
    return _key(row.prompt_id, row.response_ids)


def _key(prompt_id: str, response_ids: Sequence[str]) -> Key:
    return (prompt_id, *sorted(response_ids))


def _ordered(context: Context, section: ChooseSection, tasks: Sequence[Task]) -> list[Key]:
    """These pairs, those to ask first in front; the same for the same seed and ensemble."""
    import numpy as np

    from rlaif.metrics.choosing import order_pairs

    responses = {row.id: (task.prompt, row) for task in tasks for row in task.responses}
    number = {id_: at for at, id_ in enumerate(responses)}
    prompts: dict[str, int] = {}
    of = [prompts.setdefault(prompt.id, len(prompts)) for prompt, _ in responses.values()]
    pairs = [[number[row.id] for row in task.responses] for task in tasks]
    rewards = None
    if section.ensemble is not None:
        from rlaif.training.active import opinions

        rewards = opinions(
            find_ensemble(section.ensemble, context.folder.path),
            [prompt.messages for prompt, _ in responses.values()],
            [row.text for _, row in responses.values()],
            [row.finish_reason != "length" for _, row in responses.values()],
        )
    rng = np.random.default_rng(context.config.seed)
    ordered = order_pairs(section.by, pairs, of, rewards, rng, bonus=section.bonus)
    return [_key(tasks[at].prompt.id, [row.id for row in tasks[at].responses]) for at in ordered]


def find_ensemble(reward: str, folder: Path) -> str:
    """Errors: StoreError for a `run:NAME` that the run in `folder` has not trained."""
    from rlaif.stages.train import trained

    return trained(reward, folder, "judge.choose.reward") if reward.startswith(RUN) else reward
