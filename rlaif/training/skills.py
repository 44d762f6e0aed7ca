"""A base skill as demonstrations: what a policy is asked, what it should say, and when a reply counts as right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.errors import DataError
from rlaif.training.data import Row, check_rows, load_splits


class Demonstration(NamedTuple):
    """`answers`: a right reply says one of them; (): a right reply is the completion."""

    messages: list[dict[str, Any]]
    completion: str
    answers: tuple[str, ...] = ()


def load_skill(dataset: Path | str, cache: Path, limit: int | None = None) -> list[Demonstration]:
    """Rows with `prompt` and `completion` (text or messages; a text prompt is a user's turn) and, where it is there,
    `answer` (a text, or several of which one will do); of the split test where there is one. Errors: DataError."""

    def columns(there: list[str]) -> list[str]:
        return ["prompt", "completion", *(["answer"] if "answer" in there else [])]

    splits = load_splits(dataset, columns, cache)
    check_rows(splits, _fault, dataset)
    rows = splits.test if splits.test is not None else splits.train
    return [_demonstration(row) for row, _ in zip(rows, range(limit or len(rows)), strict=False)]


def _fault(row: Row) -> str | None:
    prompt, completion = row["prompt"], row["completion"]
    if not prompt or not completion or not _text(completion).strip():
        return "prompt or completion is empty"
    if not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
        return "prompt ends with an answer: its last turn is the assistant's"
    if not isinstance(completion, str) and len(completion) != 1:
        return f"completion has {len(completion)} turns: one is measured"
    if any(not answer.strip() for answer in _answers(row)):
        return "answer is empty; null where the completion is the answer"
    return None


def _answers(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = row.get("answer")
    return () if found is None else tuple(map(str, found)) if isinstance(found, list) else (str(found),)


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[0]["content"])


def _demonstration(row: Mapping[str, Any]) -> Demonstration:
    prompt = row["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [_turn(turn) for turn in prompt]
    return Demonstration(turns, _text(row["completion"]), _answers(row))


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    if not turn.get("role"):
        raise DataError("a turn of a prompt has no role")
    return {"role": turn["role"], "content": turn["content"]}


def is_right(reply: str, demonstration: Demonstration) -> bool:
    """Whether the reply says an answer as words of their own, in any case; without answers, whether it is the
    completion but for white space."""
    if not demonstration.answers:
        return reply.split() == demonstration.completion.split()
    patterns = (rf"(?<!\w){re.escape(answer.strip())}(?!\w)" for answer in demonstration.answers)
    return any(re.search(pattern, reply, re.IGNORECASE) for pattern in patterns)
