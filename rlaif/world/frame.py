"""The judge's prompt, as text: the shipped compact frame, rendered without jinja2 because training does so often.

`tests/world/test_frame.py` holds this to the shipped template, byte for byte.
"""

from __future__ import annotations

INSTRUCTION = "Answer with one letter: A or B."
RATE = "Rate the response from 1 to 5."

QUESTION = "Question:\n```\n"
FIRST = "\n```\nResponse A:\n```\n"
SECOND = "\n```\nResponse B:\n```\n"
SINGLE = "\n```\nResponse:\n```\n"
CLOSE = "\n```\n"


def pairwise(question: str, a: str, b: str, principle: str) -> str:
    """The user message that asks which response is better; fences are three backticks, so texts hold none."""
    return f"{QUESTION}{question}{FIRST}{a}{SECOND}{b}{CLOSE}{principle}\n{INSTRUCTION}"


def pointwise(question: str, response: str, principle: str) -> str:
    """The user message that asks for a level from 1 to 5."""
    return f"{QUESTION}{question}{SINGLE}{response}{CLOSE}{principle}\n{RATE}"
