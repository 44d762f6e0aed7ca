"""Several judges of the same pairs: how many they are in effect, which to trust, and what they say together.

Pure functions. `votes` is (M, N): M members, N pairs, 1 where the member finds the first response better, −1 the
second, 0 a tie, NaN where it gave no verdict. Which response is called first carries no meaning, so every function
here is odd or even in each column: mirrored votes give exactly the mirrored answer, and nothing can flip.

A member's accuracy on gold is its share of right verdicts, a tie counting half. Accuracies are shrunk towards ½ by
one right and one wrong verdict (Laplace's rule, the mean under a uniform prior).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlaif.metrics.rates import Floats

BELOW_CHANCE, NOT_ABOVE_CHANCE, NO_GOLD = "below_chance", "not_above_chance", "no_gold"
_DIGITS = 9  # of weights: the last bits depend on the order of summation, and a label must not
_RIDGE = 1e-6  # keeps the moments of members that never differ invertible
_MOST_ROUNDS, _STILL = 200, 1e-6  # of the EM


@dataclass(frozen=True)
class Standing:
    """How a member did on gold. `correct` may hold halves (ties). `low`, `high`: exact interval of its accuracy.

    `flag`: `below_chance` when the whole interval lies below ½; `not_above_chance` when the accuracy is ½ or less and
    the interval does not say so; `no_gold`; else None. A flagged member has weight 0 where weights come from gold.
    """

    n: int
    correct: float
    low: float
    high: float

    @classmethod
    def of(cls, correct: float, n: int, level: float = 0.95) -> Standing:
        if not 0 <= correct <= n:
            raise ValueError(f"{correct:g} correct of {n}")
        low, high = exact_interval(correct, n, level)
        return cls(n, correct, low, high)

    @property
    def accuracy(self) -> float:
        """Shrunk, in (0, 1)."""
        return (self.correct + 1) / (self.n + 2)

    @property
    def flag(self) -> str | None:
        if self.n == 0:
            return NO_GOLD
        if self.high < 0.5:
            return BELOW_CHANCE
        return NOT_ABOVE_CHANCE if self.accuracy <= 0.5 else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "correct": self.correct,
            "accuracy": round(self.accuracy, 6),
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "flag": self.flag,
        }


def exact_interval(correct: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided binomial interval (Clopper and Pearson 1934), by quantiles of the beta distribution, which also
    take halves; [0, 1] without data."""
    from scipy.stats import beta

    tail = (1 - level) / 2
    low = float(beta.ppf(tail, correct, n - correct + 1)) if correct > 0 else 0.0
    high = float(beta.ppf(1 - tail, correct + 1, n - correct)) if correct < n else 1.0
    return low, high


def right_on(votes: ArrayLike, truth: ArrayLike) -> list[tuple[float, int]]:
    """Each member's (right, n) on pairs with a known winner; `truth`: (N,) of 1 and −1."""
    agree = np.asarray(votes, dtype=np.float64) * np.asarray(truth, dtype=np.float64)
    given = ~np.isnan(agree)
    right = np.where(given, (1 + np.nan_to_num(agree)) / 2, 0.0).sum(axis=1)
    return list(zip(right.tolist(), given.sum(axis=1).tolist(), strict=True))


# -- how many judges it is -------------------------------------------------------------------------------------------


def correlations_of(votes: Floats, accuracy: ArrayLike | None = None) -> Floats:
    """(M, M) correlation over the pairs that both members judged: of their errors where accuracies are known, else of
    their verdicts. NaN where it cannot be had.

    With s a vote and t the truth as ±1, the error of a member is s·t minus its mean μ = 2·accuracy − 1. The product
    of two members' votes does not depend on t, so the covariance of errors is E[s s'] − μ μ', and only the means
    need gold. Verdicts also agree because they are right, so their correlation is the larger.
    """
    given = ~np.isnan(votes)
    filled, there = np.where(given, votes, 0.0), given.astype(np.float64)
    n_both = there @ there.T
    mean = np.zeros(len(votes)) if accuracy is None else 2 * np.asarray(accuracy, dtype=np.float64) - 1
    with np.errstate(invalid="ignore", divide="ignore"):
        covariance = filled @ filled.T / n_both - np.outer(mean, mean)
        spread = (filled**2) @ there.T / n_both - (mean**2)[:, None]  # of the row's member, over the shared pairs
        found = covariance / np.sqrt(spread * spread.T)
    return np.clip(np.where((n_both > 1) & (spread > 0) & (spread.T > 0), found, np.nan), -1.0, 1.0)


