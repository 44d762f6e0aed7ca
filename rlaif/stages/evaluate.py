"""The trained policy against the starting policy on held-out prompts, judged in both orders by one or more judges."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from rlaif import io
from rlaif.config import EvaluateSection, JudgeSection, PairSection, Pipeline, Sampler
from rlaif.driver import Job
from rlaif.engines.base import import_path
from rlaif.errors import ConfigError, DataError
from rlaif.judges import EngineOf, build
from rlaif.judges.base import Judge, Task
from rlaif.records import Dropped, Judgment, Prompt, Reply, Response, make_id
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.evaluation import Comparison, JudgeView, evaluate, view
from rlaif.stages.generate import response_of, sampling_request
from rlaif.stages.pairing.standards import Standards
from rlaif.store import write_whole

STAGE = "evaluate"
BEFORE, AFTER = "before", "after"
Metric = Callable[[str, str], dict[str, float | None]]


def run(context: Context) -> dict[str, Any]:
    """Writes evaluation/{prompts,responses,judgments}.jsonl and evaluation/evaluation.json.

    One policy or judge is loaded at a time. What cannot be compared (a prompt too long, an empty response) is dropped
    with its reason. Errors: ConfigError (no standard to judge by, unknown metric), DataError (no usable prompt, no
    comparison left).
    """
    section = context.config.evaluate
    assert section is not None
    judges = judges_of(context.config)
    measures = [find_metric(path) for path in section.metrics]
    dropped: list[Dropped] = []
    prompts = _prompts(section, dropped)
    context.folder.write("evaluation/prompts", prompts)
    comparisons = _comparisons(context, section, prompts, dropped)
    context.folder.write("evaluation/responses", _responses(comparisons))
    judgments = {judge.name: _judgments(context, judge, comparisons) for judge in judges}
    context.folder.write("evaluation/judgments", (row for rows in judgments.values() for row in rows))
    context.folder.drop(STAGE, dropped)
    if not comparisons:
        raise DataError(f"evaluate: nothing to compare: {json.dumps(count_reasons(dropped))}")
    views = {judge.name: _view(context.config, comparisons, judgments[judge.name]) for judge in judges}
    values = {row.id: measure(measures, c.prompt, row) for c in comparisons for row in (c.before, c.after)}
    n_seen = _also_trained_on(context, prompts)
    result = evaluate(comparisons, views, values, seed=context.config.seed) | {"prompts_also_trained_on": n_seen}
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(context.folder.path / "evaluation" / "evaluation.json", text.encode() + b"\n")
    return {
        "prompts": len(prompts),
        "prompts_also_trained_on": n_seen,
        "comparisons": len(comparisons),
        "judgments": sum(len(rows) for rows in judgments.values()),
        "dropped": count_reasons(dropped) | _excluded(views),
    }


def _also_trained_on(context: Context, prompts: Sequence[Prompt]) -> int:
    """How many prompts are not held out: the run has the same text among those it made its labels from."""
    if not context.folder.table("prompts").exists():
        return 0
    seen = {prompt.text for prompt in context.folder.read("prompts", Prompt)}
    return sum(prompt.text in seen for prompt in prompts)


def _prompts(section: EvaluateSection, dropped: list[Dropped]) -> list[Prompt]:
    unusable: list[Dropped] = []
    prompts = list(islice(io.read_prompts(section.prompts, unusable.append), section.prompts.limit))
    dropped.extend(msgspec.structs.replace(row, stage=STAGE) for row in unusable)
    if not prompts:
        raise DataError(f"evaluate.prompts: {section.prompts.path}: no usable prompt")
    return prompts


def _comparisons(
    context: Context, section: EvaluateSection, prompts: Sequence[Prompt], dropped: list[Dropped]
) -> list[Comparison]:
    """Both policies' samples, the i-th against the i-th."""
    start = context.starting_policy
    before = _sampled(context, sampler_of(context.config, section, start, start, BEFORE), prompts)
    after = _sampled(context, sampler_of(context.config, section, start, section.after, AFTER), prompts)
    comparisons = []
    for prompt, olds, news in zip(prompts, before, after, strict=True):
        for old, new in zip(olds, news, strict=True):
            faults = [row for row in (old, new) if isinstance(row, Dropped)]
            dropped.extend(faults)
            if isinstance(old, Response) and isinstance(new, Response):
                comparisons.append(Comparison(prompt, old, new))
    return comparisons


def _sampled(context: Context, sampler: Sampler, prompts: Sequence[Prompt]) -> list[list[Response | Dropped]]:
    jobs = (samples_job(prompt, sampler, context.config.seed) for prompt in prompts)
    return list(context.drive(f"{STAGE}: {sampler.name}", [sampler.engine], jobs, len(prompts)))


def sampler_of(config: Pipeline, section: EvaluateSection, start: str, engine: str, name: str) -> Sampler:
    """How `engine` is sampled: with the system prompt, stops and extras under which `start` wrote candidates."""
    written = config.generate.samplers if config.generate else []
    base = next((sampler for sampler in written if sampler.engine == start), Sampler(engine=start))
    changes = {
        "engine": engine,
        "name": name,
        "n": section.n,
        "temperature": section.temperature,
        "max_tokens": section.max_tokens,
    }
    return base.model_copy(update=changes)


