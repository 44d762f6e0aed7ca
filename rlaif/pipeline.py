"""Runs the stages of one config in order, skips what is finished, and keeps the manifest.

A stage is finished when its fingerprint (its part of the config, the engines it asks, the files it reads) is the one
that its last complete run left in the manifest, and what it wrote is still there. Everything else is run again; the
journal answers what was asked before. A stage that loads a model runs in a child process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import rlaif
from rlaif.checks import check
from rlaif.config import Pipeline
from rlaif.config.training import TRAINERS
from rlaif.engines.base import IN_PROCESS, NEVER_SHRINKS
from rlaif.errors import ConfigError, GateFailed, StoreError
from rlaif.fingerprint import fingerprint
from rlaif.paths import resolve
from rlaif.process import is_main, n_processes
from rlaif.progress import Stats
from rlaif.records import SCHEMA_VERSION, Judgment
from rlaif.rounds.stage import run_rounds
from rlaif.stages.base import Context, Enough
from rlaif.stages.table import OF_ALL_ROUNDS, engine_name, stages_of
from rlaif.stages.table import stage as stage_named
from rlaif.store import ROUNDS, STAGES, RunFolder

Say = Callable[[str], None]
GATE_FAILED = 3  # the exit code of a stage's process


class ChildFailed(Exception):
    """A stage's child process ended with this code; it has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


