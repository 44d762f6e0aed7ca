"""The trained policy against the starting policy on held-out prompts, in the eyes of one or more judges: one that
compares sees two responses in both orders, one that scores sees each by itself, and the scores are compared."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rlaif import io
from rlaif.config import EvaluateSection, JudgeSection, PairSection, Pipeline, Source
from rlaif.engines.base import import_path
from rlaif.errors import ConfigError, DataError
from rlaif.judges import EngineOf, build
from rlaif.judges.base import Judge
from rlaif.records import Dropped, Judgment, Prompt, Response
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.calibration.applying import path_of
from rlaif.stages.calibration.correcting import as_json, corrected, judge_for
from rlaif.stages.contest import Contestant, Samples, contestants_of, matches_of, sampled
from rlaif.stages.contestants import Answers, describe
from rlaif.stages.evaluation import VERSION, Comparison, JudgeView, evaluate, tasks_of, view
from rlaif.stages.forgetting import Skills, greedy_requests, marked, read_skills
from rlaif.stages.pairing.standards import Standards
from rlaif.stages.reward_accuracy import measure_reward_models
from rlaif.store import RunFolder, rounds_before, write_whole

STAGE = "evaluate"
Metric = Callable[[str, str], dict[str, float | None]]


def run(context: Context) -> dict[str, Any]:
    """Writes evaluation/{prompts,responses,judgments}.jsonl and evaluation/evaluation.json.

    One policy or judge is loaded at a time. What cannot be compared (a prompt too long, an empty response) is dropped
    with its reason. Errors: ConfigError (no standard to judge by, unknown metric, a model that is not there),
    DataError (no usable prompt or pair, no comparison left).
    """
    section = context.config.evaluate
    assert section is not None
    result: dict[str, Any] = {"version": VERSION}
    counts: dict[str, Any] = {}
    dropped: list[Dropped] = []
    if section.prompts is not None:
        found, counts = _policies(context, section, section.prompts, dropped)
        result |= found
    if section.pairs:
        result["reward_models"] = measure_reward_models(context, section, dropped)
        counts["reward_models"] = len(section.reward_models)
    context.folder.drop(STAGE, dropped)
    text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
    write_whole(context.folder.path / "evaluation" / "evaluation.json", text.encode() + b"\n")
    return {**counts, "dropped": count_reasons(dropped) | counts.get("dropped", {})}


def _policies(
    context: Context, section: EvaluateSection, source: Source, dropped: list[Dropped]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figures of all matches, the main one's at the top, and counts."""
    judges = judges_of(context.config)
    measures = [find_metric(path) for path in section.metrics]
    prompts = _prompts(source, dropped)
    context.folder.write("evaluation/prompts", prompts)
    contestants = contestants_of(context.config, context.starting_policy)
    skills = skills_of(section)
    answers = [_answers(context, section, row, prompts, skills) for row in contestants]
    samples = {of.contestant.name: of.samples for of in answers}
    dropped.extend(row for of in samples.values() for rows in of for row in rows if isinstance(row, Dropped))
    responses = _responses(samples)
    context.folder.write("evaluation/responses", responses)
    matches = {
        names: _comparisons(prompts, *(samples[name] for name in names)) for names in matches_of(section, contestants)
    }
    met = [comparison for comparisons in matches.values() for comparison in comparisons]
    judgments = {judge.name: _judgments(context, judge, met) for judge in judges}
    context.folder.write("evaluation/judgments", (row for rows in judgments.values() for row in rows))
    main, *others = matches
    if not matches[main]:
        context.folder.drop(STAGE, dropped)
        raise DataError(f"evaluate: nothing to compare: {json.dumps(count_reasons(dropped))}")
    prompt_of = {prompt.id: prompt for prompt in prompts}
    values = {row.id: measure(measures, prompt_of[row.prompt_id], row) for row in responses}

    def figures(names: tuple[str, str]) -> tuple[dict[str, Any], dict[str, JudgeView]]:
        views = {judge.name: _view(context.config, matches[names], judgments[judge.name]) for judge in judges}
        found = evaluate(matches[names], views, values, seed=context.config.seed)
        return found | _corrected(context, views, matches[names], judgments), views

    n_seen = _also_trained_on(context, prompts)
    result, views = figures(main)
    result |= {"prompts_also_trained_on": n_seen}
    result["contestants"] = describe(context, section, prompts, answers, skills)
    if others:
        result["matches"] = [{"baseline": names[0], "policy": names[1], **figures(names)[0]} for names in others]
    return result, {
        "prompts": len(prompts),
        "prompts_also_trained_on": n_seen,
        "comparisons": len(met),
        "judgments": sum(len(rows) for rows in judgments.values()),
        "dropped": _excluded(views),
    }


