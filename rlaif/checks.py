"""What a stage would refuse at its turn, found before anything is paid for or a run folder's config is replaced."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from rlaif.config import Pipeline
from rlaif.config.data import KINDS, dataset_folder
from rlaif.config.training import NO_REWARDS, TRAINERS, OnlineSection, TrainerSection
from rlaif.engines.base import IN_PROCESS, import_path
from rlaif.errors import ConfigError
from rlaif.paths import resolve
from rlaif.stages.base import Context
from rlaif.stages.contest import contestants_of
from rlaif.stages.live import checks as live
from rlaif.store import RunFolder


def check(config: Pipeline, folder: RunFolder, stages: Iterable[str]) -> None:
    """Everything that can be known of `stages` without asking or loading a model. Errors: ConfigError."""
    context = Context(config, folder)
    for role, spec in config.engines.items():
        if spec.engine == "openai":  # also one that no stage asks: a secret in it would reach the manifest
            context.engine(role)
    for stage in stages:
        if stage in _CHECKS:
            _CHECKS[stage](context)


def _generate(context: Context) -> None:
    if context.config.generate is None:
        raise ConfigError("generate: this config has no such section")
    for sampler in context.config.generate.samplers:
        context.engine(sampler.engine)


def _judge(context: Context) -> None:
    from rlaif.judges import build

    section = context.config.judge
    if section is None:
        raise ConfigError("judge: this config has no such section")
    build(section, context.engine)


def _revise(context: Context) -> None:
    from rlaif.judges.revision import RevisionChain

    section = context.config.revise
    if section is None:
        raise ConfigError("revise: this config has no such section")
    RevisionChain.from_section(section, context.engine)


def _calibrate(context: Context) -> None:
    from rlaif.stages import calibrate

    sections = calibrate.sections_of(context.config)
    calibrate.read(context.config, [])
    for name, section in sections.items():
        calibrate.judge_of(context, name, section)


def _pair(context: Context) -> None:
    from rlaif.stages.pairing.gold import load_gold
    from rlaif.stages.selectors import selector

    section = context.config.pair
    if section is not None:
        selector(section.select)
        if section.panel_gold is not None:
            load_gold(section.panel_gold)


def _audit(context: Context) -> None:
    from rlaif.stages.audit import gates, injection

    section = context.config.audit
    if section is not None:
        gates.check_names(section.gates)
        if section.injection is not None:
            injection.prepared(context)


def _online(name: str) -> Callable[[Context], None]:
    def check(context: Context) -> None:
        where = f"train.{name}"
        section = context.config.train.section(name) if context.config.train else None
        if not isinstance(section, OnlineSection):
            raise ConfigError(f"{where}: this config has no such section")
        _launch(section, where)
        _guard(context, name, section)
        if not section.rewards:
            raise ConfigError(NO_REWARDS.format(where=where))
        for path in section.code:
            import_path(path, f"{where}.rewards")
        live.check(context, name)
        there = context.config.prompts is not None or (context.folder.path / section.exported).exists()
        if section.dataset is None and not there:
            raise ConfigError(f"{where}: reads {section.exported}: this config has no prompts; set {where}.dataset")

    return check


def _evaluate(context: Context) -> None:
    from rlaif.stages.evaluate import find_metric, judges_of

    section = context.config.evaluate
    if section is None:
        raise ConfigError("evaluate: this config has no such section")
    for path in section.metrics:
        find_metric(path)
    if section.prompts is None:
        return
    for judge in judges_of(context.config):
        judge.build(context.engine)
    context.engine(context.starting_policy)
    contestants_of(context.config, context.starting_policy)
    for role in [section.after, *section.policies]:
        _after(context, role)


def _after(context: Context, role: str) -> None:
    """An engine that loads a model is not built here: its folder may be the one that this run is to train."""
    name = context.engine_spec(role).engine
    if name in IN_PROCESS or ":" in name:
        return
    if role not in context.config.engines:  # "trained", served as the starting policy is
        raise ConfigError(
            f"evaluate.after: {role}: engine {name!r} of {context.starting_policy!r} cannot serve the folder that "
            "this run trains; evaluate.after may name another entry of engines:, for example one of transformers or "
            f"vllm with model: {context.folder.path / 'models' / str(context.config.trainer_of(role))}"
        )
    context.engine(role)


def _guard(context: Context, name: str, section: TrainerSection) -> None:
    from rlaif.stages.probing import seat_of

    guard = section.guard
    if guard is None:
        return
    if not resolve(guard.probes, Path()).exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", guard.probes):
        raise ConfigError(f"train.{name}.guard.probes: {guard.probes}: no such folder or file, and no hub id")
    if guard.judge is not None:
        seat_of(context, name, guard.judge).build(context.engine)


def _trainer(name: str) -> Callable[[Context], None]:
    def check(context: Context) -> None:
        config, where = context.config, f"train.{name}"
        section = config.train.section(name) if config.train else None
        if section is None:
            raise ConfigError(f"{where}: this config has no such section")
        _launch(section, where)
        _guard(context, name, section)
        if section.dataset is not None or config.export is None:
            return
        written = {dataset_folder(kind): kind for kind in KINDS}
        kind = written[section.exported]
        if kind not in config.export.kinds and not (context.folder.path / section.exported).exists():
            raise ConfigError(
                f"{where}: reads {section.exported}/, which export does not write: add {kind} to export.kinds, or "
                f"set {where}.dataset"
            )

    return check


def _launch(section: TrainerSection, where: str) -> None:
    file = section.launch.config_file if section.launch else None
    if file is not None and not resolve(file, Path()).is_file():
        raise ConfigError(f"{where}.launch.config_file: {file}: no such file; `accelerate config` writes one")


_CHECKS: dict[str, Callable[[Context], None]] = {
    **{name: _trainer(name) for name in TRAINERS},
    "generate": _generate,
    "revise": _revise,
    "judge": _judge,
    "calibrate": _calibrate,
    "pair": _pair,
    "audit": _audit,
    "ppo": _online("ppo"),
    "grpo": _online("grpo"),
    "evaluate": _evaluate,
}
