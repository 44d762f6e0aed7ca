"""`rlaif train grpo`: TRL's own GRPO (2402.03300) against reward models, functions and judges.

Added: rewards on the policy's own token ids, a penalty for completions that never ended, and no half scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.config.training import GRPOSection
from rlaif.errors import ConfigError
from rlaif.training import fitting
from rlaif.training.data import Splits
from rlaif.training.guard.probes import ProbeJudge
from rlaif.training.on_policy import OnPolicy
from rlaif.training.rewards import JudgeReward, RewardFunction, missing_end


def train_grpo(
    section: GRPOSection,
    dataset: Path | str,
    out: Path,
    seed: int,
    *,
    functions: Mapping[str, RewardFunction] | None = None,
    judges: Mapping[int, JudgeReward] | None = None,
    callbacks: Sequence[Any] = (),
    judge: ProbeJudge | None = None,
) -> dict[str, Any]:
    """GRPO against `section.rewards`, on the prompts of `dataset` (column `prompt`, or a run's prompts.jsonl).

    functions, judges, callbacks: see `OnPolicy`. What else is read, written, returned and raised: `fitting.train`. A
    killed training goes on as if it had not been, from a checkpoint at the end of a rollout (`args.save_steps`).
    """
    return fitting.train(GRPO(functions, judges, callbacks), section, dataset, Path(out), seed, judge)


class GRPO(OnPolicy):
    name = "grpo"

    def config_class(self) -> Any:
        from rlaif.training.grpo_arguments import GRPOArguments

        return GRPOArguments

    def check(self, section: GRPOSection, config: Any) -> None:
        super().check(section, config)
        if config.missing_eos_penalty:
            config.reward_weights.append(config.missing_eos_penalty)

    def trainer(self, section: GRPOSection, splits: Splits, **arguments: Any) -> Any:
        from rlaif.training.rollouts import RolloutTrainer

        config, tokenizer = arguments["args"], arguments["processing_class"]
        rewards = self.rewards(section, tokenizer, config.per_device_train_batch_size)
        self.fit(arguments, self.limit([section.model, *rewards.models], config))
        if arguments["eval_dataset"] is not None:
            _check_evaluation(config, f"{self.where}.args")
        functions, alone_is_none = list(rewards.functions), []
        if config.missing_eos_penalty:
            alone_is_none = [len(functions)]
            functions.append(missing_end(lambda: _ends(trainer, tokenizer)))
        trainer = RolloutTrainer(
            **arguments, reward_funcs=functions, must_score=rewards.must_score, alone_is_none=alone_is_none,
            callbacks=self._callbacks,
        )  # fmt: skip
        return trainer

    def finish(self, trainer: Any, section: GRPOSection, folder: Path, splits: Splits) -> dict[str, Any]:
        return {"rollouts": self.n_rollouts(trainer)}


def _ends(trainer: Any, tokenizer: Any) -> set[int]:
    """TRL 1.14 ends at the tokenizer's end token, later versions at those of the generation config."""
    return set(getattr(trainer, "eos_token_ids", [tokenizer.eos_token_id]))


def _check_evaluation(config: Any, where: str) -> None:
    """TRL looks at this only where it evaluates on the way; we measure the test split at the end."""
    group = config.num_generations_eval or config.num_generations
    batch = config.per_device_eval_batch_size * config.world_size
    if batch % group:
        raise ConfigError(
            f"{where}.per_device_eval_batch_size: {config.per_device_eval_batch_size} × processes must be a multiple "
            f"of the {group} completions of a prompt: the test split is measured in whole groups"
        )
