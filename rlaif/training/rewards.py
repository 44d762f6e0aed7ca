"""Reward functions in TRL's form: from reward models, scored on the policy's own ids, from functions and judges."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rlaif.config.training import NO_REWARDS, OnlineSection, RewardSource
from rlaif.errors import ConfigError, one_line
from rlaif.training.processes import together
from rlaif.training.prompts import BESIDE
from rlaif.training.scoring import RewardScorer, Weights

RewardFunction = Callable[..., Any]
LIVE = "live"  # an attribute of functions that ask a judge: all processes call them together, and each call costs
MISSING_EOS = "missing_eos"


class JudgeReward(Protocol):
    """What a `judge:` among the rewards stands for. `identity` changes with all that can change a score."""

    identity: str

    def __call__(self, rows: Sequence[Mapping[str, Any]], step: int) -> list[float | None]:
        """A score of each row, None where there is none. A row has `prompt` and `completion` (text or messages) and
        the dataset's columns `reference` and `domain`; rows of one prompt are a group. `step`: of the optimizer."""


class Rewards(NamedTuple):
    """`scorers`: of the sources that are reward models, by their place in the section; `models`: their folders;
    `must_score`: the places of judges, without whom a completion has no score."""

    functions: list[RewardFunction]
    scorers: dict[int, RewardScorer]
    models: list[str]
    must_score: list[int]


def build_rewards(
    section: OnlineSection,
    functions: Mapping[str, RewardFunction],
    judges: Mapping[int, JudgeReward],
    load: Callable[[RewardSource], RewardScorer],
    where: str,
) -> Rewards:
    """functions: what the section's import paths stand for; judges: what its judges do, by place. load: makes the
    scorer of a reward model. Errors: ConfigError for no reward at all, or a model that cannot score.
    """
    if not section.rewards:
        raise ConfigError(NO_REWARDS.format(where=where))
    made, scorers, names = [], {}, names_of(section.rewards)
    for at, (source, name) in enumerate(zip(section.rewards, names, strict=True)):
        if source.function is not None:
            made.append(checked(functions[source.function], name, f"{where}.rewards[{at}] ({source.function})"))
        elif source.judge is not None:
            if at not in judges:
                raise ConfigError(
                    f"{where}.rewards[{at}].judge: no judge was handed in; it takes a run folder (`rlaif train`, or "
                    "rlaif.train_grpo and rlaif.train_ppo with `engines`)"
                )
            made.append(judged_by(judges[at], name))
        else:
            scorers[at] = load(source)
            made.append(scored_by(scorers[at], name))
    models = [str(section.rewards[at].model) for at in scorers]
    return Rewards(made, scorers, models, [at for at, source in enumerate(section.rewards) if source.judge])


def weights_of(source: RewardSource) -> Weights:
    return Weights(source.heads, source.floors)


def names_of(sources: Sequence[RewardSource]) -> list[str]:
    """One word each for the metrics: the folder's or the function's name, or judge, numbered where it comes again."""
    names: list[str] = []
    for source in sources:
        plain = Path(source.model).name if source.model else (source.function or "judge").rpartition(":")[2]
        taken = sum(name == plain or name.startswith(f"{plain}_") for name in names)
        names.append(f"{plain}_{taken + 1}" if taken else plain)
    return names


def scored_by(scorer: RewardScorer, name: str) -> RewardFunction:
    """Scores what the policy was given and wrote, its end token included; logs each head, floors and disagreement."""

    def reward(
        prompt_ids: Sequence[Sequence[int]],
        completion_ids: Sequence[Sequence[int]],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        found = scorer.score_ids(prompt_ids, completion_ids)
        if log_metric is not None:
            for k, head in enumerate(scorer.heads if len(scorer.heads) > 1 else ()):
                log_metric(f"rewards/{name}/{head}", float(found.heads[:, k].mean()))
            if scorer.weights.floors:
                log_metric(f"rewards/{name}/below_floor", float(found.violated.mean()))
            if scorer.n_members > 1:
                log_metric(f"rewards/{name}/disagreement", float(found.disagreement.mean()))
        scores: list[float] = found.reward.tolist()
        return scores

    reward.__name__ = name
    return reward


def judged_by(judge: JudgeReward, name: str) -> RewardFunction:
    """The judge looks at what all processes wrote, in the main one; logs the share that got no score, and how long it
    took. What it draws is no part of the training's randomness."""
    import torch

    def reward(
        prompts: Sequence[Any],
        completions: Sequence[Any],
        trainer_state: Any = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        beside = [key for key in BESIDE if key in columns]
        rows = [
            {"prompt": prompt, "completion": completion, **{key: columns[key][at] for key in beside}}
            for at, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        started = time.monotonic()
        with torch.random.fork_rng():  # it may load a model, which draws
            scores = together(rows, lambda every: judge(every, int(getattr(trainer_state, "global_step", 0))))
        if log_metric is not None:
            log_metric(f"rewards/{name}/failed", sum(score is None for score in scores) / max(1, len(scores)))
            log_metric(f"rewards/{name}/seconds", time.monotonic() - started)
        return scores

    reward.__name__ = name
    setattr(reward, LIVE, True)
    return reward


def missing_end(ends: Callable[[], set[int]]) -> RewardFunction:
    """−1 for a completion without any of the end tokens, else 0."""

    def missing_eos(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        ending = ends()
        return [0.0 if ending & set(ids) else -1.0 for ids in completion_ids]

    missing_eos.__name__ = MISSING_EOS
    return missing_eos


def checked(function: RewardFunction, name: str, where: str) -> RewardFunction:
    """`function`, plain or async, whose faults are one line. `None` is allowed: no score for that completion.

    Errors, when called: ConfigError for an exception, a wrong number of scores, or one that is no finite number.
    """

    def fault(error: Exception) -> ConfigError:
        return ConfigError(f"{where}: failed: {type(error).__name__}: {one_line(error)}")

    def judged(scores: Any, n: int) -> list[float | None]:
        found = list(scores)
        if len(found) != n:
            raise ConfigError(f"{where}: returned {len(found)} scores for {n} completions")
        for at, score in enumerate(found):
            if score is not None and not _is_finite(score):
                raise ConfigError(
                    f"{where}: returned {score!r} for completion {at}; expected a finite number, or None for no score"
                )
        return [None if score is None else float(score) for score in found]

    @functools.wraps(function)
    def reward(**kwargs: Any) -> list[float | None]:
        try:
            scores = function(**kwargs)
        except Exception as error:  # the user's own code
            raise fault(error) from error
        return judged(scores, len(kwargs["completions"]))

    @functools.wraps(function)
    async def async_reward(**kwargs: Any) -> list[float | None]:
        try:
            scores = await function(**kwargs)
        except Exception as error:  # the user's own code
            raise fault(error) from error
        return judged(scores, len(kwargs["completions"]))

    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 an object whose call is async
    )
    made: RewardFunction = async_reward if is_async else reward
    made.__name__ = name
    return made


def _is_finite(score: Any) -> bool:
    try:
        return math.isfinite(score)
    except TypeError:
        return False
