"""The figures of one judge against people, over all of gold or over a slice of it; and of people among themselves.

Which response is called a is chance, so figures of probabilities are of folded ones (rlaif.metrics.probabilities).
A pair that people call a tie has no winner: accuracy, Brier score, calibration error and AUROC leave it out; κ and α
count a tie as a label of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import fsum
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.metrics.agreement import Level
from rlaif.records import FIRST, SECOND, TIE
from rlaif.stages.calibration.gold import Pair, People, majority
from rlaif.stages.calibration.views import Floats, View, correct

DIGITS = 6
BINS = 20  # over [0, 1], of which folded probabilities use the upper half
_MAX_RATERS, _MAX_BETWEEN = 20, 8  # with more, only what all of them have in common is told
_ORDER = (SECOND, TIE, FIRST)  # from b to a
_NUMBERS = {SECOND: -1.0, TIE: 0.0, FIRST: 1.0}

Rows = np.ndarray[Any, np.dtype[np.bool_]]
Json = dict[str, Any]


class Figures:
    """Estimates over gold's pairs; every interval resamples whole prompts, with an rng of its own."""

    def __init__(self, pairs: Sequence[Pair], seed: int, level: Level | None = None) -> None:
        self.pairs, self.seed, self.level = pairs, seed, level or "nominal"
        self.clusters = np.asarray([pair.cluster for pair in pairs], dtype=object)
        self.truth: Floats = np.asarray([pair.truth for pair in pairs], dtype=np.float64)

    @property
    def rng(self) -> np.random.Generator:
        """A new one for each figure, so that none depends on which others are computed."""
        return np.random.default_rng(self.seed)

    def judge(self, view: View, rows: Rows) -> Json:
        """All figures of a judge over the pairs in `rows`; null where one cannot be had."""
        return {
            "n": int((~np.isnan(view.p[rows])).sum()),
            "unusable": int(np.isnan(view.p[rows]).sum()),
            "accuracy": self.accuracy(view.p, rows),
            **self._orders(view, rows),
            **self._labels(view.p, rows),
            **self.probabilities(view.p, rows),
        }

    def accuracy(self, p: Floats, rows: Rows) -> Json | None:
        """Share of the pairs with a winner and a verdict whose better response the verdict names, ties ½."""
        return self._share(correct(p, self.truth), rows)

    def probabilities(self, p: Floats, rows: Rows) -> Json:
        """How far P(a better) can be taken at its word, over the pairs in `rows` that have it and a winner."""
        usable = rows & ~np.isnan(p) & ~np.isnan(self.truth)
        return self.of_probabilities(p[usable], self.truth[usable], self.clusters[usable])

    def of_probabilities(self, p: Floats, truth: Floats, clusters: Any) -> Json:
        confidence, right = metrics.folded(p, truth)
        both = (np.concatenate([p, 1 - p]), np.concatenate([truth, 1 - truth]), np.concatenate([clusters, clusters]))
        return {
            "brier": plain(metrics.brier_score(p, truth, clusters, self.rng)),
            "log_loss": plain(metrics.log_loss(p, truth, clusters, self.rng)),
            "ece": plain(metrics.calibration_error(confidence, right, clusters, self.rng, n_bins=BINS)),
            "auroc": plain(metrics.auroc(*both, self.rng)),
        }

    def reliability(self, p: Floats, truth: Floats) -> list[Json]:
        """The reliability diagram of folded probabilities."""
        table = metrics.reliability(*metrics.folded(p, truth), n_bins=BINS)
        return [{key: round(value, DIGITS) for key, value in row.items()} for row in table]

    def _orders(self, view: View, rows: Rows) -> Json:
        """Per order shown: right on average, right in both, the same winner in both, the winner shown first."""
        right = np.stack([correct(p, self.truth) for p in view.shown])
        both = ~np.isnan(view.shown).any(axis=0) & rows
        named = [metrics.outcomes(p) for p in view.shown]
        same = np.where(both, named[0] == named[1], np.nan)
        first = np.concatenate([named[0][both], 1 - named[1][both]])
        twice = np.concatenate([self.clusters[both], self.clusters[both]])
        return {
            "accuracy_one_order": self._share(right.mean(axis=0), both),
            "accuracy_both_orders": self._share(
                np.where(np.isnan(right).any(axis=0), np.nan, right.min(axis=0) == 1), both
            ),
            "order_consistency": self._share(same, both),
            "first_position_rate": plain(metrics.proportion(first, twice, self.rng)) if both.any() else None,
        }

    def _labels(self, p: Floats, rows: Rows) -> Json:
        """Agreement as labels, ties among them."""
        where = np.flatnonzero(rows)
        ours = [verdict(p[i]) for i in where]
        theirs = [self.pairs[i].label for i in where]
        clusters = [self.clusters[i] for i in where]
        equal = np.asarray(
            [np.nan if a is None else float(a == b) for a, b in zip(ours, theirs, strict=True)], dtype=np.float64
        )
        return {
            "agreement": plain(metrics.proportion(equal, clusters, self.rng)),
            "kappa": plain(metrics.cohen_kappa(ours, theirs, clusters, self.rng)),
            "alpha": plain(self._alpha(list(zip(ours, theirs, strict=True)), clusters)),
        }

    def _alpha(self, ratings: Sequence[Sequence[str | None]], clusters: Sequence[Any]) -> metrics.Estimate | None:
        if self.level == "interval":
            numbers = [[None if label is None else _NUMBERS[label] for label in row] for row in ratings]
            return metrics.krippendorff_alpha(numbers, clusters, self.rng, level="interval")
        return metrics.krippendorff_alpha(ratings, clusters, self.rng, level=self.level, order=_ORDER)

    def _share(self, values: Floats, rows: Rows) -> Json | None:
        return plain(metrics.proportion(values[rows], self.clusters[rows], self.rng))

    def people(self) -> Json:
        """People among themselves: α over all raters, and how often two raters of a pair say the same."""
        ratings = [list(pair.votes.values()) for pair in self.pairs]
        several = [i for i, row in enumerate(ratings) if len(row) > 1]
        equal = [
            sum(a == b for a, b in combinations(ratings[i], 2)) / (len(ratings[i]) * (len(ratings[i]) - 1) / 2)
            for i in several
        ]
        return {
            "pairs_with_several": len(several),
            "alpha": plain(self._alpha(ratings, list(self.clusters))) if several else None,
            "agreement": plain(metrics.proportion(equal, [self.clusters[i] for i in several], self.rng)),
            "raters": self._raters(),
            "between": self._between(),
        }

    def _raters(self) -> Json:
        """Each rater against what most of the others say, where these do not tie: what a judge can hope for."""
        names = list(dict.fromkeys(name for pair in self.pairs for name in pair.votes))
        found: Json = {}
        for name in names if 1 < len(names) <= _MAX_RATERS else ():
            ours, theirs, clusters = [], [], []
            for pair in self.pairs:
                others = [label for rater, label in pair.votes.items() if rater != name]
                if name in pair.votes and others:
                    ours.append(pair.votes[name])
                    theirs.append(majority(others))
                    clusters.append(pair.cluster)
            equal = [float(a == b) for a, b in zip(ours, theirs, strict=True)]
            found[name] = {
                "agreement": plain(metrics.proportion(equal, clusters, self.rng)),
                "kappa": plain(metrics.cohen_kappa(ours, theirs, clusters, self.rng)),
            }
        return found

    def _between(self) -> Json:
        """Every two raters with names of their own: κ on the pairs that both labelled."""
        names = list(dict.fromkeys(name for pair in self.pairs for name in pair.votes))
        found: Json = {}
        for one, other in combinations(names, 2) if len(names) <= _MAX_BETWEEN else ():
            both = [pair for pair in self.pairs if one in pair.votes and other in pair.votes]
            ours, theirs = [pair.votes[one] for pair in both], [pair.votes[other] for pair in both]
            kappa = metrics.cohen_kappa(ours, theirs, [pair.cluster for pair in both], self.rng)
            found.setdefault(one, {})[other] = plain(kappa)
        return found


