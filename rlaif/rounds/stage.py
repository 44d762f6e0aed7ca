"""The rounds as one stage of the whole run: its entry in the manifest, and what it tells on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rlaif.config import Pipeline
from rlaif.config.pipeline import TRAINED
from rlaif.errors import GateFailed
from rlaif.rounds import course
from rlaif.store import ROUNDS, RunFolder

Say = Callable[[str], None]
_SUMS = {"requests": ("sent", "from_journal", "failed", "retried"), "tokens": ("prompt", "completion")}


def run_rounds(config: Pipeline, folder: RunFolder, run_one: Callable[..., dict[str, Any]], say: Say) -> None:
    """Run every round as a run of its own, and write the manifest's entry about all of them together.

    `run_one`: `pipeline.run` for the config of one round; it returns the manifest. Errors: those of `pipeline.run`.
    """
    folder.release_journal()  # opened again, it has the journals of all rounds behind it
    started, clock = time.time(), time.monotonic()
    status, counts = "stopped", {}
    begun: list[RunFolder] = []

    def run_round(mine: Pipeline, spent: Mapping[str, Any]) -> Mapping[str, Any]:
        begun.append(RunFolder(mine.run))
        told = _Told(f"round {len(begun)}", say)
        manifest = run_one(mine, spent=spent, say=told.line)
        told.end()
        last: Mapping[str, Any] = manifest["last_run"]
        return last

    try:
        counts = course.run(config, folder, run_round, folder.manifest["last_run"])
        status = "finished"
    except GateFailed as error:
        status, counts = "gate_failed", error.counts
        raise
    finally:
        seconds = round(time.monotonic() - clock, 3)
        entry = {"status": status, "fingerprint": None, "started": round(started, 3), "seconds": seconds}
        _save(folder, entry, counts, [one.manifest for one in begun])


def _save(folder: RunFolder, entry: dict[str, Any], counts: dict[str, Any], rounds: list[dict[str, Any]]) -> None:
    """Of requests, tokens and cost the entry has what all stages of all rounds took when they last ran."""
    manifest = folder.manifest
    entries = [stage for one in rounds for stage in one.get("stages", {}).values()]
    outputs = [course.FILE] if (folder.path / course.FILE).exists() else []
    manifest["stages"][ROUNDS] = {**entry, **_together(entries), "counts": counts, "outputs": outputs}
    if rounds:
        manifest["last_run"] = rounds[-1].get("last_run", manifest["last_run"])
        first = {role: engine for role, engine in rounds[0].get("engines", {}).items() if role != TRAINED}
        manifest["engines"] = {**manifest["engines"], **first}
    manifest["requests"]["sent"] = folder.paid
    folder.save_manifest(manifest)


def _together(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    entries = list(entries)
    sums = {
        name: {key: sum(entry.get(name, {}).get(key, 0) for entry in entries) for key in keys}
        for name, keys in _SUMS.items()
    }
    return {**sums, "cost": round(sum(entry.get("cost", 0.0) for entry in entries), 6)}


class _Told:
    """What a round says, under its name. One that is up to date says so once: its report is always written."""

    def __init__(self, name: str, say: Say) -> None:
        self._name, self._say = name, say
        self._held: list[str] = []
        self._news = False

    def line(self, line: str) -> None:
        if line.endswith(": up to date") or line.startswith("report: "):
            self._held.append(line)
            return
        self._news = True
        self._release()
        self._say(f"{self._name}: {line}")

    def end(self) -> None:
        if self._news:
            self._release()
        else:
            self._say(f"{self._name}: up to date")

    def _release(self) -> None:
        for line in self._held:
            self._say(f"{self._name}: {line}")
        self._held.clear()
