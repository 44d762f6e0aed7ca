"""Sections about judging and what is made of judgments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from rlaif.config.base import Section, telling_fault
from rlaif.config.parsing import ParseSection


class JudgeSection(Section):
    engine: str = "judge"  # a key of `engines:`
    judge: str = "pairwise"  # a built-in name or an import path "package.module:Class"
    rubric: str | None = None  # a rubric: shipped name or file
    constitution: str | None = None  # or a constitution: shipped name or file
    # of a constitution: one sampled per comparison by weight, every one, or so many, each as likely as the others
    # (their weights count when they are put together)
    principles: Literal["one", "all"] | Annotated[int, Field(ge=1)] = "one"
    # both shown orders, one picked at random per comparison, or the one in which the responses come; of a tournament
    # the default is random, which it draws so that each is shown first as often as second
    orders: Literal["both", "random", "given"] = "both"
    # which of a prompt's responses meet: all, i with i+1 around a ring, or those that a recording lists (else all)
    pairs: Literal["all", "adjacent", "listed"] = "all"
    # where the verdict comes from. rationale: the judge reasons in a first reply, and the log-probs are read after it
    read: Literal["auto", "logprobs", "text", "rationale"] = "auto"
    ties: bool = False  # whether the judge may answer with a tie, the label C; without it, it must choose
    samples: int = Field(default=1, ge=1)  # replies drawn for each judgment, at temperature > 0: shares of votes, or
    # with `read: rationale` the mean of the probabilities
    clamp: tuple[float, float] | None = None  # P(first) against second is kept within, e.g. [0.4, 0.6]; sums to 1
    reference: Literal["use", "require", "ignore"] = "use"  # shown where a prompt has one; or drop those that have
    # none; or never shown
    frame: str | None = None  # a .jinja file; default: the one that the rubric or constitution names
    max_tokens: int | None = Field(default=None, ge=1)  # default: 512 for texts, 1 for log-prob verdicts;
    # a judge that thinks first needs room for it in both; 2 catches one that begins a sentence with the article "A"
    temperature: float = Field(default=0.0, ge=0)
    min_label_mass: float = Field(default=0.5, ge=0, le=1)  # below it a log-prob verdict is unparsed
    parse: ParseSection | None = None  # texts in other words than ours; default: what a replayed recording says
    extra: dict[str, Any] = {}  # passed to the engine with every request
    options: dict[str, Any] = {}  # passed to the judge's constructor
    members: dict[str, dict[str, Any]] = {}  # of judges made of judges: name → the keys that differ from this section

    @model_validator(mode="after")
    def _one_standard(self) -> JudgeSection:
        if self.rubric and self.constitution:
            raise ValueError("name a rubric or a constitution, not both")
        return self

    @model_validator(mode="after")
    def _draws_differ(self) -> JudgeSection:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples: {self.samples} at temperature 0 asks for one reply {self.samples} times; set temperature"
            )
        return self

    @model_validator(mode="after")
    def _clamp_is_fair(self) -> JudgeSection:
        """A clamp that favoured a place would be a position bias of our own making."""
        if self.clamp is not None:
            low, high = self.clamp
            if not (0 <= low < high <= 1 and abs(low + high - 1) < 1e-9):
                raise ValueError(
                    f"clamp: [{low:g}, {high:g}]: expected two probabilities that sum to 1, low first, such as "
                    "[0.4, 0.6]"
                )
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
    def leaves(self) -> list[JudgeSection]:
        """The sections that ask a model: this one, or those of its members."""
        return [leaf for name in self.members for leaf in self.member(name).leaves] if self.members else [self]

    @property
    def last_word(self) -> JudgeSection:
        """The judge of two responses inside: a cascade's last member, a tournament's only one, else this one."""
        if self.judge not in ("cascade", "tournament"):
            return self
        if self.members:
            return self.member(list(self.members)[-1]).last_word
        return self.model_copy(update={"judge": "pairwise", "options": {}})

    @property
    def roles(self) -> list[str]:
        """The keys of `engines:` that this judge asks."""
        if not self.members:
            return [self.engine]
        return list(dict.fromkeys(role for name in self.members for role in self.member(name).roles))


class ReviseSection(Section):
    engine: str = "reviser"  # a key of `engines:`: who reviews and rewrites
    rubric: str | None = None  # a rubric: shipped name or file
    constitution: str | None = None  # or a constitution: each round is under one of its principles, drawn by weight
    rounds: int = Field(default=1, ge=1)  # of critique and revision; none repeats a principle before all were used
    critique_frame: str | None = None  # a .jinja file; default: the one that the rubric or constitution names
    revision_frame: str | None = None  # likewise; it also sees `critique`
    max_tokens: int | None = Field(default=None, ge=1)  # of each reply; default: 512
    temperature: float = Field(default=0.0, ge=0)
    extra: dict[str, Any] = {}  # passed to the engine with every request

    @model_validator(mode="after")
    def _one_standard(self) -> ReviseSection:
        if self.rubric and self.constitution:
            raise ValueError("name a rubric or a constitution, not both")
        return self


class PairSection(Section):
    select: str = "best_vs_worst"  # or all_pairs, or an import path
    min_margin: float = Field(default=0.0, ge=0, le=0.5)  # |p − ½| below this is dropped
    principle_weights: dict[str, float] = {}  # principle or criterion → weight, before the standard's own
    # what the shown orders of a pair give together: the mean of their probabilities; their common verdict, else a
    # tie; verdicts for one less verdicts for the other; or nothing where their verdicts differ
    order_policy: Literal["average", "vote", "net", "agree"] = "average"
    # what the members of a panel give together: the mean of their probabilities; the majority of their verdicts; the
    # mean weighted by accuracy on gold; or Dawid–Skene with gold as anchors
    panel: Literal["mean", "majority", "weighted", "dawid_skene"] = "mean"
    panel_gold: str | None = None  # a .json with each member's count, or .jsonl of Gold records of this run's pairs

    # a map from the judge's P(a better) to people's, for soft labels: run:calibration (of this run), or the path of a
    # calibration.json; and which of its judges labelled (default: its only one). Thresholds apply to what it gives
    calibration: str | None = None
    calibration_judge: str | None = None

    @model_validator(mode="after")
    def _weights_need_gold(self) -> PairSection:
        if self.panel in ("weighted", "dawid_skene") and self.panel_gold is None:
            raise ValueError(f"panel: {self.panel} needs panel_gold, the file that says how often members are right")
        return self
