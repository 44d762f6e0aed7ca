"""Thresholds of a cascade whose members are some of the judges, found on gold (`rlaif.metrics.selective`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlaif.config import CalibrateSection
from rlaif.errors import ConfigError
from rlaif.judges import find_standard
from rlaif.judges.cascade import for_calibration
from rlaif.metrics.selective import NO_VALUE, calibrate_cascade
from rlaif.rubric import Constitution
from rlaif.stages.calibration.figures import Figures
from rlaif.stages.calibration.views import View

if TYPE_CHECKING:
    from rlaif.metrics.selective import CascadePlan


_WHAT = ("models", "rubrics", "templates")  # of a judge's provenance: what its judgments say themselves


def plan_of(
    section: CalibrateSection, views: Sequence[View], figures: Figures, what: Mapping[str, Mapping[str, Any]]
) -> CascadePlan | None:
    """None where the config wants no cascade. `what`: judge → its provenance. Errors: ConfigError for a member that
    does not compare two responses.

    All of gold is used: what is promised holds by an exact bound, it needs no test split.
    """
    goal = section.cascade
    if goal is None or not figures.pairs:
        return None
    by_name = {view.name: view for view in views}
    probabilities = {}
    for name in goal.judges:
        view = by_name[name]
        if view.kind != "pairwise":
            raise ConfigError(f"calibrate.cascade.judges: {name!r} is {view.kind}; a cascade needs judges of two")
        standard = find_standard(view.section)
        weights = {p.id: p.weight for p in standard.principles} if isinstance(standard, Constitution) else None
        probabilities[name] = [
            for_calibration(view.judgments.get(pair.id, ()), pair.a.id, weights) for pair in figures.pairs
        ]
    by = section.slices[0] if section.slices else None
    plan = calibrate_cascade(
        probabilities,
        figures.truth,
        [pair.slices.get(by, NO_VALUE) for pair in figures.pairs] if by else None,
        agreement=goal.agreement,
        confidence=goal.confidence,
        max_escalated=goal.max_escalated,
        slice_by=by,
        clusters=list(figures.clusters),
        rng=figures.rng,
    )
    known = {name: {key: list(what[name][key]) for key in _WHAT} | {"orders": ["both"]} for name in goal.judges}
    return replace(plan, what=known)
