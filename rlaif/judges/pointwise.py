"""One response, scored by itself: a step of a scale for each criterion of a rubric, or for one principle.

From log-probs a score is the mean of the steps' distribution, Σ i·P(i) (one request a criterion). From texts all
criteria are in one structured reply, and several draws of it make an empirical distribution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import fsum
from statistics import pstdev
from typing import Any, NamedTuple

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges.base import JudgeRun, Task
from rlaif.judges.draws import fault_of
from rlaif.judges.patterns import PatternForm, pattern_form
from rlaif.judges.section import (
    EngineOf,
    find_standard,
    foreign_parse,
    need_standard,
    reads_logprobs,
    refuse,
    standard_arguments,
)
from rlaif.judges.standard import TEXT_TOKENS, Applied, StandardJudge
from rlaif.judges.verdicts_scores import Field, Form, ParsedForm, ParsedRating, Rating
from rlaif.records import Judgment, Prompt, Reply, Request, Response
from rlaif.rubric import Rubric, Scale

SCALE = Scale(min=1, max=5)  # of criteria that name none, and of principles
_NAME = ("A",)  # of the one response, in frames that name it
_TOKENS_PER_FIELD = 16


class _Look(NamedTuple):
    """One response under the rubric or one principle, and the scales that it is rated on: name → steps."""

    applied: Applied
    scales: dict[str, tuple[int, ...]]


class PointwiseJudge(StandardJudge):
    """Scores one response. `read_logprobs`: from the steps' log-probs, else from `samples` structured replies, which
    the engine holds to the schema where `structured`. `scale`: where a criterion has none, and for principles.
    `foreign`: reads scores of other criteria, on whatever scale, from texts in another form.

    A judgment's `scores` have every criterion, null where it was not judged; `meta["not_judged"]` says why.
    """

    arity = 1
    frames = ("pointwise",)

    @classmethod
    def from_section(cls, section: JudgeSection, engine_of: EngineOf, *, role: str, where: str) -> PointwiseJudge:
        """The judge that a config describes. Errors: ConfigError."""
        need_standard(section, where)
        engine = engine_of(role)
        refuse(section, where, ties=section.ties, clamp=section.clamp is not None)
        if section.read == "rationale":
            raise ConfigError(f"{where}.read: rationale is for judges that compare; use logprobs or text")
        scale = scale_of(section, where)
        foreign = foreign_parse(section, engine, where)
        logprobs = reads_logprobs(section, engine, where) and foreign is None
        wide = _wide(section, scale)
        if wide and section.read == "logprobs":
            raise ConfigError(f"{where}.read: logprobs, but {wide}")
        arguments = {
            **standard_arguments(section, engine_of, role=role, frame="pointwise"),
            "read_logprobs": logprobs and not wide,
            "structured": engine.capabilities.json_schema,
            "samples": section.samples,
            "min_mass": section.min_label_mass,
            "foreign": pattern_form(foreign, f"{where}.parse") if foreign is not None else None,
            **section.options,
            "scale": scale,
        }
        return cls(**arguments)

    def __init__(
        self,
        *,
        read_logprobs: bool = False,
        structured: bool = False,
        samples: int = 1,
        min_mass: float = 0.5,
        scale: Scale = SCALE,
        foreign: PatternForm | None = None,
        **standard: Any,
    ) -> None:
        super().__init__(**standard)
        self.read_logprobs, self.structured = read_logprobs, structured
        self.samples, self.min_mass, self.scale, self.foreign = samples, min_mass, scale, foreign

    def __call__(self, task: Task) -> JudgeRun:
        """Judgments for a task of one response, one for each principle; [] when none applies to the prompt."""
        looks = self._looks(task)
        asked = [self._requests(task, look) for look in looks]
        replies = yield [request for requests in asked for request in requests]
        judgments = []
        for look, requests in zip(looks, asked, strict=True):
            own, replies = replies[: len(requests)], replies[len(requests) :]
            make = self._from_logprobs if self.read_logprobs else self._from_texts
            judgments.append(make(task.prompt, task.responses[0], look, own))
        return judgments

    def _looks(self, task: Task) -> list[_Look]:
        """The rng is the prompt's, so that all its responses are rated under the same wording."""
        return [_Look(applied, self._scales(applied)) for applied in self.applied(task.prompt, task.prompt_rng())]

    def _scales(self, applied: Applied) -> dict[str, tuple[int, ...]]:
        if self.foreign is not None:
            return dict.fromkeys(self.foreign.names, ())
        if applied.name is not None:
            return {applied.name: tuple(self.scale.steps)}
        if self.rubric is None:
            return {"score": tuple(self.scale.steps)}
        return {criterion.id: tuple((criterion.scale or self.scale).steps) for criterion in self.rubric.criteria}

    # -- requests ----------------------------------------------------------------------------------------------------

    def _requests(self, task: Task, look: _Look) -> list[Request]:
        prompt, response = task.prompt, task.responses[0]
        subject = (prompt.id, response.id)
        if self.read_logprobs:
            return [
                self.label_request(
                    self._messages(prompt, response, look, rating.instruction, rating.labels),
                    rating.labels,
                    subject,
                    max_tokens=self.max_tokens or 1,
                )
                for rating in self._ratings(look).values()
            ]
        form = self._form(look)
        return [
            self.text_request(
                self._messages(prompt, response, look, form.instruction, list(look.scales)),
                subject,
                task.seed,
                sample=i,
                schema=form.schema if self.structured and isinstance(form, Form) else None,
                max_tokens=TEXT_TOKENS + _TOKENS_PER_FIELD * len(look.scales),
            )
            for i in range(self.samples)
        ]

    def _messages(
        self, prompt: Prompt, response: Response, look: _Look, instruction: str, labels: Sequence[str]
    ) -> list[dict[str, Any]]:
        return self.messages(prompt, [response], look.applied, instruction, labels, names=_NAME)

    def _ratings(self, look: _Look) -> dict[str, Rating]:
        shows_several = look.applied.principle is None and self.rubric is not None
        return {
            name: Rating(steps=steps, about=name if shows_several else None, min_mass=self.min_mass)
            for name, steps in look.scales.items()
        }

    def _form(self, look: _Look) -> Form | PatternForm:
        return self.foreign or Form(fields=tuple(Field(name, steps) for name, steps in look.scales.items()))

    # -- judgments ---------------------------------------------------------------------------------------------------

    def _from_logprobs(self, prompt: Prompt, response: Response, look: _Look, replies: Sequence[Reply]) -> Judgment:
        ratings = self._ratings(look)
        parsed = {name: rating.parse(reply) for (name, rating), reply in zip(ratings.items(), replies, strict=True)}
        masses = [rating.label_mass for rating in parsed.values() if rating.label_mass is not None]
        said: dict[str, Any] = {"label_mass": round(min(masses), 6) if masses else None}
        meta = {"not_judged": {name: rating.reason for name, rating in parsed.items() if rating.status != "ok"}}
        fault = _fault_of_ratings(list(parsed.values()))
        if fault is not None:
            said |= {"status": fault.status, "reason": fault.reason}
        else:
            said["scores"] = {name: rating.score for name, rating in parsed.items()}
            said["distributions"] = {
                name: rating.distribution for name, rating in parsed.items() if rating.distribution is not None
            }
        return self._judgment(prompt, response, look, replies, meta, **said)

    def _from_texts(self, prompt: Prompt, response: Response, look: _Look, replies: Sequence[Reply]) -> Judgment:
        form = self._form(look)
        draws = [form.parse(reply) for reply in replies]
        usable = [draw for draw in draws if draw.status == "ok"]
        fault = fault_of(draws)
        rationale = (usable[0] if usable else draws[0]).rationale
        meta: dict[str, Any] = {"samples": len(draws)} if self.samples > 1 else {}
        if self.samples > 1 and len(usable) < len(draws):
            meta["failed"] = dict(sorted(Counter(draw.status for draw in draws if draw.status != "ok").items()))
        if fault is not None:
            said = {"status": fault.status, "reason": fault.reason, "rationale": rationale}
            return self._judgment(prompt, response, look, replies, meta, **said)
        scores, distributions = _means(usable, look.scales)
        meta["not_judged"] = _not_judged(usable, scores)
        if self.samples > 1:
            meta["spread"] = _spreads(usable, scores)
        return self._judgment(
            prompt, response, look, replies, meta,
            scores=scores,
            distributions=distributions if self.samples > 1 else None,
            rationale=rationale,
        )  # fmt: skip

    def _judgment(
        self,
        prompt: Prompt,
        response: Response,
        look: _Look,
        replies: Sequence[Reply],
        meta: dict[str, Any],
        **said: Any,
    ) -> Judgment:
        kept = {key: value for key, value in meta.items() if value or key == "samples"}
        return self.judgment(prompt, [response], look.applied, replies, kind="pointwise", meta=kept, **said)


