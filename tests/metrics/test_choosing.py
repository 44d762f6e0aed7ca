"""Which pairs to ask about next, against the definitions written out as plain loops."""

from __future__ import annotations

from itertools import combinations
from math import exp

import numpy as np
import pytest

from rlaif.metrics.choosing import RULES, disagreement, order_pairs


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def table(seed: int = 0, n_prompts: int = 7, n: int = 5, members: int = 4):
    """pairs (P, 2), prompts (N,), rewards (M, N)."""
    prompts = np.repeat(np.arange(n_prompts), n)
    pairs = [(g * n + i, g * n + j) for g in range(n_prompts) for i, j in combinations(range(n), 2)]
    return pairs, prompts, np.random.default_rng(seed).normal(size=(members, len(prompts)))


def ordered(rule, pairs, prompts, rewards, seed=0, **options):
    return order_pairs(rule, pairs, prompts, rewards, np.random.default_rng(seed), **options).tolist()


@pytest.mark.parametrize("rule", RULES)
def test_every_pair_comes_once_and_the_same_seed_gives_the_same_order(rule):
    pairs, prompts, rewards = table()
    found = ordered(rule, pairs, prompts, rewards)
    assert sorted(found) == list(range(len(pairs)))
    assert found == ordered(rule, pairs, prompts, rewards)
    assert found[:10] == ordered(rule, pairs, prompts, rewards)[:10]  # more is the same and more
    if rule in ("random", "thompson"):
        assert found != ordered(rule, pairs, prompts, rewards, seed=1)


@pytest.mark.parametrize("rule", RULES)
def test_a_round_has_one_pair_of_every_prompt(rule):
    pairs, prompts, rewards = table()
    of = [int(prompts[i]) for i, _ in pairs]
    found = ordered(rule, pairs, prompts, rewards)
    for start in range(0, len(pairs), 7):  # 7 prompts of 10 pairs each
        assert sorted(of[p] for p in found[start : start + 7]) == list(range(7))


def test_disagreement_by_hand():
    """Members give P = σ(0) = ½, σ(log 3) = ¾: mean ⅝, deviation ⅛."""
    assert disagreement([[0.0, 0.0], [np.log(3), 0.0]], [(0, 1)])[0] == pytest.approx(0.125)


def test_uncertainty_is_the_brute_force_order():
    pairs, prompts, rewards = table(3)
    unsure = []
    for i, j in pairs:
        p = [sigmoid(row[i] - row[j]) for row in rewards]
        centre = sum(p) / len(p)
        unsure.append((sum((x - centre) ** 2 for x in p) / len(p)) ** 0.5)
    assert np.allclose(disagreement(rewards, pairs), unsure)
    place = {}
    for g in range(7):
        mine = sorted((p for p in range(len(pairs)) if prompts[pairs[p][0]] == g), key=lambda p: -unsure[p])
        place |= {p: turn for turn, p in enumerate(mine)}
    expected = sorted(range(len(pairs)), key=lambda p: (place[p], -unsure[p]))
    assert ordered("uncertainty", pairs, prompts, rewards) == expected


def test_upper_bound_is_the_brute_force_order():
    pairs, prompts, rewards = table(5)
    bound = {}
    for g in range(7):
        at = [i for i in range(len(prompts)) if prompts[i] == g]
        for i in at:
            own = [row[i] - sum(row[j] for j in at) / len(at) for row in rewards]
            centre = sum(own) / len(own)
            bound[i] = centre + 2.0 * (sum((x - centre) ** 2 for x in own) / len(own)) ** 0.5
    first = ordered("upper_bound", pairs, prompts, rewards, bonus=2.0)[:7]
    for p in first:
        mine = [q for q in pairs if prompts[q[0]] == prompts[pairs[p][0]]]
        assert pairs[p] == max(mine, key=lambda q: bound[q[0]] + bound[q[1]])
    unsure = disagreement(rewards, pairs)
    assert first == sorted(first, key=lambda p: -unsure[p])


@pytest.mark.parametrize("rule", ["uncertainty", "upper_bound"])
def test_a_members_own_level_of_a_prompt_changes_nothing(rule):
    """Rewards learned from pairs are known up to a constant for each prompt."""
    pairs, prompts, rewards = table(1)
    shift = np.random.default_rng(9).normal(scale=5, size=(len(rewards), 7))
    assert ordered(rule, pairs, prompts, rewards) == ordered(rule, pairs, prompts, rewards + shift[:, prompts])


def test_thompson_names_pairs_as_often_as_two_draws_do():
    """Members: a > b > c twice, and c > b > a. Two draws, each of the first kind with ⅔:
    both first: a, then of b and c b. First, then second: a, then c. Second, then first: c, then of a and b a.
    Both second: c, then b. So ab 4/9, ac 2/9 + 2/9, bc 1/9."""
    rewards = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    pairs = [(0, 1), (0, 2), (1, 2)]
    n = 4000
    first = [ordered("thompson", pairs, [0, 0, 0], rewards, seed)[0] for seed in range(n)]
    shares = np.bincount(first, minlength=3) / n
    error = np.sqrt(4 / 9 * 5 / 9 / n)
    assert np.abs(shares - [4 / 9, 4 / 9, 1 / 9]).max() < 4 * error


def test_thompson_passes_over_what_was_named_before():
    """Certain members: a > b > c > d. ab first; then a is still open, with c as the best that is left."""
    pairs = list(combinations(range(4), 2))
    found = ordered("thompson", pairs, [0] * 4, np.array([[4.0, 3, 2, 1]] * 2))
    assert [pairs[p] for p in found] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


def test_equals_are_ordered_by_chance():
    pairs, prompts, _ = table()
    flat = np.zeros((3, len(prompts)))
    for rule in RULES[1:]:
        firsts = {ordered(rule, pairs, prompts, flat, seed)[0] for seed in range(40)}
        assert len(firsts) > 10


@pytest.mark.parametrize(
    ("pairs", "prompts", "rewards", "said"),
    [
        ([(0, 1)], [0, 1], [[0, 0]] * 2, "two responses of one prompt"),
        ([(0, 1), (1, 0)], [0, 0], [[0, 0]] * 2, "there twice"),
        ([(0, 0)], [0, 0], [[0, 0]] * 2, "two different responses"),
        ([(0, 2)], [0, 0], [[0, 0]] * 2, "numbered from 0 to 1"),
        ([(0, 1)], [0, 0], [[0, 0]], "M ≥ 2"),
        ([(0, 1)], [0, 0], [[0, 0, 0]] * 2, "N = 2"),
    ],
)
def test_shapes_that_do_not_fit(pairs, prompts, rewards, said):
    with pytest.raises(ValueError, match=said):
        ordered("uncertainty", pairs, prompts, rewards)
    with pytest.raises(ValueError, match="no rule 'best'"):
        ordered("best", [(0, 1)], [0, 0], [[0, 0]] * 2)
