"""One response, scored by a checklist that the judge first writes for its prompt.

The checklist is asked for under the prompt alone, so all responses to a prompt share it: the driver sends that
request once, and the journal pays for it once. The score is the share of the items that the response meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import Any

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges.base import JudgeRun, Task
from rlaif.judges.section import (
    EngineOf,
    find_frame_of,
    need_standard,
    reads_logprobs,
    refuse,
    standard_arguments,
)
from rlaif.judges.standard import TEXT_TOKENS, Applied, StandardJudge
from rlaif.judges.verdicts import Outcome, Parsed
from rlaif.judges.verdicts_checklist import YES, Items, Mark, ParsedItems, marks_form
from rlaif.judges.verdicts_scores import ParsedForm
from rlaif.records import Judgment, Prompt, Reply, Request, Response
from rlaif.templates import Frame

SCORE = "checklist"  # the name of the one score
_TOKENS_PER_ITEM = 16
_STAND_IN = "Is this an item of usual length, which names one thing that can be seen in the response?"


class ChecklistJudge(StandardJudge):
    """Writes a checklist of at most `items` questions, then marks it: `read_logprobs`, one request an item, whose
    P(yes) is the mark; else all of them in one structured reply.

    `meta["items"]` has every item with its `mark` in [0, 1], null where it could not be read; the score is the mean
    of the others.
    """

    arity = 1
    frames = ("checklist", "checklist_items")

    @classmethod
    def from_section(cls, section: JudgeSection, engine_of: EngineOf, *, role: str, where: str) -> ChecklistJudge:
        """The judge that a config describes; `frame:` is that of the marks. Errors: ConfigError."""
        need_standard(section, where)
        refuse(section, where, ties=section.ties, clamp=section.clamp is not None, samples=section.samples > 1)
        if section.read == "rationale":
            raise ConfigError(f"{where}.read: rationale is for judges that compare; use logprobs or text")
        items = section.options.get("items", Items().most)
        if type(items) is not int or items < 1:
            raise ConfigError(f"{where}.options.items: expected a whole number of at least 1, got {items!r}")
        engine = engine_of(role)
        arguments = {
            **standard_arguments(section, engine_of, role=role, frame="checklist"),
            "items_frame": find_frame_of(section.model_copy(update={"frame": None}), "checklist_items"),
            "read_logprobs": reads_logprobs(section, engine, where),
            "structured": engine.capabilities.json_schema,
            "min_mass": section.min_label_mass,
            **section.options,
            "items": items,
        }
        return cls(**arguments)

    def __init__(
        self,
        *,
        items_frame: Frame,
        items: int = 8,
        read_logprobs: bool = False,
        structured: bool = False,
        min_mass: float = 0.5,
        **standard: Any,
    ) -> None:
        super().__init__(**standard)
        self.items_frame, self.items = items_frame, Items(most=items)
        self.read_logprobs, self.structured, self.min_mass = read_logprobs, structured, min_mass

    def __call__(self, task: Task) -> JudgeRun:
        """Judgments for a task of one response, one for each principle; [] when none applies to the prompt."""
        standards = self.applied(task.prompt, task.prompt_rng())
        written = yield [self._items_request(task, applied) for applied in standards]
        lists = [self.items.parse(reply) for reply in written]
        asked = [
            self._mark_requests(task, applied, parsed.items or ())
            for applied, parsed in zip(standards, lists, strict=True)
        ]
        replies = yield [request for requests in asked for request in requests]
        judgments = []
        for applied, parsed, reply, requests in zip(standards, lists, written, asked, strict=True):
            own, replies = replies[: len(requests)], replies[len(requests) :]
            judgments.append(self._judgment(task.prompt, task.responses[0], applied, parsed, [reply, *own]))
        return judgments

    def plan(self, task: Task) -> list[Request]:
        """All that the task may ask: a checklist as long as it may be, and its marks."""
        items = [_STAND_IN] * self.items.most
        requests = []
        for applied in self.applied(task.prompt, task.prompt_rng()):
            requests += [self._items_request(task, applied), *self._mark_requests(task, applied, items)]
        return requests

    # -- requests ----------------------------------------------------------------------------------------------------

    def _items_request(self, task: Task, applied: Applied) -> Request:
        """It says nothing of the response, so it is the same for all of the prompt's."""
        messages = self.messages(task.prompt, [], applied, self.items.instruction, [], frame=self.items_frame)
        schema = self.items.schema if self.structured else None
        return self.text_request(messages, [task.prompt.id], task.seed, schema=schema)

    def _mark_requests(self, task: Task, applied: Applied, items: Sequence[str]) -> list[Request]:
        if not items:
            return []
        subject = (task.prompt.id, task.responses[0].id)
        if self.read_logprobs:
            return [
                self.label_request(
                    self._marking(task, applied, items, mark.instruction, mark.labels), mark.labels, subject
                )
                for mark in self._marks(items)
            ]
        form = marks_form(len(items))
        messages = self._marking(task, applied, items, form.instruction, [field.name for field in form.fields])
        return [
            self.text_request(
                messages,
                subject,
                task.seed,
                schema=form.schema if self.structured else None,
                max_tokens=TEXT_TOKENS + _TOKENS_PER_ITEM * len(items),
            )
        ]

    def _marking(
        self, task: Task, applied: Applied, items: Sequence[str], instruction: str, labels: Sequence[str]
    ) -> list[dict[str, Any]]:
        numbered = "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
        return self.messages(
            task.prompt, task.responses, applied, instruction, labels, names=("A",), more={"checklist": numbered}
        )

    def _marks(self, items: Sequence[str]) -> list[Mark]:
        return [Mark(number=number, min_mass=self.min_mass) for number in range(1, len(items) + 1)]

    # -- judgments ---------------------------------------------------------------------------------------------------

    def _judgment(
        self, prompt: Prompt, response: Response, applied: Applied, parsed: ParsedItems, replies: Sequence[Reply]
    ) -> Judgment:
        """`replies`: the checklist's, then the marks'."""
        said: dict[str, Any] = {}
        meta: dict[str, Any] = {}
        if parsed.items is None:
            said = {"status": parsed.status, "reason": f"the checklist: {parsed.reason}"}
        else:
            read = self._from_logprobs if self.read_logprobs else self._from_text
            outcome, marks = read(parsed.items, replies[1:])
            meta["items"] = [{"item": item, "mark": mark} for item, mark in zip(parsed.items, marks, strict=True)]
            judged = [mark for mark in marks if mark is not None]
            if outcome.status == "ok":
                said = {"scores": {SCORE: fsum(judged) / len(judged)}, "rationale": outcome.rationale}
            else:
                said = {"status": outcome.status, "reason": outcome.reason}
        return self.judgment(prompt, [response], applied, replies, kind="pointwise", meta=meta, **said)

    def _from_logprobs(self, items: Sequence[str], replies: Sequence[Reply]) -> tuple[Outcome, list[float | None]]:
        parsed = [mark.parse(reply) for mark, reply in zip(self._marks(items), replies, strict=True)]
        marks = [_p_yes(mark) for mark in parsed]
        missing = next((mark for mark in parsed if mark.status == "error"), None)
        if missing is None and any(mark is not None for mark in marks):
            return Outcome(), marks
        return missing or parsed[0], marks

    def _from_text(self, items: Sequence[str], replies: Sequence[Reply]) -> tuple[Outcome, list[float | None]]:
        parsed: ParsedForm = marks_form(len(items)).parse(replies[0])
        said = [parsed.values.get(str(number)) for number in range(1, len(items) + 1)]
        return parsed, [None if value is None else float(value == YES) for value in said]


def _p_yes(mark: Parsed) -> float | None:
    return None if mark.probabilities is None else round(mark.probabilities[Mark.labels[0]], 6)
