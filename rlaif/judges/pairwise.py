"""Two responses, one verdict, in one or both orders.

Both orders are asked at once and recorded apart: what becomes of them is decided by `pair`, never here.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from rlaif.config import JudgeSection
from rlaif.judges.base import JudgeRun, Task
from rlaif.judges.section import EngineOf, choice_of, need_standard, standard_arguments
from rlaif.judges.verdicts import Choice, Parsed
from rlaif.records import FIRST, SECOND, TIE, Judgment, Prompt, Reply, Request, Response, make_id
from rlaif.rubric import Constitution, Principle, Rubric, pairwise_context
from rlaif.templates import Frame

_MAX_TOKENS = {"logprobs": 1, "text": 512}  # a log-prob verdict is the next token
_TOP_LOGPROBS = 20  # what OpenAI-compatible servers give at most


class _Look(NamedTuple):
    """One question: these two responses in this order, under this principle (or the whole rubric)."""

    shown: tuple[Response, Response]
    principle: Principle | None
    wording: str | None


class PairwiseJudge:
    """Compares two responses under a rubric, or under the principles of a constitution.

    `principles`: "one" samples a principle per comparison by weight (Constitutional AI, arXiv 2212.08073), "all"
    asks every one that applies to the prompt. `orders`: "both", or "random" for one order at half the cost.
    """

    arity = 2

    @classmethod
    def from_section(cls, section: JudgeSection, engine_of: EngineOf, *, role: str, where: str) -> PairwiseJudge:
        """The judge that a config describes. Errors: ConfigError."""
        need_standard(section, where)
        arguments = {
            **standard_arguments(section, engine_of, role=role, frame="pairwise"),
            "choice": choice_of(section, engine_of(role), where),
            "orders": section.orders,
            **section.options,
        }
        return cls(**arguments)

    def __init__(
        self,
        *,
        frame: Frame,
        choice: Choice,
        rubric: Rubric | None = None,
        constitution: Constitution | None = None,
        role: str = "judge",
        model: str = "",
        principles: Literal["one", "all"] = "one",
        orders: Literal["both", "random"] = "both",
        max_tokens: int | None = None,
        temperature: float = 0.0,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.frame, self.choice, self.rubric, self.constitution = frame, choice, rubric, constitution
        self.role, self.model, self.principles, self.orders = role, model, principles, orders
        self.max_tokens = max_tokens or _MAX_TOKENS[choice.read]
        self.temperature = temperature
        self.extra = extra or {}
        standard = rubric or constitution
        self._ref = standard.ref if standard else ""

    def __call__(self, task: Task) -> JudgeRun:
        """Judgments for a task of two responses; [] when no principle applies to the prompt."""
        looks = self._looks(task)
        if task.responses[0].text == task.responses[1].text:
            return [self._identical(task.prompt, look) for look in looks]
        replies = yield [self.request(task.prompt, look, task.seed) for look in looks]
        return [self._judgment(task.prompt, look, reply) for look, reply in zip(looks, replies, strict=True)]

    def _looks(self, task: Task) -> list[_Look]:
        rng = task.rng()
        first, second = task.responses
        orders = [(first, second), (second, first)]
        if self.orders == "random":
            orders = [rng.choice(orders)]
        standards = self._standards(task.prompt, rng)
        return [_Look(shown, *standard) for standard, shown in itertools.product(standards, orders)]

    def _standards(self, prompt: Prompt, rng: random.Random) -> list[tuple[Principle | None, str | None]]:
        """Principles with the wording that both orders share."""
        if self.constitution is None:
            return [(None, None)]
        applicable = self.constitution.applicable(prompt)
        if self.principles == "one" and applicable:
            applicable = rng.choices(applicable, [principle.weight for principle in applicable])
        return [(principle, principle.wording(rng)) for principle in applicable]

    def request(self, prompt: Prompt, look: _Look, seed: int) -> Request:
        labels = self.choice.labels
        principle_id = look.principle.id if look.principle else None
        context = pairwise_context(
            prompt, look.shown, labels, self.rubric, look.wording, principle_id, self.choice.instruction
        )
        reads_logprobs = self.choice.read == "logprobs"
        return Request(
            role=self.role,
            messages=list(self.frame.render(context)),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            labels=list(labels) if reads_logprobs else [],
            top_logprobs=_TOP_LOGPROBS if reads_logprobs else 0,
            seed=seed if self.temperature > 0 and not reads_logprobs else 0,
            extra=self.extra,
            subject=(prompt.id, *(response.id for response in look.shown)),
        )

    def _judgment(self, prompt: Prompt, look: _Look, reply: Reply) -> Judgment:
        parsed = self.choice.parse(reply)
        verdict, probabilities = self._in_shown_order(parsed)
        return Judgment(
            **self._frame_of(prompt, look.shown, look.principle),
            model=reply.model or self.model,
            reply_keys=[reply.key] if reply.key else [],
            status=parsed.status,
            verdict=verdict,
            probabilities=probabilities,
            label_mass=None if parsed.label_mass is None else round(parsed.label_mass, 6),
            rationale=parsed.rationale,
            reason=parsed.reason,
            usage=reply.usage,
        )

    def _in_shown_order(self, parsed: Parsed) -> tuple[str | None, dict[str, float] | None]:
        """Labels become first | second | tie. Two labels exactly as likely as each other are a tie."""
        if parsed.status != "ok" or parsed.probabilities is None:
            return None, None
        names = dict(zip(self.choice.labels, (FIRST, SECOND, TIE), strict=False))
        probabilities = {names[label]: value for label, value in parsed.probabilities.items()}
        return (TIE if parsed.label is None else names[parsed.label]), probabilities

    def _identical(self, prompt: Prompt, look: _Look) -> Judgment:
        """The same text twice is a tie; nobody needs to be asked."""
        fields = self._frame_of(prompt, look.shown, look.principle)
        fields["meta"] = {**fields["meta"], "identical": True}
        return Judgment(**fields, model=self.model, verdict=TIE, probabilities={FIRST: 0.5, SECOND: 0.5})

    def _frame_of(self, prompt: Prompt, shown: Sequence[Response], principle: Principle | None) -> dict[str, Any]:
        """What a judgment says whatever the reply was."""
        ids = [response.id for response in shown]
        name = principle.id if principle else None
        return {
            "id": make_id(prompt.id, *ids, self.role, self._ref, name or ""),
            "prompt_id": prompt.id,
            "response_ids": ids,
            "kind": "pairwise",
            "judge": self.role,
            "rubric": self._ref,
            "principle": name,
            "template_sha256": self.frame.sha256,
            "meta": {"orders": self.orders},
        }
