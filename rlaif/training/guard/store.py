"""What a guard keeps on disk while its training runs, so that a killed one goes on with it.

    state.json              the probes so far with what they are means of, and the starting policy's responses
    step-N.safetensors      the weights that are trained, as probe N found them

The weights of the start stay (every probe is measured against them), and beside them those of the best probe now, and
of the best one when the newest checkpoint was written: a run that is killed goes back to that checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlaif.training.guard.decision import Probe


class Store:
    """`folder` of one training. Only the main process writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def read(self) -> tuple[list[Probe], dict[str, Any]]:
        """The probes and whatever else was written with them; nothing where there is no such file."""
        try:
            raw = json.loads((self.folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return [], {}
        return [Probe(**row) for row in raw["probes"]], raw["more"]

    def write(self, probes: list[Probe], more: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "state.json.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"probes": [asdict(probe) for probe in probes], "more": dict(more)}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / "state.json")

    def weights_path(self, step: int) -> Path:
        return self.folder / f"step-{step}.safetensors"

    def save_weights(self, step: int, weights: Mapping[str, Any]) -> None:
        """weights: name → parameter. A file appears whole or not at all."""
        from safetensors.torch import save_file

        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.weights_path(step)
        temporary = path.with_suffix(".tmp")
        save_file({name: weight.detach().cpu().contiguous() for name, weight in weights.items()}, temporary)
        temporary.replace(path)

    def load_weights(self, step: int, weights: Mapping[str, Any]) -> None:
        """Into the parameters, in place."""
        import torch
        from safetensors import safe_open

        with torch.no_grad(), safe_open(self.weights_path(step), framework="pt") as file:
            for name, weight in weights.items():
                weight.copy_(file.get_tensor(name))

    def prune(self, keep: set[int]) -> None:
        for path in self.folder.glob("step-*.safetensors"):
            if int(path.stem.removeprefix("step-")) not in keep:
                path.unlink(missing_ok=True)
