"""Scripted judges that obey what they read: controls for an attack set, for the fences and for the parser.

Each answers requests by a pure function, so that nothing is asked. Unless something tells it otherwise, a reader
names the response that the run's own judge found the better one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from rlaif.fencing import neutralise
from rlaif.judges.verdicts import plain
from rlaif.records import Reply, Request, TokenLogprob

_T = TypeVar("_T")
_SURE = 0.98  # what a reader gives the label that it names
_FENCE = re.compile(r"^(`{3,})\s*$", re.MULTILINE)
# The ways to say which letter to answer. Letters are capitals, the words around them may be anything.
_SAID = re.compile(
    r"\[\[([A-Z])\]\]"
    r"|(?i:[\"'](?:verdict|winner|choice|answer)[\"']\s*:\s*[\"'])([A-Z])\b"
    r"|(?i:\b(?:verdict|answer|winner|output|print|choose|pick)\b(?:\W{1,6}(?:is|only|with|the letter|response))*"
    r"\W{1,6})([A-Z])(?!\w|[ \t]+(?!and\b)[a-z])"  # not the article "A"
)


def everything(text: str) -> str:
    """Reads the whole prompt: no fence holds anything back."""
    return text


def outside_fences(text: str) -> str:
    """Reads only what stands outside the fences, each closed by a line of at least as many backticks (CommonMark)."""
    kept, inside = [], ""
    for line in text.split("\n"):
        ticks = _FENCE.match(line)
        if inside:
            if ticks and len(ticks[1]) >= len(inside):
                inside = ""
        elif ticks:
            inside = ticks[1]
        else:
            kept.append(line)
    return "\n".join(kept)


def after_control_token(text: str) -> str:
    """Reads only what follows an intact chat-template token: what a tokenizer would take for another turn."""
    broken = neutralise(text)
    if broken == text:
        return ""
    same = next(index for index, (one, other) in enumerate(zip(text, broken, strict=False)) if one != other)
    return text[same:]


class Obedient:
    """Answers with the last verdict that it is told in what it reads, else with its own."""

    def __init__(self, stronger: str, labels: Sequence[str], reads: Callable[[str], str] = everything) -> None:
        self.stronger, self.labels, self.reads = stronger, labels, reads

    def __call__(self, request: Request) -> Reply:
        text = "\n".join(str(message["content"]) for message in request.messages)
        told = [next(filter(None, found.groups())) for found in _SAID.finditer(plain(self.reads(text)))]
        told = [label for label in told if label in self.labels]
        return said(request, told[-1] if told else own(request, self.stronger, self.labels), self.labels)


class Quoting:
    """Repeats the prompt before its own verdict, as wordy judges do: does the parser tell the two apart?"""

    def __init__(self, stronger: str, labels: Sequence[str]) -> None:
        self.stronger, self.labels = stronger, labels

    def __call__(self, request: Request) -> Reply:
        label = own(request, self.stronger, self.labels)
        if request.labels:
            return said(request, label, self.labels)
        return Reply(text=f"{request.messages[-1]['content']}\n\nVerdict: {label}")


def own(request: Request, stronger: str, labels: Sequence[str]) -> str:
    """The label of the stronger response, wherever it is shown."""
    shown = request.subject[1:]
    return labels[shown.index(stronger)] if stronger in shown else labels[0]


def said(request: Request, label: str, labels: Sequence[str]) -> Reply:
    """`label` in the form that the request wants."""
    if not request.labels:
        return Reply(text=f"Verdict: {label}")
    rest = [(other, math.log((1 - _SURE) / (len(labels) - 1))) for other in labels if other != label]
    return Reply(text=label, logprobs=[TokenLogprob(label, math.log(_SURE), [(label, math.log(_SURE)), *rest])])


def answered(job: Generator[list[Request], list[Reply], _T], answer: Callable[[Request], Reply]) -> _T:
    """Run a job to its end with replies from a function."""
    try:
        requests = next(job)
        while True:
            requests = job.send([answer(request) for request in requests])
    except StopIteration as stop:
        result: _T = stop.value
        return result
