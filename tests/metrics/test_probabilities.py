"""Expected values are derived by hand in the comments, taken from a library, or from a published table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from rlaif import metrics

NAN = math.nan


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_brier_and_calibration() -> None:
    p, y = [0.9, 0.9, 0.2, 0.2], [1, 0, 0, 0]
    assert metrics.brier(p, y) == pytest.approx((0.01 + 0.81 + 0.04 + 0.04) / 4)
    # bins: predicted .9 observed .5 (n 2); predicted .2 observed 0 (n 2): (2·.4 + 2·.2)/4
    assert metrics.expected_calibration_error(p, y) == pytest.approx(0.3)
    assert metrics.reliability([1.0], [1])[0]["low"] == pytest.approx(0.9)  # p = 1 belongs to the last bin


def test_folded_probabilities_say_how_sure_and_whether_right() -> None:
    confidence, right = metrics.folded([0.9, 0.2, 0.5, None, 0.7], [1, 1, 1, 0, None])
    assert confidence[:3].tolist() == [0.9, 0.8, 0.5] and math.isnan(confidence[3])
    assert right[:3].tolist() == [1, 0, 0.5] and math.isnan(right[4])


def test_mirroring_changes_no_figure() -> None:
    draw = np.random.default_rng(5)
    p, y = draw.random(80), draw.integers(0, 2, 80).astype(float)
    for score in (metrics.brier_score, metrics.log_loss):
        here, there = score(p, y, range(80), rng()), score(1 - p, 1 - y, range(80), rng())
        assert here and there and here.value == pytest.approx(there.value)
    one, other = metrics.folded(p, y), metrics.folded(1 - p, 1 - y)
    assert metrics.expected_calibration_error(*one) == pytest.approx(metrics.expected_calibration_error(*other))


def test_scores_are_the_librarys() -> None:
    draw = np.random.default_rng(6)
    p, y = draw.random(100), draw.integers(0, 2, 100)
    brier, loss = metrics.brier_score(p, y, range(100), rng()), metrics.log_loss(p, y, range(100), rng())
    assert brier and loss and brier.low is not None
    assert brier.value == pytest.approx(brier_score_loss(y, p)) == pytest.approx(metrics.brier(p, y))
    assert loss.value == pytest.approx(sklearn_log_loss(y, p))
    assert brier.low < brier.value


def test_certain_and_wrong_costs_a_finite_loss() -> None:
    found = metrics.log_loss([1.0], [0], ["p"], rng())
    assert found is not None and found.value == pytest.approx(-math.log(1e-6))


def test_calibration_error_and_its_interval() -> None:
    # 100 answers at .8 of which 60 are right: |.6 − .8|, whose sampling error is √(.24/100) = .049
    p, y = [0.8] * 100, [1] * 60 + [0] * 40
    found = metrics.calibration_error(p, y, range(100), rng())
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(0.2) == pytest.approx(metrics.expected_calibration_error(p, y))
    assert (found.low, found.high) == pytest.approx((0.2 - 0.096, 0.2 + 0.096), abs=0.02)
    assert metrics.calibration_error([NAN], [1], ["p"], rng()) is None
