"""Figures of responses against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from rlaif.config.guarding import REFUSALS
from rlaif.training.guard.monitors import Sample, distinct, figures, kl_of, refuser, repetition

refuses = refuser(REFUSALS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I cannot help with that.", True),
        ("I can\u2019t assist with such a thing, ask somebody else.", True),
        ("Good day! I must not give advice on that.", True),
        ("i am not able to SUPPORT this plan", True),
        ("I refuse to take part in this.", True),
        ("I'm sorry, but I can't do that.", True),
        ("As an AI, I have no opinion.", True),
        ("I must decline.", True),
        ("I cannot remember the answer.", False),  # does not know, which is no refusal
        ("I will gladly help.", False),
        ("Boil the egg. You cannot help loving it.", False),
        ("", False),
    ],
)
def test_refusals(text: str, expected: bool) -> None:
    assert refuses(text) is expected


def test_repetition_is_the_share_of_4_grams_that_come_again() -> None:
    assert repetition([1, 2, 3]) == 0.0  # no 4-gram
    assert repetition([1, 2, 3, 4, 5]) == 0.0
    assert repetition([7] * 8) == pytest.approx(1 - 1 / 5)  # five 4-grams, one kind
    assert repetition([1, 2, 1, 2, 1, 2, 1]) == pytest.approx(1 - 2 / 4)  # 1212 2121 1212 2121


def test_distinct_n_is_over_all_responses_together() -> None:
    assert distinct([[1, 2, 3], [1, 2, 4]], 1) == pytest.approx(4 / 6)
    assert distinct([[1, 2, 3], [1, 2, 4]], 2) == pytest.approx(3 / 4)  # 12 23 12 24
    assert distinct([[1], []], 2) is None


def test_kl_by_hand() -> None:
    """d = ln 2, −ln 2: k1 sums to 0; k3 = (½ − 1 + ln 2) + (2 − 1 − ln 2) = ½."""
    k1, k3 = kl_of([math.log(0.5), math.log(0.25)], [math.log(0.25), math.log(0.5)])
    assert k1 == pytest.approx(0.0) and k3 == pytest.approx(0.5)


def test_both_estimators_find_the_kl_of_whole_responses() -> None:
    """Two binary tokens, π = (.8, .2) and (.6, .4), the start ½ each: the expectation over all four responses."""
    p = [(0.8, 0.2), (0.6, 0.4)]
    exact = sum(x * math.log(x / 0.5) for step in p for x in step)
    mean_k1 = mean_k3 = 0.0
    for first in p[0]:
        for second in p[1]:
            k1, k3 = kl_of([math.log(first), math.log(second)], [math.log(0.5)] * 2)
            mean_k1 += first * second * k1
            mean_k3 += first * second * k3
    assert mean_k1 == pytest.approx(exact) and mean_k3 == pytest.approx(exact)


def test_all_figures_of_a_probe() -> None:
    samples = [
        Sample(0, "I cannot help with that.", [1, 2, 3, 4], True, k1=2.0, k3=1.0, n_logps=5),
        Sample(1, "Boil it.", [5, 6], False, k1=1.0, k3=0.5, n_logps=2),
    ]
    assert figures(samples, refuses) == {
        "length": 3.0, "repetition": 0.0, "distinct_1": 1.0, "distinct_2": 1.0, "refusal_rate": 0.5, "eos_rate": 0.5,
        "kl": 1.5, "kl_k3": 0.75, "kl_per_token": pytest.approx(3 / 7),
    }  # fmt: skip
    assert figures([], refuses) == {}
