"""Two responses, one verdict, in one or both orders.

Both orders are asked at once and recorded apart: what becomes of them is decided by `pair`, never here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import pstdev
from typing import Any, Literal, NamedTuple

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges.base import JudgeRun, Task
from rlaif.judges.draws import pooled
from rlaif.judges.section import EngineOf, choice_of, need_standard, standard_arguments
from rlaif.judges.standard import TEXT_TOKENS, Applied, StandardJudge, with_reason
from rlaif.judges.verdicts import Choice, Outcome, Parsed, read_rationale
from rlaif.records import FIRST, SECOND, TIE, Judgment, Prompt, Reply, Request, Response

_SCORES = {FIRST: 1.0, TIE: 0.5, SECOND: 0.0}


class _Look(NamedTuple):
    """One question: these two responses in this order, under this principle (or the whole rubric)."""

    shown: tuple[Response, Response]
    applied: Applied


class _Draw(NamedTuple):
    """One answer to a question: what it says, and the replies that say it."""

    parsed: Parsed
    replies: tuple[Reply, ...]


class PairwiseJudge(StandardJudge):
    """Compares two responses under a rubric, or under the principles of a constitution.

    `orders`: "both", "random" for one order at half the cost, or "given": one order, which whoever made the task has
    drawn (a tournament, a recording). `rationale`: the model gives its reasons first, and
    the labels' log-probs are read after them (RLAIF, arXiv 2309.00267, section 3.1). `samples`: answers drawn for
    each question; the judgment holds the mean of their probabilities, which for text verdicts is the shares of votes,
    and `meta` how they fell. `clamp`: the least and the most that P(first) may be against P(second); reasoning makes
    models too sure (Constitutional AI clamps to 0.4–0.6). What it was before is in `meta["unclamped"]`.
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
            "rationale": section.read == "rationale",
            "samples": section.samples,
            "clamp": section.clamp,
            **section.options,
        }
        return cls(**arguments)

    def __init__(
        self,
        *,
        choice: Choice,
        orders: Literal["both", "random", "given"] = "both",
        rationale: bool = False,
        samples: int = 1,
        clamp: tuple[float, float] | None = None,
        **standard: Any,
    ) -> None:
        super().__init__(**standard)
        if choice.read == "text" if rationale else choice.read == "logprobs" and samples > 1:
            raise ConfigError(f"a verdict read as {choice.read} goes with neither a rationale nor samples of its own")
        self.choice, self.orders, self.rationale = choice, orders, rationale
        self.samples, self.clamp = samples, clamp

    def __call__(self, task: Task) -> JudgeRun:
        """Judgments for a task of two responses; [] when no principle applies to the prompt."""
        looks = self._looks(task)
        if task.responses[0].text == task.responses[1].text:
            return [self._identical(task.prompt, look) for look in looks]
        replies = yield self._first_requests(task, looks)
        draws = [_Draw(self.choice.parse(reply), (reply,)) for reply in replies]
        if self.rationale:
            seen = [read_rationale(reply) for reply in replies]
            asked = [(look, outcome.rationale) for look, outcome in zip(self._repeated(looks), seen, strict=True)
                     if outcome.status == "ok"]  # fmt: skip
            verdicts = yield [self._after_reasons(task, look, rationale or "") for look, rationale in asked]
            draws = self._two_steps(seen, replies, verdicts)
        n = self.samples
        return [
            self._judgment(task.prompt, look, draws[start : start + n])
            for look, start in zip(looks, range(0, len(draws), n), strict=True)
        ]

    def plan(self, task: Task) -> list[Request]:
        """All that the task may ask."""
        looks = self._looks(task)
        requests = self._first_requests(task, looks)
        if self.rationale:
            longest = "word " * (self.max_tokens or TEXT_TOKENS)
            requests += [self._after_reasons(task, look, longest) for look in self._repeated(looks)]
        return requests

    def _looks(self, task: Task) -> list[_Look]:
        rng = task.rng()
        first, second = task.responses
        orders = [(first, second), (second, first)]
        if self.orders != "both":
            orders = [rng.choice(orders) if self.orders == "random" else orders[0]]
        standards = self.applied(task.prompt, rng)
        return [_Look(shown, applied) for applied, shown in itertools.product(standards, orders)]

    def _repeated(self, looks: Sequence[_Look]) -> list[_Look]:
        """Each question as often as it is asked, the draws of one side by side."""
        return [look for look in looks for _ in range(self.samples)]

    # -- requests ----------------------------------------------------------------------------------------------------

    def _first_requests(self, task: Task, looks: Sequence[_Look]) -> list[Request]:
        if self.choice.read == "logprobs" and not self.rationale:
            return [self._label_request(task.prompt, look) for look in looks]
        return [
            self.text_request(self._messages(task.prompt, look), _subject(task.prompt, look), task.seed, sample=i)
            for look in looks
            for i in range(self.samples)
        ]

    def _messages(self, prompt: Prompt, look: _Look) -> list[dict[str, Any]]:
        instruction = self.choice.question if self.rationale else self.choice.instruction
        return self.messages(prompt, look.shown, look.applied, instruction, self.choice.labels)

    def _label_request(self, prompt: Prompt, look: _Look) -> Request:
        messages, subject = self._messages(prompt, look), _subject(prompt, look)
        return self.label_request(
            messages, self.choice.labels, subject, max_tokens=self.max_tokens or 1, temperature=self.temperature
        )

    def _after_reasons(self, task: Task, look: _Look, rationale: str) -> Request:
        """The verdict is the next token: what is drawn, and may be long, is the reasons."""
        messages = with_reason(self._messages(task.prompt, look), rationale, self.choice.instruction)
        return self.label_request(messages, self.choice.labels, _subject(task.prompt, look))

    # -- judgments ---------------------------------------------------------------------------------------------------

    def _two_steps(self, seen: Sequence[Outcome], reasons: Sequence[Reply], verdicts: Sequence[Reply]) -> list[_Draw]:
        """`verdicts`: one for each of the reasons that could be read."""
        remaining = iter(verdicts)
        draws = []
        for outcome, reply in zip(seen, reasons, strict=True):
            if outcome.status == "ok":
                verdict = next(remaining)
                parsed = self.choice.parse(verdict)
                parsed = Parsed(
                    status=parsed.status, label=parsed.label, probabilities=parsed.probabilities,
                    label_mass=parsed.label_mass, reason=parsed.reason, rationale=outcome.rationale,
                )  # fmt: skip
                draws.append(_Draw(parsed, (reply, verdict)))
            else:
                reason = f"the reasons: {outcome.reason}"
                parsed = Parsed(status=outcome.status, reason=reason, rationale=outcome.rationale)
                draws.append(_Draw(parsed, (reply,)))
        return draws

    def _judgment(self, prompt: Prompt, look: _Look, draws: Sequence[_Draw]) -> Judgment:
        meta: dict[str, Any] = {"orders": self.orders}
        parsed = draws[0].parsed
        if self.samples > 1:
            parsed, facts = pooled([draw.parsed for draw in draws])
            meta |= self._in_names(facts, [draw.parsed for draw in draws])
        verdict, probabilities = self._in_shown_order(parsed)
        if self.clamp and probabilities is not None:
            meta["unclamped"] = probabilities
            probabilities = clamped(probabilities, self.clamp[1])
        return self.judgment(
            prompt,
            look.shown,
            look.applied,
            [reply for draw in draws for reply in draw.replies],
            kind="pairwise",
            status=parsed.status,
            verdict=verdict,
            probabilities=probabilities,
            label_mass=None if parsed.label_mass is None else round(parsed.label_mass, 6),
            rationale=parsed.rationale,
            reason=parsed.reason,
            meta=meta,
        )

    def _in_shown_order(self, parsed: Parsed) -> tuple[str | None, dict[str, float] | None]:
        """Labels become first | second | tie. Two labels exactly as likely as each other are a tie."""
        if parsed.status != "ok" or parsed.probabilities is None:
            return None, None
        names = self._names
        probabilities = {names[label]: value for label, value in parsed.probabilities.items()}
        return (TIE if parsed.label is None else names[parsed.label]), probabilities

    def _in_names(self, facts: dict[str, Any], draws: Sequence[Parsed]) -> dict[str, Any]:
        """How the draws fell, in the order shown. `spread`: standard deviation of P(first) + ½ P(tie) over them."""
        votes: dict[str, int] = {}
        for label, count in facts["votes"].items():
            name = self._names.get(label, TIE)
            votes[name] = votes.get(name, 0) + count
        values = [
            sum(_SCORES[self._names[label]] * share for label, share in draw.probabilities.items())
            for draw in draws
            if draw.probabilities is not None
        ]
        return {**facts, "votes": votes, **({"spread": round(pstdev(values), 6)} if values else {})}

    @property
    def _names(self) -> dict[str, str]:
        return dict(zip(self.choice.labels, (FIRST, SECOND, TIE), strict=False))

    def _identical(self, prompt: Prompt, look: _Look) -> Judgment:
        """The same text twice is a tie; nobody needs to be asked."""
        return self.judgment(
            prompt,
            look.shown,
            look.applied,
            (),
            kind="pairwise",
            verdict=TIE,
            probabilities={FIRST: 0.5, SECOND: 0.5},
            meta={"orders": self.orders, "identical": True},
        )


def clamped(probabilities: dict[str, float], high: float) -> dict[str, float]:
    """P(first) against P(second) brought within [1 − high, high]; a tie keeps its share."""
    first, second = probabilities[FIRST], probabilities[SECOND]
    either = first + second
    if either == 0:
        return probabilities
    better, worse = (FIRST, SECOND) if first >= second else (SECOND, FIRST)
    share = min(probabilities[better] / either, high)  # of the better one, so that mirroring mirrors every bit
    return {**probabilities, better: either * share, worse: either * (1 - share)}


def _subject(prompt: Prompt, look: _Look) -> tuple[str, ...]:
    return (prompt.id, *(response.id for response in look.shown))
