"""The judges of a training, over engines that are started once and closed at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from rlaif.config import JudgeSection
from rlaif.config.training import RewardSource
from rlaif.digests import path_sha256
from rlaif.errors import ConfigError, UserError
from rlaif.judges import build, find_files_of
from rlaif.judges.base import Judge
from rlaif.process import is_main
from rlaif.records import Judgment, Prompt, Response, make_id
from rlaif.stages.base import Context, Drive
from rlaif.stages.live.checks import known_weights, section_of, settings_of, where_of
from rlaif.stages.live.groups import Known, grouped, tasks_of
from rlaif.stages.live.record import Record
from rlaif.stages.live.scores import ALONE, NOTHING_APPLIES, Found, compared, pointwise
from rlaif.stages.pairing.standards import Standards


class LiveJudge:
    """One `judge:` among the rewards: `rlaif.training.rewards.JudgeReward`. Only the main process asks."""

    def __init__(
        self, context: Context, name: str, at: int, section: JudgeSection, drive: Drive | None, record: Record
    ) -> None:
        source = section_of(context.config, name).rewards[at]
        self.where, self.name = where_of(name, at), _name_of(context, name, at)
        self.judge: Judge = build(section, context.engine, where=self.where)
        self.identity = identity_of(context, source, section)
        self.judged = self.unscored = 0
        self._section, self._source, self._seed = section, source, context.config.seed
        self._pair = known_weights(settings_of(context.config), source, section)
        self._standards = Standards.of(section)
        self._drive, self._record, self._known = drive, record, _known(context, source)

    def __call__(self, rows: Sequence[Mapping[str, Any]], step: int) -> list[float | None]:
        """Errors: BudgetReached, EngineError, StoreError as everywhere; UserError where not one could be scored."""
        assert self._drive is not None, "only the main process asks"
        groups = grouped(rows, self._known, self._source.against)
        todo = [
            task for group in groups for task in tasks_of(group, self.judge.arity, self._section.pairs, self._seed)
        ]
        judgments = [row for found in self._drive(self.judge(task) for task in todo) for row in found]
        if self.judge.arity == 1:
            found = pointwise(groups, judgments, self._pair, self._standards)
        else:
            fill = self._section.judge == "tournament"
            found = compared(groups, judgments, self._pair, self._standards, fill=fill)
        self._record.add(self.name, step, groups, judgments, found)
        self._count(found, judgments, step)
        scores = [found[place] for place in range(len(rows))]
        return [score if isinstance(score, float) else None for score in scores]

    def _count(self, found: Mapping[int, Found], judgments: Sequence[Judgment], step: int) -> None:
        reasons = Counter(said for said in found.values() if isinstance(said, str))
        self.judged += len(found)
        self.unscored += reasons.total()
        if found and reasons.total() == len(found) and not {ALONE, NOTHING_APPLIES} & set(reasons):
            named = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
            example = next((f"; for example: {row.reason}" for row in judgments if row.reason), "")
            raise UserError(
                f"{self.where}: not one of the {len(found)} completions at step {step} could be scored: "
                f"{named}{example}; training on nothing was stopped, run the same command to go on"
            )


@contextmanager
def judges(context: Context, name: str) -> Iterator[dict[int, LiveJudge]]:
    """Place in train.NAME.rewards → the judge there; {} where it names none. Errors: ConfigError, StoreError."""
    sections = section_of(context.config, name).judges(context.config.judge)
    if not sections:
        yield {}
        return
    record = Record(context.folder.path / "live" / name)

    def made(drive: Drive | None) -> dict[int, LiveJudge]:
        return {at: LiveJudge(context, name, at, section, drive, record) for at, section in sections.items()}

    if not is_main():
        yield made(None)
        return
    with context.session(role for section in sections.values() for role in section.roles) as drive:
        yield made(drive)


def identity_of(context: Context, source: RewardSource, section: JudgeSection) -> str:
    """Changes with all that can change a score."""
    parts: list[Any] = [section.model_dump(mode="json"), source.against, source.n_against, context.config.seed]
    parts.append(known_weights(settings_of(context.config), source, section).model_dump(mode="json"))
    parts += [context.engine(role).identity for role in section.roles]
    parts += [path_sha256(path) for path in find_files_of(section)]
    if source.against == "responses":
        parts += [path_sha256(context.folder.table(table)) for table in ("prompts", "responses")]
    return make_id(*(msgspec.json.encode(part, order="sorted").decode() for part in parts))


def _name_of(context: Context, name: str, at: int) -> str:
    from rlaif.training.rewards import names_of

    return names_of(section_of(context.config, name).rewards)[at]


def _known(context: Context, source: RewardSource) -> Known:
    """The run's own prompts where it has some, and with `against: responses` its responses."""
    folder = context.folder
    if not folder.table("prompts").exists():
        if source.against == "responses":
            raise ConfigError("against: responses: this run has no prompts.jsonl and responses.jsonl")
        return Known()
    responses = folder.read("responses", Response) if source.against == "responses" else ()
    return Known(folder.read("prompts", Prompt), responses, source.n_against)
