from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif.training.reward_measure import (
    calibration_slope,
    figures,
    head_figures,
    length_bins,
    pair_figures,
    ranking_figures,
)


def test_pair_figures_by_hand() -> None:
    log3 = math.log(3)  # σ = ¾
    found = pair_figures(np.array([log3, -log3, 0.0, log3]), np.array([1.0, 1.0, 0.8, 0.5]))
    assert found["accuracy"]["value"] == 0.5 and found["accuracy"]["n"] == 3  # right, wrong, a tie; ½ says nothing
    assert found["brier"] == pytest.approx((0.25**2 + 0.75**2 + 0.3**2 + 0.25**2) / 4)
    # turned to the favourite: three of ¾ with labels 1, 0, ½ (mean ½), one of ½ with .8
    assert found["ece"] == pytest.approx(0.75 * 0.25 + 0.25 * 0.3)
    assert found["mean_margin"] == pytest.approx((log3 - log3 + 0 + log3) / 4)


def test_slope() -> None:
    d = np.array([1.0, 1.0, 1.0, 1.0])
    assert calibration_slope(d, np.array([1.0, 1.0, 1.0, 0.0])) == pytest.approx(math.log(3))  # ¾ right at d = 1
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000)
    p = 1 / (1 + np.exp(-truth))
    assert calibration_slope(truth, p) == pytest.approx(1.0)
    assert calibration_slope(4 * truth, p) == pytest.approx(0.25)  # four times too sure
    assert calibration_slope(d, np.ones(4)) is None  # told apart without a fault
    assert calibration_slope(np.zeros(3), np.array([1.0, 0.5, 1.0])) is None


def test_heads_by_hand() -> None:
    scores = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 5.0], [9.0, 1.0]])
    told = np.array([[2.0, np.nan], [4.0, np.nan], [6.0, 4.0], [np.nan, np.nan]])
    found = head_figures(scores, told, ["a", "b"])["heads"]
    assert found["a"]["correlation"] == pytest.approx(1.0) and found["a"]["n"] == 3
    assert found["a"]["rmse"] == pytest.approx(math.sqrt((1 + 4 + 9) / 3))
    assert found["b"] == {"n": 1, "correlation": None, "rmse": 1.0, "label_sd": 0.0}


def test_rankings_by_hand() -> None:
    found = ranking_figures([np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 2.0])])
    # all three pairs; then a tie, a wrong one, a wrong one: (½ + 0 + 0) / 3
    assert found["pair_accuracy"]["value"] == pytest.approx((1 + 1 / 6) / 2)
    assert found["top"]["value"] == 0.5


def test_length_bins_are_quarters() -> None:
    assert length_bins([8, 1, 2, 3, 4, 5, 6, 7, 100]) == [
        *("8-100", "1-3", "1-3", "1-3", "4-5", "4-5", "6-7", "6-7", "8-100")
    ]
    assert length_bins([5, 5]) == ["5-5", "5-5"]


def test_figures_by_domain_and_length() -> None:
    rows = {
        "sequences": [[[1, 2], [1]], [[1], [1, 2]], [[3], [4]]],
        "lengths": [[2, 1], [1, 2], [1, 1]],
        "domain": ["a", "b", None],
        "probability": [1.0, 1.0, 1.0],
    }
    scores = np.array([[1.0], [0.0], [0.0], [1.0], [2.0], [0.0]])
    found = figures("pair", rows, scores, ["reward"])
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)
    assert {name: table["accuracy"]["value"] for name, table in found["by_domain"].items()} == {"a": 1.0, "b": 0.0}
    chosen_is = {name: table["accuracy"]["value"] for name, table in found["by_chosen_is"].items()}
    assert chosen_is == {"longer": 1.0, "shorter": 0.0, "as_long": 1.0}
