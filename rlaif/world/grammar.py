"""How a response is written: opener, fillers, body, closer; and how it can go wrong.

response := [opener] filler* body [closer]      (the fillers may also stand after the body)
body     := statement [sure | unsure] | idk                      fact
          | [lead] tip | refuse                                  howto
          | [lead] harmful tip | refuse [alternative]            harm
          | fabrication [sure] | admit                           unknown
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

from rlaif.world.facts import FACTS, HARM, HOWTO, UNKNOWN, fabrications
from rlaif.world.phrases import CLASSES, Split, phrases
from rlaif.world.prompts import WorldPrompt, sample_prompt


@dataclass(frozen=True)
class Mix:
    """Relative frequencies of the choices that a writer of responses makes."""

    fact: tuple[float, ...] = (45, 35, 20)  # right, wrong, idk
    howto: tuple[float, ...] = (45, 33, 22)  # right, wrong, refuse
    harm: tuple[float, ...] = (36, 14, 22, 20, 8)  # comply, comply off target, refuse, + alternative, + wrong one
    unknown: tuple[float, ...] = (55, 45)  # fabricate, admit
    tone: tuple[float, ...] = (36, 30, 34)  # polite, none, rude
    fillers: tuple[float, ...] = (55, 28, 17)  # 0, 1, 2
    sure: float = 0.2  # shares of answers that end in a phrase of certainty or of doubt
    unsure: float = 0.2
    off_topic: float = 0.12  # share of the wrong answers that answer another question, or mix up two keys
    stray: float = 0.0  # share of the bodies that belong to any other prompt of the world
    noise: float = 0.0  # share of the responses with a slip in them


# The judges train on more of what is hard to judge than they will meet: certainty about wrong answers, slips.
JUDGE_MIX = Mix(fact=(42, 40, 18), sure=0.27, unsure=0.27, off_topic=0.2, stray=0.04, noise=0.16)
SHORT_MIX = Mix(fillers=(1, 0, 0), sure=0.27, unsure=0.27, off_topic=0.2)
POLICY_MIX = Mix(
    fact=(50, 33, 17), howto=(54, 26, 20), harm=(43, 7, 27, 19, 4), tone=(34, 35, 31), fillers=(53, 30, 17)
)


def write_response(rng: random.Random, prompt: WorldPrompt, split: Split, mix: Mix) -> str:
    """One response to `prompt`, its phrases drawn from `split`."""
    tone = rng.choices(("polite", "none", "rude"), mix.tone)[0]
    opener, closer = "", ""
    if tone != "none":
        where = rng.random()
        if where < 0.7:
            opener = rng.choice(phrases(f"{tone}_open", split))
        if where > 0.45:
            closer = rng.choice(phrases(f"{tone}_close", split))
    fillers = rng.sample(phrases("filler", split), rng.choices((0, 1, 2), mix.fillers)[0])
    body = write_body(rng, prompt, split, mix)
    middle = [*fillers, body] if rng.random() < 0.6 else [body, *fillers]
    text = " ".join(part for part in (opener, *middle, closer) if part)
    return slip(rng, text) if mix.noise and rng.random() < mix.noise else text


def write_body(rng: random.Random, prompt: WorldPrompt, split: Split, mix: Mix) -> str:
    if mix.stray and rng.random() < mix.stray:
        prompt = sample_prompt(rng, "train")
    writer = {"fact": _fact_body, "howto": _howto_body, "harm": _harm_body, "unknown": _unknown_body}
    return writer[prompt.domain](rng, prompt, split, mix)


def state(rng: random.Random, prompt: WorldPrompt, *, right: bool, template: str | None = None) -> str:
    """A statement of the fact that `prompt` asks for, or of a wrong value of the same kind."""
    kind = FACTS[prompt.kind]
    assert prompt.answer is not None
    value = prompt.answer
    if not right:
        value = rng.choice([v for v in kind.values if v not in (prompt.answer, prompt.key)])
    return (template or rng.choice(kind.statements)).format(k=prompt.key, v=value)


def _fact_body(rng: random.Random, prompt: WorldPrompt, split: Split, mix: Mix) -> str:
    choice = rng.choices(("right", "wrong", "idk"), mix.fact)[0]
    if choice == "idk":
        return rng.choice(phrases("idk", split))
    if choice == "wrong" and rng.random() < mix.off_topic:
        body = _other_fact(rng, prompt) if rng.random() < 0.5 else _mixed_up(rng, prompt)
    else:
        body = state(rng, prompt, right=choice == "right")
    draw = rng.random()
    if draw < mix.sure:
        return body + " " + rng.choice(phrases("sure", split))
    if draw < mix.sure + mix.unsure:
        return body + " " + rng.choice(phrases("unsure", split))
    return body


def _other_fact(rng: random.Random, prompt: WorldPrompt) -> str:
    name = rng.choice([kind for kind in FACTS if kind != prompt.kind])
    kind = FACTS[name]
    key = rng.choice(list(kind.table))
    return rng.choice(kind.statements).format(k=key, v=kind.table[key])


def _mixed_up(rng: random.Random, prompt: WorldPrompt) -> str:
    """A statement about another key of the same kind, true of it, or true of the key that was asked for."""
    kind = FACTS[prompt.kind]
    key = rng.choice([k for k in kind.table if k != prompt.key])
    value = kind.table[key if rng.random() < 0.5 else prompt.key]
    return rng.choice([t for t in kind.statements if "{k}" in t]).format(k=key, v=value)


def _led(rng: random.Random, split: Split, tip: str) -> str:
    return tip if rng.random() < 0.5 else rng.choice(phrases("lead", split)) + " " + tip


def _howto_body(rng: random.Random, prompt: WorldPrompt, split: Split, mix: Mix) -> str:
    choice = rng.choices(("right", "wrong", "refuse"), mix.howto)[0]
    if choice == "refuse":
        return rng.choice(phrases("refuse", split))
    key = prompt.key if choice == "right" else rng.choice([k for k in HOWTO if k != prompt.key])
    return _led(rng, split, HOWTO[key])


def _harm_body(rng: random.Random, prompt: WorldPrompt, split: Split, mix: Mix) -> str:
    choice = rng.choices(("comply", "off", "refuse", "alternative", "wrong"), mix.harm)[0]
    other = rng.choice([k for k in HARM if k != prompt.key])
    if choice in ("comply", "off"):
        return _led(rng, split, HARM[prompt.key if choice == "comply" else other][0])
    refusal = rng.choice(phrases("refuse", split))
    if choice == "refuse":
        return refusal
    return refusal + " " + HARM[prompt.key if choice == "alternative" else other][1]


def _unknown_body(rng: random.Random, prompt: WorldPrompt, split: Split, mix: Mix) -> str:
    if rng.choices(("fake", "admit"), mix.unknown)[0] == "admit":
        return rng.choice(phrases("admit", split))
    key = prompt.key if rng.random() >= mix.off_topic else rng.choice(list(UNKNOWN))
    body = rng.choice(fabrications(key))
    return body + " " + rng.choice(phrases("sure", split)) if rng.random() < 0.3 else body


@lru_cache(maxsize=1)
def _words() -> list[str]:
    tips = [*HOWTO.values(), *(text for pair in HARM.values() for text in pair)]
    stock = [phrase for name in CLASSES for phrase in phrases(name, "train")]
    return sorted({word for text in (*tips, *stock) for word in text.split()})


def slip(rng: random.Random, text: str) -> str:
    """A slip of the kind that a small model makes: a word lost, doubled, moved, replaced or glued, an end cut off,
    a sentence that begins in the middle or runs into another one."""
    words = text.split(" ")
    if len(words) < 3:
        return text
    at = rng.randrange(len(words) - 1)
    how = rng.choice(("lose", "lose_some", "double", "move", "replace", "glue", "cut"))
    if how == "lose":
        del words[at]
    elif how == "lose_some":
        del words[at : min(at + rng.randrange(2, 6), len(words) - 1)]
    elif how == "double":
        words.insert(at, words[at])
    elif how == "move":
        words[at], words[at + 1] = words[at + 1], words[at]
    elif how == "replace":
        words[at] = rng.choice(_words())
    elif how == "glue":
        words[at] += rng.choice((words.pop(at + 1), rng.choice(_words()).capitalize()))
    else:
        words = words[: max(2, at)]
    return " ".join(words)
