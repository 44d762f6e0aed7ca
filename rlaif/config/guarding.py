"""`guard:` of a trainer's section: what is watched while a policy trains, when that stops it, and what is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlaif.config.base import Section
from rlaif.config.parsing import check_regex

# what a probe measures; `DOMAIN/name` is the same over the probes of one domain
FIGURES = (
    "length", "repetition", "distinct_1", "distinct_2", "refusal_rate", "eos_rate",
    "kl", "kl_k3", "kl_per_token", "reward", "win_rate",
)  # fmt: skip
_VERBS = (
    "help|assist|support|comply|provide|give|answer|do (?:that|this|it)|fulfil|discuss|take part|engage|"
    "participate|create|write|share|offer|continue|recommend"
)
REFUSALS = (
    rf"\bI(?: can(?:not|['’]t| not)|['’]m (?:unable|not able) to| am (?:unable|not able) to) (?:{_VERBS})",
    rf"\bI (?:will not|won['’]t|must not|should not) (?:{_VERBS})",
    r"\bI (?:refuse|decline) to\b",
    r"\bI (?:must|have to|need to) (?:decline|refuse)\b",
    r"\bI(?:['’]m| am) sorry, (?:but )?I (?:can|am|won|must|will)",
    r"\bas an? AI(?: language model| assistant| model)?, I\b",
)
PROBES = 20  # of a training, about, where the user says nothing of how often
_MOST_PATTERN = 500  # characters of a pattern


class Limit(Section):
    """Bounds of one figure. The first two are absolute, the others against the same figure of the starting policy."""

    min: float | None = None
    max: float | None = None
    max_rise: float | None = Field(default=None, ge=0)  # above the start's
    max_fall: float | None = Field(default=None, ge=0)  # below the start's
    max_ratio: float | None = Field(default=None, ge=1)  # of the start's
    min_ratio: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="after")
    def _bounds_something(self) -> Limit:
        if not self.model_dump(exclude_none=True):
            raise ValueError("a limit needs one of min, max, max_rise, max_fall, max_ratio, min_ratio")
        return self


DEFAULT_LIMITS: dict[str, Limit] = {
    "refusal_rate": Limit(max_rise=0.1),
    "repetition": Limit(max_rise=0.1),
    "distinct_2": Limit(min_ratio=0.5),
    "eos_rate": Limit(max_fall=0.1),
    "length": Limit(min_ratio=1 / 3, max_ratio=2.0),
    "kl_per_token": Limit(max=1.0),
}


class GuardSection(Section):
    """Probes of a policy in training: the same held-out prompts and the same random numbers every time."""

    # prompts: a folder, a file or a hub id, its split `test` where it has one; those that are trained on are left out
    probes: str
    n: int = Field(default=128, ge=1)  # prompts, drawn once by the seed
    samples: int = Field(default=1, ge=1)  # responses to each, in each probe
    every: int | None = Field(default=None, ge=1)  # optimizer steps, whole rollouts; default: about 20 probes in all
    max_tokens: int | None = Field(default=None, ge=1)  # of a response; default: the training's own, else 256
    temperature: float | None = Field(default=None, gt=0)  # default: the training's own, else 1
    batch_size: int = Field(default=32, ge=1)  # responses that are written side by side
    rewards: list[str] | None = None  # reward models (folders, run:NAME); default: what the training maximises
    judge: str | None = None  # an engine that has a say in nothing else: each response against the start's own
    by: Literal["win_rate", "reward"] | None = None  # what quality is; default: the judge's, else the reward
    limits: dict[str, Limit | None] = {}  # over the defaults; null: no limit
    fall: float = Field(default=0.05, gt=0)  # of quality below its best, and surely below it: over-optimised
    patience: int | None = Field(default=5, ge=1)  # probes without a rise of quality while the reward rose; null: any
    keep: Literal["best", "last"] = "best"  # which weights are written
    refusals: list[str] = list(REFUSALS)  # regular expressions; a response that one is found in refuses

    @model_validator(mode="after")
    def _can_be_watched(self) -> GuardSection:
        for name in self.limits:
            if name.rpartition("/")[2] not in FIGURES:
                raise ValueError(f"limits.{name}: no such figure; there are: {', '.join(FIGURES)}, and DOMAIN/figure")
        for at, pattern in enumerate(self.refusals):
            if len(pattern) > _MOST_PATTERN:
                raise ValueError(f"refusals[{at}]: {len(pattern)} characters, at most {_MOST_PATTERN}")
            check_regex(f"refusals[{at}]", pattern, None)
        if self.by == "win_rate" and self.judge is None:
            raise ValueError("by: win_rate needs a judge: name one of the engines as guard.judge")
        return self

    def all_limits(self, *, kl: bool = True) -> dict[str, Limit]:
        """The limits that hold: the defaults under the section's own. kl: whether the default on KL is among them."""
        defaults = {name: limit for name, limit in DEFAULT_LIMITS.items() if kl or not name.startswith("kl")}
        return {name: limit for name, limit in {**defaults, **self.limits}.items() if limit is not None}