def skills_of(section: EvaluateSection) -> Skills:
    """Errors: DataError."""
    if not section.skills:
        return {}
    with tempfile.TemporaryDirectory() as cache:
        return read_skills(section, Path(cache))


def _answers(
    context: Context, section: EvaluateSection, contestant: Contestant, prompts: Sequence[Prompt], skills: Skills
) -> Answers:
    asked = greedy_requests(section, skills, contestant)
    samples, replies = sampled(context, contestant, prompts, asked)
    return Answers(contestant, samples, marked(section, skills, replies))


def _corrected(
    context: Context,
    views: Mapping[str, JudgeView],
    comparisons: Sequence[Comparison],
    judgments: Mapping[str, Sequence[Judgment]],
) -> dict[str, Any]:
    """Win rates corrected by how often each judge is wrong on gold, where the config names a calibration."""
    section = context.config.evaluate
    if section is None or section.calibration is None:
        return {}
    path = path_of(section.calibration, context.folder.path)
    clusters = [c.prompt.id for c in comparisons]
    found = {}
    for name, seen in views.items():
        judge = judge_for(section, name, path, judgments[name])
        rng = np.random.default_rng(context.config.seed)
        rate = corrected(path, judge, seen.outcomes, clusters, rng)
        found[name] = None if rate is None else {"gold_judge": judge, **as_json(rate)}
    return {"corrected_win_rate": found}


def _also_trained_on(context: Context, prompts: Sequence[Prompt]) -> int:
    """How many prompts are not held out: the run, or a round before, has the same text among those it made its labels
    from."""
    folders = [context.folder, *map(RunFolder, rounds_before(context.folder.path))]
    read = (folder.read("prompts", Prompt) for folder in folders if folder.table("prompts").exists())
    seen = {prompt.text for prompts_of_one in read for prompt in prompts_of_one}
    return sum(prompt.text in seen for prompt in prompts)


def _prompts(source: Source, dropped: list[Dropped]) -> list[Prompt]:
    unusable: list[Dropped] = []
    prompts = list(islice(io.read_prompts(source, unusable.append), source.limit))
    dropped.extend(msgspec.structs.replace(row, stage=STAGE) for row in unusable)
    if not prompts:
        raise DataError(f"evaluate.prompts: {source.path}: no usable prompt")
    return prompts


def _comparisons(prompts: Sequence[Prompt], before: Samples, after: Samples) -> list[Comparison]:
    """Two policies' samples, the i-th against the i-th, where both are there."""
    return [
        Comparison(prompt, old, new)
        for prompt, olds, news in zip(prompts, before, after, strict=True)
        for old, new in zip(olds, news, strict=True)
        if isinstance(old, Response) and isinstance(new, Response)
    ]


def _responses(samples: dict[str, Samples]) -> list[Response]:
    """Everything that was answered: prompt by prompt, sample by sample, policy by policy."""
    by_prompt = zip(*samples.values(), strict=True)
    met = (row for of_prompt in by_prompt for rows in zip(*of_prompt, strict=True) for row in rows)
    return [row for row in met if isinstance(row, Response)]


class Seat(NamedTuple):
    """One judge of the evaluation: its name there, how it judges, and the engine key where it is one alone."""

    name: str
    section: JudgeSection
    role: str | None

    @property
    def roles(self) -> list[str]:
        return [self.role] if self.role else self.section.roles

    def build(self, engine_of: EngineOf) -> Judge:
        """Errors: ConfigError, also where it takes all of a prompt's responses at once."""
        judge = build(self.section, engine_of, role=self.role, where=f"evaluate.judges: {self.name}")
        if judge.arity not in (1, 2):
            raise ConfigError(
                f"judge.judge: {self.section.judge!r} neither compares two responses nor scores one, which evaluate "
                "needs"
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
    todo = tasks_of(judge.arity, comparisons, context.config.seed)
    found = context.drive(f"{STAGE}: {seat.name}", seat.roles, map(judge, todo), len(todo))
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
