"""Sections about measuring and telling."""

from __future__ import annotations

from pydantic import Field, model_validator

from rlaif.config.base import Section, Source


class BestOfSection(Section):
    """Another policy: the starting one's best of n samples, as a reward model sees it."""

    reward: str  # a folder, or run:NAME for what this run trained
    n: int = Field(default=8, ge=2)
    policy: str | None = None  # engine key of the one that is sampled; default: the starting policy


class SkillSection(Section):
    """Something that a policy could do before: demonstrations on which every policy is measured."""

    dataset: str  # columns prompt and completion: a folder, a file or a hub id; its split test where there is one
    limit: int | None = Field(default=None, ge=1)  # the first so many rows
    # also answer each prompt greedily: right where the reply says what the column `answer` holds, or, without such a
    # column, where it is the completion
    greedy: bool = False
    max_tokens: int = Field(default=64, ge=1)  # of a greedy reply


class EvaluateSection(Section):
    """The trained policy against the starting policy on held-out prompts; other policies, and reward models, too."""

    prompts: Source | None = None  # without them only reward models are measured
    before: str | None = None  # engine key of the starting policy; default: the first sampler's
    after: str = "trained"  # engine key; "trained" is the policy this run trained
    judges: list[str] = []  # engine keys; default: the labelling judge
    n: int = Field(default=1, ge=1)  # responses per prompt and policy that are judged against each other
    temperature: float = Field(default=1.0, ge=0)
    max_tokens: int = Field(default=512, ge=1)
    policies: list[str] = []  # more policies, each against the starting one: engine keys, or trainers of this run
    each_other: bool = False  # also every two of `after`, `policies` and `best_of`
    best_of: BestOfSection | None = None
    # name → a folder or run:NAME: scores every policy's responses, and on `pairs`: how often the better one higher
    reward_models: dict[str, str] = {}
    pairs: dict[str, Source] = {}  # name → where reward models are measured: chosen and rejected, or gold
    kl: bool = False  # from the starting policy, on each policy's own responses; of policies that are local folders
    skills: dict[str, SkillSection] = {}  # name → demonstrations: what each policy has forgotten
    # win rates corrected by how often the judge is wrong on gold: run:calibration, or the path of a calibration.json
    calibration: str | None = None
    calibration_judges: dict[str, str] = {}  # judge here → its name there; default: the same, or its only one
    metrics: list[str] = []  # import paths of fn(prompt, response) -> {name: number or None}: measure, never label

    @model_validator(mode="after")
    def _measures_something(self) -> EvaluateSection:
        if self.pairs and not self.reward_models:
            raise ValueError("pairs: reward models are measured on them: name some under reward_models")
        if self.prompts is None and self.reward_models and not self.pairs:
            raise ValueError("reward_models: name pairs to measure them on, or prompts whose responses they score")
        if self.prompts is None and not self.pairs:
            raise ValueError("prompts: held-out prompts are needed to compare policies")
        if self.prompts is None and (self.kl or self.skills):
            raise ValueError("kl and skills are measured on policies: prompts are needed to compare them")
        return self


class ReportSection(Section):
    title: str | None = None
    examples: int = Field(default=12, ge=0)  # pairs shown in full
