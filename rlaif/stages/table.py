"""The stages: when a pipeline has one, which parts of the config and which files it depends on, which engines it
asks, what it writes, and the function that runs it. The one place where that is said.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rlaif.config import ExportSection, JudgeSection, Pipeline, Source
from rlaif.config.data import dataset_folder
from rlaif.config.training import TRAINERS, OnlineSection
from rlaif.errors import ConfigError
from rlaif.judges import find_files_of
from rlaif.judges.revision import frames_of
from rlaif.paths import resolve
from rlaif.recordings import files_of, is_recording
from rlaif.rubric import load_standard
from rlaif.stages.calibration.applying import path_of
from rlaif.stages.live import checks as live
from rlaif.store import STAGES

RUN = "run:"  # `model: run:sft` is what this run trained as sft


def _nothing(_: Pipeline) -> Sequence[str]:
    return ()


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """`sections`: top-level keys of the config that can change what the stage writes; the first is its own, and the
    stage is there when that one is. `reads`, `writes`: names in the run folder. `roles`: the engines that it asks, in
    that order. `code`: import paths of the user's own that it calls. `files`: other files that it reads.
    `where`: "module:function" of `run(context) -> counts`.
    """

    name: str
    where: str
    sections: tuple[str, ...]
    writes: Callable[[Pipeline], Sequence[str]]
    reads: tuple[str, ...] = ()
    roles: Callable[[Pipeline], Sequence[str]] = _nothing
    code: Callable[[Pipeline], Sequence[str]] = _nothing
    files: Callable[[Pipeline], Iterable[Path]] = lambda config: ()
    present: Callable[[Pipeline], bool] | None = None  # where it is not simply the first section
    loads_a_model: Callable[[Pipeline], bool] = lambda config: False  # beside what its engines load
    always: bool = False  # never up to date
    also: Callable[[Pipeline], Any] = lambda config: None  # parts of other sections that can change what it writes

    def is_present(self, config: Pipeline) -> bool:
        if self.present is not None:
            return self.present(config)
        return getattr(config, self.sections[0]) is not None

    @property
    def run(self) -> Callable[[Any], dict[str, Any]]:
        module, _, function = self.where.partition(":")
        found: Callable[[Any], dict[str, Any]] = getattr(importlib.import_module(module), function)
        return found


def stages_of(config: Pipeline) -> list[str]:
    """The stages that the config asks for, in order."""
    return [name for name in STAGES if TABLE[name].is_present(config)]


def stage(name: str) -> Stage:
    """Errors: ConfigError for an unknown name."""
    if name not in TABLE:
        raise ConfigError(f"no stage {name!r}; there are: {', '.join(STAGES)}")
    return TABLE[name]


def engine_name(config: Pipeline, role: str) -> str:
    """Which kind of engine serves the role; a trained policy is served as the one it started from."""
    if role in config.engines:
        return config.engines[role].engine
    start = config.starting_policy
    return config.engines[start].engine if start in config.engines else ""


# -- what depends on what -----------------------------------------------------------------------------------------


def _responses(config: Pipeline) -> Sequence[str]:
    return ["prompts.jsonl"] if config.generate else ["prompts.jsonl", "responses.jsonl"]


def _samplers(config: Pipeline) -> Sequence[str]:
    return sorted({sampler.engine for sampler in config.generate.samplers}) if config.generate else []


def _judge_roles(config: Pipeline) -> Sequence[str]:
    return config.judge.roles if config.judge else []


def _revise_files(config: Pipeline) -> Iterator[Path]:
    """The standard, and both frames with all that they import."""
    if config.revise is None:
        return
    standards = (config.revise.rubric, config.revise.constitution)
    for standard in (load_standard(name) for name in standards if name):
        if standard.path is not None:
            yield standard.path
    for frame in frames_of(config.revise):
        yield from frame.paths


def _evaluate_roles(config: Pipeline) -> Sequence[str]:
    section = config.evaluate
    if section is None or section.prompts is None:
        return []
    start = [config.starting_policy] if config.starting_policy else []
    sampled = [section.best_of.policy] if section.best_of and section.best_of.policy else []
    judges = section.judges or (config.judge.last_word.roles if config.judge else [])
    return list(dict.fromkeys([*start, section.after, *section.policies, *sampled, *judges]))


def _scores_with_models(config: Pipeline) -> bool:
    section = config.evaluate
    return section is not None and bool(section.best_of or section.reward_models or section.kl or section.skills)


def _own(names: Iterable[str | None]) -> Sequence[str]:
    """The import paths among names."""
    return [name for name in names if name and ":" in name]


def _judge_code(config: Pipeline) -> Sequence[str]:
    return _own([config.judge.judge, *(leaf.judge for leaf in config.judge.leaves)]) if config.judge else []


def _source_files(source: Source | None) -> Iterator[Path]:
    """The file that rows come from, and those that it points at where it is a recording."""
    if source is None:
        return
    if is_recording(source.path):
        yield from files_of(source.path, source.params)
    else:
        yield resolve(source.path, Path())


def _standard_files(config: Pipeline) -> Iterator[Path]:
    """The rubric or constitution that judges, and its frames with all that they import."""
    if config.judge is None:
        return
    yield from find_files_of(config.judge)


def _pair_files(config: Pipeline) -> Iterator[Path]:
    yield from _standard_files(config)
    if config.pair and config.pair.panel_gold:
        yield resolve(config.pair.panel_gold, Path())
    if config.pair and config.pair.calibration:
        yield path_of(config.pair.calibration, Path(config.run))


def _calibrated(config: Pipeline) -> list[JudgeSection]:
    """The judges that calibrate asks."""
    return list(config.calibrate.sections(config.judge).values()) if config.calibrate else []


def _calibrate_roles(config: Pipeline) -> Sequence[str]:
    return list(dict.fromkeys(role for section in _calibrated(config) for role in section.roles))


def _calibrate_files(config: Pipeline) -> Iterator[Path]:
    if config.calibrate:
        yield from _source_files(config.calibrate.gold)
    for section in _calibrated(config):
        yield from _standard_files(config.model_copy(update={"judge": section}))


def _evaluate_files(config: Pipeline) -> Iterator[Path]:
    section = config.evaluate
    if section is None:
        return
    for source in (section.prompts, *section.pairs.values()):
        yield from _source_files(source)
    models = [*section.reward_models.values(), *([section.best_of.reward] if section.best_of else [])]
    datasets = [skill.dataset for skill in section.skills.values()]
    yield from (located(value, Path(config.run)) for value in [*models, *datasets])
    if section.calibration:
        yield path_of(section.calibration, Path(config.run))
    yield from _standard_files(config)


def _attacks(config: Pipeline) -> bool:
    return config.audit is not None and config.audit.injection is not None


def _audit_files(config: Pipeline) -> Iterator[Path]:
    if config.audit is None or config.audit.injection is None:
        return
    yield resolve(config.audit.injection.attacks, Path())
    yield from _source_files(config.audit.injection.pairs)
    yield from _standard_files(config)


def _trainer(name: str) -> Stage:
    def section(config: Pipeline) -> Any:
        return config.train.section(name) if config.train else None

    def online(config: Pipeline) -> bool:
        return isinstance(section(config), OnlineSection)

    def judges(config: Pipeline) -> list[JudgeSection]:
        return list(section(config).judges(config.judge).values()) if online(config) else []

    def code(config: Pipeline) -> list[str]:
        found = section(config)
        return [
            *(found.code if found else []),
            *_own(x.judge for judge in judges(config) for x in [judge, *judge.leaves]),
        ]

    def files(config: Pipeline) -> Iterator[Path]:
        found = section(config)
        if found is None:
            raise ConfigError(f"train.{name}: this config has no such section")
        if online(config):
            yield from live.files(config, name)
        folder = Path(config.run)
        for value in found.read:
            yield located(value, folder)
        if found.dataset is None:
            yield folder / found.exported
        if watcher(config):
            yield from _standard_files(config)

    def watcher(config: Pipeline) -> list[str]:
        """The judge of a guard: it judges by the standard of the labels."""
        guard = found.guard if (found := section(config)) else None
        return [guard.judge] if guard and guard.judge else []

    def roles(config: Pipeline) -> list[str]:
        asked = [role for judge in judges(config) for role in judge.roles]
        return list(dict.fromkeys([*asked, *watcher(config)]))

    def also(config: Pipeline) -> Any:
        rewards = live.depends_on(config, name) if online(config) else None
        parts = (config.judge, config.pair) if watcher(config) else ()
        watched = [part.model_dump(mode="json") if part else None for part in parts]
        return [rewards, watched] if rewards or watched else None

    return Stage(
        name=name,
        where=f"rlaif.stages.train:run_{name}",
        sections=("train",),
        present=lambda config: section(config) is not None,
        roles=roles,
        files=files,
        code=code,
        also=also,
        writes=lambda config: [f"models/{name}"],
        loads_a_model=lambda config: True,
    )


def located(value: str, folder: Path) -> Path:
    """A `model:` or `dataset:` of a config as a path: `run:NAME` is what the run in `folder` trained as NAME."""
    return folder / "models" / value.removeprefix(RUN) if value.startswith(RUN) else resolve(value, Path())


_ALL = [
    Stage(
        name="prompts",
        where="rlaif.stages.prompts:run",
        sections=("prompts",),
        files=lambda config: _source_files(config.prompts),
        writes=_responses,
    ),
    Stage(
        name="generate",
        where="rlaif.stages.generate:run",
        sections=("generate",),
        reads=("prompts.jsonl", "reasks.txt"),
        roles=_samplers,
        writes=lambda config: ["responses.jsonl"],
    ),
    Stage(
        name="revise",
        where="rlaif.stages.revise:run",
        sections=("revise",),
        reads=("prompts.jsonl", "responses.jsonl", "reasks.txt"),
        roles=lambda config: [config.revise.engine] if config.revise else [],
        files=_revise_files,
        writes=lambda config: ["revisions.jsonl"],
    ),
    Stage(
        name="judge",
        where="rlaif.stages.judge:run",
        sections=("judge",),
        reads=("prompts.jsonl", "responses.jsonl", "reasks.txt"),
        roles=_judge_roles,
        code=_judge_code,
        files=_standard_files,
        writes=lambda config: ["judgments.jsonl"],
    ),
    Stage(
        name="calibrate",
        where="rlaif.stages.calibrate:run",
        sections=("calibrate", "judge", "pair"),
        reads=("reasks.txt",),
        roles=_calibrate_roles,
        code=lambda config: _own(section.judge for section in _calibrated(config)),
        files=_calibrate_files,
        writes=lambda config: ["calibration/calibration.json", "calibration/disagreements.jsonl"],
    ),
    Stage(
        name="pair",
        where="rlaif.stages.pair:run",
        sections=("pair",),
        reads=("responses.jsonl", "judgments.jsonl"),
        code=lambda config: _own([config.pair.select]) if config.pair else [],
        files=_pair_files,
        writes=lambda config: ["preferences.jsonl"],
    ),
    Stage(
        name="audit",
        where="rlaif.stages.audit.run:run",
        sections=("audit", "judge", "pair", "generate", "engines"),
        reads=("prompts.jsonl", "responses.jsonl", "judgments.jsonl", "preferences.jsonl", "reasks.txt"),
        roles=lambda config: _judge_roles(config) if _attacks(config) else [],
        code=lambda config: _judge_code(config) if _attacks(config) else [],
        files=_audit_files,
        writes=lambda config: ["audit.json", *(["audit/judgments.jsonl"] if _attacks(config) else [])],
    ),
    Stage(
        name="export",
        where="rlaif.stages.export:run",
        sections=("export",),
        reads=("prompts.jsonl", "responses.jsonl", "revisions.jsonl", "judgments.jsonl", "preferences.jsonl"),
        writes=lambda config: [dataset_folder(kind) for kind in (config.export or ExportSection()).kinds],
    ),
    *(_trainer(name) for name in TRAINERS),
    Stage(
        name="evaluate",
        where="rlaif.stages.evaluate:run",
        sections=("evaluate", "judge", "pair", "generate"),
        reads=("prompts.jsonl", "reasks.txt"),
        roles=_evaluate_roles,
        code=lambda config: [*_judge_code(config), *_own(config.evaluate.metrics if config.evaluate else [])],
        files=_evaluate_files,
        writes=lambda config: ["evaluation/evaluation.json"],
        loads_a_model=_scores_with_models,
    ),
    Stage(
        name="report",
        where="rlaif.stages.report:run",
        sections=("report",),
        writes=lambda config: ["report.html", "report.json"],
        always=True,  # cheap, and it shows what the others did
    ),
]
TABLE = {row.name: row for row in _ALL}
