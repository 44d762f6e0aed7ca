"""Sections about training. Arguments of the library's own config classes go under `args`, by their own names.

Every trainer reads a folder (`model`: a folder, a hub id, or `run:NAME` for what this run trained as NAME) and a
dataset (`dataset`: a folder, a file or a hub id; default: what this run exported), and writes `models/NAME`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from rlaif.config.base import Section
from rlaif.config.data import dataset_folder
from rlaif.config.guarding import GuardSection
from rlaif.config.judging import JudgeSection

TRAINERS = ("sft", "reward", "dpo", "kto", "ppo", "grpo")  # in the order in which a pipeline runs them
POLICIES = ("sft", "dpo", "kto", "ppo", "grpo")  # those whose output answers prompts
NO_REWARDS = (
    "{where}.rewards: none given; name a reward model (`- model: run:reward`), a function "
    "(`- function: package.module:name`) or a judge (`- judge: true`)"
)


class LaunchSection(Section):
    """Training in several processes: the stage's own process is started by `accelerate launch`, with these flags."""

    config_file: str | None = None  # what `accelerate config` writes; shipped:pipelines/accelerate/ddp.yaml, …
    num_processes: int | None = Field(default=None, ge=1)  # default: the file's

    @model_validator(mode="after")
    def _says_something(self) -> LaunchSection:
        if self.config_file is None and self.num_processes is None:
            raise ValueError("config_file or num_processes is needed")
        return self


class TrainerSection(Section):
    """What all trainers have in common."""

    model: str
    dataset: str | None = None
    args: dict[str, Any] = {}
    lora: dict[str, Any] | None = None  # arguments of `peft.LoraConfig`
    quantization: dict[str, Any] | None = None  # of `transformers.BitsAndBytesConfig`: QLoRA, together with `lora`
    launch: LaunchSection | None = None  # several processes; a batch is then per_device_train_batch_size × processes
    guard: GuardSection | None = None  # of a policy: probes it while it trains, stops it, keeps its best weights

    @property
    def exported(self) -> str:
        """Which of a run's exports it trains on where `dataset` says nothing."""
        return dataset_folder("pair")

    @property
    def read(self) -> list[str]:
        """The models and datasets that it names."""
        watched = [self.guard.probes, *(self.guard.rewards or [])] if self.guard else []
        return [value for value in (self.model, self.dataset, *watched) if value]

    @property
    def code(self) -> list[str]:
        """The import paths of the user's own functions that it calls."""
        return []

    def with_models(self, find: Callable[[str, str], str]) -> Self:
        """A copy whose models are `find(value, key)`, where `key` says which one it is, for messages."""
        changed: dict[str, Any] = {"model": find(self.model, "model")}
        if self.guard and self.guard.rewards:
            rewards = [find(value, f"guard.rewards[{i}]") for i, value in enumerate(self.guard.rewards)]
            changed["guard"] = self.guard.model_copy(update={"rewards": rewards})
        return self.model_copy(update=changed)


class SFTSection(TrainerSection):
    """`args`: of `trl.SFTConfig`."""

    # chosen: the chosen responses of preference pairs, each once; demonstrations: prompt and completion, or messages;
    # revised: the same, by default what `revise` made of the responses
    on: Literal["chosen", "revised", "demonstrations"] = "chosen"

    @property
    def exported(self) -> str:
        return dataset_folder({"chosen": "pair", "revised": "revised", "demonstrations": "sft"}[self.on])


class Replay(Section):
    """Demonstrations mixed into the training of a policy, so that it keeps what it could do."""

    dataset: str  # prompt and completion, or messages: a folder, a file or a hub id
    weight: float = Field(default=0.1, gt=0)  # of their mean −log π(token), beside the loss's own 1


class DPOSection(TrainerSection):
    """`args`: of `trl.DPOConfig`. Of its loss types, the first three keys fit sigmoid, sigmoid_norm, hinge, ipo,
    robust and sft."""

    soft_labels: bool = False  # weigh each pair by `probability` (expected loss) instead of treating it as certain
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # share by which a label is moved to the other side
    weight_column: str | None = None  # each pair's share of the loss: a column of numbers ≥ 0, divided by their mean
    replay: Replay | None = None

    @property
    def read(self) -> list[str]:
        return [*super().read, *([self.replay.dataset] if self.replay else [])]


