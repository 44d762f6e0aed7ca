"""What `rlaif rubric check` looks at: does the frame show the standard, and can a model answer it in one token?"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.errors import ConfigError, TemplateError
from rlaif.judges.verdicts import Choice
from rlaif.records import Message, Prompt, Response
from rlaif.rubric import Constitution, Principle, Rubric, find_frame, pairwise_context
from rlaif.templates import Frame, load_frame

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


class Look(NamedTuple):
    """One thing that a frame can be asked to show: the whole rubric, or one wording of one principle."""

    rubric: Rubric | None
    principle: Principle | None
    wording: str | None

    def messages(self, frame: Frame, prompt: Prompt, responses: Iterable[Response], choice: Choice) -> list[Message]:
        principle_id = self.principle.id if self.principle else None
        context = pairwise_context(
            prompt, list(responses), choice.labels, self.rubric, self.wording, principle_id, choice.instruction
        )
        return list(frame.render(context))


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


def frame_of(standard: Rubric | Constitution, name: str | None = None) -> Frame:
    """The frame `name`, from the working folder or shipped, else the one that the standard names."""
    return load_frame(find_frame(name, Path()) if name else find_frame(standard.frame, standard.path))


def check_frame(standard: Rubric | Constitution, frame: Frame) -> None:
    """Render everything on a sample row. Errors: TemplateError for the first fault."""
    for look in looks(standard):
        messages = look.messages(frame, SAMPLE_PROMPT, SAMPLE_RESPONSES, Choice())
        text = "\n".join(str(message["content"]) for message in messages)
        for what, wanted in _must_show(look):
            if wanted not in text:
                raise TemplateError(f"{frame.path}: the frame never shows {what}")
        if _CANARY in text:
            field = text.split(_CANARY, 1)[1].split(maxsplit=1)[0]
            raise TemplateError(f"{frame.path}: the {field} is not fenced; write {{{{ … | fence }}}}")


def _must_show(look: Look) -> Iterator[tuple[str, str]]:
    yield "the conversation", "How many legs has a spider?"
    yield "the first response", "Eight legs."
    yield "the second response", "Six legs, like any insect."
    yield "`instruction`, so the judge is not told how to answer", Choice().instruction
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


def scale_steps(standard: Rubric | Constitution) -> dict[tuple[str, ...], list[str]]:
    """The steps of each distinct scale → the criteria that use it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for criterion in standard.criteria if isinstance(standard, Rubric) else []:
        if criterion.scale:
            found.setdefault(tuple(str(step) for step in criterion.scale.steps), []).append(criterion.id)
    return found