def effective_number(correlations: Floats) -> float | None:
    """n / (1 + (n − 1)·ρ̄), ρ̄ the mean correlation of two members, not below 0: that many independent judges would
    vary as little together (Kish 1965, Survey Sampling, section 5.4: the design effect of a cluster)."""
    n = len(correlations)
    pairs = correlations[~np.eye(n, dtype=bool)]
    pairs = pairs[~np.isnan(pairs)]
    if n < 2 or not pairs.size:
        return None
    return float(n / (1 + (n - 1) * max(0.0, float(pairs.mean()))))


# -- whom to trust ---------------------------------------------------------------------------------------------------


def log_odds(accuracy: ArrayLike) -> Floats:
    """log p/(1 − p): the best weights of independent judges' votes (Nitzan and Paroush 1982); 0 at or below chance,
    since a member that is usually wrong is left out, never inverted."""
    p = np.asarray(accuracy, dtype=np.float64)
    found: Floats = np.maximum(0.0, np.log(p) - np.log1p(-p))
    return found


def moments(votes: Floats) -> Floats:
    """(M, M) second moments of the votes, no verdict counting as no opinion (0), shrunk towards their diagonal.

    The share of shrinkage is the one that Schäfer and Strimmer (2005) derive for correlations: the sum of the
    variances of the off-diagonal ones over the sum of their squares.
    """
    filled = np.nan_to_num(votes)
    n = filled.shape[1]
    scale = np.sqrt(np.maximum((filled**2).mean(axis=1), _RIDGE))
    standard = filled / scale[:, None]
    correlation = standard @ standard.T / n
    off = ~np.eye(len(votes), dtype=bool)
    variance = ((standard**2) @ (standard**2).T / n - correlation**2) / max(1, n - 1)
    total = float((correlation[off] ** 2).sum())
    share = 1.0 if total == 0 else min(1.0, max(0.0, float(variance[off].sum()) / total))
    shrunk = np.where(off, (1 - share) * correlation, 1.0 + _RIDGE)
    found: Floats = shrunk * np.outer(scale, scale)
    return found


def pool_weights(accuracy: ArrayLike, moment: Floats, share_given: Floats | float = 1.0) -> tuple[Floats, float]:
    """Weights w ≥ 0 of the members, and the share r of the truth's variance that w·votes leaves unexplained.

    They minimise E(t − w·s)², t the truth as ±1: the normal equations are E[s s']·w = E[s t] = μ·`share_given` with
    μ = 2·accuracy − 1. The left side needs no gold at all, so a few gold verdicts set the accuracies and all the
    votes of the run say who repeats whom: three members that always agree get together what one of them would.
    The direction is that of Fisher's linear discriminant (1936): w/r = C⁻¹μ, C the covariance of the members' errors.
    Members at or below chance get 0.
    """
    from scipy.optimize import nnls

    mean = 2 * np.asarray(accuracy, dtype=np.float64) - 1
    target = mean * share_given
    able = np.flatnonzero(mean > 0)
    weights = np.zeros(len(mean))
    if able.size:
        root = np.linalg.cholesky(moment[np.ix_(able, able)])
        weights[able] = nnls(root.T, np.linalg.solve(root, target[able]), maxiter=100 * len(mean))[0]
    weights = np.round(weights, _DIGITS)
    return weights, 1.0 - float((target * weights).sum())


