"""Supervised fine-tuning on good responses, with TRL's own trainer: the baseline of every preference training."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from rlaif.config import SFTSection
from rlaif.errors import ConfigError
from rlaif.training.data import Splits
from rlaif.training.demonstrations import load_demonstrations
from rlaif.training.fitting import Method, no_empty_dataset, train
from rlaif.training.guard.probes import ProbeJudge


def train_sft(
    section: SFTSection, dataset: Path | str, out: Path, seed: int, *, judge: ProbeJudge | None = None
) -> dict[str, Any]:
    """SFT on the chosen side of pairs (prompt, chosen), or on demonstrations (prompt and completion, or messages).

    Only the completion's tokens are in the loss, unless `args.completion_only_loss` says otherwise. A row that comes
    twice is learnt once. What is read, written, returned and raised: `fitting.train`.
    """
    return train(SFT(), section, dataset, out, seed, judge)


class SFT(Method):
    name = "sft"

    def config_class(self) -> Any:
        from trl import SFTConfig

        return SFTConfig

    def load(self, section: SFTSection, dataset: Path | str, cache: Path, seed: int) -> Splits:
        return load_demonstrations(dataset, cache, section.on)

    def check(self, section: SFTSection, config: Any) -> None:
        if (config.dataset_kwargs or {}).get("skip_prepare_dataset"):
            raise ConfigError(f"{self.where}.args.dataset_kwargs: skip_prepare_dataset needs tokens, these are texts")

    def trainer(self, section: SFTSection, splits: Splits, **arguments: Any) -> Any:
        from trl import SFTTrainer

        return _measuring(no_empty_dataset(SFTTrainer, self.where))(**arguments)

    def lengths(self, trainer: Any) -> list[int]:
        found: list[int] = trainer.uncut_lengths
        return found


def _measuring(base: Any) -> Any:
    """SFTTrainer that knows how long its rows were before it cut or packed them."""

    class MeasuringSFTTrainer(base):  # type: ignore[misc]
        def _prepare_dataset(
            self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, name: str
        ) -> Any:
            if name == "train":
                uncut = copy.copy(args)
                uncut.max_length = None
                # not done twice: `datasets` finds the tokens again in the training's cache
                whole = super()._prepare_dataset(dataset, processing_class, uncut, False, formatting_func, name)
                cut = None if packing else args.max_length
                self.uncut_lengths = [
                    len(row["input_ids"]) for row in whole if any(label != -100 for label in row["labels"][:cut])
                ]
            return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, name)

    return MeasuringSFTTrainer
