"""What every trainer shares: checked arguments, models and adapters, clear failures, the record of a training."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from rlaif.errors import ConfigError, one_line

log = logging.getLogger("rlaif.training")

REFUSED = {
    "output_dir": "the run folder decides where the model goes",
    "trust_remote_code": "code from a model's repository is never run",
    "push_to_hub": "upload the finished folder instead",
}
_PACKAGES = ("torch", "transformers", "trl", "datasets", "accelerate", "peft")
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)


def prepare_environment() -> None:
    """Quiet, offline-friendly libraries. Call before torch, transformers, datasets or trl are imported."""
    for key, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_WAIT_POLICY": "passive",  # spinning threads cost most of the speed on a shared machine
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }.items():
        os.environ.setdefault(key, value)


def config_object(cls: Any, args: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> Any:
    """An object of arguments (a TRL config, a LoraConfig) from defaults and the user's `args`.

    Numbers that YAML reads as text (`2e-4` has no dot) are numbers again.
    Errors: ConfigError for an unknown name (with the close ones), a refused one, or what the class itself refuses.
    """
    known = check_names(cls, args, where)
    given = {name: _number(value, str(known[name].annotation)) for name, value in args.items()}
    try:
        return cls(**{**defaults, **given})
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None


def check_names(cls: Any, args: Mapping[str, Any], where: str) -> dict[str, inspect.Parameter]:
    """What `cls` takes, by name. Errors: ConfigError for a name in `args` that it does not take or that we refuse."""
    parameters = inspect.signature(cls).parameters
    known = {name: p for name, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
    for name in args:
        if name in REFUSED:
            raise ConfigError(f"{where}.{name}: cannot be set: {REFUSED[name]}")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            hint = (
                f"did you mean {' or '.join(close)}?"
                if close
                else f"see {cls.__name__} in its library's documentation"
            )
            raise ConfigError(f"{where}.{name}: {cls.__name__} has no such argument; {hint}")
    return known


def _number(value: Any, annotation: str) -> Any:
    if not isinstance(value, str) or not ("float" in annotation or "int" in annotation):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def load_tokenizer(model: str, conversational: bool, revision: str | None = None) -> Any:
    """The tokenizer of a model folder or hub id, with a pad token.

    Padding is masked wherever we train, so the end token may stand in for a missing pad token.
    Errors: ConfigError where there is no model, no chat template for conversations, or neither pad nor end token.
    """
    from transformers import AutoTokenizer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    folder = Path(model)
    if not (folder / "config.json").is_file() and (folder.exists() or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", model)):
        raise ConfigError(f"model {model!r}: not a model folder: no config.json there")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, **({"revision": revision} if revision else {}))
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"model {model!r}: cannot load its tokenizer: {one_line(error)}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError(f"model {model!r}: its tokenizer has neither a pad nor an end-of-sequence token")
        log.warning("model %s: no pad token, its end token pads (padding is masked)", model)
        tokenizer.pad_token = tokenizer.eos_token
    if conversational and not tokenizer.chat_template:
        raise ConfigError(f"model {model!r}: its tokenizer has no chat template, and the dataset holds conversations")
    return tokenizer


def lora_class(where: str) -> Any:
    """`peft.LoraConfig`. Errors: ConfigError where peft is not installed."""
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError(f"{where}: LoRA needs peft: pip install 'rlaif[peft]'") from None
    return LoraConfig


def quantization_config(options: Mapping[str, Any] | None, where: str) -> Any:
    """`transformers.BitsAndBytesConfig`, or None. Errors: ConfigError, also where bitsandbytes is not installed."""
    if options is None:
        return None
    from transformers import BitsAndBytesConfig

    config = config_object(BitsAndBytesConfig, options, {}, where)
    try:
        metadata.version("bitsandbytes")
    except metadata.PackageNotFoundError:
        raise ConfigError(f"{where}: needs bitsandbytes: pip install bitsandbytes") from None
    return config


def check_finite(model: Any, where: str) -> None:
    """Errors: ConfigError if any weight is NaN or infinite: such a model is not written."""
    import torch

    bad = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        raise ConfigError(f"{where}: training diverged: {len(bad)} weights are not finite, first {bad[0]}; {_CALMER}")


_CALMER = "lower args.learning_rate or set args.max_grad_norm; nothing was written"


def stop_at_nan(where: str) -> Any:
    """A trainer callback that ends training with a ConfigError when the logged loss is not finite."""
    from transformers import TrainerCallback

    class StopAtNaN(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            loss = (logs or {}).get("loss")
            if loss is not None and not math.isfinite(loss):
                raise ConfigError(
                    f"{where}: training diverged: the loss is {loss} at step {state.global_step}; {_CALMER}"
                )
            if loss is not None:
                log.info("step %d of %d: loss %.4f", state.global_step, state.max_steps, loss)

    return StopAtNaN()


@contextmanager
def memory_errors(where: str) -> Iterator[None]:
    """Turns the ways to run out of memory into one line. Errors: ConfigError."""
    hint = "lower args.per_device_train_batch_size or args.max_length, set args.gradient_checkpointing, or use lora"
    try:
        yield
    except MemoryError:
        raise ConfigError(f"{where}: out of memory; {hint}") from None
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU allocator raises it bare
        if not _NO_MEMORY.search(str(error)):
            raise
        raise ConfigError(f"{where}: out of memory ({one_line(error, 120)}); {hint}") from None


def versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def history(log_history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The trainer's log as rows of finite numbers, one per logged step."""
    rows = []
    for entry in log_history:
        if "loss" in entry:
            rows.append({k: v for k, v in entry.items() if isinstance(v, int | float) and math.isfinite(v)})
    return rows


def plain_args(config: Any) -> dict[str, Any]:
    """The arguments that differ from their defaults, or have none, as JSON; paths of this machine left out."""
    plain = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        if value != default and isinstance(value, str | int | float | bool | list | dict | None):
            plain[field.name] = value
    return {name: value for name, value in plain.items() if name not in ("output_dir", "logging_dir")}