def run(
    config: Pipeline,
    stages: Iterable[str] | None = None,
    *,
    retry: str | None = None,
    force: bool = False,
    quiet: bool = False,
    in_process: bool = False,
    say: Say = lambda line: None,
    spent: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run `stages` (default: all that the config has) in the config's run folder; returns the manifest.

    `retry`: "error" or "unparsed": ask again for what ended so. `force`: run even what is finished.
    `in_process`: load models in this process too, instead of in a child that frees them at its end.
    `spent`: of a round, what the command has spent before it, as `last_run` of a manifest: the budget is one for all.
    Errors: UserError, GateFailed, BudgetReached, ChildFailed, KeyboardInterrupt; after each of them the run folder
    can be continued.
    """
    stages = list(stages) if stages is not None else stages_of(config)
    if not stages:
        raise ConfigError(f"nothing to run: the config has none of {', '.join(STAGES)}")
    _refuse_to_run_twice()
    _refuse_part_of_a_round(config, stages)
    with RunFolder(config.run) as folder:
        folder.refuse_foreign()
        check(config, folder, stages)
        manifest = _opened(folder, config, spent)
        if folder.journal.damaged:
            say(f"{folder.journal.path}: {folder.journal.damaged:,} damaged rows are passed over and asked again")
        again = _reasked(folder, retry) if retry else set()
        for stage in stages:
            mark = fingerprint(config, folder, stage)
            before = manifest["stages"].get(stage, {})
            if not force and stage not in again and _finished(before, mark, folder):
                say(f"{stage}: up to date")
                continue
            here = in_process and launch_flags(config, stage) is None
            try:
                if stage == ROUNDS:
                    one = partial(run, retry=retry, force=force, quiet=quiet, in_process=in_process)
                    run_rounds(config, folder, one, say)
                elif here or not loads_a_model(config, stage):
                    run_stage_here(config, folder, stage, mark, quiet=quiet)
                else:
                    _run_child(config, folder, stage, mark, quiet=quiet)
            except (GateFailed, ChildFailed) as error:
                if "report" in stages and getattr(error, "code", GATE_FAILED) == GATE_FAILED:
                    run_stage_here(config, folder, "report", "", quiet=quiet)  # it asks nothing, and it shows why
                raise
            manifest = folder.manifest
            say(_summary(stage, manifest["stages"][stage]))
        return manifest


def run_stage_here(
    config: Pipeline, folder: RunFolder, stage: str, mark: str, *, quiet: bool, until: str | None = None
) -> None:
    """Run one stage in this process and write its entry of the manifest. This is what a child process calls.

    `until`: only until this role has answered everything; the stage is then "partial" and to be run again.
    """
    context = Context(config, folder, quiet=quiet, until=until)
    started, clock = time.time(), time.monotonic()
    status, counts = "stopped", {}
    try:
        counts = stage_named(stage).run(context)
        status = "finished"
    except Enough:
        status = "partial"
    except GateFailed as error:
        status, counts = "gate_failed", error.counts
        raise
    finally:
        entry = {
            "status": status,
            "fingerprint": mark if status == "finished" else None,
            "started": round(started, 3),
            "seconds": round(time.monotonic() - clock, 3),
            **_spent(context.stats),
            "counts": counts,
            "outputs": [name for name in stage_named(stage).writes(config) if (folder.path / name).exists()],
        }
        if is_main():
            manifest = folder.manifest
            _add(manifest, stage, entry, {role: context.engine(role) for role in context.stats}, folder)
            folder.save_manifest(manifest)


def _run_child(config: Pipeline, folder: RunFolder, stage: str, mark: str, *, quiet: bool) -> None:
    from rlaif.process import run_child

    folder.release_journal()
    descriptor, environment = folder.lock_for_child()
    arguments = ["_stage", stage, config.run, "--fingerprint", mark] + (["--quiet"] if quiet else [])
    flags = launch_flags(config, stage)
    if flags is not None:
        arguments = ["_launch", *flags, *arguments]
    for until in [*_one_process_each(config, stage), None]:
        only = ["--until", until] if until else []
        code = run_child([*arguments, *only], env=environment, pass_fds=(descriptor,))
        if code:
            raise ChildFailed(code)


def launch_flags(config: Pipeline, stage: str) -> list[str] | None:
    """What `accelerate launch` is given to start the stage's processes; None for a stage that is one process."""
    section = config.train.section(stage) if config.train else None
    if section is None or section.launch is None:
        return None
    launch, flags = section.launch, []
    if launch.config_file is not None:
        flags += ["--config_file", str(resolve(launch.config_file, Path()))]
    if launch.num_processes is not None:
        flags += ["--num_processes", str(launch.num_processes)]
    return flags


def _refuse_to_run_twice() -> None:
    if n_processes() > 1:
        raise ConfigError(
            f"this is one of {n_processes()} processes of a launcher; start rlaif once, with train.NAME.launch: it "
            "then starts `accelerate launch` for the training alone"
        )


def _refuse_part_of_a_round(config: Pipeline, stages: Iterable[str]) -> None:
    part = next((stage for stage in stages if stage not in OF_ALL_ROUNDS), None)
    if config.rounds is not None and part is not None:
        raise ConfigError(
            f"{part}: this pipeline goes in rounds, which `rlaif run` runs; `rlaif {part} {config.run}/rounds/1` "
            "works on one that is there"
        )


def _one_process_each(config: Pipeline, stage: str) -> list[str]:
    """Roles that get a process of their own before the stage's last one, which then finds their replies recorded.

    Models that never give their memory back, and those that one judge made of judges asks side by side.
    """
    if stage in TRAINERS:  # its judges look at what is being written
        return []
    specs = {role: engine_name(config, role) for role in stage_named(stage).roles(config)}
    loaded = {role for role, name in specs.items() if name in IN_PROCESS}
    if len(loaded) < 2:
        return []
    judges = set(config.judge.roles) & loaded if config.judge and config.judge.members else set()
    beside = judges if len(judges) > 1 else set()
    return [role for role, name in specs.items() if name in NEVER_SHRINKS or role in beside]


def loads_a_model(config: Pipeline, stage: str) -> bool:
    """Whether the stage needs a process of its own."""
    return stage_named(stage).loads_a_model(config) or any(
        engine_name(config, role) in IN_PROCESS for role in stage_named(stage).roles(config)
    )


# -- the manifest -------------------------------------------------------------------------------------------------


def _opened(folder: RunFolder, config: Pipeline, spent: Mapping[str, Any] | None) -> dict[str, Any]:
    manifest = folder.manifest
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "rlaif_version": rlaif.__version__,
        "created": manifest.get("created", round(time.time(), 3)),
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "engines": manifest.get("engines", {}),
        "stages": manifest.get("stages", {}),
        "requests": {"sent": folder.paid, "failed": 0, "from_journal": 0},
        "last_run": {"sent": 0, "from_journal": 0, "failed": 0, "seconds": 0.0, "cost": 0.0, **(spent or {})},
    }
    folder.save_manifest(manifest)
    return manifest


