"""What judges that ask one model under one written standard have in common."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from rlaif.records import Judgment, Prompt, Reply, Request, Response, Usage, make_id
from rlaif.rubric import Constitution, Principle, Rubric, judge_context
from rlaif.templates import Frame

TEXT_TOKENS = 512  # for a reply of a few sentences and a verdict
TOP_LOGPROBS = 20  # what OpenAI-compatible servers give at most
Principles = Literal["one", "all"] | int
References = Literal["use", "require", "ignore"]


class Applied(NamedTuple):
    """What one question is judged by: the whole rubric (None, None), or one wording of one principle."""

    principle: Principle | None
    wording: str | None

    @property
    def name(self) -> str | None:
        return self.principle.id if self.principle else None


class StandardJudge:
    """Holds what every such judge is given, and makes requests and judgments of it.

    `principles`: "one" samples a principle per task by weight (Constitutional AI, arXiv 2212.08073), "all" asks every
    one that applies to the prompt, a number k that many of them, each as likely as the others: their weights count
    when `pair` puts them together, so they must not decide twice. `reference`: "require" judges no prompt without
    one.
    """

    def __init__(
        self,
        *,
        frame: Frame,
        rubric: Rubric | None = None,
        constitution: Constitution | None = None,
        role: str = "judge",
        model: str = "",
        principles: Principles = "one",
        reference: References = "use",
        max_tokens: int | None = None,
        temperature: float = 0.0,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.frame, self.rubric, self.constitution = frame, rubric, constitution
        self.role, self.model, self.principles, self.reference = role, model, principles, reference
        self.max_tokens, self.temperature, self.extra = max_tokens, temperature, extra or {}
        standard = rubric or constitution
        self._ref = standard.ref if standard else ""

    def applied(self, prompt: Prompt, rng: random.Random) -> list[Applied]:
        """What the prompt is judged by; [] where no principle applies, or a required reference is not there."""
        if self.reference == "require" and prompt.reference is None:
            return []
        if self.constitution is None:
            return [Applied(None, None)]
        applicable = self.constitution.applicable(prompt)
        if self.principles in ("one", 1) and applicable:
            applicable = rng.choices(applicable, [principle.weight for principle in applicable])
        elif isinstance(self.principles, int) and self.principles < len(applicable):
            kept = sorted(rng.sample(range(len(applicable)), self.principles))
            applicable = [applicable[index] for index in kept]
        return [Applied(principle, principle.wording(rng)) for principle in applicable]

    def messages(
        self,
        prompt: Prompt,
        shown: Sequence[Response],
        applied: Applied,
        instruction: str,
        labels: Sequence[str],
        *,
        names: Sequence[str] | None = None,
        frame: Frame | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """`labels`: what may be answered; `names`: what the responses are called where that is something else;
        `more`: what this frame sees beside what all do."""
        context = judge_context(
            prompt, shown, labels, self.rubric, applied.wording, applied.name, instruction, names,
            self.reference != "ignore",
        )  # fmt: skip
        return list((frame or self.frame).render({**context, **(more or {})}))

    def text_request(
        self,
        messages: list[dict[str, Any]],
        subject: Sequence[str],
        seed: int,
        *,
        sample: int = 0,
        schema: dict[str, Any] | None = None,
        max_tokens: int = TEXT_TOKENS,
    ) -> Request:
        """A reply in words. `max_tokens`: where the config says nothing else."""
        return Request(
            role=self.role,
            messages=messages,
            max_tokens=self.max_tokens or max_tokens,
            temperature=self.temperature,
            json_schema=schema,
            sample=sample,
            seed=seed if self.temperature > 0 else 0,
            extra=self.extra,
            subject=tuple(subject),
        )

    def label_request(
        self,
        messages: list[dict[str, Any]],
        labels: Sequence[str],
        subject: Sequence[str],
        *,
        max_tokens: int = 1,
        temperature: float = 0.0,
    ) -> Request:
        """A reply of which the labels' log-probabilities are read: the next token, where nobody thinks first."""
        return Request(
            role=self.role,
            messages=messages,
            max_tokens=max_tokens,
            temperature=temperature,
            labels=list(labels),
            top_logprobs=TOP_LOGPROBS,
            extra=self.extra,
            subject=tuple(subject),
        )

    def judgment(
        self, prompt: Prompt, shown: Sequence[Response], applied: Applied, replies: Sequence[Reply], **said: Any
    ) -> Judgment:
        """A judgment of `shown`, in that order; `said`: kind, status, and whatever the replies say."""
        ids = [response.id for response in shown]
        # pairwise ids are older than the other kinds, and have no kind in them
        parts = [] if said["kind"] == "pairwise" else [said["kind"]]
        return Judgment(
            id=make_id(prompt.id, *ids, self.role, self._ref, applied.name or "", *parts),
            prompt_id=prompt.id,
            response_ids=ids,
            judge=self.role,
            model=next((reply.model for reply in replies if reply.model), self.model),
            rubric=self._ref,
            principle=applied.name,
            template_sha256=self.frame.sha256,
            reply_keys=[reply.key for reply in replies if reply.key],
            usage=sum((reply.usage for reply in replies), Usage()),
            **said,
        )


def with_reason(messages: Sequence[dict[str, Any]], rationale: str, instruction: str) -> list[dict[str, Any]]:
    """The conversation, going on: the model has given its reasons and is asked for the verdict."""
    reasons = {"role": "assistant", "content": rationale}
    return [*messages, reasons, {"role": "user", "content": instruction}]
