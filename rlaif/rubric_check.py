"""What `rlaif rubric check` looks at: does the frame show the standard, and can a model answer it in one token?"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlaif.errors import ConfigError, TemplateError
from rlaif.judges.base import Judge, Task, planned
from rlaif.judges.checklist import ChecklistJudge
from rlaif.judges.listwise import ListwiseJudge
from rlaif.judges.pairwise import PairwiseJudge
from rlaif.judges.pointwise import SCALE, PointwiseJudge
from rlaif.judges.verdicts import Choice
from rlaif.judges.verdicts_checklist import Mark
from rlaif.records import Message, Prompt, Request, Response
from rlaif.rubric import Constitution, Principle, Rubric, find_frame
from rlaif.templates import Frame, load_frame

_INSTRUCTION = "`instruction`, so the judge is not told how to answer"
_CANARY = "<|im_start|>"  # a frame that lets it through has not fenced the text
SAMPLE_PROMPT = Prompt(
    id="sample",
    messages=[{"role": "user", "content": f"How many legs has a spider? {_CANARY} conversation"}],
    reference=f"Eight. {_CANARY} reference",
    domain="general",
)
SAMPLE_RESPONSES = (
    Response(id="sample-a", prompt_id="sample", text=f"Eight legs. {_CANARY} response"),
    Response(id="sample-b", prompt_id="sample", text=f"Six legs, like any insect. {_CANARY} response"),
)


Mode = Literal["pairwise", "pointwise", "listwise", "checklist"]
MODES: tuple[Mode, ...] = ("pairwise", "pointwise", "listwise", "checklist")


class Look(NamedTuple):
    """One thing that a frame can be asked to show: the whole rubric, or one wording of one principle."""

    rubric: Rubric | None
    principle: Principle | None
    wording: str | None

    def judge(self, mode: Mode, frame: Frame, read: str = "logprobs") -> Judge:
        """The judge that looks at this and nothing else."""
        standard: dict[str, Any] = {"frame": frame, "rubric": self.rubric, "constitution": self._constitution()}
        if mode == "pointwise":
            return PointwiseJudge(read_logprobs=read == "logprobs", **standard)
        if mode == "listwise":
            return ListwiseJudge(**standard)
        if mode == "checklist":
            items = load_frame(find_frame("checklist_items.jinja", None))
            return ChecklistJudge(items_frame=items, read_logprobs=read == "logprobs", **standard)
        choice = Choice(read="text" if read == "text" else "logprobs")
        return PairwiseJudge(choice=choice, rationale=read == "rationale", **standard)

    def requests(
        self, mode: Mode, frame: Frame, prompt: Prompt, responses: Sequence[Response], read: str = "logprobs"
    ) -> list[Request]:
        """What the judge may ask of a row, at most."""
        judge = self.judge(mode, frame, read)
        kept = {"pairwise": 2, "pointwise": 1, "checklist": 1}.get(mode, len(responses))
        return planned(judge, Task(prompt=prompt, responses=list(responses[:kept])))

    def _constitution(self) -> Constitution | None:
        if self.principle is None:
            return None
        only = self.principle.model_copy(update={"texts": [self.wording], "scope": {}})
        return Constitution(id="look", version=1, name="look", description="look", principles=[only])


def looks(standard: Rubric | Constitution) -> Iterator[Look]:
    """Everything that a judge could be shown of this standard."""
    if isinstance(standard, Rubric):
        yield Look(standard, None, None)
        return
    for principle in standard.principles:
        for text in principle.texts:
            yield Look(None, principle, text)


def look_at(standard: Rubric | Constitution, prompt: Prompt, principle_id: str | None) -> Look:
    """What one row is shown: the rubric, or the named principle, or else the first that applies to the prompt."""
    if isinstance(standard, Rubric):
        if principle_id is not None:
            raise ConfigError(f"--principle {principle_id!r}: {standard.id} is a rubric and has none")
        return Look(standard, None, None)
    known = {principle.id: principle for principle in standard.principles}
    if principle_id is not None and principle_id not in known:
        raise ConfigError(f"--principle {principle_id!r}: not in {standard.id}; there: {', '.join(known)}")
    found = [known[principle_id]] if principle_id is not None else standard.applicable(prompt)
    if not found:
        raise ConfigError(f"no principle of {standard.id} applies to this row (domain {prompt.domain!r})")
    return Look(None, found[0], found[0].wording(random.Random(0)))


def frame_of(standard: Rubric | Constitution, name: str | None = None, mode: Mode = "pairwise") -> Frame:
    """The frame `name`, from the working folder or shipped, else the one that the standard names for the mode."""
    return load_frame(find_frame(name, Path()) if name else find_frame(standard.frame_for(mode), standard.path))


def check_frame(standard: Rubric | Constitution, frame: Frame, mode: Mode = "pairwise") -> None:
    """Render everything on a sample row. Errors: TemplateError for the first fault."""
    for look in looks(standard):
        messages = sample_messages(look, mode, frame)
        text = "\n".join(str(message["content"]) for message in messages)
        for what, wanted in _must_show(look, mode, frame):
            if wanted not in text:
                raise TemplateError(f"{frame.path}: the frame never shows {what}")
        if _CANARY in text:
            field = text.split(_CANARY, 1)[1].split(maxsplit=1)[0]
            raise TemplateError(f"{frame.path}: the {field} is not fenced; write {{{{ … | fence }}}}")


def sample_messages(look: Look, mode: Mode, frame: Frame) -> list[Message]:
    """What `frame` makes of the sample row; of a checklist, the marking."""
    requests = look.requests(mode, frame, SAMPLE_PROMPT, SAMPLE_RESPONSES)
    return requests[-1 if mode == "checklist" else 0].messages


def _must_show(look: Look, mode: Mode, frame: Frame) -> Iterator[tuple[str, str]]:
    yield "the conversation", "How many legs has a spider?"
    yield "the first response", "Eight legs."
    if mode in ("pairwise", "listwise"):
        yield "the second response", "Six legs, like any insect."
    if mode == "pairwise":
        yield _INSTRUCTION, Choice().instruction
    elif not {"instruction", "labels"} & frame.variables:  # a frame for a judge with a fixed prompt may print labels
        raise TemplateError(f"{frame.path}: the frame never shows {_INSTRUCTION}")
    if look.rubric:
        for criterion in look.rubric.criteria:
            yield f"the description of criterion {criterion.id!r}", criterion.description
    if look.principle and look.wording:
        yield f"the text of principle {look.principle.id!r}", look.wording


class LabelCheck(NamedTuple):
    """Whether one label is one token of its own right after the generation prompt; `fault` says why not."""

    label: str
    token: str
    fault: str | None


def check_labels(chat: Any, messages: list[Message], labels: Iterable[str]) -> list[LabelCheck]:
    """`chat`: an `engines.local.ChatFormat`. Every label is read in place, since tokens depend on what is before."""
    ids = chat.encode_messages(messages, {})
    prompt = chat.tokenizer.decode(ids)
    before = _encode(chat, prompt)
    taken: dict[int, str] = {}
    checks = []
    for label in labels:
        after = _encode(chat, prompt + label)
        added = after[len(before) :]
        token = chat.tokenizer.decode(added[:1])
        fault = None
        if after[: len(before)] != before or not added:
            fault = "it merges with the end of the prompt"
        elif added[0] in taken:
            fault = f"it begins with the same token as {taken[added[0]]!r}, so log-probs cannot tell them apart"
        elif len(added) > 1:
            fault = f"it takes {len(added)} tokens: {[chat.tokenizer.decode([i]) for i in added]}"
        if added:
            taken.setdefault(added[0], label)
        checks.append(LabelCheck(label, token, fault))
    return checks


def _encode(chat: Any, text: str) -> list[int]:
    ids: list[int] = chat.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def menus(standard: Rubric | Constitution, mode: Mode) -> dict[tuple[str, ...], list[str]]:
    """The labels that may be read from log-probs → who uses them: the verdicts, and each distinct scale."""
    if mode == "listwise":
        return {}
    if mode == "checklist":
        return {Mark.labels: ["marks"]}
    found: dict[tuple[str, ...], list[str]] = {("A", "B", "C"): ["verdicts"]} if mode == "pairwise" else {}
    scales = {c.id: c.scale for c in standard.criteria} if isinstance(standard, Rubric) else {"principles": None}
    for name, scale in scales.items():
        if scale or mode == "pointwise":
            found.setdefault(tuple(str(step) for step in (scale or SCALE).steps), []).append(name)
    return found
