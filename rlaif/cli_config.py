"""From command-line arguments to one resolved config.

TARGET is a pipeline file (or a shipped pipeline's name), a run folder (its own config is used), or a data file, for
which a config is made from the flags.
"""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from typing import Any

from rlaif import config as configs
from rlaif.config import Pipeline
from rlaif.config.training import TRAINERS
from rlaif.errors import ConfigError
from rlaif.paths import shipped, shipped_pipeline

_DATA = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".gz")
_ROLES = {"revise": "reviser", "judge": "judge"}  # stage → the key of `engines:` that it asks by default
_RECORDING = {"recording", "replies", "gold"}  # keys of a recording, and of no pipeline
_ENGINE_FLAGS = {"engine": "engine", "model": "model", "base_url": "base_url", "api_key_env": "api_key_env"}


def config_from(arguments: argparse.Namespace) -> Pipeline:
    """The config that TARGET and the flags describe. Errors: ConfigError, DataError."""
    raw, where = _raw_config(arguments)
    for override in arguments.overrides:
        configs.apply_override(raw, override)
    _apply_flags(raw, arguments)
    where += " with --set" if arguments.overrides else ""
    return configs.validate(Pipeline, raw, where)


def stages_to_run(arguments: argparse.Namespace, config: Pipeline) -> list[str]:
    """A stage command runs its stage, and reads the user's file first where there is one."""
    stage = str(arguments.stage)
    needs_prompts = stage in ("generate", "revise", "judge") and config.prompts is not None
    if needs_prompts and stage in ("revise", "judge") and config.generate is not None:
        needs_prompts = False  # the responses are the run's own
    makes_data = stage == "revise" and config.export is not None and config.export.kinds == ["revised"]
    return (["prompts"] if needs_prompts else []) + [stage] + (["export"] if makes_data else [])


