"""Pairs to measure a judge on: written by the grammar, or sampled from the policy. Ties are dropped and counted."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rlaif.world.grammar import Mix, write_response
from rlaif.world.oracle import PRINCIPLES, compare, principle_scores
from rlaif.world.phrases import Split
from rlaif.world.principles import wordings
from rlaif.world.prompts import DOMAIN_WEIGHTS, DOMAINS, WorldPrompt, sample_prompt

# Where a principle says nothing about a domain no pair is drawn from it. Harmlessness is decided on harmful
# requests; elsewhere most pairs tie on it.
_DOMAINS: dict[str, dict[str, float]] = {name: dict(zip(DOMAINS, DOMAIN_WEIGHTS, strict=True)) for name in PRINCIPLES}
_DOMAINS["helpful"]["unknown"] = 0.0
_DOMAINS["honest"].update(howto=0.0, harm=0.0)
_DOMAINS["harmless"].update(fact=0.08, howto=0.04, harm=0.85, unknown=0.03)


@dataclass(frozen=True)
class Item:
    """One pair under one principle. `label` is 1 where `a` is better, else 0."""

    prompt: WorldPrompt
    a: str
    b: str
    principle: str
    wording: str
    label: int


@dataclass(frozen=True)
class PairSet:
    """Items, the ties met on the way (their label means nothing), and how many pairs were drawn per principle."""

    items: list[Item]
    ties: list[Item]
    n_drawn: dict[str, int]

    @property
    def tie_share(self) -> float:
        return 1 - len(self.items) / sum(self.n_drawn.values())

    def tie_shares(self) -> dict[str, float]:
        kept = {name: sum(item.principle == name for item in self.items) for name in self.n_drawn}
        return {name: 1 - kept[name] / n for name, n in self.n_drawn.items()}


def grammar_pairs(n: int, seed: int, prompts: Split, phrases: Split, words: Split, mix: Mix | None = None) -> PairSet:
    """`n` pairs per principle; prompts, phrases and principle wordings each from a split of their own."""
    mix = mix or Mix()

    def draw(rng: random.Random, name: str) -> Iterator[tuple[WorldPrompt, str, str]]:
        while True:
            domain = rng.choices(DOMAINS, [_DOMAINS[name][d] for d in DOMAINS])[0]
            prompt = sample_prompt(rng, prompts, domain)
            a, b = (write_response(rng, prompt, phrases, mix) for _ in range(2))
            yield prompt, a, b

    rng = random.Random(f"grammar-pairs/{seed}/{prompts}/{phrases}")
    sets = [_labelled(rng, draw(rng, name), name, n, words) for name in PRINCIPLES]
    return _joined(sets)


def sampled_pairs(n: int, seed: int, samples: dict[WorldPrompt, list[str]], words: Split) -> PairSet:
    """Up to `n` pairs per principle of different responses that the policy gave to one prompt."""
    rng = random.Random(f"sampled-pairs/{seed}")
    pairs = {
        prompt: [(prompt, *pair) for pair in itertools.combinations(sorted(set(texts)), 2)]
        for prompt, texts in samples.items()
    }

    def draw(name: str) -> Iterator[tuple[WorldPrompt, str, str]]:
        left = {d: [list(p) for q, p in pairs.items() if q.domain == d and p] for d in DOMAINS}
        while any(_DOMAINS[name][d] and left[d] for d in DOMAINS):
            domain = rng.choices(DOMAINS, [_DOMAINS[name][d] if left[d] else 0 for d in DOMAINS])[0]
            at = rng.randrange(len(left[domain]))
            prompt, a, b = left[domain][at].pop(rng.randrange(len(left[domain][at])))
            if not left[domain][at]:
                del left[domain][at]
            yield (prompt, a, b) if rng.random() < 0.5 else (prompt, b, a)

    sets = [_labelled(rng, draw(name), name, n, words) for name in PRINCIPLES]
    return _joined(sets)


def _labelled(
    rng: random.Random, pairs: Iterable[tuple[WorldPrompt, str, str]], name: str, n: int, words: Split
) -> PairSet:
    items: list[Item] = []
    ties: list[Item] = []
    for prompt, a, b in pairs:
        verdict = compare(name, principle_scores(prompt, a)[name], principle_scores(prompt, b)[name])
        item = Item(prompt, a, b, name, rng.choice(wordings(words)[name]), int(verdict > 0))
        (items if verdict else ties).append(item)
        if len(items) == n:
            break
    return PairSet(items, ties, {name: len(items) + len(ties)})


def _joined(sets: list[PairSet]) -> PairSet:
    return PairSet(
        [item for part in sets for item in part.items],
        [item for part in sets for item in part.ties],
        {name: n for part in sets for name, n in part.n_drawn.items()},
    )
