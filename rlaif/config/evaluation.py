"""Sections about measuring and telling."""

from __future__ import annotations

from pydantic import Field

from rlaif.config.base import Section, Source


class EvaluateSection(Section):
    """The trained policy against the starting policy on held-out prompts."""

    prompts: Source
    before: str | None = None  # engine key of the starting policy; default: the first sampler's
    after: str = "trained"  # engine key; "trained" is the policy this run trained
    judges: list[str] = []  # engine keys; default: the labelling judge
    n: int = Field(default=1, ge=1)  # responses per prompt and policy that are judged against each other
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    metrics: list[str] = []  # import paths of fn(prompt, response) -> {name: number or None}: measure, never label


class ReportSection(Section):
    title: str | None = None
    examples: int = Field(default=12, ge=0)  # pairs shown in full
