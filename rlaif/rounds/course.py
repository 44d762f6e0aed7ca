"""The rounds one after the other: each is a run of its own, then its gates, then its policy is the whole run's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlaif.config import Pipeline
from rlaif.digests import path_sha256
from rlaif.errors import ConfigError, GateFailed
from rlaif.metrics import Estimate
from rlaif.rounds.derived import folder_of, of_round, policy_of, section_of, trainer_of
from rlaif.rounds.figures import figures_of, judged
from rlaif.stages.audit import gates
from rlaif.stages.audit.material import Found
from rlaif.stages.audit.run import plain
from rlaif.store import RunFolder, write_whole

VERSION = 1
GATE_FAILED = 3  # the exit code of a stage's process
FILE = "rounds.json"
# runs one round's pipeline; given what this command has spent so far (`last_run` of a manifest), it returns what it
# has spent then. Errors: those of `pipeline.run`
RunRound = Callable[[Pipeline, Mapping[str, Any]], Mapping[str, Any]]
# figures that rounds.json leaves to the round's own files: too many, or, of a training's log, times
_LEFT_OUT = ("by_principle", "by_domain", "training")


def run(config: Pipeline, folder: RunFolder, run_round: RunRound, spent: Mapping[str, Any]) -> dict[str, Any]:
    """Run what is missing of the rounds; returns counts. Writes rounds.json and models/NAME after each new one.

    `spent`: by this command before the rounds. Errors: GateFailed once everything is written; those of a run.
    """
    n = section_of(config).n
    done: list[dict[str, Any]] = []
    known = _known(folder)  # of a command before this one: while nothing differs, what it left stands
    for number in range(1, n + 1):
        stopped = None
        try:
            spent = run_round(of_round(config, number), spent)
        except Exception as error:
            if not isinstance(error, GateFailed) and getattr(error, "code", None) != GATE_FAILED:
                raise
            stopped = f"a gate of its audit failed; see {folder_of(config, number) / 'audit.json'}"
        row = _row(config, number)
        stopped = stopped or gates.failure(row["gates"])
        done.append(row | {"passed": stopped is None})
        known = known if known[number - 1 : number] == done[-1:] else []
        if not known or stopped is not None or number == n:
            _publish(config, folder, number if stopped is None else number - 1)
            _write(config, folder, done, stopped)
        if stopped is not None:
            kept = f"the policy of round {number - 1} stays" if number > 1 else "the starting policy stays"
            raise GateFailed(f"round {number}: {stopped}; {kept}", _counts(done))
    return _counts(done)


def _counts(done: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rounds": len(done),
        "prompts": sum(row["prompts"] for row in done),
        "preferences": sum(row["preferences"] for row in done),
        "gates_failed": sum(not gate["passed"] for row in done for gate in row["gates"]),
    }


def _row(config: Pipeline, number: int) -> dict[str, Any]:
    """What rounds.json says of one round."""
    folder = folder_of(config, number)
    figures = figures_of(folder)
    prompts, preferences = figures.get("labelled"), figures.get("preferences")
    shown: dict[str, Found] = {name: found for name, found in figures.items() if not name.startswith(_LEFT_OUT)}
    row = {
        "round": number,
        "folder": str(folder.relative_to(config.run)),
        "prompts": prompts.n if isinstance(prompts, Estimate) else 0,
        "preferences": int(preferences.value) if isinstance(preferences, Estimate) else 0,
        "figures": shown,
        "gates": judged(section_of(config).gates, figures),
    }
    found: dict[str, Any] = json.loads(json.dumps(plain(row), allow_nan=False))  # as it will be read
    return found


def _known(folder: RunFolder) -> list[dict[str, Any]]:
    try:
        rounds = json.loads((folder.path / FILE).read_text(encoding="utf-8"))["rounds"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return list(rounds)


def _write(config: Pipeline, folder: RunFolder, done: list[dict[str, Any]], stopped: str | None) -> None:
    kept = sum(row["passed"] for row in done)
    whole = {
        "version": VERSION,
        "seed": config.seed,
        "n": section_of(config).n,
        "policy": {"round": kept, "model": f"models/{trainer_of(config)}" if kept else None},
        "stopped": None if stopped is None else {"round": len(done), "reason": stopped},
        "rounds": done,
    }
    body = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(folder.path / FILE, body.encode("utf-8", "replace"))


def _publish(config: Pipeline, folder: RunFolder, number: int) -> None:
    """models/NAME becomes the policy of round `number`; with 0 there is none. An evaluation of another policy goes.

    Its files are hard links where the file system has them, else copies: they take no room twice, and stay whole
    when the folder is moved, or a round is deleted.
    """
    name = trainer_of(config)
    there = folder.path / "models" / name
    new, old = there.with_name(f".{name}.tmp"), there.with_name(f".{name}.old.tmp")
    source = policy_of(config, number) if number else None
    if source is not None and _same(source, there):
        return
    if source is None or path_sha256(source) != path_sha256(there):
        (folder.path / "evaluation" / "evaluation.json").unlink(missing_ok=True)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    if source is not None:
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, new, copy_function=_link_or_copy)
    if there.exists():
        there.rename(old)
    if source is not None:
        new.rename(there)
    shutil.rmtree(old, ignore_errors=True)


def _same(source: Path, there: Path) -> bool:
    """Whether every file of the one is a file of the other."""

    def files(folder: Path) -> dict[str, tuple[int, int]]:
        items = (item for item in folder.rglob("*") if item.is_file())
        return {str(item.relative_to(folder)): (item.stat().st_dev, item.stat().st_ino) for item in items}

    return there.is_dir() and files(source) == files(there)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def check_share(config: Pipeline) -> None:
    """Errors: ConfigError where the file has too few rows for all rounds; DataError."""
    from itertools import islice

    from rlaif import io

    section = section_of(config)
    if section.prompts_per_round is None or config.prompts is None:
        return
    wanted = section.n * section.prompts_per_round
    there = sum(1 for _ in islice(io.read_rows(config.prompts), wanted))
    if there < wanted:
        raise ConfigError(
            f"rounds.prompts_per_round: {section.n} rounds of {section.prompts_per_round} take {wanted:,} rows, and "
            f"{config.prompts.path} has {there:,} after prompts.skip and up to prompts.limit"
        )
