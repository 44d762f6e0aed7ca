"""Which pairs to ask a judge about next, given several opinions of how good each response is (an ensemble).

Pure functions: arrays in, indices out. N responses of some prompts, M opinions (the members of a reward ensemble, or
draws from a posterior), P candidate pairs: those that were not asked about yet. Each rule puts all P in an order, so
that the first K + 1 begin with the first K.

The order goes round by round: the first round has one pair of every prompt, the second another one, and so on. A
batch is then about as many prompts as it can be, instead of all pairs of those few that look hardest.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlaif.metrics.rates import Floats

Ints = NDArray[np.int64]
Rule = Literal["random", "uncertainty", "thompson", "upper_bound"]
RULES: tuple[Rule, ...] = get_args(Rule)


def order_pairs(
    rule: Rule,
    pairs: ArrayLike,
    prompts: ArrayLike,
    rewards: ArrayLike | None,
    rng: np.random.Generator,
    *,
    bonus: float = 1.0,
) -> Ints:
    """(P,) indices into `pairs`, the first to be asked first.

    pairs: (P, 2) numbers of responses, two of one prompt. prompts: (N,) number of each response's prompt. rewards:
    (M, N) log-odds, each row up to a constant for each prompt: P_m(i ≻ j) = σ(r_mi − r_mj); not needed by `random`.

    random       by chance within each prompt, and between prompts within each round
    uncertainty  where the members disagree: the standard deviation of P_m(i ≻ j) over the members, highest first
                 (infomax in Dwaracherla et al. 2024, 2402.00396)
    thompson     a member drawn at random names its best response, a second draw its best of those that are left;
                 which prompt comes when in a round is chance (double Thompson sampling: Wu & Liu 2016, 1604.07101,
                 and with ensembles 2402.00396, where the second draw is repeated until it differs)
    upper_bound  the pair with the highest sum of mean + bonus · standard deviation over the members (the bounds of
                 duelling bandits, Zoghi et al. 2014, 1312.3393); prompts within a round by `uncertainty`

    Equals are ordered by chance. Errors: ValueError for shapes that do not fit, a pair across prompts, less than two
    members, an unknown rule.
    """
    at, of = _checked(pairs, prompts)
    group = of[at[:, 0]]
    if rule not in RULES:
        raise ValueError(f"no rule {rule!r}; there are: {', '.join(RULES)}")
    if rule == "random":
        return _rounds(_places(rng.random(len(at)), group), rng.random(len(at)), rng)
    r = np.asarray(rewards, dtype=np.float64)
    if r.ndim != 2 or r.shape[1] != len(of) or len(r) < 2:
        raise ValueError(f"rewards: (M, N) with M ≥ 2 opinions on N = {len(of)} responses, got {r.shape}")
    if rule == "thompson":
        return _rounds(_drawn(at, group, r, rng), rng.random(len(at)), rng)
    unsure = disagreement(r, at)
    value = unsure if rule == "uncertainty" else _bounds(r, of, bonus)[at].sum(axis=1)
    return _rounds(_places(-value.round(12), group, rng.random(len(at))), -unsure.round(12), rng)


def disagreement(rewards: ArrayLike, pairs: ArrayLike) -> Floats:
    """(P,) standard deviation (with M) over the members of P_m(i ≻ j) = σ(r_mi − r_mj)."""
    r, at = np.asarray(rewards, dtype=np.float64), np.asarray(pairs, dtype=np.int64)
    lead = np.clip(r[:, at[:, 0]] - r[:, at[:, 1]], -500, 500)
    found: Floats = (1 / (1 + np.exp(-lead))).std(axis=0)
    return found


def _bounds(r: Floats, of: Ints, bonus: float) -> Floats:
    """(N,) mean + bonus · sd over the members, each member's rewards centred within the prompt: their level there is
    arbitrary, and would count as disagreement."""
    _, number, counts = np.unique(of, return_inverse=True, return_counts=True)
    level = np.stack([np.bincount(number, weights=row) / counts for row in r])  # (M, prompts)
    centred = r - level[:, number]
    found: Floats = centred.mean(axis=0) + bonus * centred.std(axis=0)
    return found


def _drawn(at: Ints, group: Ints, r: Floats, rng: np.random.Generator) -> Ints:
    """(P,) in which of its prompt's rounds a pair is named. A response without an open pair cannot be named."""
    place = np.empty(len(at), dtype=np.int64)
    for mine in _by_group(group, np.argsort(group, kind="stable")):
        left = {(min(pair), max(pair)): p for p, pair in zip(mine.tolist(), at[mine].tolist(), strict=True)}
        for turn in range(len(left)):
            first, second = rng.integers(len(r), size=2)
            one = _best(r[first], {i for pair in left for i in pair}, rng)
            other = _best(r[second], {i for pair in left if one in pair for i in pair} - {one}, rng)
            place[left.pop((min(one, other), max(one, other)))] = turn
    return place


def _places(value: Floats, group: Ints, chance: Floats | None = None) -> Ints:
    """(P,) in which of its prompt's rounds a pair is: the lowest value first, equals by `chance`."""
    ranked = np.lexsort((value if chance is None else chance, value, group))
    place = np.empty(len(value), dtype=np.int64)
    for mine in _by_group(group, ranked):
        place[mine] = np.arange(len(mine))
    return place


def _by_group(group: Ints, ranked: Ints) -> list[Ints]:
    """`ranked`, sorted by group, cut into the groups."""
    if not len(ranked):
        return []
    return np.split(ranked, np.flatnonzero(np.diff(group[ranked])) + 1)


def _best(rewards: Floats, among: set[int], rng: np.random.Generator) -> int:
    values = {i: rewards[i] for i in sorted(among)}
    top = max(values.values())
    best = [i for i, value in values.items() if value >= top]
    return best[0] if len(best) == 1 else best[rng.integers(len(best))]


def _rounds(place: Ints, priority: Floats, rng: np.random.Generator) -> Ints:
    """The order by (round, priority), lowest first, equals by chance."""
    found: Ints = np.lexsort((rng.random(len(place)), priority, place)).astype(np.int64)
    return found


def _checked(pairs: ArrayLike, prompts: ArrayLike) -> tuple[Ints, Ints]:
    at = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    of = np.asarray(prompts, dtype=np.int64)
    if np.any(at < 0) or np.any(at >= len(of)) or np.any(at[:, 0] == at[:, 1]):
        raise ValueError(f"pairs: two different responses numbered from 0 to {len(of) - 1}")
    if np.any(of[at[:, 0]] != of[at[:, 1]]):
        raise ValueError("pairs: two responses of one prompt")
    if len({tuple(sorted(pair)) for pair in at.tolist()}) != len(at):
        raise ValueError("pairs: a pair is there twice")
    return at, of