def samples_job(prompt: Prompt, sampler: Sampler, seed: int = 0) -> Job[list[Response | Dropped]]:
    """All of a policy's samples of one prompt. Repeated ones stay: here they are what the policy does."""
    replies = yield [sampling_request(prompt, sampler, sample, seed) for sample in range(sampler.n)]
    return [_response(prompt, sampler.name or "", sample, reply) for sample, reply in enumerate(replies)]


def _response(prompt: Prompt, source: str, sample: int, reply: Reply) -> Response | Dropped:
    response_id = make_id(prompt.id, source, sample, reply.text)
    if reply.error is not None:
        kind, _, detail = reply.error.partition(": ")
        return Dropped(stage=STAGE, reason=kind, id=response_id, detail=f"{source}, prompt {prompt.id}: {detail}")
    if not reply.text.strip():
        return Dropped(stage=STAGE, reason="empty_response", id=response_id, detail=f"{source}, prompt {prompt.id}")
    return response_of(response_id, prompt, source, sample, reply)


def _responses(comparisons: Sequence[Comparison]) -> Iterator[Response]:
    for comparison in comparisons:
        yield comparison.before
        yield comparison.after


class Seat(NamedTuple):
    """One judge of the evaluation: its name there, how it judges, and the engine key where it is one alone."""

    name: str
    section: JudgeSection
    role: str | None

    @property
    def roles(self) -> list[str]:
        return [self.role] if self.role else self.section.roles

    def build(self, engine_of: EngineOf) -> Judge:
        """Errors: ConfigError, also where it does not compare two responses."""
        judge = build(self.section, engine_of, role=self.role, where=f"evaluate.judges: {self.name}")
        if judge.arity != 2:
            raise ConfigError(
                f"judge.judge: {self.section.judge!r} does not compare two responses, which evaluate needs"
            )
        return judge


def judges_of(config: Pipeline) -> list[Seat]:
    """Who judges: the engines under `evaluate.judges`, each alone, else the labelling judge, all of it where it has
    members. An engine that is a member judges as that member does, another one as the first member does."""
    assert config.evaluate is not None
    section = judge_section_of(config)
    if not config.evaluate.judges:
        return [
            Seat(section.judge, section, None) if section.members else Seat(section.engine, section, section.engine)
        ]
    return [Seat(role, _alone(section, role), role) for role in config.evaluate.judges]


def _alone(section: JudgeSection, role: str) -> JudgeSection:
    leaves = section.leaves
    return next((leaf for leaf in leaves if leaf.engine == role), leaves[0])


def _judgments(context: Context, seat: Seat, comparisons: Sequence[Comparison]) -> list[Judgment]:
    judge = seat.build(context.engine)
    seed = context.config.seed
    jobs = (judge(Task(prompt=c.prompt, responses=[c.before, c.after], seed=seed)) for c in comparisons)
    found = context.drive(f"{STAGE}: {seat.name}", seat.roles, jobs, len(comparisons))
    return [judgment for judgments in found for judgment in judgments]


def judge_section_of(config: Pipeline) -> JudgeSection:
    """How labels are judged, but always in both orders, and by the last word where several have a say in turn."""
    if config.judge is None:
        raise ConfigError("evaluate: a judge section is needed, for the rubric or constitution to judge by")
    section = config.judge.last_word
    members = {name: {**own, "orders": "both"} for name, own in section.members.items()}
    return section.model_copy(update={"orders": "both", "members": members})


def _view(config: Pipeline, comparisons: Sequence[Comparison], judgments: Sequence[Judgment]) -> JudgeView:
    """With the weights of the labels. The members of a panel count alike: gold is about the labels' pairs."""
    weights = config.pair.principle_weights if config.pair else {}
    standards = Standards.of(config.judge)
    return view(comparisons, judgments, standards=standards, section=PairSection(principle_weights=weights))


def find_metric(path: str) -> Metric:
    """The function behind an import path. Errors: ConfigError."""
    if ":" not in path:
        raise ConfigError(f"evaluate.metrics: {path!r}: expected an import path 'package.module:function'")
    found: Metric = import_path(path, "evaluate.metrics")
    if not callable(found):
        raise ConfigError(f"evaluate.metrics: {path!r} is not a function")
    return found


def measure(metrics: Sequence[Metric], prompt: Prompt, response: Response) -> dict[str, float | None]:
    """All metrics of one response; they measure and never label. Errors: ConfigError if one of them fails."""
    found: dict[str, float | None] = {}
    for metric in metrics:
        name = f"{getattr(metric, '__module__', '')}:{getattr(metric, '__qualname__', metric)}"
        try:
            found.update(
                {str(k): None if v is None else float(v) for k, v in metric(prompt.text, response.text).items()}
            )
        except Exception as error:  # the user's own code
            raise ConfigError(
                f"evaluate.metrics: {name} failed on response {response.id}: {type(error).__name__}: {error}"
            ) from error
    return found


def _excluded(views: dict[str, JudgeView]) -> dict[str, int]:
    return {f"{role}_{reason}": n for role, seen in views.items() for reason, n in seen.excluded.items()}
