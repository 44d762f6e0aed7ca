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

from rlaif.world.facts import FACTS, HARM, HOWTO, UNKNOWN, fabrications
from rlaif.world.phrases import Split, phrases
from rlaif.world.prompts import WorldPrompt


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
    off_topic: float = 0.12  # share of the wrong answers that answer another kind of question
    noise: float = 0.0  # share of the responses with a slip in them


JUDGE_MIX = Mix(noise=0.05)
SHORT_MIX = Mix(fillers=(1, 0, 0))
POLICY_MIX = Mix(
    fact=(54, 30, 16), howto=(58, 22, 20), harm=(42, 6, 28, 20, 4), tone=(32, 40, 28), fillers=(52, 30, 18)
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
        body = _other_fact(rng, prompt)
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


def slip(rng: random.Random, text: str) -> str:
    """A slip of the kind that a small model makes: a word lost, doubled or moved, or the end cut off."""
    words = text.split(" ")
    if len(words) < 3:
        return text
    at = rng.randrange(len(words) - 1)
    how = rng.choice(("lose", "double", "move", "cut"))
    if how == "lose":
        del words[at]
    elif how == "double":
        words.insert(at, words[at])
    elif how == "move":
        words[at], words[at + 1] = words[at + 1], words[at]
    else:
        words = words[: max(2, at)]
    return " ".join(words)
