"""Plays a judge with replies made by a function, and twice, so that one that is not deterministic is found out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import msgspec

from rlaif.config import JudgeSection
from rlaif.engines.base import Capabilities
from rlaif.judges import build
from rlaif.judges.base import Judge, Task
from rlaif.records import Judgment, Prompt, Reply, Request, Response, TokenLogprob, Usage

Answer = Callable[[Request], Reply]

PROMPT = Prompt(
    id="p",
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
    reference="Rayleigh scattering.",
    domain="fact",
)
ONE = Response(id="r1", prompt_id="p", text="Light scatters.")
TWO = Response(id="r2", prompt_id="p", text="The sea.")
THREE = Response(id="r3", prompt_id="p", text="It is not.")


class Able:
    """An engine that is never asked: `build` looks at what it can do."""

    identity = model = "able"

    def __init__(self, **capabilities: Any) -> None:
        self.capabilities = Capabilities(**capabilities)


def built(*, logprobs: bool = False, json_schema: bool = False, **section: Any) -> Judge:
    engine: Any = Able(logprobs=logprobs, json_schema=json_schema)
    return build(JudgeSection(**section), lambda role: engine)


def task(*responses: Response, seed: int = 0, prompt: Prompt = PROMPT) -> Task:
    return Task(prompt=prompt, responses=list(responses), seed=seed)


def play(judge: Judge, about: Task, answer: Answer) -> tuple[list[list[Request]], list[Judgment]]:
    """The requests of each round, and the judgments; each reply has its own key."""
    rounds, judgments = _once(judge, about, answer)
    assert (rounds, judgments) == _once(judge, about, answer), "a judge is deterministic"
    assert len({judgment.id for judgment in judgments}) == len(judgments)
    return rounds, judgments


def _once(judge: Judge, about: Task, answer: Answer) -> tuple[list[list[Request]], list[Judgment]]:
    run = judge(about)
    rounds: list[list[Request]] = []
    try:
        requests = next(run)
        while True:
            rounds.append(requests)
            replies = []
            for place, request in enumerate(requests):
                key = f"{len(rounds)}.{place}"
                replies.append(msgspec.structs.replace(answer(request), key=key, usage=Usage(10, 1), model="m"))
            requests = run.send(replies)
    except StopIteration as stop:
        return rounds, stop.value


def text_of(request: Request) -> str:
    return "\n".join(str(message["content"]) for message in request.messages)


def soft(**probabilities: float) -> Reply:
    """One token, with these probabilities at its place; digits are written _1, _2, …"""
    listed = [(label.strip("_"), math.log(p)) for label, p in probabilities.items() if p]
    token, logprob = max(listed, key=lambda item: item[1])
    return Reply(text=token, logprobs=[TokenLogprob(token, logprob, listed)])


def scored(**scores: Any) -> Reply:
    return Reply(text=json.dumps({"rationale": "Because.", "scores": scores}))
