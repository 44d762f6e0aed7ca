"""The judge's training examples: drills that put the facts into the weights, and judged pairs.

The oracle supplies every label: verdicts, the tag of each sentence, a level per principle. This is process
supervision; the tags and levels are read off by heads that are thrown away after training.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from rlaif.world import frame
from rlaif.world.facts import FACTS, HARM, HOWTO, fabrications
from rlaif.world.grammar import JUDGE_MIX, SHORT_MIX, Mix, state, write_response
from rlaif.world.oracle import PRINCIPLES, TAGS, compare, principle_scores, rating, sentences, tag_of
from rlaif.world.packing import Packed
from rlaif.world.phrases import phrases
from rlaif.world.principles import wordings
from rlaif.world.prompts import WorldPrompt, sample_prompt
from rlaif.world.tokenizer import ASSISTANT, END, USER

_WEIGHTS = {"helpful": 2.0, "honest": 2.0, "harmless": 1.0, "concise": 1.0, "polite": 1.0}
_TAG_ID = {tag: index for index, tag in enumerate(TAGS)}
_RIGHT_TAGS = ("right", "admit", "alternative")
_DRILL_DOMAINS = (("fact", "howto", "harm", "unknown"), (0.64, 0.18, 0.14, 0.04))
_DRILL_PAIRS = 4


@dataclass(frozen=True)
class PairPlan:
    """How pair examples are drawn: shares of short pairs and of pointwise ones, and the weight of a tie."""

    short: float = 0.0
    pointwise: float = 0.1
    tie_weight: float = 0.0
    n_branches: int = 4


class Encoder:
    """Token ids of the pieces that examples are made of; pieces meet at places where the tokenizer cuts anyway."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self.pad_id: int = tokenizer.pad_token_id
        self.a_id, self.b_id = self.label("A"), self.label("B")
        self.levels = [self.label(str(level)) for level in range(1, 6)]

    def label(self, text: str) -> int:
        """The one token that `text` is, right after the generation prompt."""
        ids = self(text)
        assert len(ids) == 1, f"{text!r} must be one token, it is {len(ids)}"
        return ids[0]

    def __call__(self, text: str) -> list[int]:
        ids = self._cache.get(text)
        if ids is None:
            ids = self._cache[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def response(self, text: str) -> tuple[list[int], list[int]]:
        """Ids of a response, and the place of the last token of each sentence."""
        ids: list[int] = []
        ends = []
        for sentence in sentences(text):
            ids = ids + self(sentence)
            ends.append(len(ids) - 1)
        return ids, ends

    def ask(self, wording: str, instruction: str) -> list[int]:
        return self(f"{wording}\n{instruction}{END}{ASSISTANT}")


def drill(rng: random.Random, encoder: Encoder) -> Packed:
    """A question, and right and wrong bodies in pairs that share a template, each a branch of its own."""
    prompt = sample_prompt(rng, "train", rng.choices(*_DRILL_DOMAINS)[0])
    opening = rng.choice((frame.FIRST, frame.SECOND, frame.SINGLE))
    tree = Packed.of(encoder(USER + frame.QUESTION) + encoder(prompt.text) + encoder(opening))
    last = len(tree.ids) - 1
    for body in (body for _ in range(_DRILL_PAIRS) for body in _contrast(rng, prompt)):
        ids, ends = encoder.response(body)
        start = tree.branch(ids)
        marks = [tag_of(prompt, sentence) for sentence in sentences(body)]
        tree.tags += [(start + end, _TAG_ID[mark]) for end, mark in zip(ends, marks, strict=True)]
        tree.tags.append((start + ends[-1] - 1, _TAG_ID[marks[-1]]))
        if marks[-1] in _RIGHT_TAGS:
            tree.following.append((last, ids[0]))
            tree.following += [(start + i, ids[i + 1]) for i in range(len(ids) - 1)]
    return tree


def _contrast(rng: random.Random, prompt: WorldPrompt) -> tuple[str, str]:
    """A right and a wrong body that differ as little as the domain allows."""
    lead = rng.choice(phrases("lead", "train")) + " " if rng.random() < 0.5 else ""
    if prompt.domain == "fact":
        template = rng.choice(FACTS[prompt.kind].statements)
        return (
            state(rng, prompt, right=True, template=template),
            state(rng, prompt, right=False, template=template),
        )
    if prompt.domain == "howto":
        other = rng.choice([key for key in HOWTO if key != prompt.key])
        return lead + HOWTO[prompt.key], lead + HOWTO[other]
    if prompt.domain == "unknown":
        return rng.choice(phrases("admit", "train")), rng.choice(fabrications(prompt.key))
    other = rng.choice([key for key in HARM if key != prompt.key])
    if rng.random() < 0.5:
        return lead + HARM[prompt.key][0], lead + HARM[other][0]
    refusal = rng.choice(phrases("refuse", "train")) + " "
    return refusal + HARM[prompt.key][1], refusal + HARM[other][1]


def judged(rng: random.Random, encoder: Encoder, plan: PairPlan) -> Packed:
    """A pair of responses with one branch per principle, or (rarely) one response with levels."""
    while True:
        prompt = sample_prompt(rng, "train")
        mix = SHORT_MIX if rng.random() < plan.short else JUDGE_MIX
        if rng.random() < plan.pointwise:
            tree = _rated(rng, encoder, prompt, mix)
        else:
            tree = _compared(rng, encoder, prompt, mix, plan)
        if tree.verdicts:
            return tree


def _supervise(tree: Packed, encoder: Encoder, prompt: WorldPrompt, text: str) -> dict[str, float | None]:
    """Append a response to the prefix, with its tags and levels as targets; returns its scores."""
    start = len(tree.ids)
    ids, ends = encoder.response(text)
    tree.ids += ids
    tree.positions += range(start, start + len(ids))
    tree.segments += [0] * len(ids)
    marks = [_TAG_ID[tag_of(prompt, sentence)] for sentence in sentences(text)]
    tree.tags += [(start + end, mark) for end, mark in zip(ends, marks, strict=True)]
    scores = principle_scores(prompt, text)
    tree.ratings.append((start + ends[-1], [rating(name, scores[name]) or 0 for name in PRINCIPLES]))
    return scores


def _extend(tree: Packed, ids: list[int]) -> None:
    start = len(tree.ids)
    tree.ids += ids
    tree.positions += range(start, start + len(ids))
    tree.segments += [0] * len(ids)


def _compared(rng: random.Random, encoder: Encoder, prompt: WorldPrompt, mix: Mix, plan: PairPlan) -> Packed:
    tree = Packed.of(encoder(USER + frame.QUESTION) + encoder(prompt.text) + encoder(frame.FIRST))
    first = _supervise(tree, encoder, prompt, write_response(rng, prompt, "train", mix))
    _extend(tree, encoder(frame.SECOND))
    second = _supervise(tree, encoder, prompt, write_response(rng, prompt, "train", mix))
    _extend(tree, encoder(frame.CLOSE))
    n_branches = 0
    for name in rng.sample(PRINCIPLES, len(PRINCIPLES)):
        verdict = compare(name, first[name], second[name])
        weight = _WEIGHTS[name] if verdict else plan.tie_weight
        if not weight or n_branches == plan.n_branches:
            continue
        ids = encoder.ask(rng.choice(wordings("train")[name]), frame.INSTRUCTION)
        place = tree.branch(ids) + len(ids) - 1
        n_branches += 1
        better = encoder.a_id if verdict >= 0 else encoder.b_id
        tree.verdicts.append((place, better, better if verdict else encoder.b_id, weight))
    return tree


def _rated(rng: random.Random, encoder: Encoder, prompt: WorldPrompt, mix: Mix) -> Packed:
    tree = Packed.of(encoder(USER + frame.QUESTION) + encoder(prompt.text) + encoder(frame.SINGLE))
    scores = _supervise(tree, encoder, prompt, write_response(rng, prompt, "train", mix))
    _extend(tree, encoder(frame.CLOSE))
    for name in PRINCIPLES:
        level = rating(name, scores[name])
        if level is None:
            continue
        ids = encoder.ask(rng.choice(wordings("train")[name]), frame.RATE)
        token = encoder.levels[level - 1]
        tree.verdicts.append((tree.branch(ids) + len(ids) - 1, token, token, _WEIGHTS[name]))
    return tree
