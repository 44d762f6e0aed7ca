"""From replies to a checklist, and from replies to its marks."""

from __future__ import annotations

from typing import Any

import msgspec

from rlaif.judges.verdicts import Choice, Outcome, Parsed, answer_of, nothing_said
from rlaif.judges.verdicts_scores import Field, Form, object_schema, objects_in
from rlaif.records import Reply

YES, NO = "yes", "no"


class ParsedItems(Outcome, frozen=True, kw_only=True):
    """`items`: what to look for, each once; None with a `reason`."""

    items: tuple[str, ...] | None = None


class Items(msgspec.Struct, frozen=True, kw_only=True):
    """A checklist: `{"items": ["…", …]}`, of `least` to `most` questions that are to be answered with yes or no."""

    least: int = 1
    most: int = 8

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        return (
            "Reply with one JSON object and nothing else, of the form\n"
            '{"items": ["<a question>", "<another>", …]}\n'
            f"with at most {self.most} items."
        )

    @property
    def schema(self) -> dict[str, Any]:
        return object_schema({"items": {"type": "array", "items": {"type": "string"}}})

    def parse(self, reply: Reply) -> ParsedItems:
        """The items, each on one line, or why there are none. Two different lists are no checklist."""
        answer = answer_of(reply)
        if answer.status != "ok":
            return ParsedItems(status=answer.status, reason=answer.reason)
        text = answer.rationale or ""
        lists = [found["items"] for found in objects_in(text, "items") if isinstance(found["items"], list)]
        if not lists:
            none = nothing_said(text, "no JSON object with a list of 'items'")
            return ParsedItems(status=none.status, reason=none.reason)
        if any(items != lists[0] for items in lists):
            return ParsedItems(status="unparsed", reason="different checklists in one reply")
        if not all(isinstance(item, str) and item.strip() for item in lists[0]):
            return ParsedItems(status="unparsed", reason="an item of the checklist is not a text")
        lines: dict[str, str] = {}
        for item in lists[0]:
            line = " ".join(item.split())
            lines.setdefault(line.casefold(), line)
        items = tuple(lines.values())
        if not self.least <= len(items) <= self.most:
            reason = f"{len(items)} items in the checklist; {self.least} to {self.most} were asked for"
            return ParsedItems(status="unparsed", reason=reason)
        return ParsedItems(items=items)


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one item is met, read from the next token's distribution."""

    number: int
    min_mass: float = 0.5

    labels = ("Yes", "No")

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        return f"Is the answer to item {self.number} of the checklist yes? Answer with one word: Yes or No."

    def parse(self, reply: Reply) -> Parsed:
        return Choice(labels=self.labels, min_mass=self.min_mass).parse(reply)


def marks_form(n_items: int) -> Form:
    """All items of a checklist in one structured reply."""
    return Form(key="marks", fields=tuple(Field(str(i), (YES, NO)) for i in range(1, n_items + 1)))
