"""Judges against people: every named judge judges gold, and calibration/ says how far each can be trusted.

Replies come from the run's journal, so what labelled these pairs already is not asked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from rlaif import io
from rlaif.config import JudgeSection, Pipeline
from rlaif.driver import Job
from rlaif.errors import ConfigError, DataError
from rlaif.judges import build
from rlaif.judges.base import Judge, Task
from rlaif.records import Dropped, Judgment
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.calibration import figures, fitting, gold, views
from rlaif.stages.calibration.figures import Figures
from rlaif.stages.calibration.gold import People
from rlaif.stages.calibration.outputs import FOLDER, Measured, pair_section, write_outputs
from rlaif.stages.calibration.views import View
from rlaif.store import RunFolder

STAGE = "calibrate"
NAME = "calibrated"  # in a judgment's meta: which of the named judges it is of


def run(context: Context) -> dict[str, Any]:
    """The stage. Errors: DataError, ConfigError (gold, or no judge with a usable judgment of it)."""
    section = context.config.calibrate
    assert section is not None
    dropped: list[Dropped] = []
    people = read(context.config, dropped)
    _write_gold(context.folder, people)
    judgments = {name: _judged(context, name, own, people) for name, own in sections_of(context.config).items()}
    rows = [row for found in judgments.values() for row in found]
    context.folder.write(f"{FOLDER}/judgments", rows)
    dropped += [
        Dropped(stage=STAGE, reason=f"judgment_{row.status}", id=row.id, detail=row.reason or "")
        for row in rows
        if row.status != "ok"
    ]
    context.folder.drop(STAGE, dropped)
    measured = measure(context, people, judgments)
    number = write_outputs(context.folder, measured)
    return {
        "pairs": len(people.pairs),
        "scored": len(people.scored),
        "judges": len(measured.views),
        "judgments": len(rows),
        "round": number,
        "dropped": count_reasons(dropped),
    }


def sections_of(config: Pipeline) -> dict[str, JudgeSection]:
    """Name → the judge's section as the config has it. Errors: ConfigError where there is none."""
    if config.calibrate is None:
        raise ConfigError("calibrate: this config has no such section; --gold FILE makes one")
    return config.calibrate.sections(config.judge)


def read(config: Pipeline, dropped: list[Dropped]) -> People:
    """Gold, checked. Errors: DataError, ConfigError."""
    assert config.calibrate is not None
    people = gold.load_people(config.calibrate, dropped.append)
    fitting.check_split(people.pairs, config.calibrate, config.seed)
    return people


def judge_of(context: Context, name: str, section: JudgeSection) -> Judge:
    """The judge as it is calibrated: it shows both orders where a label is made of one picked at random."""
    where = f"calibrate.judges.{name}" if context.config.calibrate and context.config.calibrate.judges else "judge"
    return build(_both_orders(section), context.engine, where=where)


def _both_orders(section: JudgeSection) -> JudgeSection:
    members = {
        name: {**own, "orders": "both"} if section.member(name).orders == "random" else own
        for name, own in section.members.items()
    }
    orders = "both" if section.orders == "random" else section.orders
    return section.model_copy(update={"orders": orders, "members": members})


def tasks_of(judge: Judge, people: People, seed: int) -> list[Task]:
    """What the judge looks at: gold's pairs, or its single responses, or all of a prompt's at once."""
    if judge.arity == 2:
        return [Task(prompt=pair.prompt, responses=[pair.a, pair.b], seed=seed) for pair in people.pairs]
    if judge.arity == 1:
        return [Task(prompt=prompt, responses=[r], seed=seed) for prompt, all_ in people.groups() for r in all_]
    return [Task(prompt=prompt, responses=all_, seed=seed) for prompt, all_ in people.groups() if len(all_) > 1]


def _judged(context: Context, name: str, section: JudgeSection, people: People) -> list[Judgment]:
    judge = judge_of(context, name, section)
    todo = tasks_of(judge, people, context.config.seed)
    jobs: Iterable[Job[list[Judgment]]] = (judge(task) for task in todo)
    found = context.drive(f"{STAGE}: {name}", section.roles, jobs, len(todo))
    return [
        msgspec.structs.replace(judgment, meta={**judgment.meta, NAME: name})
        for judgments in found
        for judgment in judgments
    ]


def measure(context: Context, people: People, judgments: Mapping[str, Sequence[Judgment]]) -> Measured:
    """`judgments`: name → of all of gold. Errors: DataError where no judge has one that can be used."""
    config = context.config
    section, sections = config.calibrate, sections_of(config)
    assert section is not None
    prices = {role: context.engine_spec(role).price for own in sections.values() for role in own.roles}
    seen = [
        views.view(name, sections[name], rows, people.pairs, pair_section(config), prices)
        for name, rows in judgments.items()
    ]
    found = Figures(people.pairs, config.seed, section.alpha)
    if people.pairs and all(np.isnan(view.p).all() for view in seen):
        raise DataError(f"{STAGE}: no pair has a usable judgment: {_why(seen)}")
    if not people.pairs and not any(figures.scores(people, view, config.seed) for view in seen):
        raise DataError(f"{STAGE}: gold has no pairs, and no judge scored enough of its responses: {_why(seen)}")
    test = gold.split(people.pairs, section.test_fraction, config.seed)
    identities = {role: context.engine(role).identity for own in sections.values() for role in own.roles}
    return Measured(
        config=config,
        people=people,
        views=seen,
        what={view.name: views.provenance(view, identities) for view in seen},
        figures=found,
        test=test,
        maps={view.name: fitting.fit(view, found, section, test) for view in seen} if people.pairs else {},
    )


def _why(seen: Sequence[View]) -> str:
    reasons: Counter[str] = Counter()
    for view in seen:
        reasons.update(view.unusable)
    example = next((j.reason for view in seen for j in view.all if j.reason), "")
    return ", ".join(f"{n} {reason}" for reason, n in reasons.items()) + (
        f" (for example: {example})" if example else ""
    )


def _write_gold(folder: RunFolder, people: People) -> None:
    """The texts that the judgments of calibration/ are about."""
    groups = people.groups()
    io.write_table(folder.table(f"{FOLDER}/prompts"), (prompt for prompt, _ in groups))
    io.write_table(folder.table(f"{FOLDER}/responses"), (row for _, responses in groups for row in responses))
