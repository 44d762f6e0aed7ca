"""What the judgments and the trained policy are worth. Pure functions over arrays; randomness is passed in.

rates          means, proportions, win rates and their intervals
resampling     intervals of any figure by the cluster bootstrap
agreement      Cohen's κ, Krippendorff's α, rank correlation, AUROC
probabilities  Brier score, calibration error, reliability
maps           a judge's P(a better) → one that holds among people
corrected      rates corrected by a judge's sensitivity and specificity
ranking        strengths from comparisons: Bradley–Terry with ties, Elo, Borda
choosing       which pairs to ask a judge about next
selective      when a judge may be believed: thresholds with a promise, for cascades
regression     logistic regression with intervals that allow for clusters
"""

from rlaif.metrics.agreement import Agreement, agreement, auroc, cohen_kappa, krippendorff_alpha, rank_correlation
from rlaif.metrics.corrected import Corrected, corrected_rate
from rlaif.metrics.probabilities import (
    brier,
    brier_score,
    calibration_error,
    expected_calibration_error,
    folded,
    log_loss,
    log_losses,
    reliability,
)
from rlaif.metrics.rates import (
    RESAMPLES,
    Column,
    Estimate,
    Floats,
    correlations,
    describe,
    first_position_rate,
    length_controlled_win_rate,
    mean,
    order_consistency,
    outcomes,
    paired_difference,
    proportion,
    wilson,
    win_rate,
)
from rlaif.metrics.regression import logistic

__all__ = [
    "RESAMPLES",
    "Agreement",
    "Column",
    "Corrected",
    "Estimate",
    "Floats",
    "agreement",
    "auroc",
    "brier",
    "brier_score",
    "calibration_error",
    "cohen_kappa",
    "corrected_rate",
    "correlations",
    "describe",
    "expected_calibration_error",
    "first_position_rate",
    "folded",
    "krippendorff_alpha",
    "length_controlled_win_rate",
    "log_loss",
    "log_losses",
    "logistic",
    "mean",
    "order_consistency",
    "outcomes",
    "paired_difference",
    "proportion",
    "rank_correlation",
    "reliability",
    "wilson",
    "win_rate",
]