class KTOSection(TrainerSection):
    """`args`: of `trl.KTOConfig`; desirable_weight and undesirable_weight among them."""

    @property
    def exported(self) -> str:
        return dataset_folder("unpaired")


class RewardSection(TrainerSection):
    """`args`: of `trl.RewardConfig`. `model`: any causal LM (the SFT policy, the judge), or a reward model to go on
    with."""

    kind: Literal["pair", "scores", "ranking"] = "pair"  # of the dataset, as `export.kind`
    loss: Literal["bradley_terry", "forward", "backward", "symmetric"] = "bradley_terry"  # of pairs
    soft_labels: bool = False  # the target is `probability` instead of 1
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)  # share by which a label is moved to the other side
    flip_rate: float = Field(default=0.0, ge=0, lt=0.5)  # share of wrong labels that `forward`, `backward` assume
    margin: bool = False  # the column `margin` is what chosen must be ahead by, in the reward's unit
    heads: list[str] | None = None  # scores: the criteria to learn, one head each; default: all in the dataset
    ensemble: int = Field(default=1, ge=1, le=32)  # models, from seeds that follow on one another
    human: str | None = None  # a dataset with the same columns labelled by people: measured, never trained on
    pad_token: str | None = None  # for a tokenizer without one, or one that pads with its end token

    @property
    def exported(self) -> str:
        return dataset_folder(self.kind)

    @property
    def read(self) -> list[str]:
        return [*super().read, *([self.human] if self.human else [])]

    @model_validator(mode="after")
    def _fits_the_kind(self) -> RewardSection:
        if self.guard is not None:
            raise ValueError("guard: it watches what a policy writes, and a reward model writes nothing")
        pairs_only = ("soft_labels", "label_smoothing", "margin")
        if self.kind != "pair" and (self.loss != "bradley_terry" or any(getattr(self, name) for name in pairs_only)):
            named = next((name for name in pairs_only if getattr(self, name)), "loss")
            raise ValueError(f"{named}: only for kind: pair, this is kind: {self.kind}")
        if self.heads is not None and (self.kind != "scores" or not self.heads):
            raise ValueError("heads: names of criteria, for kind: scores")
        if self.flip_rate and self.loss not in ("forward", "backward"):
            raise ValueError(f"flip_rate: only loss: forward and backward use it, this is {self.loss}")
        if not self.flip_rate and self.loss in ("forward", "backward"):
            raise ValueError(f"flip_rate: loss: {self.loss} needs the share of wrong labels to assume, 0.1 say")
        return self


class RewardSource(Section):
    """One part of the reward: a reward model, a function of the user's own, or a judge that is asked on the way."""

    model: str | None = None  # a folder that `rlaif train reward` wrote (run:reward), or any sequence classifier
    function: str | None = None  # "package.module:name", called as TRL calls a reward function
    judge: Literal[True] | JudgeSection | None = None  # true: the pipeline's `judge:`; or a section like that
    weight: float = 1.0  # in the sum of all parts
    heads: dict[str, float] = {}  # head → weight in this part; empty: all 1; heads that are not named: 0
    floors: dict[str, float] = {}  # head → the least score that is allowed, in the criterion's unit
    pessimism: float = Field(default=0.0, ge=0)  # of an ensemble: standard deviations below its mean
    # whom a judge that compares compares with: the other completions of the prompt in the same rollout; what this
    # run's responses.jsonl holds for the prompt; or the prompt's reference. A pointwise judge needs none
    against: Literal["group", "responses", "reference"] = "group"
    n_against: int = Field(default=1, ge=1)  # of `against: responses`, how many: the first ones of the prompt

    @model_validator(mode="after")
    def _one_of_three(self) -> RewardSource:
        if sum(part is not None for part in (self.model, self.function, self.judge)) != 1:
            raise ValueError(
                "a reward is either `model: FOLDER`, `function: package.module:name`, or `judge: true` (or a judge "
                "section)"
            )
        if self.model is None and (self.heads or self.floors or self.pessimism):
            what = "function" if self.function is not None else "judge"
            raise ValueError(f"heads, floors and pessimism belong to a reward model, this is a {what}")
        if self.judge is None and self.against != "group":
            raise ValueError("against: belongs to a judge")
        if self.function is not None and ":" not in self.function:
            raise ValueError(f"function: expected package.module:name, got {self.function!r}")
        return self

    def judged_by(self, own: JudgeSection | None) -> JudgeSection | None:
        """The judge's section; `own`: the pipeline's. None where this is no judge, or `true` and there is none."""
        return self.judge if isinstance(self.judge, JudgeSection) else own if self.judge else None


