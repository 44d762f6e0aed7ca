"""Verdicts and scores in the words of other people's judges, read by regular expressions from a config.

`PatternChoice` stands where `Choice` stands, `PatternForm` where `Form` does. Pure, like `verdicts`. What nothing
matches has no verdict. A text that is longer than `max_chars` is not read at all.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from rlaif.config.parsing import FLAGS, ParseSection
from rlaif.errors import ConfigError
from rlaif.judges.verdicts import Choice, Outcome, Parsed, answer_of, nothing_said
from rlaif.judges.verdicts_scores import ParsedForm
from rlaif.records import FIRST, SECOND, TIE, Reply

_LABELS = {FIRST: "A", SECOND: "B", TIE: "C"}  # the labels that frames show the two responses under
_NO_MATCH = "no pattern matches"


class PatternChoice(Choice, frozen=True, kw_only=True):
    """A pairwise verdict in another form than ours. `how`: with `patterns` (inlined) or `compare`."""

    how: ParseSection

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        return self.how.instruction or "Say which of the two is better."

    def parse(self, reply: Reply) -> Parsed:
        """The verdict, or why there is none."""
        answer = readable(reply, self.how)
        if answer.status != "ok":
            return Parsed(status=answer.status, reason=answer.reason, rationale=answer.rationale)
        text = line_of(answer.rationale or "", self.how)
        label, reason = _compared(text, self.how) if self.how.compare else _matched(text, self.how)
        if label is None:
            none = nothing_said(answer.rationale or "", reason)
            return Parsed(status=none.status, reason=none.reason, rationale=none.rationale)
        certain = {other: float(other == label) for other in self.labels}
        return Parsed(label=label, probabilities=certain, rationale=answer.rationale)


def pattern_choice(how: ParseSection, where: str = "judge.parse") -> PatternChoice:
    """Errors: ConfigError for a section that reads scores."""
    if how.patterns is None and how.compare is None:
        raise ConfigError(f"{where}: a judge of pairs reads `patterns` or `compare`, not scores")
    ties = how.compare is not None or TIE in how.by_verdict
    return PatternChoice(
        labels=("A", "B", "C") if ties else ("A", "B"), read="text", tie="C" if ties else None, how=how
    )


class PatternForm(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of one response in another form than ours: any numbers. `how`: with `score` or `scores`."""

    how: ParseSection

    @property
    def names(self) -> tuple[str, ...]:
        """The criteria; one score by itself is called "score"."""
        return tuple(self.how.scores) or ("score",)

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        return self.how.instruction or "Rate the response."

    def parse(self, reply: Reply) -> ParsedForm:
        """The scores, null where one cannot be read, or why there are none."""
        answer = readable(reply, self.how)
        if answer.status != "ok":
            return ParsedForm(status=answer.status, reason=answer.reason, rationale=answer.rationale)
        text = line_of(answer.rationale or "", self.how)
        values: dict[str, Any] = {}
        unread: dict[str, str] = {}
        for name, regex in (self.how.scores or {"score": str(self.how.score)}).items():
            found, reason = numbers(regex, text, self.how)
            values[name] = found[0] if found else None
            if found is None:
                unread[name] = reason
        if len(unread) == len(values):
            none = nothing_said(answer.rationale or "", "; ".join(unread.values()))
            return ParsedForm(status=none.status, reason=none.reason, rationale=none.rationale)
        return ParsedForm(values=values, unread=unread, rationale=answer.rationale)


def pattern_form(how: ParseSection, where: str = "judge.parse") -> PatternForm:
    """Errors: ConfigError for a section that reads verdicts."""
    if how.patterns is not None or how.compare is not None:
        raise ConfigError(
            f"{where}: a judge that scores reads `score` or `scores`, not {'patterns' if how.patterns else 'compare'}"
        )
    return PatternForm(how=how)


def readable(reply: Reply, how: ParseSection) -> Outcome:
    """The reply's answer, stripped, or why nothing of it may be read."""
    if reply.finish_reason == "length" and how.truncated == "read":
        reply = msgspec.structs.replace(reply, finish_reason="stop")
    answer = answer_of(reply)
    text = (answer.rationale or "").strip()
    if answer.status == "ok" and len(text) > how.max_chars:
        return Outcome(status="unparsed", reason=f"{len(text)} characters, above parse.max_chars {how.max_chars}")
    return Outcome(status=answer.status, reason=answer.reason, rationale=text or None)


def line_of(text: str, how: ParseSection) -> str:
    """The part of a stripped text that patterns look at."""
    if how.line == "all" or not text:
        return text
    return text.splitlines()[0 if how.line == "first" else -1].strip()


def _matched(text: str, how: ParseSection) -> tuple[str | None, str]:
    """The label that the patterns find and how.take chooses, or None and why."""
    patterns = {_LABELS[verdict]: _compiled(regex, how) for verdict, regex in how.by_verdict.items()}
    if how.take in ("first", "strict"):
        labels = [label for label, regex in patterns.items() if regex.search(text)]
        if how.take == "strict" and len(labels) > 1:
            return None, f"different verdicts in one reply: {', '.join(labels)}"
        return (labels[0], "") if labels else (None, _NO_MATCH)
    spans = {label: [match.span() for match in regex.finditer(text)] for label, regex in patterns.items()}
    at = {label: min(found)[0] if how.take == "earliest" else -max(end for _, end in found)
          for label, found in spans.items() if found}  # fmt: skip
    if not at:
        return None, _NO_MATCH
    labels = [label for label, place in at.items() if place == min(at.values())]
    return (labels[0], "") if len(labels) == 1 else (None, f"{' and '.join(labels)} at one place")


def _compared(text: str, how: ParseSection) -> tuple[str | None, str]:
    """The larger of two numbers wins; equal ones are a tie."""
    values, reason = numbers(str(how.compare), text, how)
    if values is None:
        return None, reason
    first, second = values
    return ("C" if first == second else "A" if first > second else "B"), ""


def numbers(regex: str, text: str, how: ParseSection) -> tuple[tuple[float, ...] | None, str]:
    """The groups of the first or the last match as numbers; with `strict`, every match must say the same."""
    matches = [match.groups() for match in _compiled(regex, how).finditer(text)]
    if not matches:
        return None, _NO_MATCH
    if how.take == "strict" and len(set(matches)) > 1:
        return None, f"different scores in one reply: {', '.join('/'.join(map(str, m)) for m in matches[:3])}"
    chosen = matches[-1 if how.take == "last" else 0]
    try:
        values = tuple(float(value) for value in chosen)
        finite = all(value - value == 0 for value in values)
    except (TypeError, ValueError):
        finite = False
    return (values, "") if finite else (None, f"not a number: {' '.join(map(str, chosen))[:40]!r}")


@lru_cache(maxsize=256)
def _compile(regex: str, flags: int) -> re.Pattern[str]:
    return re.compile(regex, flags)


def _compiled(regex: str, how: ParseSection) -> re.Pattern[str]:
    flags = 0
    for name in how.flags:
        flags |= FLAGS[name]
    return _compile(regex, flags)
