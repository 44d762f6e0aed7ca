"""What the judgments and the trained policy are worth. Pure functions over arrays; randomness is passed in.

rates        means, proportions, win rates and their intervals
ranking      strengths from comparisons: Bradley–Terry with ties, Elo, Borda
selective    when a judge may be believed: thresholds with a promise, for cascades
regression   logistic regression with intervals that allow for clusters
"""

from rlaif.metrics.rates import (
    RESAMPLES,
    Agreement,
    Column,
    Estimate,
    Floats,
    agreement,
    brier,
    correlations,
    describe,
    expected_calibration_error,
    first_position_rate,
    length_controlled_win_rate,
    mean,
    order_consistency,
    outcomes,
    paired_difference,
    proportion,
    reliability,
    wilson,
    win_rate,
)
from rlaif.metrics.regression import logistic

__all__ = [
    "RESAMPLES",
    "Agreement",
    "Column",
    "Estimate",
    "Floats",
    "agreement",
    "brier",
    "correlations",
    "describe",
    "expected_calibration_error",
    "first_position_rate",
    "length_controlled_win_rate",
    "logistic",
    "mean",
    "order_consistency",
    "outcomes",
    "paired_difference",
    "proportion",
    "reliability",
    "wilson",
    "win_rate",
]
