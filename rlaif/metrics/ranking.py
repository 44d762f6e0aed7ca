"""From comparisons of pairs to an order of all: Bradley–Terry with ties, Elo, and the aggregation of whole rankings.

Pure functions over arrays. Items are numbered 0 … N−1. Outcomes may be soft: a judge's probabilities count as they
are, never as a coin flip or a hard win. What would be infinite (an item that never lost) is kept finite by a weak
prior.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaif.metrics.rates import Floats

_Item = TypeVar("_Item", bound=Hashable)
_TOLERANCE = 1e-10  # of the gradient, in units of one comparison


@dataclass(frozen=True)
class BradleyTerry:
    """`strengths`: (N,) natural logarithms, mean 0. `covariance`: (N, N) of the strengths (Laplace approximation).

    `order`: log-odds that the response shown first gains by it, 0 where it was not fitted.
    `log_tie`: log ν of Davidson's model; None where outcomes had no tie.
    """

    strengths: Floats
    covariance: Floats
    order: float = 0.0
    log_tie: float | None = None

    def difference(self, i: int, j: int) -> float:
        """P(i better) − P(j better), the place they are shown in left out; in (−1, 1)."""
        d = float(self.strengths[i] - self.strengths[j])
        win, loss = exp(d / 2), exp(-d / 2)
        tie = 0.0 if self.log_tie is None else exp(self.log_tie)
        return (win - loss) / (win + tie + loss)

    def probability(self, i: int, j: int) -> float:
        """P(i better) + ½ P(tie)."""
        return (1 + self.difference(i, j)) / 2

    @property
    def sd(self) -> Floats:
        """(N,) standard deviations of the strengths."""
        return np.asarray(np.sqrt(np.diag(self.covariance)), dtype=np.float64)


def bradley_terry(
    first: ArrayLike,
    second: ArrayLike,
    outcomes: ArrayLike,
    n: int | None = None,
    *,
    weights: ArrayLike | None = None,
    order_effect: bool = False,
    prior_sd: float = 1.0,
) -> BradleyTerry:
    """Strengths from M comparisons: the maximum of the likelihood times a normal prior (a ridge).

    first, second: (M,) item numbers as shown. outcomes: (M,) P(first better), a tie being ½ (Bradley & Terry 1952);
    or (M, 3) probabilities of first, tie, second, which sum to 1 (Davidson 1970, eq. 2.1):

        P(first) : P(tie) : P(second) = e^{d/2} : ν : e^{−d/2},  d = strength of first − strength of second + order

    `order_effect` fits `order` (Davidson & Beaver 1977), else it is 0. `n`: how many items there are; default: as
    many as are named. `weights`: (M,), default 1. `prior_sd`: of every strength, of `order` and of log ν, around 0.
    At 1, the log-odds between two items drawn at random have the standard deviation √2: odds of 4 to 1.
    Errors: ValueError for other shapes, for numbers outside [0, 1], for an item compared with itself.
    """
    a, b, y, w = _checked(first, second, outcomes, weights)
    n = max(n or 0, int(max(a.max(initial=-1), b.max(initial=-1))) + 1)
    x = np.zeros((a.size, n + order_effect))  # (M, P): d = x @ parameters
    rows = np.arange(a.size)
    x[rows, a] += 1.0
    x[rows, b] -= 1.0
    if order_effect:
        x[:, n] = 1.0
    with_ties = y.shape[1] == 3
    fitted, hessian = _maximise(x, y, w, with_ties, 1 / prior_sd**2)
    covariance = np.asarray(np.linalg.inv(hessian)[:n, :n], dtype=np.float64)
    return BradleyTerry(
        strengths=fitted[:n],
        covariance=covariance,
        order=float(fitted[n]) if order_effect else 0.0,
        log_tie=float(fitted[-1]) if with_ties else None,
    )


def _maximise(x: Floats, y: Floats, w: Floats, with_ties: bool, precision: float) -> tuple[Floats, Floats]:
    """The mode and the negative Hessian there. The log-posterior is strictly concave: a logit model and a ridge."""
    from scipy.optimize import minimize

    n_parameters = x.shape[1] + with_ties
    balance = (y[:, 0] - y[:, -1]) / 2  # (M,) what the data say of d
    ridge = precision * np.eye(n_parameters)

    def parts(parameters: Floats) -> tuple[float, Floats, Floats]:
        d = x @ parameters[: x.shape[1]]
        log_tie = parameters[-1] if with_ties else -np.inf
        log_z = np.logaddexp(np.logaddexp(d / 2, -d / 2), log_tie)
        p_first, p_second, p_tie = np.exp(d / 2 - log_z), np.exp(-d / 2 - log_z), np.exp(log_tie - log_z)
        value = w @ (log_z - balance * d) + precision * parameters @ parameters / 2
        gradient = precision * parameters
        lead = (p_first - p_second) / 2
        gradient[: x.shape[1]] += x.T @ (w * (lead - balance))
        hessian = ridge.copy()
        hessian[: x.shape[1], : x.shape[1]] += (x * (w * ((p_first + p_second) / 4 - lead**2))[:, None]).T @ x
        if with_ties:
            value -= log_tie * (w @ y[:, 1])
            gradient[-1] += w @ (p_tie - y[:, 1])
            hessian[-1, -1] += w @ (p_tie * (1 - p_tie))
            hessian[-1, :-1] -= x.T @ (w * lead * p_tie)
            hessian[:-1, -1] = hessian[-1, :-1]
        return float(value), gradient, hessian

    start = np.zeros(n_parameters)
    if not n_parameters:
        return start, ridge
    found = minimize(
        lambda p: parts(p)[:2], start, jac=True, hess=lambda p: parts(p)[2], method="trust-exact",
        options={"gtol": _TOLERANCE * max(1.0, float(w.sum()))},
    )  # fmt: skip
    mode: Floats = found.x
    return mode, parts(mode)[2]


def _checked(
    first: ArrayLike, second: ArrayLike, outcomes: ArrayLike, weights: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[Any], Floats, Floats]:
    """Items (M,), outcomes as (M, 2) without or (M, 3) with ties, weights (M,)."""
    a, b = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    y = np.asarray(outcomes, dtype=np.float64)
    w = np.ones(a.size) if weights is None else np.asarray(weights, dtype=np.float64)
    if y.size == 0:
        y = y.reshape(0, 2)
    elif y.ndim == 1:
        y = np.stack([y, 1 - y], axis=1)
    if not a.shape == b.shape == w.shape == y.shape[:1] or y.ndim != 2 or y.shape[1] not in (2, 3):
        raise ValueError(f"shapes differ: first {a.shape}, second {b.shape}, outcomes {y.shape}, weights {w.shape}")
    if not (y.min(initial=0) >= 0 and y.max(initial=0) <= 1 and np.allclose(y.sum(axis=1), 1, atol=1e-6)):
        raise ValueError("outcomes are probabilities: P(first better), or first, tie, second that sum to 1")
    if np.any(a == b) or min(a.min(initial=0), b.min(initial=0)) < 0:
        raise ValueError("a comparison is between two different items, numbered from 0")
    return a, b, y, w


def elo(
    first: ArrayLike,
    second: ArrayLike,
    scores: ArrayLike,
    n: int,
    rng: np.random.Generator | None = None,
    *,
    k: float = 4.0,
    n_orders: int = 1000,
    start: float = 1000.0,
) -> Floats:
    """(n_orders, N) Elo ratings after all M comparisons, each row in another random order of them.

    scores: (M,) of the first: 1, ½, 0 or any share. A win moves a rating by at most `k` points; 400 points are odds
    of 10 to 1 (Elo 1978). Ratings depend on `k` and on the order: take the mean over many orders, or
    `bradley_terry`, which has neither. Without an rng: one row, in the order given.
    """
    a, b = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    s = np.asarray(scores, dtype=np.float64)
    if not a.shape == b.shape == s.shape:
        raise ValueError(f"shapes differ: first {a.shape}, second {b.shape}, scores {s.shape}")
    n_orders = n_orders if rng is not None else 1
    orders = np.tile(np.arange(a.size), (n_orders, 1))
    if rng is not None:
        orders = rng.permuted(orders, axis=1)
    ratings = np.full((n_orders, n), start)
    rows = np.arange(n_orders)
    for step in range(a.size):
        game = orders[:, step]
        i, j = a[game], b[game]
        expected = 1 / (1 + 10 ** ((ratings[rows, j] - ratings[rows, i]) / 400))
        moved = k * (s[game] - expected)
        ratings[rows, i] += moved
        ratings[rows, j] -= moved
    return ratings


def borda(rankings: Sequence[Sequence[_Item]]) -> dict[_Item, float]:
    """Item → the mean share of the others that it stands before, best first (Borda 1784, divided by N − 1).

    A ranking may leave items out: it then says nothing of them. Equal shares keep the order of first mention.
    """
    shares: dict[_Item, list[float]] = {}
    for ranking in rankings:
        if len(set(ranking)) != len(ranking):
            raise ValueError(f"a ranking names an item twice: {list(ranking)}")
        for place, item in enumerate(ranking):
            share = (len(ranking) - 1 - place) / (len(ranking) - 1) if len(ranking) > 1 else 0.5
            shares.setdefault(item, []).append(share)
    means = {item: sum(found) / len(found) for item, found in shares.items()}
    return dict(sorted(means.items(), key=lambda entry: -entry[1]))


def comparisons_of(ranking: Sequence[_Item]) -> list[tuple[_Item, _Item]]:
    """A ranking as its N(N−1)/2 (better, worse) pairs, for `bradley_terry` over many rankings."""
    return [(better, worse) for place, better in enumerate(ranking) for worse in ranking[place + 1 :]]
