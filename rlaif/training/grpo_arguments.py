"""GRPO's arguments: those of `trl.GRPOConfig`, with our defaults, and two more. This module imports TRL."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import GRPOConfig

from rlaif.training.on_policy import check_passes


@dataclass
class GRPOArguments(GRPOConfig):  # type: ignore[misc]
    """One rollout holds per_device_train_batch_size × steps_per_generation × processes completions; default: four
    optimizer steps' worth, so that a step sees several prompts."""

    beta: float = field(default=0.04, metadata={"help": "weight of the KL to the starting policy in the loss"})
    missing_eos_penalty: float | None = field(
        default=1.0, metadata={"help": "taken from the reward of a completion that never ended"}
    )
    max_prompt_length: int | None = field(default=None, metadata={"help": "tokens; longer prompts are left out"})

    def __post_init__(self) -> None:
        if self.generation_batch_size is None and self.steps_per_generation is None:
            self.steps_per_generation: int = 4 * self.gradient_accumulation_steps
        super().__post_init__()
        check_passes(self)
