"""A trainer's section as the setting that `memory` counts: on what, in what precision, on how many devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.config.base import read_yaml
from rlaif.config.training import GRPOSection, LaunchSection, OnlineSection, PPOSection, TrainerSection
from rlaif.errors import ConfigError, one_line
from rlaif.paths import resolve
from rlaif.training.data import located
from rlaif.training.memory import MOMENTS, Setting, Shape, has_config, memory, shape_of
from rlaif.training.methods import method
from rlaif.training.scoring import read_reward_file

_SEQUENCES = {"dpo": 2, "reward": 2}  # of a row; else 1
_WITH_REFERENCE = ("dpo", "kto")
_UNSAID_PROMPT = 512  # tokens, where max_prompt_length is not said
_WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "auto": 2}
_GIB = 2**30


def plan(name: str, section: TrainerSection) -> dict[str, int]:
    """Bytes on each device by what they are for, and in "total": `memory.memory` of this trainer's section.

    Rows are taken to be as long as `args.max_length` (of PPO and GRPO, max_prompt_length + max_completion_length). A
    judge among the rewards is not counted. Errors: ConfigError where the model's config cannot be read.
    """
    try:
        shape = shape_of(located(section.model), section.lora, classifier=name == "reward")
    except (OSError, ValueError) as error:
        raise ConfigError(f"train.{name}.model: {section.model}: no config to plan by: {one_line(error)}") from None
    args = arguments_of(name, section)
    if isinstance(section, PPOSection):
        others = _of_ppo(section, shape)
    elif isinstance(section, GRPOSection):
        others = (
            {} if section.lora is not None or not args.get("beta") else {"reference": (shape.n_parameters, False)}
        )
        others |= _reward_models(section)
    else:
        others = {} if _reference_is_free(name, args, section) else {"reference": (shape.n_parameters, False)}
    return memory(shape, setting(name, section), others)


def setting(name: str, section: TrainerSection) -> Setting:
    """What `memory` is to count with."""
    args = arguments_of(name, section)
    init_kwargs = args.get("model_init_kwargs") or {}
    weight_bytes = _WEIGHT_BYTES.get(str(init_kwargs.get("dtype", "float32")).removeprefix("torch."), 4)
    shards, ddp = _sharing(section.launch)
    return Setting(
        tokens=args["per_device_train_batch_size"] * _SEQUENCES.get(name, 1) * _length(name, args),
        weight_bytes=weight_bytes,
        frozen_bytes=_quantised(section.quantization),
        compute_bytes=2 if args.get("bf16") or args.get("fp16") or weight_bytes == 2 else 4,
        moments=_moments(str(args.get("optim"))),
        checkpointing=bool(args.get("gradient_checkpointing")),
        accumulation=int(args.get("gradient_accumulation_steps") or 1),
        shards=shards,
        ddp=ddp,
        triton=_on_gpu() and not args.get("use_cpu"),
    )


def told(name: str, section: TrainerSection) -> str:
    """One line for people, in GiB on each device."""
    found = plan(name, section)
    total = found.pop("total")
    parts = " + ".join(f"{part} {value / _GIB:.2f}" for part, value in found.items() if value >= _GIB / 200)
    return f"train.{name}: about {total / _GIB:.2f} GiB on each device at its peak ({parts}; not all at once)"


def arguments_of(name: str, section: TrainerSection) -> dict[str, Any]:
    """The arguments that decide, with the defaults of `fitting.arguments` and of TRL."""
    on_gpu = _on_gpu()
    trainer = method(name)
    found = {
        field.name: field.default
        for field in dataclasses.fields(trainer.config_class())
        if field.default is not dataclasses.MISSING
    }
    ours = {"per_device_train_batch_size": 8, "bf16": on_gpu, "gradient_checkpointing": on_gpu}
    return {**found, **ours, **trainer.defaults, **section.args}


def _on_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _length(name: str, args: Mapping[str, Any]) -> int:
    """Tokens of a sequence, at most."""
    if name in ("ppo", "grpo"):
        return int(args.get("max_prompt_length") or _UNSAID_PROMPT) + int(args.get("max_completion_length") or 0)
    return int(args.get("max_length") or 1024)


def _of_ppo(section: PPOSection, shape: Shape) -> dict[str, tuple[int, bool]]:
    """Reference, reward models and critic. One whose config is not here counts as the policy."""
    if section.one_backbone:  # adapters over the policy's base, taken to be as large as its own
        rewards = {f"reward {at}": (shape.n_trained, False) for at, x in enumerate(section.rewards, 1) if x.model}
        return {**rewards, "critic": (shape.n_trained, True)}
    found = {} if section.lora is not None else {"reference": (shape.n_parameters, False)}
    found |= _reward_models(section)
    models = [source.model for source in section.rewards if source.model]
    critic = section.critic or next(iter(models), None) or section.model
    return {**found, "critic": (_n_scoring(critic, section.model, members=1), True)}


def _reward_models(section: OnlineSection) -> dict[str, tuple[int, bool]]:
    models = [source.model for source in section.rewards if source.model]
    return {f"reward {at}": (_n_scoring(model, section.model), False) for at, model in enumerate(models, 1)}


def _n_scoring(model: str, policy: str, members: int | None = None) -> int:
    """Parameters of a reward model (all members of an ensemble, or `members` of them)."""
    folder = Path(located(model))
    index = read_reward_file(folder)
    names = (index or {}).get("members") or ["."]
    paths = [str(folder / name) for name in names[:members]]
    return sum(
        shape_of(path if has_config(path) else located(policy), classifier=True).n_parameters for path in paths
    )


def _reference_is_free(name: str, args: Mapping[str, Any], section: TrainerSection) -> bool:
    """No second model: there is no reference, it was asked beforehand, or it is the policy without its adapter."""
    return name not in _WITH_REFERENCE or section.lora is not None or bool(args.get("precompute_ref_log_probs", True))


def _moments(optimiser: str) -> int:
    kind = "adamw_8bit" if "adam" in optimiser and "8bit" in optimiser else optimiser
    return next((size for name, size in MOMENTS.items() if kind == name), MOMENTS["adamw"] if "adam" in kind else 0)


def _quantised(quantization: Mapping[str, Any] | None) -> float | None:
    if not quantization:
        return None
    return 0.5 if quantization.get("load_in_4bit") else 1.0


def n_processes_of(launch: LaunchSection | None) -> int:
    """How many processes `launch` starts."""
    if launch is None:
        return 1
    raw = read_yaml(resolve(launch.config_file, Path())) if launch.config_file else {}
    return int(launch.num_processes or raw.get("num_processes") or 1)


def _sharing(launch: LaunchSection | None) -> tuple[int, bool]:
    """How many processes share the weights, and whether gradients are copied to be sent."""
    if launch is None:
        return 1, False
    raw = read_yaml(resolve(launch.config_file, Path())) if launch.config_file else {}
    n = n_processes_of(launch)
    kind = str(raw.get("distributed_type", ""))
    zero3 = kind == "DEEPSPEED" and (raw.get("deepspeed_config") or {}).get("zero_stage") == 3
    shared = kind == "FSDP" or zero3
    return (n if shared else 1), n > 1 and not shared
