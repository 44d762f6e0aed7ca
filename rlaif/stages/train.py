"""Trains on what the run exported (or on `dataset:`), into models/NAME."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaif.config.training import TrainerSection
from rlaif.engines.base import import_path
from rlaif.errors import ConfigError, StoreError
from rlaif.paths import RUN, located
from rlaif.stages.base import Context
from rlaif.stages.probing import probe_judge


def run_reward(context: Context) -> dict[str, Any]:
    from rlaif.training.reward import train_reward

    section, dataset, out = prepared(context, "reward")
    training = train_reward(section, dataset, out, context.config.seed)
    return {"rows": training["n_train"], "steps": training["steps"], "members": section.ensemble}


def run_dpo(context: Context) -> dict[str, Any]:
    from rlaif.training.dpo import train_dpo

    section, dataset, out = prepared(context, "dpo")
    training = train_dpo(section, dataset, out, context.config.seed, judge=probe_judge(context, "dpo"))
    return _counts(training)


def run_sft(context: Context) -> dict[str, Any]:
    from rlaif.training.sft import train_sft

    section, dataset, out = prepared(context, "sft")
    training = train_sft(section, dataset, out, context.config.seed, judge=probe_judge(context, "sft"))
    return _counts(training)


def run_kto(context: Context) -> dict[str, Any]:
    from rlaif.training.kto import train_kto

    section, dataset, out = prepared(context, "kto")
    training = train_kto(section, dataset, out, context.config.seed, judge=probe_judge(context, "kto"))
    return _counts(training)


def run_ppo(context: Context) -> dict[str, Any]:
    from rlaif.training.ppo.method import train_ppo

    return _online(context, "ppo", train_ppo)


def run_grpo(context: Context) -> dict[str, Any]:
    from rlaif.training.grpo import train_grpo

    return _online(context, "grpo", train_grpo)


def _online(context: Context, name: str, train: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    from rlaif.stages.live.session import judges

    section, dataset, out = prepared(context, name)
    functions = {path: import_path(path, f"train.{name}.rewards") for path in section.code}
    with judges(context, name) as judged_by:
        training = train(
            section, dataset, out, context.config.seed, functions=functions, judges=judged_by,
            judge=probe_judge(context, name),
        )  # fmt: skip
    counts = {**_counts(training), "rollouts": training["rollouts"]}
    if judged_by:
        counts |= {"judged": sum(judge.judged for judge in judged_by.values())}
        counts |= {"unscored": sum(judge.unscored for judge in judged_by.values())}
    return counts


def _counts(training: dict[str, Any]) -> dict[str, Any]:
    """For the manifest: also where a guard stopped the training, and which step's weights were kept."""
    guard = training.get("guard")
    kept = {"kept_step": guard["kept_step"], "stopped": guard["why"] or "no"} if guard else {}
    return {"rows": training["n_train"], "steps": training["steps"], **kept}


def prepared(context: Context, name: str) -> tuple[Any, Path | str, Path]:
    """The trainer's section with its models located, its dataset, and the folder to write.

    Errors: ConfigError (no such section), StoreError (`run:NAME` that this run has not trained).
    """
    train = context.config.train
    section: TrainerSection | None = train.section(name) if train else None
    if section is None:
        raise ConfigError(f"train.{name}: this config has no such section")
    folder = context.folder.path

    def find(value: str, key: str) -> str:
        return trained(value, folder, f"train.{name}.{key}") if value.startswith(RUN) else value

    section = section.with_models(find)
    return section, section.dataset or folder / section.exported, folder / "models" / name


def trained(value: str, folder: Path, where: str) -> str:
    """`run:NAME` as the folder of that model. Errors: StoreError where this run has not trained it."""
    path = located(value, folder)
    if not path.is_dir():
        raise StoreError(f"{where}: {value}: {path} is not there yet; train {value.removeprefix(RUN)} first")
    return str(path)
