"""What a judge is: a generator that yields requests, is sent replies, and returns judgments. It makes no call.

    def __call__(self, task) -> Generator[list[Request], list[Reply], list[Judgment]]

A judge is deterministic: the same task and the same replies give the same requests and the same judgments. Its
only randomness is `task.rng()`. The driver sends the replies in the order of the requests. A reply with `error` set
is no answer: its judgment has status "error". A pairwise judge that asks both orders says so in each judgment
(`meta["orders"] = "both"`), so that one order alone is no label where the other failed.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from typing import Protocol

import msgspec

from rlaif.records import FIRST, SECOND, TIE, Judgment, Prompt, Reply, Request, Response, make_id

JudgeRun = Generator[list[Request], list[Reply], list[Judgment]]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one judge run looks at: a prompt and as many responses as the judge's `arity` says."""

    prompt: Prompt
    responses: list[Response]
    seed: int = 0

    @property
    def id(self) -> str:
        return make_id(self.prompt.id, *(response.id for response in self.responses))

    def rng(self) -> random.Random:
        """A generator of its own for this task: the same for the same seed and task, whatever ran before."""
        return random.Random(make_id(self.seed, self.id))

    def prompt_rng(self) -> random.Random:
        """The same for all tasks of one prompt: for what must not differ between its responses."""
        return random.Random(make_id(self.seed, self.prompt.id))


def together(runs: Sequence[JudgeRun]) -> Generator[list[Request], list[Reply], list[list[Judgment]]]:
    """Several judge runs as one: each round asks what all unfinished ones ask at that moment. `yield from` it.

    Returns their judgments, in the order of `runs`.
    """
    results: list[list[Judgment]] = [[] for _ in runs]
    pending: dict[int, list[Request]] = {}

    def advance(index: int, replies: list[Reply] | None) -> None:
        try:
            pending[index] = next(runs[index]) if replies is None else runs[index].send(replies)
        except StopIteration as stop:
            pending.pop(index, None)
            results[index] = stop.value

    try:
        for index in range(len(runs)):
            advance(index, None)
        while pending:
            asked = dict(pending)
            replies = yield [request for requests in asked.values() for request in requests]
            start = 0
            for index, requests in asked.items():
                advance(index, replies[start : start + len(requests)])
                start += len(requests)
    finally:
        for run in runs:
            run.close()
    return results


def lead(judgment: Judgment) -> float | None:
    """P(first shown is better) − P(second), in [−1, 1]; None where there is no verdict. What a judge made of judges
    goes on by; labels are made in `pair`."""
    if judgment.status != "ok":
        return None
    if judgment.probabilities is not None:
        return judgment.probabilities.get(FIRST, 0.0) - judgment.probabilities.get(SECOND, 0.0)
    return {FIRST: 1.0, SECOND: -1.0, TIE: 0.0}.get(judgment.verdict or "")


class Judge(Protocol):
    """`arity`: how many responses one task holds: 1 pointwise, 2 pairwise, 0 all of the prompt's (listwise).

    Optional: `plan(task) -> list[Request]`, all that a task may ask at most, for a judge that asks again when it has
    seen replies (see `planned`); `outlook() -> list[str]`, what a plan should say besides, such as how many of these
    it asks typically; `frames`, the stems of the shipped frames that it renders (default: pairwise).
    """

    arity: int

    def __call__(self, task: Task) -> JudgeRun: ...


def planned(judge: Judge, task: Task) -> list[Request]:
    """What the task may ask at most, for a plan: the judge's own word, else its first requests.

    In requests that depend on replies, something as long as the longest reply stands in for what is not known yet.
    """
    plan = getattr(judge, "plan", None)
    if plan is not None:
        found: list[Request] = plan(task)
        return found
    run = judge(task)
    try:
        return next(run)
    except StopIteration:
        return []
    finally:
        run.close()
