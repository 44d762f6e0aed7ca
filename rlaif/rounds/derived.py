"""The pipeline of one round, derived from the pipeline that goes in rounds. Pure: no file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.config import EvaluateSection, Pipeline, RoundsSection, Source
from rlaif.config.pipeline import TRAINED
from rlaif.errors import ConfigError
from rlaif.store import ROUNDS


def section_of(config: Pipeline) -> RoundsSection:
    """Errors: ConfigError where the pipeline does not go in rounds."""
    if config.rounds is None:
        raise ConfigError("rounds: this config has no such section")
    return config.rounds


def folder_of(config: Pipeline, number: int) -> Path:
    """The run folder of a round, from 1 on."""
    return Path(config.run) / ROUNDS / str(number)


def trainer_of(config: Pipeline) -> str:
    """The one trainer whose policy goes on."""
    return str(config.trainer_of(TRAINED))


def policy_of(config: Pipeline, number: int) -> Path:
    """What a round trains."""
    return folder_of(config, number) / "models" / trainer_of(config)


def of_round(config: Pipeline, number: int, *, planned: bool = False) -> Pipeline:
    """The pipeline of round `number`, from 1 on: a plain one, whose starting policy is what the round before trained.

    The seed is the same in every round: a round's samples differ since its policy does, while prompts that `export`
    holds out stay held out, and what two rounds ask alike is paid for once. `planned`: with the first round's policy,
    for a plan made while the others are not there.
    """
    changes: dict[str, Any] = {
        "run": str(folder_of(config, number)),
        "rounds": None,
        "prompts": _share(config, number),
        "evaluate": _evaluate(config),
    }
    if config.report is not None:
        title = f"{config.report.title or Path(config.run).name}: round {number}"
        changes["report"] = config.report.model_copy(update={"title": title})
    if number > 1 and not planned:
        changes |= _from(config, str(policy_of(config, number - 1)))
    return config.model_copy(update=changes)


def _from(config: Pipeline, model: str) -> dict[str, Any]:
    """The sections that name the starting policy, with `model` in its place."""
    start, trainer = str(config.starting_policy), trainer_of(config)
    assert config.train is not None
    section = config.train.section(trainer)
    assert section is not None
    trained = section.model_copy(update={"model": model})
    return {
        "engines": {**config.engines, start: config.engines[start].serving(model)},
        "train": config.train.model_copy(update={trainer: trained}),
    }


def _share(config: Pipeline, number: int) -> Source:
    """The prompts of a round: its own rows in the order of the file, or all."""
    assert config.prompts is not None
    share = section_of(config).prompts_per_round
    if share is None:
        return config.prompts
    return config.prompts.model_copy(update={"skip": config.prompts.skip + (number - 1) * share, "limit": share})


def _evaluate(config: Pipeline) -> EvaluateSection | None:
    """The new policy against the one that the round started from. Other policies meet the first one at the end."""
    section = config.evaluate
    prompts = section_of(config).evaluate_on or (section.prompts if section else None)
    if section is None or prompts is None:
        return None
    changes: dict[str, Any] = {
        "prompts": prompts, "before": config.starting_policy, "after": TRAINED, "policies": [], "each_other": False,
        "best_of": None, "reward_models": {}, "pairs": {},
    }  # fmt: skip
    return section.model_copy(update=changes)
