"""Panels of real judges: LLMBar's recorded evaluators, with 50 gold items and the rest to be scored on.

Takes about 25 s: 300 draws for two panels on two slices.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
from shared_data import shared

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

N_GOLD, DRAWS = 50, 300


@pytest.fixture(scope="module")
def bench():
    shared("llmbar")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("panel_llmbar")


@pytest.fixture(scope="module")
def recorded(bench):
    return bench.load(shared("llmbar"))


@pytest.fixture(scope="module")
def figures(bench, recorded):
    """One evaluator for each of the six base models (strategy Vanilla), and all 65 evaluators."""
    names, votes = recorded
    chosen = {key: members for key, members in bench.panels(names).items() if key in ("strategy Vanilla", "all")}
    return bench.table(names, votes, chosen, N_GOLD, DRAWS)


PANELS = [f"{panel} | {where}" for panel in ("strategy Vanilla", "all") for where in ("natural", "adversarial")]


def test_the_recording_is_whole(recorded):
    names, votes = recorded
    assert len(names) == 65
    assert {where: found.shape for where, found in votes.items()} == {"natural": (65, 100), "adversarial": (65, 319)}
    # published: GPT-4/Vanilla .955 and .810 on average over the orders
    row = names.index("GPT-4/Vanilla")
    means = {where: np.nanmean((1 + found[row]) / 2) for where, found in votes.items()}
    assert means == {"natural": pytest.approx(0.955), "adversarial": pytest.approx(0.810, abs=5e-4)}


@pytest.mark.parametrize("key", PANELS)
@pytest.mark.parametrize("method", ["weighted", "dawid_skene"])
def test_50_gold_items_make_a_panel_as_good_as_its_best_judge(key, method, figures):
    assert figures[key][method] >= figures[key]["best"] - 0.02


def test_a_majority_of_judges_below_chance_is_worse_than_the_best(figures):
    """Without it the test above would show nothing."""
    assert figures["all | adversarial"]["majority"] < figures["all | adversarial"]["best"] - 0.25
    assert figures["strategy Vanilla | adversarial"]["majority"] < 0.55


def test_judges_below_chance_are_flagged_and_good_ones_are_not(bench, recorded, figures):
    all_of_them = figures["all | adversarial"]
    accuracy, flagged = all_of_them["accuracy"], all_of_them["flagged"]
    assert flagged[accuracy < 0.3].mean() > 0.9  # 50 items are enough for these
    assert flagged[accuracy > 0.5].max() < 0.05
    whole = [
        bench.panel.Standing.of(*found) for found in bench.panel.right_on(recorded[1]["adversarial"], np.ones(319))
    ]
    flags = np.array([standing.flag for standing in whole])
    assert all(flags[accuracy < 0.44] == "below_chance")  # with all 319 as gold: the interval is ±.055
    assert not any(flags[accuracy >= 0.5] == "below_chance")


def test_many_judges_are_few(figures):
    assert figures["all | adversarial"]["n_effective"] < 6
    assert figures["strategy Vanilla | natural"]["n_effective"] < 3