def _finished(entry: Mapping[str, Any], mark: str, folder: RunFolder) -> bool:
    return (
        entry.get("status") == "finished"
        and entry.get("fingerprint") == mark
        and all((folder.path / name).exists() for name in entry.get("outputs", []))
    )


def _spent(stats: Mapping[str, Stats]) -> dict[str, Any]:
    total = Stats()
    for part in stats.values():
        total.add(part)
    return {
        "requests": {
            "sent": total.sent, "from_journal": total.from_journal, "failed": total.failed, "retried": total.retried,
        },
        "tokens": {"prompt": total.prompt_tokens, "completion": total.completion_tokens},
        "cost": round(total.cost, 6),
    }  # fmt: skip


def _add(
    manifest: dict[str, Any], stage: str, entry: dict[str, Any], engines: Mapping[str, Any], folder: RunFolder
) -> None:
    """Put a stage's entry in, and add what it did to the totals."""
    earlier = manifest["stages"].get(stage, {})
    manifest["stages"][stage] = _joined(earlier, entry) if earlier.get("status") == "partial" else entry
    for role, engine in engines.items():
        manifest["engines"][role] = {"identity": engine.identity, "model": engine.model}
    last = manifest["last_run"]
    for name in ("sent", "from_journal", "failed"):
        last[name] += entry["requests"][name]
    last["seconds"] = round(last["seconds"] + entry["seconds"], 3)
    last["cost"] = round(last.get("cost", 0.0) + entry["cost"], 6)
    failed = sum(item.get("requests", {}).get("failed", 0) for item in manifest["stages"].values())
    manifest["requests"] = {
        "sent": folder.paid, "failed": failed, "from_journal": last["from_journal"],
    }  # fmt: skip


def _joined(partial: Mapping[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """One entry for a stage that ran in several processes."""
    sums = {
        name: {key: partial[name][key] + value for key, value in entry[name].items()}
        for name in ("requests", "tokens")
    }
    seconds, cost = partial["seconds"] + entry["seconds"], partial["cost"] + entry["cost"]
    return {**entry, **sums, "started": partial["started"], "seconds": round(seconds, 3), "cost": round(cost, 6)}


def _summary(stage: str, entry: Mapping[str, Any]) -> str:
    counts = dict(entry["counts"])
    dropped, example = counts.pop("dropped", {}), counts.pop("example", None)
    parts = [f"{value:,} {name}" for name, value in counts.items() if isinstance(value, int)]
    if isinstance(dropped, dict) and dropped:
        parts.append("dropped " + ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()))
    parts += [f"for example: {example}"] if example else []
    return f"{stage}: {', '.join(parts) or 'done'} ({entry['seconds']:.1f} s)"


def _reasked(folder: RunFolder, retry: str) -> set[str]:
    """The stages that `--retry` makes run again. A failed request is never in the journal: "error" needs no more."""
    if retry not in ("error", "unparsed"):
        raise ConfigError(f"--retry {retry}: allowed are error, unparsed")
    again: set[str] = set()
    tables = {
        "judge": "judgments",
        "calibrate": "calibration/judgments",
        "audit": "audit/judgments",
        "evaluate": "evaluation/judgments",
    }
    for stage, table in tables.items():
        if folder.table(table).exists():
            rows = [row for row in folder.read(table, Judgment) if row.status == retry]
            if retry == "unparsed":
                folder.reasks.add(key for row in rows for key in row.reply_keys)
            again |= {stage} if rows else set()
    if retry == "error":  # also samples that evaluate did not get: they are in no table
        stages = folder.manifest.get("stages", {})
        failed = {name for name, entry in stages.items() if entry.get("requests", {}).get("failed")}
        again |= {"generate"} | (failed - set(TRAINERS))  # a training goes on without what its judges did not score
    return again


def load_manifest_config(folder: RunFolder) -> Pipeline:
    """The resolved config of an earlier run. Errors: StoreError where there was none."""
    from rlaif.config import validate

    manifest = folder.manifest
    if "config" not in manifest:
        raise StoreError(f"{folder.path}: not a run folder (no manifest.json of rlaif)")
    return validate(Pipeline, manifest["config"], str(folder.path / "manifest.json"))
