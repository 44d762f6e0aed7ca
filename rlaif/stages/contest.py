"""Who competes in an evaluation: the starting policy, the trained one, others, and best-of-n; and who meets whom."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.config import EvaluateSection, Pipeline, Sampler
from rlaif.driver import Job
from rlaif.errors import ConfigError
from rlaif.records import Dropped, Prompt, Reply, Request, Response, make_id
from rlaif.stages.base import Context
from rlaif.stages.generate import response_of, sampling_request
from rlaif.stages.table import located

STAGE = "evaluate"
BEFORE, AFTER = "before", "after"
Samples = list[list[Response | Dropped]]  # by prompt, then by sample
Score = Callable[[Sequence[Any], Sequence[str], Sequence[bool]], Sequence[float]]  # prompts, responses, finished


class Contestant(NamedTuple):
    """A policy under the name that its responses have as `source`. `best_of`: how many samples each response is the
    best of, by the reward model `reward` (a folder)."""

    name: str
    sampler: Sampler
    best_of: int = 1
    reward: str | None = None


def contestants_of(config: Pipeline, start: str) -> list[Contestant]:
    """The starting policy first, then the one it is mainly compared with, then the others. Errors: ConfigError."""
    section = config.evaluate
    assert section is not None
    found = [
        Contestant(BEFORE, sampler_of(config, section, start, start, BEFORE)),
        Contestant(AFTER, sampler_of(config, section, start, section.after, AFTER)),
    ]
    found += [Contestant(name, sampler_of(config, section, start, name, name)) for name in section.policies]
    if section.best_of is not None:
        best = section.best_of
        sampler = sampler_of(config, section, start, best.policy or start, f"best_of_{best.n}")
        reward = str(located(best.reward, Path(config.run)))
        found.append(Contestant(f"best_of_{best.n}", sampler, best.n, reward))
    names = [contestant.name for contestant in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"evaluate.policies: {twice!r} is there twice, or is the name of the main comparison")
    return found


def matches_of(section: EvaluateSection, contestants: Sequence[Contestant]) -> list[tuple[str, str]]:
    """(baseline, challenger) by name, the main comparison first."""
    baseline, *others = [contestant.name for contestant in contestants]
    against = [(baseline, name) for name in others]
    return against + (list(itertools.combinations(others, 2)) if section.each_other else [])


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


def sampled(
    context: Context, contestant: Contestant, prompts: Sequence[Prompt], beside: Sequence[Request] = ()
) -> tuple[Samples, list[Reply]]:
    """What the policy answers; of a best-of-n, `n` answers each the best of its own samples. And its replies to other
    requests, asked in the same go: its engine is loaded once."""
    sampler = contestant.sampler
    n = sampler.n
    wide = sampler.model_copy(update={"n": n * contestant.best_of})
    jobs: Iterator[Job[Any]] = itertools.chain(
        (samples_job(prompt, wide, context.config.seed) for prompt in prompts), map(_reply_job, beside)
    )
    total = len(prompts) + len(beside)
    found = list(context.drive(f"{STAGE}: {sampler.name}", [sampler.engine], jobs, total))
    samples, replies = found[: len(prompts)], found[len(prompts) :]
    if contestant.reward is None:
        return samples, replies
    return best_of(prompts, samples, contestant.best_of, scorer_of(contestant.reward)), replies


def _reply_job(request: Request) -> Job[Reply]:
    (reply,) = yield [request]
    return reply


def scorer_of(folder: str) -> Score:
    """A reward model as a function of texts. Errors: ConfigError."""
    from rlaif.training.scoring import load_reward

    scorer = load_reward(folder)
    return lambda prompts, responses, finished: scorer.score(prompts, responses, finished).reward.tolist()


def best_of(prompts: Sequence[Prompt], samples: Samples, n: int, score: Score) -> Samples:
    """Of every `n` samples of a prompt the one with the highest score; the first of equals. A sample without a text
    cannot be the best; where none has one, the first fault stands for all."""
    flat = [
        (prompt.messages, row) for prompt, rows in zip(prompts, samples, strict=True) for row in rows
        if isinstance(row, Response)
    ]  # fmt: skip
    scores = score(
        [messages for messages, _ in flat],
        [row.text for _, row in flat],
        [row.finish_reason != "length" for _, row in flat],
    )
    of = {row.id: value for (_, row), value in zip(flat, scores, strict=True)}
    return [[_best(group, of) for group in _groups(rows, n)] for rows in samples]


def _groups(rows: Sequence[Response | Dropped], n: int) -> list[Sequence[Response | Dropped]]:
    return [rows[start : start + n] for start in range(0, len(rows), n)]


def _best(group: Iterable[Response | Dropped], scores: dict[str, float]) -> Response | Dropped:
    rows = list(group)
    written = [row for row in rows if isinstance(row, Response)]
    return max(written, key=lambda row: scores[row.id]) if written else rows[0]


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
