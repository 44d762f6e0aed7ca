"""Sections about training. Arguments of the library's own config classes go under `args`, by their own names.

Every trainer reads a folder (`model`: a folder, a hub id, or `run:NAME` for what this run trained as NAME) and a
dataset (`dataset`: a folder, a file or a hub id; default: what this run exported), and writes `models/NAME`.
"""

from __future__ import annotations

from typing import Any

from rlaif.config.base import Section

TRAINERS = ("sft", "reward", "dpo", "kto", "ppo", "grpo")  # in the order in which a pipeline runs them
POLICIES = ("sft", "dpo", "kto", "ppo", "grpo")  # those whose output answers prompts


class TrainerSection(Section):
    """What all trainers have in common."""

    model: str
    dataset: str | None = None
    args: dict[str, Any] = {}
    lora: dict[str, Any] | None = None  # arguments of `peft.LoraConfig`
    quantization: dict[str, Any] | None = None  # of `transformers.BitsAndBytesConfig`: QLoRA, together with `lora`


class DPOSection(TrainerSection):
    """`args`: of `trl.DPOConfig`."""

    soft_labels: bool = False  # weigh each pair by `probability` (expected loss) instead of treating it as certain


class TrainSection(Section):
    dpo: DPOSection | None = None

    def section(self, name: str) -> TrainerSection | None:
        """The section of a trainer by name; None where it is absent."""
        found: TrainerSection | None = getattr(self, name, None)
        return found

    @property
    def policy(self) -> str | None:
        """The trainer whose policy is `trained`: the last one that the pipeline runs."""
        return next((name for name in reversed(POLICIES) if self.section(name) is not None), None)
