"""Where a training works, so that its output appears whole or not at all and a killed run can go on."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.errors import StoreError
from rlaif.process import is_main
from rlaif.training.processes import from_main

TRAINING_FILE = "training.json"
log = logging.getLogger("rlaif.training")


class Workspace:
    """A hidden sibling of the output folder, made at once.

        .NAME.partial/plan.json     what this training is; another plan starts afresh
        .NAME.partial/checkpoints/  what a killed run continues from
        .NAME.partial/guard/        what a guard has seen, and the best weights so far
        .NAME.partial/cache/        what `datasets` and TRL write on the way
        .NAME.partial/model/        becomes NAME

    Of several processes that train together the main one does all this, and the others see the same file system. All
    of them wait for it in `begin`, and only there.
    Errors: StoreError where the folder cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.root = out.parent / f".{out.name}.partial"
        self.checkpoints = self.root / "checkpoints"
        self.cache = self.root / "cache"
        self.guard = self.root / "guard"
        self.model = self.root / "model"
        if is_main():
            self._make()

    def _make(self) -> None:
        try:
            shutil.rmtree(self.model, ignore_errors=True)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.cache.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.out}: cannot write a model here: {error.strerror or error}") from None

    def begin(self, plan: Mapping[str, Any]) -> Path | None:
        """The newest whole checkpoint of the same plan, or None after clearing what another plan left."""
        return from_main(lambda: self._begin(plan))

    def _begin(self, plan: Mapping[str, Any]) -> Path | None:
        path, wanted = self.root / "plan.json", json.loads(json.dumps(plan, default=str))
        earlier = _read(path)
        found = self._newest() if earlier == wanted else None
        if found is None:
            if self._newest() is not None:
                log.warning("%s: starts afresh: %s", self.out, _difference(earlier, wanted))
            shutil.rmtree(self.checkpoints)
            self.checkpoints.mkdir()
            path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
        return found

    def publish(self, record: Mapping[str, Any]) -> None:
        """Write the record, put the finished model in its place, drop the rest.

        An older model is deleted only once the new one is there.
        """
        if not is_main():
            return
        text = json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False)
        (self.model / TRAINING_FILE).write_text(text, encoding="utf-8")
        old = self.out.parent / f".{self.out.name}.old"
        shutil.rmtree(old, ignore_errors=True)
        if self.out.exists():
            self.out.rename(old)
        self.model.rename(self.out)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self.root, ignore_errors=True)

    def abandon(self) -> None:
        """After a failure: keep whole checkpoints, if there are any, and nothing else.

        The failure may be one process's alone: its launcher ends the others.
        """
        if not is_main():
            return
        if self._newest() is None:
            shutil.rmtree(self.root, ignore_errors=True)
            return
        for folder in (self.cache, self.model):
            shutil.rmtree(folder, ignore_errors=True)

    def _newest(self) -> Path | None:
        # trainer_state.json is written last, so a checkpoint that has a readable one is whole
        whole = [folder for folder in self.checkpoints.glob("checkpoint-*") if _read(folder / "trainer_state.json")]
        return max(whole, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)


def _difference(earlier: Any, wanted: Mapping[str, Any]) -> str:
    """Why the checkpoints that are there are not continued from."""
    there = earlier if isinstance(earlier, dict) else {}
    names = sorted(name for name in {*there, *wanted} if there.get(name) != wanted.get(name))
    return f"the checkpoints of another training are there, which differs in {', '.join(names)}; they are deleted"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
