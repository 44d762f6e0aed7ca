"""Win rates as a judge sees them, corrected by how often it is wrong on the gold of a calibration."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from rlaif import metrics
from rlaif.metrics import Column, Corrected
from rlaif.records import FIRST, SECOND
from rlaif.stages.calibration import rounds
from rlaif.stages.calibration.applying import judge_in


def corrected(
    calibration: Path, judge: str | None, outcomes: Column, clusters: ArrayLike, rng: np.random.Generator
) -> Corrected | None:
    """A win rate as a judge sees it (1 won, ½ tie, 0 lost, NaN no verdict), corrected by its verdicts on gold.

    `calibration`: a calibration.json with its rounds/ beside it; see `metrics.corrected_rate`. Errors: ConfigError,
    StoreError.
    """
    name, _ = judge_in(calibration, judge)
    number = json.loads(calibration.read_text(encoding="utf-8"))["round"]["number"]
    round_ = rounds.read(calibration.parent / "rounds" / f"{number}.json")
    rows = [(p, *round_["labels"][pair_id][1:]) for pair_id, p in round_["judges"][name]["p"].items()]
    verdicts = metrics.outcomes([p for p, _, _ in rows])
    truths = [{FIRST: 1.0, SECOND: 0.0}.get(label) for _, label, _ in rows]
    return metrics.corrected_rate(outcomes, clusters, verdicts, truths, [cluster for _, _, cluster in rows], rng)
