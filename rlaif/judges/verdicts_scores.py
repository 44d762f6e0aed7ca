"""From a reply to scores: one step of a scale from log-probs, or several fields of one JSON object.

Steps are whole numbers: a reply of 4.5 is between two of them and is no step, and neither is 10 on a scale to 5.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from math import fsum
from typing import Any

import msgspec

from rlaif.judges.verdicts import Choice, Outcome, answer_of, failure, nothing_said, plain, read_logprobs
from rlaif.records import Reply

_OBJECT = re.compile(r'\{\s*"')
_STRING_OR_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_WHOLE = re.compile(r"-?\d{1,9}")
Value = int | float | str  # of a field: a step, or a word; a foreign judge's may be any number


class ParsedRating(Outcome, frozen=True, kw_only=True):
    """`score`: Σ i·P(i) over the steps; `distribution` over them sums to 1; `label_mass` is what they had before."""

    score: float | None = None
    distribution: dict[str, float] | None = None
    label_mass: float | None = None


class Rating(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a scale, read from the next token's distribution. `steps`: each must be one token, so 0 to 9.

    `about`: the criterion that is rated, where the frame shows several.
    """

    steps: tuple[int, ...]
    about: str | None = None
    min_mass: float = 0.5

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(str(step) for step in self.steps)

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        about = f" on “{self.about}” alone" if self.about else ""
        return f"Rate the response{about} from {self.steps[0]} to {self.steps[-1]}. Answer with one digit."

    def parse(self, reply: Reply) -> ParsedRating:
        """The expected step, or why there is none."""
        no_answer = failure(reply)
        if no_answer:
            return ParsedRating(status=no_answer.status, reason=no_answer.reason)
        read = read_logprobs(reply, Choice(labels=self.labels, min_mass=self.min_mass))
        if read.probabilities is None:
            return ParsedRating(status=read.status, reason=read.reason, label_mass=read.label_mass)
        score = fsum(step * read.probabilities[str(step)] for step in self.steps)
        score = min(max(score, self.steps[0]), self.steps[-1])  # the last bit of a sum
        return ParsedRating(score=score, distribution=read.probabilities, label_mass=read.label_mass)


class Field(msgspec.Struct, frozen=True):
    """`values`: what may stand there, in order: whole numbers without a gap, or words."""

    name: str
    values: tuple[Value, ...]

    @property
    def menu(self) -> str:
        if isinstance(self.values[0], int):
            return f"<whole number from {self.values[0]} to {self.values[-1]}>"
        return "<" + " or ".join(f'"{value}"' for value in self.values) + ">"

    def read(self, said: Any) -> Value | None:
        """The offered value that `said` is; 4.5, 10 on a scale to 5, true and "good" are none."""
        if isinstance(said, str):
            said = plain(said).strip().casefold()
            if isinstance(self.values[0], int):
                said = int(said) if _WHOLE.fullmatch(said) else None
        elif isinstance(said, bool) or (isinstance(said, float) and not said.is_integer()):
            return None
        return next((value for value in self.values if value == said), None)


class ParsedForm(Outcome, frozen=True, kw_only=True):
    """`values`: every field's, None with a reason in `unread` where it has none. At least one is there if ok."""

    values: dict[str, Value | None] = {}
    unread: dict[str, str] = {}


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """One JSON object: `{"rationale": "…", "scores": {"field": value, …}}`. `key`: what stands for "scores"."""

    fields: tuple[Field, ...]
    key: str = "scores"

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        values = ", ".join(f'"{field.name}": {field.menu}' for field in self.fields)
        return (
            "Reply with one JSON object and nothing else, of the form\n"
            f'{{"rationale": "<a few sentences>", "{self.key}": {{{values}}}}}\n'
            "Write null for what cannot be judged here."
        )

    @property
    def schema(self) -> dict[str, Any]:
        """The same as a JSON schema, of the kind that strict structured output takes."""
        values = object_schema({field.name: _enum(field) for field in self.fields})
        return object_schema({"rationale": {"type": "string"}, self.key: values})

    def parse(self, reply: Reply) -> ParsedForm:
        """The values, or why there are none. JSON may stand in a code fence, among other text, and hold comments; two
        objects of this form that say different things are no answer."""
        answer = answer_of(reply)
        if answer.status != "ok":
            return ParsedForm(status=answer.status, reason=answer.reason, rationale=answer.rationale)
        text = answer.rationale or ""
        objects = [found for found in objects_in(text, self.key) if isinstance(found[self.key], _Object)]
        if not objects:
            none = nothing_said(text, f"no JSON object with {self.key!r}")
            return ParsedForm(status=none.status, reason=none.reason, rationale=none.rationale)
        read = [self._read(found[self.key]) for found in objects]
        rationale = _text(objects[-1].get("rationale"))
        if any(values != read[0][0] for values, _ in read):
            reason = f"different {self.key} in one reply"
            return ParsedForm(status="unparsed", reason=reason, rationale=rationale)
        values, unread = read[0]
        if all(value is None for value in values.values()):
            reason = "; ".join(f"{name}: {why}" for name, why in list(unread.items())[:3])
            return ParsedForm(status="unparsed", reason=reason, rationale=rationale)
        return ParsedForm(values=values, unread=unread, rationale=rationale)

    def _read(self, said: _Object) -> tuple[dict[str, Value | None], dict[str, str]]:
        values: dict[str, Value | None] = {}
        unread: dict[str, str] = {}
        for field in self.fields:
            given = said.all(field.name)
            found = {field.read(value) for value in given}
            values[field.name] = found.pop() if len(found) == 1 else None
            if values[field.name] is None:
                unread[field.name] = _why(field, given)
        return values, unread


def _why(field: Field, given: Sequence[Any]) -> str:
    if not given:
        return "missing"
    if len(given) > 1:
        return f"given twice: {', '.join(_short(value) for value in given[:3])}"
    return "null" if given[0] is None else f"{_short(given[0])} was not offered"


def _short(value: Any) -> str:
    return repr(dict(value) if isinstance(value, _Object) else value)[:40]


def _text(value: Any) -> str | None:
    return (value.strip() or None) if isinstance(value, str) else None


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _enum(field: Field) -> dict[str, Any]:
    kind = "integer" if isinstance(field.values[0], int) else "string"
    return {"type": [kind, "null"], "enum": [*field.values, None]}


class _Object(dict[str, Any]):
    """A JSON object that remembers what stands in it more than once; Python's own keeps the last and says nothing."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def all(self, key: str) -> list[Any]:
        return [value for name, value in self._pairs if name == key]


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, strict=False)


def objects_in(text: str, key: str) -> list[_Object]:
    """The outermost JSON objects in a text that have `key`; where there is none, those that comments spoil."""
    found = [found for found in _objects(text) if key in found]
    uncommented = _STRING_OR_COMMENT.sub(lambda match: match[1] or "", text)
    return found or [found for found in _objects(uncommented) if key in found]


def _objects(text: str) -> Iterator[_Object]:
    end = 0
    for start in _OBJECT.finditer(text):
        if start.start() < end:
            continue
        try:
            found, end = _DECODER.raw_decode(text, start.start())
        except ValueError:
            continue
        except RecursionError:  # nobody's scores; looking inside would take for ever
            return
        yield found
