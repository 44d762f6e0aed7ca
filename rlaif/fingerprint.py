"""When a stage is up to date: a fingerprint of all that can change what it writes."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from rlaif.config import DPOSection, Pipeline
from rlaif.digests import path_sha256
from rlaif.errors import ConfigError
from rlaif.judges import find_frame_of, find_standard
from rlaif.paths import resolve
from rlaif.records import SCHEMA_VERSION, make_id
from rlaif.stages.base import Context
from rlaif.store import RunFolder


def fingerprint(config: Pipeline, folder: RunFolder, stage: str) -> str:
    """Changes with anything that can change what the stage writes."""
    parts: list[Any] = [SCHEMA_VERSION, stage, config.seed, *_sections(config, stage)]
    context = Context(config, folder)
    parts += [context.engine(role).identity for role in roles_of(config, stage)]
    for name in _inputs(stage):
        parts.append(path_sha256(folder.path / name))
    parts += [path_sha256(path) for path in _files(config, stage)]
    return make_id(*(msgspec.json.encode(part, order="sorted").decode() for part in parts))


def _sections(config: Pipeline, stage: str) -> list[Any]:
    raw = config.model_dump(mode="json")
    wanted = {
        "prompts": ["prompts"],
        "generate": ["generate"],
        "judge": ["judge"],
        "pair": ["pair"],
        "export": ["export"],
        "train": ["train"],
        "evaluate": ["evaluate", "judge", "pair", "generate"],
        "report": ["report"],
    }[stage]
    extra: list[Any] = [config.generate is None] if stage == "prompts" else []
    extra += [time.time_ns()] if stage == "report" else []  # cheap, and it shows what the others did: always made
    return [raw[name] for name in wanted] + extra


def roles_of(config: Pipeline, stage: str) -> list[str]:
    """The engines that a stage asks, in the order in which it asks them."""
    if stage == "generate" and config.generate:
        return sorted({sampler.engine for sampler in config.generate.samplers})
    if stage == "judge" and config.judge:
        return [config.judge.engine]
    if stage == "evaluate" and config.evaluate:
        before = [config.starting_policy] if config.starting_policy else []
        judges = config.evaluate.judges or ([config.judge.engine] if config.judge else [])
        return list(dict.fromkeys([*before, config.evaluate.after, *judges]))
    return []


def engine_name(config: Pipeline, role: str) -> str:
    """Which kind of engine serves the role; a trained policy is served as the one it started from."""
    if role in config.engines:
        return config.engines[role].engine
    start = config.starting_policy
    return config.engines[start].engine if start in config.engines else ""


def _inputs(stage: str) -> list[str]:
    """Files of the run folder that the stage reads."""
    return {
        "generate": ["prompts.jsonl", "reasks.txt"],
        "judge": ["prompts.jsonl", "responses.jsonl", "reasks.txt"],
        "pair": ["responses.jsonl", "judgments.jsonl"],
        "export": ["prompts.jsonl", "responses.jsonl", "judgments.jsonl", "preferences.jsonl"],
        "train": ["dataset"],
        "evaluate": ["prompts.jsonl", "reasks.txt"],
    }.get(stage, [])


def _files(config: Pipeline, stage: str) -> Iterator[Path]:
    """Files outside the run folder that the stage reads."""
    if stage == "prompts" and config.prompts:
        yield resolve(config.prompts.path, Path())
    if stage == "evaluate" and config.evaluate:
        yield resolve(config.evaluate.prompts.path, Path())
    for name in _own_code(config, stage):
        yield from _module_file(name)
    if stage in ("judge", "pair", "evaluate") and config.judge:
        standard = find_standard(config.judge)
        if standard is not None and standard.path is not None:
            yield standard.path
        yield from find_frame_of(config.judge).paths  # also of what it imports
    if stage == "train":
        section = dpo_section(config)
        yield resolve(section.model, Path())
        if section.dataset:
            yield resolve(section.dataset, Path())


def _own_code(config: Pipeline, stage: str) -> list[str]:
    """Import paths of the user's own judges, selectors and metrics."""
    names = [config.judge.judge] if config.judge and stage in ("judge", "evaluate") else []
    names += [config.pair.select] if config.pair and stage == "pair" else []
    names += config.evaluate.metrics if config.evaluate and stage == "evaluate" else []
    return [name for name in names if ":" in name]


def _module_file(name: str) -> Iterator[Path]:
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except (ImportError, ValueError):
        return  # the stage itself says what is wrong with it
    if spec is not None and spec.origin is not None:
        yield Path(spec.origin)


def outputs_of(config: Pipeline, stage: str) -> list[str]:
    return {
        "prompts": ["prompts.jsonl"] + ([] if config.generate else ["responses.jsonl"]),
        "generate": ["responses.jsonl"],
        "judge": ["judgments.jsonl"],
        "pair": ["preferences.jsonl"],
        "export": ["dataset"],
        "train": ["policy"],
        "evaluate": ["evaluation/evaluation.json"],
        "report": ["report.html", "report.json"],
    }[stage]


def dpo_section(config: Pipeline) -> DPOSection:
    if config.train is None or config.train.dpo is None:
        raise ConfigError("train.dpo: this config has no such section")
    return config.train.dpo
