"""Reward functions in TRL's form: from reward models, scored on the policy's own token ids, and from functions."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.config.training import NO_REWARDS, PPOSection, RewardSource
from rlaif.errors import ConfigError, one_line
from rlaif.training.scoring import RewardScorer, Weights

RewardFunction = Callable[..., Any]


class Rewards(NamedTuple):
    """`scorers`: of the sources that are reward models, by their place in the section."""

    functions: list[RewardFunction]
    weights: list[float]
    scorers: dict[int, RewardScorer]


def build_rewards(
    section: PPOSection,
    functions: Mapping[str, RewardFunction],
    load: Callable[[RewardSource], RewardScorer],
    where: str,
) -> Rewards:
    """functions: what the section's import paths stand for. load: makes the scorer of a reward model.

    Errors: ConfigError for no reward at all, or a model that cannot score.
    """
    if not section.rewards:
        raise ConfigError(NO_REWARDS.format(where=where))
    made, scorers, names = [], {}, _names(section.rewards)
    for at, (source, name) in enumerate(zip(section.rewards, names, strict=True)):
        if source.function is not None:
            made.append(checked(functions[source.function], name, f"{where}.rewards[{at}] ({source.function})"))
        else:
            scorers[at] = load(source)
            made.append(scored_by(scorers[at], name))
    return Rewards(made, [source.weight for source in section.rewards], scorers)


def weights_of(source: RewardSource) -> Weights:
    return Weights(source.heads, source.floors)


def _names(sources: Sequence[RewardSource]) -> list[str]:
    """One word each for the metrics: the folder's or the function's name, numbered where it comes again."""
    names: list[str] = []
    for source in sources:
        plain = Path(source.model).name if source.model else str(source.function).rpartition(":")[2]
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
