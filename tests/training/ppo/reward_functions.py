"""Reward functions that a pipeline may name; see test_method.py."""

from __future__ import annotations

from typing import Any


def shorter(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [-float(len(ids)) for ids in completion_ids]


async def later(completions: list[Any], **_: Any) -> list[float | None]:
    return [None if i % 2 else 1.0 for i in range(len(completions))]


def broken(**_: Any) -> list[float]:
    raise KeyError("no such word")


def not_a_number(completions: list[Any], **_: Any) -> list[float]:
    return [float("nan")] * len(completions)


def too_few(**_: Any) -> list[float]:
    return [1.0]