def verdict(p: float) -> str | None:
    """FIRST where a is better, SECOND where b is, TIE at ½; None without a verdict."""
    outcome = float(metrics.outcomes([p])[0])
    return {1.0: FIRST, 0.0: SECOND, 0.5: TIE}.get(outcome)


def scores(people: People, view: View, seed: int, level: Level | None = None) -> Json | None:
    """A pointwise judge's scores against people's mean ones. None where gold or the judge has fewer than 3.

    The judge's score of a response is the mean of its criteria. Spearman's rank correlation needs no common unit;
    Krippendorff's α does: it says something where judge and people use one scale.
    """
    found = {
        (judgment.prompt_id, judgment.response_ids[0]): mean
        for judgment in view.all
        if judgment.kind == "pointwise" and (mean := _mean_score(judgment.scores)) is not None
    }
    rows = [row for row in people.scored if (row.prompt.id, row.response.id) in found]
    if len(rows) < 3:
        return None
    ours = np.asarray([found[row.prompt.id, row.response.id] for row in rows])
    theirs = np.asarray([row.score for row in rows])
    clusters = [row.cluster for row in rows]
    correlation = metrics.rank_correlation(ours, theirs, clusters, np.random.default_rng(seed))
    ratings = np.stack([ours, theirs], axis=1).tolist()
    alpha = metrics.krippendorff_alpha(ratings, clusters, np.random.default_rng(seed), level=level or "interval")
    means = {"judge": round(float(ours.mean()), DIGITS), "people": round(float(theirs.mean()), DIGITS)}
    return {"n": len(rows), "spearman": plain(correlation), "alpha": plain(alpha), "mean": means}


def people_scores(people: People, seed: int, level: Level | None = None) -> Json | None:
    """α of the raters' scores among themselves. None where no response has two."""
    ratings = [list(row.votes.values()) for row in people.scored]
    clusters = [row.cluster for row in people.scored]
    if not any(len(row) > 1 for row in ratings):
        return None
    alpha = metrics.krippendorff_alpha(ratings, clusters, np.random.default_rng(seed), level=level or "interval")
    return {"alpha": plain(alpha)}


def _mean_score(values: dict[str, float | None] | None) -> float | None:
    known = [value for value in (values or {}).values() if value is not None]
    return fsum(known) / len(known) if known else None


def plain(found: metrics.Estimate | None) -> Json | None:
    """An estimate for JSON."""
    if found is None:
        return None
    return {
        key: value if key == "n" or value is None else round(value, DIGITS) for key, value in found.as_dict().items()
    }
