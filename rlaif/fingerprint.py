"""When a stage is up to date: a fingerprint of all that can change what it writes."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rlaif.config import Pipeline
from rlaif.digests import path_sha256
from rlaif.paths import resolve
from rlaif.records import SCHEMA_VERSION, make_id
from rlaif.stages.base import Context
from rlaif.stages.table import stage as stage_named
from rlaif.store import RunFolder


def fingerprint(config: Pipeline, folder: RunFolder, stage: str) -> str:
    """Changes with anything that can change what the stage writes. Errors: ConfigError."""
    row = stage_named(stage)
    raw = config.model_dump(mode="json")
    parts: list[Any] = [SCHEMA_VERSION, stage, config.seed]
    parts += [_own_part(raw[name], name, stage) for name in row.sections]
    also = row.also(config)
    parts += [] if also is None else [also]
    if stage == "prompts":
        parts.append(config.generate is None)  # responses are then read too
    if row.always:
        parts.append(time.time_ns())
    context = Context(config, folder)
    parts += [context.engine(role).identity for role in row.roles(config)]
    parts += [path_sha256(folder.path / name) for name in row.reads]
    parts += [path_sha256(path) for name in row.code(config) for path in _module_file(name)]
    parts += [path_sha256(path) for path in row.files(config)]
    return make_id(*(msgspec.json.encode(part, order="sorted").decode() for part in parts))


def _own_part(section: Any, name: str, stage: str) -> Any:
    """Of `train:`, the trainer's own section: another trainer's settings change nothing here.

    A starting model in a folder counts by what is in it (the stage's `files`): a run that was moved goes on.
    """
    if name != "train" or not isinstance(section, dict):
        return section
    own = section.get(stage)
    if own and resolve(own["model"], Path()).is_dir():
        own = {**own, "model": None}
    return own


def _module_file(name: str) -> Iterator[Path]:
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return  # the stage itself says what is wrong with it
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin)
