"""What a guard watches: figures of a set of responses. Pure; nothing here knows a model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

Figures = dict[str, float | None]
REPEATED = 4  # tokens of the n-grams whose return is a repetition


class Sample(NamedTuple):
    """One response of a probe. `ids`: its tokens, the end token left out. `k1`, `k3`: nats of the whole response, the
    end token included, against the starting policy. `n_logps`: over how many tokens."""

    prompt: int  # its number among the probes
    text: str
    ids: Sequence[int]
    ended: bool
    k1: float = 0.0
    k3: float = 0.0
    n_logps: int = 0


def refuser(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether one of the patterns is found in a text, whatever the case. Typographic apostrophes are plain ones."""
    compiled = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]

    def refuses(text: str) -> bool:
        plain = text.replace("\u2019", "'")
        return any(pattern.search(plain) for pattern in compiled)

    return refuses


def repetition(ids: Sequence[int], n: int = REPEATED) -> float:
    """1 − distinct n-grams / n-grams within one response: seq-rep-n (Welleck et al. 2019, 1908.04319, section 6.1).

    0 for a response of fewer than n tokens: it repeats nothing.
    """
    grams = _grams(ids, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(responses: Sequence[Sequence[Hashable]], n: int) -> float | None:
    """distinct-n: distinct n-grams over all n-grams of the responses together (Li et al. 2016, 1510.03055), each a
    sequence of tokens, or of words.

    It falls with the amount of text, so it is compared between sets of as many responses only. None: no n-gram.
    """
    grams = [gram for ids in responses for gram in _grams(ids, n)]
    return len(set(grams)) / len(grams) if grams else None


def _grams(ids: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    return [tuple(ids[at : at + n]) for at in range(len(ids) - n + 1)]


def kl_of(logps: Sequence[float], start_logps: Sequence[float]) -> tuple[float, float]:
    """(k1, k3) of one response, nats: sums over its tokens of d and of e^−d − 1 + d, d = log π − log π_start.

    Of responses that π wrote, the mean of either is an estimate of KL(π ‖ π_start) over whole responses without bias
    (Schulman 2020, Approximating KL Divergence; by the chain rule token by token). k3 is never negative and varies
    less while the two are close; far apart its exponential makes it wild, and k1 is the one to read.
    """
    d = [ours - theirs for ours, theirs in zip(logps, start_logps, strict=True)]
    return sum(d), sum(math.exp(min(-x, 80.0)) - 1 + x for x in d)  # e^80: what float32 would make infinite


def figures(samples: Sequence[Sample], refuses: Callable[[str], bool]) -> Figures:
    """Of one probe or a part of it. Rates are shares of the responses, `length` is in tokens, `kl` in nats per
    response (k1), `kl_per_token` over all tokens. None: nothing to measure it on."""
    n = len(samples)
    if n == 0:
        return {}
    ids = [sample.ids for sample in samples]
    tokens = sum(sample.n_logps for sample in samples)
    k1 = sum(sample.k1 for sample in samples)
    return {
        "length": sum(map(len, ids)) / n,
        "repetition": sum(map(repetition, ids)) / n,
        "distinct_1": distinct(ids, 1),
        "distinct_2": distinct(ids, 2),
        "refusal_rate": sum(refuses(sample.text) for sample in samples) / n,
        "eos_rate": sum(sample.ended for sample in samples) / n,
        "kl": k1 / n,
        "kl_k3": sum(sample.k3 for sample in samples) / n,
        "kl_per_token": k1 / tokens if tokens else 0.0,
    }