class OnlineSection(TrainerSection):
    """What PPO and GRPO have in common. `dataset`: prompts (column `prompt`, text or messages; others are passed
    over); default: all prompts of this run."""

    rewards: list[RewardSource] = []

    @property
    def exported(self) -> str:
        return "prompts.jsonl"

    @property
    def read(self) -> list[str]:
        return [*super().read, *(source.model for source in self.rewards if source.model)]

    @property
    def code(self) -> list[str]:
        return [source.function for source in self.rewards if source.function]

    def with_models(self, find: Callable[[str, str], str]) -> Self:
        rewards = [
            source.model_copy(update={"model": find(source.model, f"rewards[{i}].model")}) if source.model else source
            for i, source in enumerate(self.rewards)
        ]
        return super().with_models(find).model_copy(update={"rewards": rewards})

    def judges(self, own: JudgeSection | None) -> dict[int, JudgeSection]:
        """Place in `rewards` → the judge that is asked there; `own`: the pipeline's."""
        found = {at: source.judged_by(own) for at, source in enumerate(self.rewards)}
        return {at: section for at, section in found.items() if section is not None}


class GRPOSection(OnlineSection):
    """`args`: of `rlaif.training.grpo_arguments.GRPOArguments`, which adds two to `trl.GRPOConfig`."""


class PPOSection(OnlineSection):
    """`args`: of `rlaif.training.ppo.arguments.PPOConfig`, which adds to `trl.GRPOConfig`."""

    critic: str | None = None  # a folder; default: the first reward model, else the policy with a new head
    replay: Replay | None = None
    one_backbone: bool = False  # policy, critic and reward model as adapters over one frozen base; needs `lora`

    @property
    def read(self) -> list[str]:
        replayed = self.replay.dataset if self.replay else None
        return [*super().read, *(value for value in (self.critic, replayed) if value)]

    def with_models(self, find: Callable[[str, str], str]) -> Self:
        critic = find(self.critic, "critic") if self.critic else None
        return super().with_models(find).model_copy(update={"critic": critic})

    @model_validator(mode="after")
    def _fits_together(self) -> PPOSection:
        if self.one_backbone and self.lora is None:
            raise ValueError("one_backbone: the policy is an adapter then: set lora, `lora: {r: 16}` say")
        if self.one_backbone and self.critic:
            raise ValueError("critic: with one_backbone it is an adapter made from the first reward model")
        if "ptx_coef" in self.args:
            raise ValueError("args.ptx_coef: the weight of demonstrations stands in replay.weight")
        return self


class TrainSection(Section):
    sft: SFTSection | None = None
    reward: RewardSection | None = None
    dpo: DPOSection | None = None
    kto: KTOSection | None = None
    ppo: PPOSection | None = None
    grpo: GRPOSection | None = None

    def section(self, name: str) -> TrainerSection | None:
        """The section of a trainer by name; None where it is absent."""
        found: TrainerSection | None = getattr(self, name, None)
        return found

    def sections(self) -> list[tuple[str, TrainerSection]]:
        """The trainers that are there, by name, in the order in which a pipeline runs them."""
        return [(name, found) for name in TRAINERS if (found := self.section(name)) is not None]

    @property
    def policy(self) -> str | None:
        """The trainer whose policy is `trained`: the last one that the pipeline runs."""
        return next((name for name in reversed(POLICIES) if self.section(name) is not None), None)