def scale_of(section: JudgeSection, where: str) -> Scale:
    """`options: {scale: [1, 7]}`, or the usual one. Errors: ConfigError."""
    given = section.options.get("scale")
    if given is None:
        return SCALE
    if isinstance(given, list) and len(given) == 2 and all(type(end) is int for end in given) and given[0] < given[1]:
        return Scale(min=given[0], max=given[1])
    raise ConfigError(f"{where}.options.scale: expected two whole numbers, the lowest first, got {given!r}")


def _wide(section: JudgeSection, scale: Scale) -> str | None:
    """Which scale has a step of more than one digit, and what to do about it. Only a digit is one token with every
    model: the token of 10 is that of 1 and something more, so P(1) would hold what belongs to 10."""
    standard = find_standard(section)
    scales = {"options.scale": scale}
    if isinstance(standard, Rubric):
        scales = {f"the scale of {c.id}": c.scale or scale for c in standard.criteria}
    for name, found in scales.items():
        if found.min < 0 or found.max > 9:
            return (
                f"{name} is {found.min} to {found.max}, and only the steps 0 to 9 are one token each; use a scale "
                "within 0–9, such as 1–5, or `read: text`, with `samples:` where the distribution is wanted"
            )
    return None


def _fault_of_ratings(ratings: Sequence[ParsedRating]) -> ParsedRating | None:
    """One criterion that could not be read is null; one that got no reply is asked again by running again, and till
    then the judgment is an error; with no criterion read, there is none."""
    missing = next((rating for rating in ratings if rating.status == "error"), None)
    if missing is not None or any(rating.status == "ok" for rating in ratings):
        return missing
    return ratings[0]


def _means(
    draws: Sequence[ParsedForm], scales: dict[str, tuple[int, ...]]
) -> tuple[dict[str, float | None], dict[str, dict[str, float]]]:
    """Per criterion, over the draws that judged it: the mean, and the shares of its steps."""
    scores: dict[str, float | None] = {}
    distributions: dict[str, dict[str, float]] = {}
    for name, steps in scales.items():
        values = [value for draw in draws if isinstance(value := draw.values.get(name), int | float)]
        scores[name] = fsum(values) / len(values) if values else None
        if values:
            distributions[name] = {
                f"{step:g}": values.count(step) / len(values) for step in steps or sorted({*values})
            }
    return scores, distributions


def _spreads(draws: Sequence[ParsedForm], scores: dict[str, float | None]) -> dict[str, float]:
    values = {name: [v for draw in draws if isinstance(v := draw.values.get(name), int | float)] for name in scores}
    return {name: round(pstdev(found), 6) for name, found in values.items() if found}


def _not_judged(draws: Sequence[ParsedForm], scores: dict[str, float | None]) -> dict[str, str]:
    """Criterion → why, as the first draw has it."""
    return {name: draws[0].unread.get(name, "not read") for name, score in scores.items() if score is None}
