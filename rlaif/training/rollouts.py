"""GRPOTrainer as PPO and GRPO use it. This module imports TRL: import it where it is needed.

Nothing is copied: each override wraps `super()`, and tests/training/ppo/test_seams.py fails when TRL moves one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from trl import GRPOTrainer


class RolloutTrainer(GRPOTrainer):  # type: ignore[misc]
    """A reward function gets `prompt_ids` and `completion_ids`, token ids as generated and with the end token kept,
    beside what TRL gives it.

    `must_score`: the functions without which a completion has no score at all, whatever the others say of it: TRL
    would count what a judge failed to score as 0. `alone_is_none`: those that are no score by themselves.
    """

    def __init__(
        self, *args: Any, must_score: Sequence[int] = (), alone_is_none: Sequence[int] = (), **kwargs: Any
    ) -> None:
        self._must_score, self._alone_is_none = list(must_score), list(alone_is_none)
        super().__init__(*args, **kwargs)

    def _generate(self, prompts: list[Any]) -> Any:
        generated = super()._generate(prompts)
        self._rollout_prompt_ids = generated[0]
        return generated

    def _calculate_rewards(self, inputs: list[dict[str, Any]], *args: Any, **kwargs: Any) -> Any:
        rows = [{**row, "prompt_ids": ids} for row, ids in zip(inputs, self._rollout_prompt_ids, strict=True)]
        found = super()._calculate_rewards(rows, *args, **kwargs)  # (B of all processes, K)
        return without_half_scores(found, self._must_score, self._alone_is_none)


def without_half_scores(by_function: Any, must_score: Sequence[int], alone_is_none: Sequence[int]) -> Any:
    """`by_function`, (B, K), with NaN all along the rows that have no score: see `RolloutTrainer`."""
    missing = torch.isnan(by_function)
    counted = [k for k in range(by_function.size(1)) if k not in alone_is_none]
    unscored = missing[:, list(must_score)].any(1) | missing[:, counted].all(1)
    return by_function.masked_fill(unscored[:, None], torch.nan)
