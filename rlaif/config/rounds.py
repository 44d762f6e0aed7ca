"""The section about on-policy rounds: generate → judge → pair → export → train, again from what was trained last."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from rlaif.config.auditing import Gate
from rlaif.config.base import Section, Source

TRAINERS_OF_ROUNDS = ("sft", "dpo", "kto")


class RoundsSection(Section):
    """`rounds: 3` is `rounds: {n: 3}`."""

    n: int = Field(ge=1)  # how many rounds, each in RUN/rounds/NUMBER
    prompts_per_round: int | None = Field(default=None, ge=1)  # the next rows of `prompts` each; default: all in each
    evaluate_on: Source | None = None  # what a round is measured on, and its gates read; default: evaluate.prompts
    gates: dict[str, Gate] = {}  # figure of a round → bounds; outside them the rounds end, with exit code 3

    @model_validator(mode="before")
    @classmethod
    def _from_a_number(cls, raw: Any) -> Any:
        return {"n": raw} if isinstance(raw, int) and not isinstance(raw, bool) else raw
