"""Base skills of an evaluation: what each policy makes of demonstrations that the starting policy could follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.config import EvaluateSection
from rlaif.records import Prompt, Reply, Request, make_id
from rlaif.stages.contest import Contestant
from rlaif.stages.generate import sampling_request
from rlaif.stages.paired import Column, Paired
from rlaif.training.data import located
from rlaif.training.skills import Demonstration, is_right, load_skill

Skills = Mapping[str, list[Demonstration]]
LogProbs = Sequence[Any]  # of each demonstration's completion: (T,) nats


def read_skills(section: EvaluateSection, cache: Path) -> Skills:
    """Errors: DataError that names the file."""
    return {name: load_skill(located(skill.dataset), cache, skill.limit) for name, skill in section.skills.items()}


def skill_prompt(name: str, number: int, demonstration: Demonstration) -> Prompt:
    return Prompt(id=make_id(name, number), messages=demonstration.messages)


def greedy_requests(section: EvaluateSection, skills: Skills, contestant: Contestant) -> list[Request]:
    """One for each demonstration of the skills that are also answered greedily, in their order; none of a best-of-n,
    which answers with what a reward model picks."""
    if contestant.reward is not None:
        return []
    return [
        sampling_request(
            skill_prompt(name, i, demonstration),
            contestant.sampler.model_copy(
                update={"temperature": 0.0, "top_p": 1.0, "n": 1, "max_tokens": section.skills[name].max_tokens}
            ),
            0,
            0,
        )
        for name, demonstrations in skills.items()
        if section.skills[name].greedy
        for i, demonstration in enumerate(demonstrations)
    ]


def marked(section: EvaluateSection, skills: Skills, replies: Sequence[Reply]) -> dict[str, Column]:
    """Skill → 1 for each demonstration whose greedy reply is right, 0 where it is not, None where there is none."""
    left = iter(replies)
    found: dict[str, Column] = {}
    for name, demonstrations in skills.items():
        if section.skills[name].greedy and replies:
            found[name] = {(i, 0): _mark(next(left), demonstration) for i, demonstration in enumerate(demonstrations)}
    return found


def _mark(reply: Reply, demonstration: Demonstration) -> float | None:
    return None if reply.error is not None else float(is_right(reply.text, demonstration))


def skill_figures(
    logprobs: LogProbs | None,
    of_start: LogProbs | None,
    right: Column | None,
    right_of_start: Column | None,
    seed: int,
) -> dict[str, Any]:
    """One policy on one skill; `of_start` None: it is the start. `nll`: mean −log p of a token, nats, and so the
    interval and the difference are over tokens, resampled by demonstration; `perplexity` is its exponential."""
    found: dict[str, Any] = {"nll": None, "perplexity": None, "accuracy": None}
    if logprobs is not None:
        alike = of_start is not None and [len(a) for a in logprobs] == [len(b) for b in of_start]
        ours = _by_token(logprobs)
        start = _by_token(of_start) if alike and of_start is not None else None
        found["nll"] = Paired({place: str(place[0]) for place in ours}, seed).side(ours, start)
        found["perplexity"] = round(math.exp(found["nll"]["mean"]["value"]), 6)
    if right is not None:
        clusters = {place: str(place[0]) for place in right}
        found["accuracy"] = Paired(clusters, seed).side(right, right_of_start, share=True)
    return found


def _by_token(logprobs: LogProbs) -> Column:
    return {(i, t): -float(x) for i, row in enumerate(logprobs) for t, x in enumerate(row)}