def vote_log_odds(
    accuracy: ArrayLike, moment: Floats, share_given: Floats | float = 1.0, floor: float = 0.0
) -> Floats:
    """(M,) what one verdict of each member adds to the log-odds of the first response: its `log_odds`, times the
    share of its own weight that the discriminant leaves it when it stands beside the others.

    With C = E[s s'] − μ μ' the covariance of errors, that share is (C⁻¹μ)_m / (μ_m / C_mm): 1 for members that err
    independently, where this is exactly Dawid and Skene's weight, and 1/k for each of k copies. `floor`: the least
    that may count as left unexplained.
    """
    weights, left = pool_weights(accuracy, moment, share_given)
    mean = (2 * np.asarray(accuracy, dtype=np.float64) - 1) * share_given
    spread = np.maximum(np.diag(moment) - mean**2, _RIDGE)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.where(weights > 0, weights / max(left, floor, _RIDGE) * spread / mean, 0.0)
    found: Floats = log_odds(accuracy) * kept
    return found


# -- what they say together ------------------------------------------------------------------------------------------


def majority(votes: Floats) -> Floats:
    """(N,) share of votes for the first response minus share for the second, of all verdicts given; NaN without."""
    given = ~np.isnan(votes)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(given, votes, 0.0).sum(axis=0) / given.sum(axis=0)
    return found


@dataclass(frozen=True)
class Latent:
    """What `dawid_skene` found. `weights`: the log-odds that one member's vote adds; `accuracy`: (M,)."""

    weights: Floats
    accuracy: Floats

    def difference(self, votes: Floats) -> Floats:
        """(N,) P(first better) − P(second better)."""
        found: Floats = np.tanh(self.weights @ np.nan_to_num(votes) / 2)
        return found


def dawid_skene(
    votes: Floats, gold: list[tuple[float, int]], anchored: ArrayLike | None = None, moment: Floats | None = None
) -> Latent:
    """Accuracies from gold and from the pairs without gold, whose winners are unknown (Dawid and Skene 1979), by EM.

    Since sides carry no meaning, a member has one accuracy instead of a confusion matrix. `gold`: (right, n) of each
    member; these verdicts are anchors: their truth is fixed in every E-step. `anchored`: (N,) which columns they
    are, so that they are not counted twice. One right and one wrong verdict are the prior, the same for all.
    Which members may count is decided by gold alone and for good, so a crowd that errs together can neither invert
    a good member nor bring in a bad one.

    `moment` (of `moments`): members may err together. The E-step then takes `vote_log_odds`, and the pairs without
    gold count at most as much as gold does (EM-λ, Nigam et al. 2000, section 5.3), since a crowd that agrees with
    itself is not thereby right. None: members are taken as independent and all pairs alike, as in the original.
    """
    right, n = (np.asarray(column, dtype=np.float64) for column in zip(*gold, strict=True))
    able = (right + 1) / (n + 2) > 0.5
    free = np.ones(votes.shape[1], bool) if anchored is None else ~np.asarray(anchored, dtype=bool)
    given, filled = ~np.isnan(votes), np.nan_to_num(votes)
    n_gold = float(n.max(initial=0.0))
    share = 1.0 if moment is None else min(1.0, n_gold / max(1, int(free.sum())))
    accuracy = (right + 1) / (n + 2)

    def weights() -> Floats:
        capped = np.where(able, accuracy, 0.5)
        if moment is None:
            return np.round(log_odds(capped), _DIGITS)
        # gold cannot show that less than one in n + 2 is left unexplained
        return np.round(vote_log_odds(capped, moment, given.mean(axis=1), 1 / (n_gold + 2)), _DIGITS)

    for _ in range(_MOST_ROUNDS):
        truth = np.tanh(weights() @ filled[:, free] / 2)
        agree = share * np.where(given[:, free], (1 + filled[:, free] * truth) / 2, 0.0).sum(axis=1)
        after = (right + agree + 1) / (n + share * given[:, free].sum(axis=1) + 2)
        moved, accuracy = float(np.abs(after - accuracy).max(initial=0.0)), after
        if moved < _STILL:
            break
    return Latent(weights(), accuracy)