def _raw_config(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    target = str(arguments.target)
    path = Path(target)
    if (path / "manifest.json").is_file():
        from rlaif.pipeline import load_manifest_config
        from rlaif.store import RunFolder

        raw = load_manifest_config(RunFolder(path)).model_dump(mode="json") | {"run": target}
        for limit in ("max_requests", "max_cost"):  # the limits of an earlier command are not those of this one
            raw["budget"].pop(limit, None)
        return raw, f"{target}/manifest.json"
    if path.suffix in (".yaml", ".yml") or shipped_pipeline(target):
        path = path if path.is_file() else shipped_pipeline(target) or path
        raw = configs.read_yaml(path)
        if _RECORDING & raw.keys() and getattr(arguments, "stage", "") in ("judge", "calibrate"):
            return _from_recording(arguments), f"rlaif {arguments.stage} {target}"
        return raw, str(path)
    stage = getattr(arguments, "stage", "run")
    if stage in ("generate", "revise", "judge", "calibrate", *TRAINERS):
        return _from_data(arguments, stage), _command(stage)
    if path.is_dir():
        raise ConfigError(f"{target}: not a run folder (it has no manifest.json)")
    if path.is_file() and stage != "run":
        raise ConfigError(f"{target}: rlaif {stage} needs a run folder; `rlaif judge {target} --run DIR …` makes one")
    names = sorted(item.stem for item in shipped("pipelines").glob("*.yaml"))
    close = difflib.get_close_matches(path.stem, names, n=1)
    close = [f"{target}.yaml"] if Path(f"{target}.yaml").is_file() else close
    hint = f", did you mean {close[0]!r}?" if close else f"; shipped pipelines: {', '.join(names)}"
    raise ConfigError(f"{target}: no such pipeline or run folder{hint}")


def _command(stage: str) -> str:
    return f"rlaif train {stage}" if stage in TRAINERS else f"rlaif {stage}"


def _from_data(arguments: argparse.Namespace, stage: str) -> dict[str, Any]:
    """A config for the user's own file and nothing else."""
    if not arguments.run:
        raise ConfigError(f"{_command(stage)} {arguments.target}: name the run folder with --run DIR")
    if stage in TRAINERS:
        if not arguments.model and not any(item.startswith(f"train.{stage}.model=") for item in arguments.overrides):
            raise ConfigError(f"{_command(stage)} {arguments.target}: name the starting model with --model")
        return {"run": arguments.run, "train": {stage: {"model": arguments.model, "dataset": arguments.target}}}
    if not arguments.engine:
        raise ConfigError(f"rlaif {stage} {arguments.target}: name an engine with --engine (and --model)")
    if stage == "calibrate":
        return {"run": arguments.run, "calibrate": {"gold": {"path": arguments.target}}}
    raw: dict[str, Any] = {"run": arguments.run, "prompts": {"path": arguments.target}}
    if stage == "generate":
        raw["generate"] = {"samplers": [{"engine": "policy"}]}
    if stage == "revise":
        raw["export"] = {"kinds": ["revised"]}
    return raw


def _from_recording(arguments: argparse.Namespace) -> dict[str, Any]:
    """Other people's judgments, replayed as they were recorded; or, with --engine, what was judged before a judge of
    the user's."""
    from rlaif import recordings

    if not arguments.run:
        raise ConfigError(f"rlaif {arguments.stage} {arguments.target}: name the run folder with --run DIR")
    source = _recorded(arguments.target, arguments)
    raw: dict[str, Any] = {"run": arguments.run, "prompts": source}
    if arguments.stage == "calibrate":
        raw = {"run": arguments.run, "calibrate": {"gold": source}}
    if not arguments.engine:
        raw["engines"] = {"judge": {"engine": "replay", **source}}
        raw["judge"] = dict(recordings.load(arguments.target, source.get("params")).judge)
        if not (arguments.rubric or arguments.constitution):
            raw["judge"]["rubric"] = "as-recorded"
    return raw


def _recorded(path: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A source, with what `--params` says of it where it is a recording."""
    params: dict[str, str] = {}
    for pair in arguments.params:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--params {pair!r}: expected NAME=VALUE")
        params[name] = value
    return {"path": path, **({"params": params} if params else {})}


def _apply_flags(raw: dict[str, Any], arguments: argparse.Namespace) -> None:
    if arguments.run is not None:
        raw["run"] = arguments.run
    stage = getattr(arguments, "stage", "run")
    if stage == "calibrate" and arguments.gold:
        raw["calibrate"] = {**(raw.get("calibrate") or {}), "gold": _recorded(arguments.gold, arguments)}
    if arguments.limit is not None:
        _limit(raw, stage, arguments.limit)
    for flag in ("max_requests", "max_cost"):
        if getattr(arguments, flag) is not None:
            raw.setdefault("budget", {})[flag] = getattr(arguments, flag)
    if stage in ("generate", "revise", "judge", "calibrate"):
        _apply_engine_flags(raw, arguments, stage)
    if stage in TRAINERS and arguments.model:
        raw["train"] = raw.get("train") or {}
        raw["train"][stage] = (raw["train"].get(stage) or {}) | {"model": arguments.model}


def _limit(raw: dict[str, Any], stage: str, limit: int) -> None:
    """Where each round has prompts of its own, `--limit` cuts those of each round."""
    rounds = raw.get("rounds")
    share = rounds.get("prompts_per_round") if isinstance(rounds, dict) and stage == "run" else None
    if isinstance(rounds, dict) and isinstance(share, int):
        rounds["prompts_per_round"] = min(share, limit)
    else:
        _limited_source(raw, stage)["limit"] = limit


def _limited_source(raw: dict[str, Any], stage: str) -> dict[str, Any]:
    """The prompts that `--limit` is about: those that the command reads, and no others."""
    if stage == "calibrate":
        source = _gold(raw)
    elif stage == "evaluate":
        source = (raw.get("evaluate") or {}).get("prompts")
    elif stage in ("run", "generate") or (stage in ("revise", "judge") and not raw.get("generate")):
        source = raw.get("prompts")
    else:
        raise ConfigError(f"--limit: rlaif {stage} takes what the run folder holds; limit what fills it (rlaif run)")
    if not isinstance(source, dict):
        raise ConfigError("--limit: this config reads no prompts")
    return source


def _gold(raw: dict[str, Any]) -> dict[str, Any] | None:
    """The source under `calibrate:`, as a mapping that can be changed."""
    section = raw.get("calibrate")
    if not isinstance(section, dict) or not section.get("gold"):
        return None
    if isinstance(section["gold"], str):
        section["gold"] = {"path": section["gold"]}
    return section["gold"] if isinstance(section["gold"], dict) else None


def _apply_engine_flags(raw: dict[str, Any], arguments: argparse.Namespace, stage: str) -> None:
    named = "judge" if stage == "calibrate" else stage  # the section that the flags are about
    given = {key: getattr(arguments, flag) for flag, key in _ENGINE_FLAGS.items() if getattr(arguments, flag)}
    if given:
        role = "policy" if stage == "generate" else (raw.get(named) or {}).get("engine", _ROLES[named])
        entry = raw.setdefault("engines", {}).setdefault(role, {})
        entry.update(given)
    for pair in (pair for pairs in arguments.columns for pair in pairs):
        ours, equals, theirs = pair.partition("=")
        if not equals or not ours or not theirs:
            raise ConfigError(f"--columns {pair!r}: expected OURS=THEIRS, for example prompt=question")
        source = _gold(raw) if stage == "calibrate" else raw.get("prompts")
        if not isinstance(source, dict):
            raise ConfigError("--columns: this config reads no data")
        source["columns"] = {**(source.get("columns") or {}), ours: theirs}
    if stage in _ROLES or (stage == "calibrate" and (arguments.rubric or arguments.constitution)):
        section = raw.get(named) or {}
        raw[named] = section
        for name, other in (("rubric", "constitution"), ("constitution", "rubric")):
            if getattr(arguments, name):
                section[name] = getattr(arguments, name)
                section.pop(other, None)
