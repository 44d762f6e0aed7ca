"""What every trainer shares: checked arguments, pairs from an exported dataset, models, clear failures."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from rlaif.errors import ConfigError, DataError, one_line
from rlaif.paths import resolve

log = logging.getLogger("rlaif.training")

REFUSED = {
    "output_dir": "the run folder decides where the model goes",
    "trust_remote_code": "code from a model's repository is never run",
    "push_to_hub": "upload the finished folder instead",
}
_PACKAGES = ("torch", "transformers", "trl", "datasets", "accelerate", "peft")
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory", re.IGNORECASE)
_EXTRA_COLUMNS = ("tools", "chat_template_kwargs")  # TRL reads them when a dataset has them


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
    """A dataclass of arguments (a TRL config, a LoraConfig) from defaults and the user's `args`.

    Numbers that YAML reads as text (`2e-4` has no dot) are numbers again.
    Errors: ConfigError for an unknown name (with the close ones), a refused one, or what the class itself refuses.
    """
    fields = check_names(cls, args, where)
    given = {name: _number(value, str(fields[name].type)) for name, value in args.items()}
    try:
        return cls(**{**defaults, **given})
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"{where}: {one_line(error)}") from None


def check_names(cls: Any, args: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of a dataclass of arguments by name. Errors: ConfigError for a name in `args` that is not one."""
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    for name in args:
        if name in REFUSED:
            raise ConfigError(f"{where}.{name}: cannot be set: {REFUSED[name]}")
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=3)
            hint = (
                f"did you mean {' or '.join(close)}?"
                if close
                else f"see {cls.__name__} in its library's documentation"
            )
            raise ConfigError(f"{where}.{name}: {cls.__name__} has no such argument; {hint}")
    return fields


def _number(value: Any, annotation: str) -> Any:
    if not isinstance(value, str) or not ("float" in annotation or "int" in annotation):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def located(value: str) -> str:
    """A path from a config (`shipped:…` too) as one from the working folder; what is not there stays: a hub id."""
    path = resolve(value, Path())
    return str(path) if path.exists() or value.startswith("shipped:") else value


def load_splits(source: Path | str, columns: list[str], cache: Path) -> tuple[Any, Any | None]:
    """The train split and, where there is one, the test split, reduced to what the trainer reads.

    source: an exported dataset folder, a JSONL or Parquet file, or a hub id. Other columns are left out, since TRL
    gives some names a meaning (`margin`, `images`). `cache` holds what `datasets` writes, not the user's own cache.
    Errors: DataError that names what is missing and what is there.
    """
    import datasets

    datasets.utils.logging.disable_progress_bar()
    found = _read(source, cache)
    train = found.get("train")
    if train is None:
        raise DataError(f"{source}: no split 'train'; there: {', '.join(found)}")
    test = found.get("test")
    splits = [
        _reduced(split, columns, f"{source} ({name})")
        for name, split in (("train", train), ("test", test))
        if split is not None
    ]
    if not len(splits[0]):
        raise DataError(f"{source}: the train split is empty: there is nothing to train on")
    return splits[0], splits[1] if len(splits) > 1 and len(splits[1]) else None


def _read(source: Path | str, cache: Path) -> Any:
    import datasets

    path = Path(source)
    if not path.exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise DataError(f"{source}: no such dataset folder or file")
    try:
        if path.is_file():
            kind = {".parquet": "parquet", ".csv": "csv"}.get(path.suffix, "json")
            return datasets.load_dataset(kind, data_files=str(path), cache_dir=str(cache))
        return datasets.load_dataset(str(source), cache_dir=str(cache))
    except Exception as error:  # the library raises a dozen kinds, from pyarrow's to its own
        raise DataError(f"{source}: cannot load this dataset: {one_line(error)}") from error


def _reduced(split: Any, columns: list[str], where: str) -> Any:
    missing = [name for name in columns if name not in split.column_names]
    if missing:
        there = ", ".join(split.column_names) or "none"
        raise DataError(f"{where}: missing column {', '.join(missing)}; columns there: {there}")
    return split.select_columns(columns + [name for name in _EXTRA_COLUMNS if name in split.column_names])


def check_pairs(split: Any, soft: bool, where: str) -> None:
    """Every row has two responses that differ and, if asked for, a probability. Errors: DataError."""
    for number, row in enumerate(split):
        if not row["chosen"] or not row["rejected"]:
            raise DataError(f"{where}: row {number}: chosen or rejected is empty")
        if row["chosen"] == row["rejected"]:
            raise DataError(f"{where}: row {number}: chosen and rejected are the same")
        p = row["probability"] if soft else 1.0
        if not isinstance(p, int | float) or not 0 <= p <= 1:
            raise DataError(f"{where}: row {number}: probability must be a number in [0, 1], got {p!r}")


def dataset_sha256(split: Any) -> str:
    """Of the rows as JSON, so the same pairs have the same hash in Parquet and JSONL."""
    digest = hashlib.sha256()
    for row in split:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def load_tokenizer(model: str, conversational: bool) -> Any:
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
        tokenizer = AutoTokenizer.from_pretrained(model)
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


def lora_config(options: Mapping[str, Any] | None, where: str) -> Any:
    """`peft.LoraConfig` for a causal LM, or None. Errors: ConfigError."""
    if options is None:
        return None
    try:
        from peft import LoraConfig
    except ImportError:
        raise ConfigError(f"{where}: LoRA needs peft: pip install 'rlaif[peft]'") from None
    return config_object(LoraConfig, options, {"task_type": "CAUSAL_LM"}, where)


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
