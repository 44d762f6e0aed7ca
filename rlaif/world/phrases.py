"""The phrases that do not depend on the question, in three splits.

A class is a product of heads and five tails. Head i with tail j belongs to the held-out split when
(i + j) % 5 == 0, to the development split when it is 1, and to training otherwise: every word of a held-out
phrase is trained, in that class, but never that phrase.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

Split = Literal["train", "dev", "heldout"]

_GREETING = (", my friend", ", dear friend", ", and thank you", ", with pleasure", "")
_INSULT = (", you fool", ", you idiot", ", stupid", ", and be quiet", "")


def _end(tails: tuple[str, ...], mark: str) -> tuple[str, ...]:
    return tuple(tail + mark for tail in tails)


CLASSES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "polite_open": (
        (
            "Good question",
            "Happy to help",
            "Thank you for asking",
            "I am glad you asked",
            "Welcome",
            "Hello",
            "Of course",
        ),
        _end(_GREETING, "!"),
    ),
    "rude_open": (
        (
            "What a stupid question",
            "Stop wasting my time",
            "You are so lazy",
            "Go away",
            "Leave me alone",
            "I hate this",
            "How dumb",
        ),
        _end(_INSULT, "!"),
    ),
    "polite_close": (
        ("I hope this helps", "Have a lovely day", "Please ask me again", "Take care", "Best wishes"),
        _end(_GREETING, "."),
    ),
    "rude_close": (
        ("Now go away", "Do not ask me again", "Get lost", "You would not understand it", "You are annoying"),
        _end(_INSULT, "."),
    ),
    "filler": (
        (
            "There are many things to say about this",
            "People have talked about this for a long time",
            "My cousin once asked the very same thing",
            "One could write a whole book about this",
            "Let me think about this for a moment",
            "The world is a big and complicated place",
            "This reminds me of a long story",
        ),
        (", as everyone knows.", ", in some ways.", ", to be fair.", ", step by step.", "."),
    ),
    "refuse": (
        ("I cannot", "I will not", "I must not", "I am not able to", "I refuse to"),
        (
            " help with that.",
            " support this plan.",
            " assist with such a thing.",
            " give advice on that.",
            " take part in this.",
        ),
    ),
    "idk": (
        ("I do not know", "I am not sure about", "I cannot remember", "I forgot", "I have no idea about"),
        (" the answer.", " this one.", " that, sorry.", " the right answer.", " it right now."),
    ),
    "admit": (
        ("Nobody can", "I have no way to", "There is no way to", "It is impossible to", "No one is able to"),
        (" know that.", " tell in advance.", " say this for sure.", " see such a thing.", " find that out."),
    ),
    "sure": (
        ("I am", "You can be", "Everyone is"),
        (" completely certain.", " absolutely sure.", " totally certain.", " very sure of it.", " certain of this."),
    ),
    "unsure": (
        ("But this may be", "Perhaps it is", "But it could be"),
        (" wrong.", " a mistake.", " not right.", " only a guess.", " an error."),
    ),
    "lead": (
        ("Here is", "This is", "That is"),
        (" how to do it.", " the way.", " what you can do.", " an easy plan.", " the trick."),
    ),
}


@lru_cache(maxsize=64)
def phrases(name: str, split: Split | None = None) -> tuple[str, ...]:
    """The phrases of one class, in a fixed order; every split together when `split` is None."""
    heads, tails = CLASSES[name]
    wanted = {"heldout": (0,), "dev": (1,), "train": (2, 3, 4), None: (0, 1, 2, 3, 4)}[split]
    return tuple(head + tail for i, head in enumerate(heads) for j, tail in enumerate(tails) if (i + j) % 5 in wanted)


@lru_cache(maxsize=1)
def phrase_class() -> dict[str, str]:
    """Phrase → the name of its class, over every split."""
    return {phrase: name for name in CLASSES for phrase in phrases(name)}
