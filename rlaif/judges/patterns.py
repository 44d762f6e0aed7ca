"""Verdicts and scores in the words of other people's judges, read by regular expressions from a config.

`PatternChoice` stands where `verdicts.Choice` stands; `read_scores` is its pointwise sibling. Pure, like `verdicts`.
What nothing matches has no verdict. A text that is longer than `max_chars` is not read at all.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import Literal

import msgspec

from rlaif.config.parsing import FLAGS, ParseSection
from rlaif.judges.verdicts import Parsed, after_thinking, reads_as_refusal
from rlaif.records import FIRST, SECOND, TIE, Reply

_LABELS = {FIRST: "A", SECOND: "B", TIE: "C"}  # the labels that frames show the two responses under


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """What a pointwise text says: criterion → number, or no scores and what `failure` says."""

    scores: dict[str, float] | None = None
    failure: Parsed | None = None


class PatternChoice:
    """`verdicts.Choice` for texts in another form than ours. `parse`: with `patterns` (inlined) or `compare`."""

    read: Literal["logprobs", "text"] = "text"

    def __init__(self, parse: ParseSection) -> None:
        self._parse = parse
        offers_tie = parse.compare is not None or (parse.patterns is not None and parse.patterns.tie is not None)
        self.labels: tuple[str, ...] = ("A", "B", "C") if offers_tie else ("A", "B")
        self.tie = "C" if offers_tie else None

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        return self._parse.instruction or "Say which of the two is better."

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str]]]:
        given = self._parse.by_verdict
        return [(_LABELS[verdict], compiled(given[verdict], self._parse)) for verdict in given]

    def parse(self, reply: Reply) -> Parsed:
        """The verdict, or why there is none."""
        text, failure = readable(reply, self._parse)
        if failure is not None:
            return failure
        label, reason = self._compared(text) if self._parse.compare else self._matched(text)
        rationale = reply.text.strip() or None
        if label is None:
            return unread(reply, reason)
        certain = {other: float(other == label) for other in self.labels}
        return Parsed(label=label, probabilities=certain, rationale=rationale)

    def _matched(self, text: str) -> tuple[str | None, str]:
        spans = {
            label: [match.span() for match in regex.finditer(text)]
            for label, regex in self._patterns
            if regex.search(text)
        }
        if not spans:
            return None, "no pattern matches"
        take = self._parse.take
        if take == "strict" and len(spans) > 1:
            return None, f"different verdicts in one reply: {', '.join(spans)}"
        if take in ("first", "strict"):
            return next(iter(spans)), ""
        at = {label: min(s[0] for s in found) if take == "earliest" else max(s[1] for s in found)
              for label, found in spans.items()}  # fmt: skip
        best = min(at.values()) if take == "earliest" else max(at.values())
        labels = [label for label, position in at.items() if position == best]
        return (labels[0], "") if len(labels) == 1 else (None, f"{' and '.join(labels)} at one place")

    def _compared(self, text: str) -> tuple[str | None, str]:
        """The larger of two numbers wins; equal ones are a tie."""
        values, reason = numbers(str(self._parse.compare), text, self._parse)
        if values is None:
            return None, reason
        first, second = values
        return ("C" if first == second else "A" if first > second else "B"), ""


def read_scores(reply: Reply, parse: ParseSection) -> Scores:
    """The score of every criterion that `parse` names (`score` is called "score"); all of them or none."""
    text, failure = readable(reply, parse)
    if failure is not None:
        return Scores(failure=failure)
    found: dict[str, float] = {}
    for name, regex in (parse.scores or {"score": str(parse.score)}).items():
        values, reason = numbers(regex, text, parse)
        if values is None:
            return Scores(failure=unread(reply, f"{name}: {reason}"))
        found[name] = values[0]
    return Scores(scores=found)


def readable(reply: Reply, parse: ParseSection) -> tuple[str, Parsed | None]:
    """The part of the reply that patterns look at, or why nothing of it may be read."""
    if reply.error is not None:
        return "", Parsed(status="error", reason=reply.error)
    if reply.finish_reason in ("refusal", "content_filter"):
        return "", Parsed(status="refused", reason="the engine reports a refusal")
    if reply.finish_reason == "length" and parse.truncated == "refuse":
        return "", Parsed(status="truncated", reason="cut off by the token limit", rationale=reply.text or None)
    text = after_thinking(reply.text)
    if text is None:
        return "", Parsed(status="unparsed", reason="the thinking never ends")
    if len(text) > parse.max_chars:
        return "", Parsed(
            status="unparsed", reason=f"{len(text)} characters, above parse.max_chars {parse.max_chars}"
        )
    text = text.strip()
    if parse.line != "all" and text:
        text = text.splitlines()[0 if parse.line == "first" else -1].strip()
    return text, None


def unread(reply: Reply, reason: str) -> Parsed:
    text = reply.text.strip()
    if not text:
        return Parsed(status="unparsed", reason="an empty reply")
    if reads_as_refusal(text):
        return Parsed(status="refused", reason="the reply reads as a refusal", rationale=text)
    return Parsed(status="unparsed", reason=reason, rationale=text)


def numbers(regex: str, text: str, parse: ParseSection) -> tuple[tuple[float, ...] | None, str]:
    """The groups of the first or last match as numbers; with `strict`, every match must say the same."""
    matches = [match.groups() for match in compiled(regex, parse).finditer(text)]
    if not matches:
        return None, "no pattern matches"
    if parse.take == "strict" and len(set(matches)) > 1:
        return None, f"different scores in one reply: {', '.join('/'.join(map(str, m)) for m in matches[:3])}"
    chosen = matches[-1 if parse.take == "last" else 0]
    try:
        values = tuple(float(str(value).replace(",", ".")) for value in chosen)
    except ValueError:
        return None, f"not a number: {' '.join(map(str, chosen))[:40]!r}"
    finite = all(value - value == 0 for value in values)
    return (values, "") if finite else (None, f"not a number: {' '.join(map(str, chosen))[:40]!r}")


@lru_cache(maxsize=256)
def _compile(regex: str, flags: int) -> re.Pattern[str]:
    return re.compile(regex, flags)


def compiled(regex: str, parse: ParseSection) -> re.Pattern[str]:
    flags = 0
    for name in parse.flags:
        flags |= FLAGS[name]
    return _compile(regex, flags)
