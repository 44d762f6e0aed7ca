"""Sections about judging and what is made of judgments."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from rlaif.config.base import Section, telling_fault


class JudgeSection(Section):
    engine: str = "judge"  # a key of `engines:`
    judge: str = "pairwise"  # a built-in name or an import path "package.module:Class"
    rubric: str | None = None  # a rubric: shipped name or file
    constitution: str | None = None  # or a constitution: shipped name or file
    principles: Literal["one", "all"] = "one"  # of a constitution: one sampled per comparison, or every one
    orders: Literal["both", "random"] = "both"  # both shown orders, or one picked at random per comparison
    pairs: Literal["all", "adjacent"] = "all"  # which of a prompt's responses meet: all, or i with i+1 around a ring
    read: Literal["auto", "logprobs", "text"] = "auto"  # where the verdict comes from
    ties: bool = False  # whether the judge may answer with a tie (text verdicts)
    frame: str | None = None  # a .jinja file; default: the one that the rubric or constitution names
    max_tokens: int | None = Field(default=None, ge=1)  # default: 512 for text verdicts, 1 for log-prob ones;
    # a judge that thinks first needs room for it in both; 2 catches one that begins a sentence with the article "A"
    temperature: float = Field(default=0.0, ge=0)
    min_label_mass: float = Field(default=0.5, ge=0, le=1)  # below it a log-prob verdict is unparsed
    extra: dict[str, Any] = {}  # passed to the engine with every request
    options: dict[str, Any] = {}  # passed to the judge's constructor
    members: dict[str, dict[str, Any]] = {}  # of judges made of judges: name → the keys that differ from this section

    @model_validator(mode="after")
    def _one_standard(self) -> JudgeSection:
        if self.rubric and self.constitution:
            raise ValueError("name a rubric or a constitution, not both")
        return self

    @model_validator(mode="after")
    def _members_are_judges(self) -> JudgeSection:
        for name in self.members:
            self.member(name)
        return self

    def member(self, name: str) -> JudgeSection:
        """A member's whole section: this one's keys where it says nothing else, a pairwise judge by default."""
        own = self.members[name]
        inherited = self.model_dump(exclude_unset=True, exclude={"members", "options", "judge"})
        for standard, other in (("rubric", "constitution"), ("constitution", "rubric")):
            if own.get(standard):
                inherited.pop(other, None)
        try:
            return JudgeSection.model_validate({**inherited, **own})
        except ValidationError as error:
            fault = telling_fault(error)
            key = ".".join(str(part) for part in fault["loc"])
            raise ValueError(f"members.{name}.{key}: {fault['msg'].removeprefix('Value error, ')}") from None

    @property
    def roles(self) -> list[str]:
        """The keys of `engines:` that this judge asks."""
        if not self.members:
            return [self.engine]
        return list(dict.fromkeys(role for name in self.members for role in self.member(name).roles))


class PairSection(Section):
    select: str = "best_vs_worst"  # or all_pairs, or an import path
    min_margin: float = Field(default=0.0, ge=0, le=0.5)  # |p − ½| below this is dropped
    principle_weights: dict[str, float] = {}  # override the constitution's weights
