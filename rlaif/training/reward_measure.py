"""What a reward model is worth on labels that it was not trained on: accuracy and calibration, by domain and length.

Pure functions over arrays of scores; `figures` applies them to a dataset that `reward_data.encoded` made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.metrics import Floats
from rlaif.training.reward_data import LENGTHS, SEQUENCES

Figures = dict[str, Any]
_N_LENGTH_BINS = 4


def figures(kind: str, dataset: Any, scores: Floats, heads: Sequence[str]) -> Figures:
    """Of an encoded dataset and its (S, K) scores, row by row and in the order of each row's sequences.

    pair, ranking: K is 1. scores: in the criteria's unit.
    """
    counts = [len(row) for row in dataset[SEQUENCES]]
    lengths = [np.array(row) for row in dataset[LENGTHS]]
    groups = np.split(scores, np.cumsum(counts)[:-1])
    by = {"domain": dataset["domain"], "length": length_bins([float(row.mean()) for row in lengths])}
    measure: Callable[[Any], Figures]
    if kind == "scores":
        told = np.array([[np.nan if x is None else x for x in row] for row in dataset["scores"]], dtype=float)
        measure = lambda at: head_figures(scores[at], told[at], heads)  # noqa: E731
    elif kind == "ranking":
        measure = lambda at: ranking_figures([groups[i][:, 0] for i in at])  # noqa: E731
    else:
        pair = np.array([group[:, 0] for group in groups])
        p = np.array(dataset["probability"], dtype=float)
        measure = lambda at: pair_figures(pair[at, 0] - pair[at, 1], p[at])  # noqa: E731
        by["chosen_is"] = ["longer" if a > b else "shorter" if a < b else "as_long" for a, b in lengths]
    everything = np.arange(len(counts))
    tables = {f"by_{name}": _by(values, measure) for name, values in by.items()}
    return measure(everything) | {name: table for name, table in tables.items() if table}


def _by(values: Sequence[Any], measure: Callable[[Any], Figures]) -> dict[str, Figures]:
    column = np.array(["" if value is None else str(value) for value in values])
    names = sorted({name for name in column.tolist() if name}, key=_natural)
    return {name: measure(np.flatnonzero(column == name)) for name in names}


def _natural(name: str) -> tuple[int, str]:
    """2-9 before 10-30."""
    start = name.partition("-")[0]
    return (int(start) if start.isdigit() else 0, name)


def length_bins(lengths: Sequence[float]) -> list[str]:
    """Each row's quarter of the lengths, named by the least and the greatest in it, in tokens of response."""
    x = np.array(lengths)
    edges = np.unique(np.quantile(x, np.linspace(0, 1, _N_LENGTH_BINS + 1)[1:-1], method="higher"))
    which = np.searchsorted(edges, x, side="left")
    names = {i: f"{x[which == i].min():.0f}-{x[which == i].max():.0f}" for i in np.unique(which)}
    return [names[i] for i in which]


def pair_figures(difference: Floats, probability: Floats) -> Figures:
    """difference: (N,) r(chosen) − r(rejected); probability: (N,) the label, P(chosen is better).

    accuracy: share of pairs whose better one by the label has the higher reward, equal rewards ½ (labels of exactly
    ½ are left out). brier, ece: of σ(difference) against the label; for the calibration error each pair is turned so
    that the model's favourite comes first. slope: a of σ(a · difference) that fits the labels best (Cox 1958): 1 is
    calibrated, less is over-confident, None where the pairs are told apart without a fault.
    """
    sign = np.sign(probability - 0.5)
    right = np.where(sign == 0, np.nan, (np.sign(difference) * sign + 1) / 2)
    predicted = sigmoid(difference)
    turned = difference < 0
    accuracy = metrics.proportion(right)
    return {
        "n": len(difference),
        "accuracy": accuracy.as_dict() if accuracy else None,
        "brier": metrics.brier(predicted, probability),
        "ece": metrics.expected_calibration_error(
            np.where(turned, 1 - predicted, predicted), np.where(turned, 1 - probability, probability)
        ),
        "slope": calibration_slope(difference, probability),
        "mean_margin": float(np.mean(difference * np.where(sign == 0, 1, sign))) if len(difference) else None,
    }


def sigmoid(x: Floats) -> Floats:
    from scipy.special import expit

    found: Floats = expit(x)
    return found


def calibration_slope(difference: Floats, probability: Floats) -> float | None:
    """a that minimises the cross-entropy between the labels and σ(a · difference); None: no minimum, or no spread."""
    from scipy.optimize import brentq

    x, p = np.asarray(difference, float), np.asarray(probability, float)
    spread = float(np.abs(x).max(initial=0.0))
    if spread == 0:
        return None
    x = x / spread

    def gradient(a: float) -> float:
        return float(np.sum((sigmoid(a * x) - p) * x))

    limit = 1e4
    if gradient(limit) <= 0 or gradient(-limit) >= 0:  # it still falls out there: separated
        return None
    return float(brentq(gradient, -limit, limit)) / spread


def head_figures(scores: Floats, told: Floats, heads: Sequence[str]) -> Figures:
    """scores, told: (N, K), told NaN where not judged. Per head: correlation (Pearson), root mean squared error and
    the spread of the labels, in the criterion's unit."""
    found: dict[str, Figures] = {}
    for k, name in enumerate(heads):
        judged = ~np.isnan(told[:, k])
        x, y = scores[judged, k], told[judged, k]
        table: Mapping[str, Mapping[str, float | None]] = metrics.correlations({"model": x, "label": y})
        found[name] = {
            "n": int(judged.sum()),
            "correlation": table["model"]["label"],
            "rmse": float(np.sqrt(np.mean((x - y) ** 2))) if len(x) else None,
            "label_sd": float(y.std()) if len(y) else None,
        }
    return {"n": len(scores), "heads": found}


def ranking_figures(rows: Sequence[Floats]) -> Figures:
    """rows: the scores of each list's candidates, best first. pair_accuracy: over all pairs of a list, a mean over
    lists (Kendall's τ is 2 · this − 1); top: share of lists whose best candidate has the highest score. Ties: ½."""
    accuracy, top = [], []
    for scores in rows:
        signs = [np.sign(scores[i] - scores[i + 1 :]) for i in range(len(scores) - 1)]
        accuracy.append(float(np.mean((np.concatenate(signs) + 1) / 2)))
        others = scores[1:].max()
        top.append(float((np.sign(scores[0] - others) + 1) / 2))
    found, best = metrics.proportion(accuracy), metrics.proportion(top)
    return {
        "n": len(rows),
        "pair_accuracy": found.as_dict() if found else None,
        "top": best.as_dict() if best else None,
    }
