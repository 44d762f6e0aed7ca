"""Critique and revision: a model says where a response falls short of a standard, then writes it anew (Bai et al.
2022, "Constitutional AI", 2212.08073, section 3.1).

A chain is a generator of requests like a judge, and returns revisions instead of judgments. Each round looks at what
the round before wrote, under a principle that it has not used yet where there are enough of them.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import Any

from rlaif.config import JudgeSection, ReviseSection
from rlaif.judges.base import Task
from rlaif.judges.section import EngineOf, find_frame_of, need_standard, standard_arguments
from rlaif.judges.standard import TEXT_TOKENS, Applied, StandardJudge
from rlaif.judges.verdicts import after_thinking
from rlaif.records import Prompt, Reply, Request, Response, Revision, Status, Usage, make_id
from rlaif.templates import Frame

Chain = Generator[list[Request], list[Reply], list[Revision]]
CRITIQUE = "Write your review now."
_NAME = ("A",)  # of the one response, in frames that name it
REVISE = "Write the response anew now."


class RevisionChain(StandardJudge):
    """`rounds` of critique and revision for one response. `frame`: of the critique; `revision_frame`: of the rewrite.

    A round that gives no usable text ends its chain: what comes after would rest on nothing.
    """

    arity = 1

    def __init__(self, *, revision_frame: Frame, rounds: int = 1, **standard: Any) -> None:
        super().__init__(**standard)
        self.revision_frame, self.rounds = revision_frame, rounds

    @classmethod
    def from_section(cls, section: ReviseSection, engine_of: EngineOf, where: str = "revise") -> RevisionChain:
        """The chain that a config describes. Errors: ConfigError, TemplateError."""
        asked = _as_judge(section)
        need_standard(asked, where)
        _, revision_frame = frames_of(section)
        arguments = standard_arguments(asked, engine_of, role=section.engine, frame="critique")
        return cls(**arguments, revision_frame=revision_frame, rounds=section.rounds)

    def __call__(self, task: Task) -> Chain:
        """One revision a round, in order; [] when no principle applies to the prompt."""
        prompt, original = task.prompt, task.responses[0]
        current, found = original, []
        for number, applied in enumerate(self._principles(prompt, task.rng()), 1):
            subject = (prompt.id, current.id)
            review = self.messages(prompt, [current], applied, CRITIQUE, (), names=_NAME)
            (critique,) = yield [self._request(review, subject, task.seed)]
            said, fault = _text_of(critique)
            if fault is not None:
                found.append(self._revision(original, current, number, applied, [critique], None, None, fault))
                break
            rewrite = self.messages(
                prompt,
                [current],
                applied,
                REVISE,
                (),
                names=_NAME,
                frame=self.revision_frame,
                more={"critique": said},
            )
            (written,) = yield [self._request(rewrite, subject, task.seed)]
            text, fault = _text_of(written)
            replies = [critique, written]
            found.append(self._revision(original, current, number, applied, replies, said, text, fault))
            if fault is not None or text is None:
                break
            current = Response(id=found[-1].id, prompt_id=prompt.id, text=text)
        return found

    def plan(self, task: Task) -> list[Request]:
        """Everything that it may ask, as long as no round fails; stand-ins where a text is not written yet."""
        prompt, response = task.prompt, task.responses[0]
        asked: list[Request] = []
        for applied in self._principles(prompt, task.rng()):
            subject = (prompt.id, response.id)
            review = self.messages(prompt, [response], applied, CRITIQUE, (), names=_NAME)
            rewrite = self.messages(
                prompt,
                [response],
                applied,
                REVISE,
                (),
                names=_NAME,
                frame=self.revision_frame,
                more={"critique": "(a review)"},
            )
            asked += [self._request(messages, subject, task.seed) for messages in (review, rewrite)]
        return asked

    def _principles(self, prompt: Prompt, rng: random.Random) -> list[Applied]:
        """One for each round: drawn by weight, none twice before all were used."""
        if self.constitution is None:
            return self.applied(prompt, rng) * self.rounds
        applicable = self.constitution.applicable(prompt)
        drawn: list[Applied] = []
        left = list(applicable)
        while applicable and len(drawn) < self.rounds:
            (principle,) = rng.choices(left, [principle.weight for principle in left])
            drawn.append(Applied(principle, principle.wording(rng)))
            left = [other for other in left if other is not principle] or list(applicable)
        return drawn

    def _request(self, messages: list[dict[str, Any]], subject: tuple[str, ...], seed: int) -> Request:
        return self.text_request(messages, subject, seed, max_tokens=TEXT_TOKENS)

    def _revision(
        self,
        original: Response,
        source: Response,
        number: int,
        applied: Applied,
        replies: list[Reply],
        critique: str | None,
        text: str | None,
        fault: tuple[Status, str] | None,
    ) -> Revision:
        status, reason = fault or ("ok", None)
        return Revision(
            id=make_id("revision", original.id, self.role, self._ref, number, applied.name or ""),
            prompt_id=original.prompt_id,
            response_id=original.id,
            source_id=source.id,
            round=number,
            role=self.role,
            model=next((reply.model for reply in replies if reply.model), self.model),
            standard=self._ref,
            principle=applied.name,
            critique=critique,
            text=text,
            changed=None if text is None else text.strip() != source.text.strip(),
            reply_keys=[reply.key for reply in replies if reply.key],
            status=status,
            reason=reason,
            usage=sum((reply.usage for reply in replies), Usage()),
        )


def frames_of(section: ReviseSection) -> tuple[Frame, Frame]:
    """The frames of the review and of the rewriting: the section's own, else those that its rubric or constitution
    names, else the shipped ones. Errors: ConfigError, TemplateError."""
    asked = _as_judge(section)
    rewriting = asked.model_copy(update={"frame": section.revision_frame})
    return find_frame_of(asked, "critique"), find_frame_of(rewriting, "revision")


def _as_judge(section: ReviseSection) -> JudgeSection:
    """What a judge would be told that is asked by the same standard."""
    shared = {"engine", "rubric", "constitution", "max_tokens", "temperature", "extra"}
    return JudgeSection(**section.model_dump(include=shared), frame=section.critique_frame)


def _text_of(reply: Reply) -> tuple[str | None, tuple[Status, str] | None]:
    """What a reply says after any thinking, or why it is no text."""
    if reply.error is not None:
        return None, ("error", reply.error)
    if reply.finish_reason in ("refusal", "content_filter"):
        return None, ("refused", "the engine reports a refusal")
    if reply.finish_reason == "length":
        return None, ("truncated", "cut off by the token limit")
    text = (after_thinking(reply.text) or "").strip()
    return (text, None) if text else (None, ("unparsed", "an empty reply"))
