"""The map of a judge: fitted on one part of the prompts, tested on the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlaif import metrics
from rlaif.config import CalibrateSection
from rlaif.errors import DataError
from rlaif.metrics.maps import SlicedMap, fit_slices
from rlaif.records import TIE
from rlaif.stages.calibration import gold
from rlaif.stages.calibration.figures import Figures, Json, Rows, plain
from rlaif.stages.calibration.gold import MIN_PAIRS, Pair
from rlaif.stages.calibration.views import Floats, View


class Fitted(NamedTuple):
    """`map` is None where there was too little to fit on or test with; `report` then says so under `reason`."""

    map: SlicedMap | None
    report: Json


def check_split(pairs: Sequence[Pair], section: CalibrateSection, seed: int) -> None:
    """Errors: DataError where gold is too small to be split, before anything is asked."""
    if section.map == "none" or not pairs:
        return
    test = gold.split(pairs, section.test_fraction, seed)
    wins = np.asarray([pair.label != TIE for pair in pairs])
    n_fit, n_test = int((wins & ~test).sum()), int((wins & test).sum())
    if min(n_fit, n_test) < MIN_PAIRS:
        raise DataError(
            f"{section.gold.path}: {n_fit} pairs with a winner to fit a map on and {n_test} to test it on; at least "
            f"{MIN_PAIRS} each are needed: more gold, another calibrate.test_fraction, or calibrate.map: none"
        )


def fit(view: View, figures: Figures, section: CalibrateSection, test: Rows) -> Fitted:
    """`test`: (N,) which pairs are tested on. With `orders: random` a label is made of one order, and so is what the
    map is fitted on: each order by itself.
    """
    p, rows = _as_labelled(view)
    truth, clusters = figures.truth[rows], figures.clusters[rows]
    by = section.slices[0] if section.slices else None
    slices = [figures.pairs[i].slices.get(by or "") for i in rows]
    usable = ~np.isnan(p) & ~np.isnan(truth)
    train, held = usable & ~test[rows], usable & test[rows]
    report: Json = {"kind": section.map, "n_fit": int(train.sum()), "n_test": int(held.sum())}
    if section.map == "none":
        return Fitted(None, {**report, "reason": "calibrate.map: none"})
    if min(train.sum(), held.sum()) < MIN_PAIRS:
        return Fitted(None, {**report, "reason": f"fewer than {MIN_PAIRS} pairs with a usable judgment on one side"})
    named = [name for name, keep in zip(slices, train, strict=True) if keep]
    fitted = fit_slices(section.map, p[train], truth[train], named, by=by, min_slice=section.min_slice)
    mapped = fitted(p, slices)
    tested = _tested(p[held], mapped[held], truth[held], clusters[held], figures)
    return Fitted(fitted, {**report, **tested})


def _as_labelled(view: View) -> tuple[Floats, np.ndarray[Any, np.dtype[np.intp]]]:
    """P(a better) as labels have it, and each one's pair."""
    n = view.p.size
    if view.section.orders == "random" and view.asks_both:
        return np.concatenate(list(view.shown)), np.concatenate([np.arange(n), np.arange(n)])
    return view.p, np.arange(n)


def _tested(p: Floats, mapped: Floats, truth: Floats, clusters: Any, figures: Figures) -> Json:
    """Before and after the map, on pairs that it was not fitted on. `difference`: after − before: less is better."""
    losses = {
        "brier": ((p - truth) ** 2, (mapped - truth) ** 2),
        "log_loss": (metrics.log_losses(p, truth), metrics.log_losses(mapped, truth)),
    }
    return {
        "before": figures.of_probabilities(p, truth, clusters),
        "after": figures.of_probabilities(mapped, truth, clusters),
        "difference": {
            name: plain(metrics.paired_difference(before, after, clusters, figures.rng))
            for name, (before, after) in losses.items()
        },
        "reliability": {
            "before": figures.reliability(p, truth),
            "after": figures.reliability(mapped, truth),
        },
    }
