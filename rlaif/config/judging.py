"""Sections about judging and what is made of judgments."""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from rlaif.config.base import Section, telling_fault
from rlaif.config.parsing import ParseSection


class ChooseSection(Section):
    """Which of all pairs of all prompts are judged, where not all are to be paid for. Exactly one of `n_pairs` and
    `share`."""

    # uncertainty: where the members of a reward ensemble disagree; thompson: two draws of a member each name their
    # best; upper_bound: the highest mean + bonus·sd; random needs no ensemble
    by: Literal["random", "uncertainty", "thompson", "upper_bound"] = "random"
    n_pairs: int | None = Field(default=None, ge=1)  # in all, those chosen in earlier runs included
    share: float | None = Field(default=None, gt=0, le=1)  # likewise, of the pairs that `judge.pairs` allows
    reward: str | None = None  # a reward ensemble: its folder, or run:reward
    bonus: float = Field(default=1.0, ge=0)  # standard deviations over the members, for upper_bound

    def count(self, n: int) -> int:
        """How many of `n` pairs are judged."""
        return min(n, self.n_pairs) if self.n_pairs is not None else ceil((self.share or 1.0) * n - 1e-9)

    @property
    def ensemble(self) -> str | None:
        """The reward ensemble that is asked; None where chance chooses."""
        return None if self.by == "random" else self.reward

    @model_validator(mode="after")
    def _says_enough(self) -> ChooseSection:
        if (self.n_pairs is None) == (self.share is None):
            raise ValueError("choose: set one of n_pairs and share")
        if self.by != "random" and self.reward is None:
            raise ValueError(f"reward: {self.by} needs a reward ensemble: a folder, or run:reward")
        return self


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
    choose: ChooseSection | None = None  # of these pairs, judge only some; default: all of them
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
        if "choose" in own:
            raise ValueError(f"members.{name}.choose: the pairs are chosen once, for all members")
        inherited = self.model_dump(exclude_unset=True, exclude={"members", "options", "judge", "choose"})
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
    # how a prompt's responses are ranked, two of which become a pair: by mean P(win), or by bradley_terry (for
    # incomplete comparisons); or all_pairs; or an import path
    select: str = "best_vs_worst"
    # who of the ranked is chosen: the best, or the shortest of those within `within` of the best
    chosen: Literal["best", "shortest_among_best"] = "best"
    # who is rejected: the worst, the longest of those within `within` of the worst, or the one whose score is
    # nearest to the prompt's mean − `rejected_sds` standard deviations
    rejected: Literal["worst", "longest_among_worst", "near"] = "worst"
    within: float = Field(default=0.1, ge=0, lt=1)  # as a share of the range of a prompt's scores
    rejected_sds: float = 2.0
    # how many times as long (in characters) the longer of a pair may be. require: a pair beyond is dropped; prefer:
    # it is kept where the chosen one has no match
    max_length_ratio: float | None = Field(default=None, ge=1)
    length_matched: Literal["require", "prefer"] = "require"
    min_margin: float = Field(default=0.0, ge=0, le=0.5)  # |p − ½| below this is dropped
    max_margin: float = Field(default=0.5, ge=0, le=0.5)  # |p − ½| above this is dropped
    # West-of-N's filters: of all pairs that are left, those are kept whose p reaches this quantile of all p, and of
    # which both responses reach this quantile of log-likelihood (generate.samplers.logprobs notes it)
    min_confidence_quantile: float = Field(default=0.0, ge=0, lt=1)
    min_likelihood_quantile: float = Field(default=0.0, ge=0, lt=1)
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

    @property
    def as_ranked(self) -> bool:
        """Whether simply the first and the last of the ranking are wanted."""
        return self.chosen == "best" and self.rejected == "worst"

    @property
    def needs_lengths(self) -> bool:
        by_length = self.chosen == "shortest_among_best" or self.rejected == "longest_among_worst"
        return by_length or self.max_length_ratio is not None

    @model_validator(mode="after")
    def _rules_meet(self) -> PairSection:
        if self.min_margin > self.max_margin:
            raise ValueError(
                f"min_margin: {self.min_margin:g} is above max_margin, {self.max_margin:g}: nothing is kept"
            )
        one_pair = self.select in ("best_vs_worst", "bradley_terry")
        for name in ("chosen", "rejected", "length_matched"):
            if not one_pair and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: only where select is best_vs_worst or bradley_terry, not {self.select}")
        return self

    @model_validator(mode="after")
    def _weights_need_gold(self) -> PairSection:
        if self.panel in ("weighted", "dawid_skene") and self.panel_gold is None:
            raise ValueError(f"panel: {self.panel} needs panel_gold, the file that says how often members are right")
        return self
