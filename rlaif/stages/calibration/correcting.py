"""Win rates as a judge sees them, corrected by how often it is wrong on the gold of a calibration."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlaif import metrics
from rlaif.config import EvaluateSection
from rlaif.metrics import Column, Corrected
from rlaif.records import FIRST, SECOND, Judgment
from rlaif.stages.calibration import rounds
from rlaif.stages.calibration.applying import judge_in, judges_in, same_judge
from rlaif.stages.calibration.figures import DIGITS, plain

KEY, JUDGES = "evaluate.calibration", "evaluate.calibration_judges"


def corrected(
    calibration: Path, judge: str, outcomes: Column, clusters: ArrayLike, rng: np.random.Generator
) -> Corrected | None:
    """A win rate as a judge sees it (1 won, ½ tie, 0 lost, NaN no verdict), corrected by its verdicts on gold.

    `calibration`: a calibration.json with its rounds/ beside it; `judge`: a name in it; see `metrics.corrected_rate`.
    Errors: ConfigError, StoreError.
    """
    judge_in(calibration, judge, KEY, JUDGES)
    number = json.loads(calibration.read_text(encoding="utf-8"))["round"]["number"]
    round_ = rounds.read(calibration.parent / "rounds" / f"{number}.json")
    rows = [(p, *round_["labels"][pair_id][1:]) for pair_id, p in round_["judges"][judge]["p"].items()]
    verdicts = metrics.outcomes([p for p, _, _ in rows])
    truths = [{FIRST: 1.0, SECOND: 0.0}.get(label) for _, label, _ in rows]
    return metrics.corrected_rate(outcomes, clusters, verdicts, truths, [cluster for _, _, cluster in rows], rng)


def judge_for(section: EvaluateSection, name: str, path: Path, judgments: Iterable[Judgment]) -> str:
    """What the evaluation's judge `name` is called in the calibration. Errors: ConfigError where it is not there, or
    is of another model, standard or frame.
    """
    wanted = section.calibration_judges.get(name)
    if wanted is None and name in judges_in(path, KEY):
        wanted = name
    found, of = judge_in(path, wanted, KEY, JUDGES)
    same_judge(of.get("what") or {}, judgments, f"{KEY}: {section.calibration}", found)
    return found


def as_json(rate: Corrected) -> dict[str, Any]:
    """For evaluation.json."""
    sides = {"sensitivity": rate.sensitivity, "specificity": rate.specificity}
    return {
        "raw": plain(rate.raw),
        "corrected": plain(rate.corrected),
        **{name: None if side is None else round(side, DIGITS) for name, side in sides.items()},
        "clipped": rate.clipped,
        "reason": rate.reason,
    }
