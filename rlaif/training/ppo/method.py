"""`rlaif train ppo`: from a section to a policy folder, on the common course of `fitting.train`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.config.training import PPOSection
from rlaif.errors import ConfigError, DataError
from rlaif.training import common, fitting, tokens
from rlaif.training.data import Splits, dataset_sha256, located
from rlaif.training.demonstrations import load_demonstrations
from rlaif.training.guard.probes import ProbeJudge
from rlaif.training.on_policy import OnPolicy, one_member
from rlaif.training.prompts import demonstration
from rlaif.training.rewards import JudgeReward, RewardFunction, Rewards, build_rewards

CRITIC_FOLDER = "critic"
_STATE_FILE = "ppo_state.json"


def train_ppo(
    section: PPOSection,
    dataset: Path | str,
    out: Path,
    seed: int,
    *,
    functions: Mapping[str, RewardFunction] | None = None,
    judges: Mapping[int, JudgeReward] | None = None,
    callbacks: Sequence[Any] = (),
    judge: ProbeJudge | None = None,
) -> dict[str, Any]:
    """PPO against `section.rewards`, on the prompts of `dataset` (column `prompt`, or a run's prompts.jsonl).

    functions, judges, callbacks: see `OnPolicy`; a function gets `prompt_ids` and `completion_ids`, the policy's own,
    the end token kept.
    out: the policy, and the critic in out/critic. What else is read, written, returned and raised: `fitting.train`.
    A killed training goes on as if it had not been, from a checkpoint at the end of a rollout (`args.save_steps`).
    """
    return fitting.train(PPO(functions, judges, callbacks), section, dataset, Path(out), seed, judge)


class PPO(OnPolicy):
    name = "ppo"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._demonstrations: Any = None  # to replay: a dataset of prompt and completion
        self._facts: dict[str, Any] = {}

    def config_class(self) -> Any:
        from rlaif.training.ppo.arguments import PPOConfig

        return PPOConfig

    def load(self, section: PPOSection, dataset: Path | str, cache: Path, seed: int) -> Splits:
        splits = super().load(section, dataset, cache, seed)
        if section.replay is None:
            return splits
        source = section.replay.dataset
        rows = load_demonstrations(located(source), cache, "demonstrations").train
        if self.conversational(rows[0]) and not self.conversational(splits.train[0]):
            raise DataError(
                f"{source}: conversations, but the prompts are plain text: the model saw no chat template"
            )
        self._demonstrations = rows
        facts = {"source": source, "sha256": dataset_sha256(rows), "rows": len(rows)}
        return splits._replace(facts={**splits.facts, "replay_dataset": facts})

    def check(self, section: PPOSection, config: Any) -> None:
        super().check(section, config)
        config.ptx_coef = section.replay.weight if section.replay else 0.0
        if section.one_backbone:
            if section.args.get("gradient_checkpointing"):
                raise ConfigError(
                    f"{self.where}.args.gradient_checkpointing: not with one_backbone: the backward pass would run "
                    "again through whichever adapter is on then"
                )
            config.gradient_checkpointing = False

    def trainer(self, section: PPOSection, splits: Splits, **arguments: Any) -> Any:
        from rlaif.training.ppo.trainer import PPOTrainer

        tokenizer, config = arguments["processing_class"], arguments["args"]
        backbone = self._backbone(section, tokenizer) if section.one_backbone else None
        if backbone is not None:
            rewards = build_rewards(section, self._functions, self._judges, backbone.scorer, self.where)
        else:
            rewards = self.rewards(section, tokenizer, config.per_device_train_batch_size)
        critic = backbone.critic if backbone else self._critic(section, rewards, tokenizer)
        limit = self.limit([section.model, section.critic, *rewards.models], config)
        self.fit(arguments, limit)
        rows = self._replayed(section, tokenizer, limit)
        return PPOTrainer(
            **arguments, reward_funcs=rewards.functions, must_score=rewards.must_score, critic=critic, ptx_rows=rows,
            callbacks=self._callbacks,
        )  # fmt: skip

    def _backbone(self, section: PPOSection, tokenizer: Any) -> Any:
        from rlaif.training.ppo.backbone import Backbone

        return Backbone(section, tokenizer, f"{self.where}.one_backbone")

    def _critic(self, section: PPOSection, rewards: Rewards, tokenizer: Any) -> Any:
        """A function that loads the critic: what the section names, else the first reward model, else the policy."""
        from rlaif.training.ppo.critic import Head, load_critic

        scored = {section.rewards[at].model: scorer for at, scorer in rewards.scorers.items()}
        source = section.critic or next(iter(scored), None) or section.model
        scorer = scored.get(source)
        head = Head(*scorer.linear()) if scorer else None
        folder = one_member(located(source))
        if scorer is None and source != section.model:
            _check_ids(folder, tokenizer, f"{self.where}.critic")
        return lambda policy: load_critic(folder, tokenizer.pad_token_id, head)

    def _replayed(self, section: PPOSection, tokenizer: Any, limit: int | None) -> list[dict[str, list[int]]]:
        """The demonstrations as token ids; those of more than `limit` tokens are left out and counted."""
        if self._demonstrations is None or section.replay is None:
            return []
        rows = [demonstration(row, tokenizer) for row in self._demonstrations]
        kept = [row for row in rows if limit is None or len(row["input_ids"]) <= limit]
        if not kept:
            raise DataError(f"{section.replay.dataset}: no demonstration to replay fits in {limit} tokens")
        self._facts |= {"replayed_rows": len(kept), "replayed_too_long": len(rows) - len(kept)}
        return kept

    def finish(self, trainer: Any, section: PPOSection, folder: Path, splits: Splits) -> dict[str, Any]:
        """The critic and the running states, wherever the trainer has put them."""
        written = folder / "adapter" if section.lora is not None else folder
        if trainer.is_world_process_zero():
            if written != folder:
                for other in [path for path in written.iterdir() if path.is_dir() and path.name != CRITIC_FOLDER]:
                    shutil.rmtree(other)  # peft saves every adapter; the reward models' are where they came from
                shutil.move(written / CRITIC_FOLDER, folder / CRITIC_FOLDER)
            state = json.loads((written / _STATE_FILE).read_text(encoding="utf-8"))
            (written / _STATE_FILE).unlink()
        else:
            state = {}
        return {**self._facts, "rollouts": self.n_rollouts(trainer), "state": state}


def _check_ids(critic: str, tokenizer: Any, where: str) -> None:
    """Errors: ConfigError where the critic would read the policy's ids as something else."""
    ours, theirs = tokens.fingerprint(tokenizer), tokens.fingerprint(common.load_tokenizer(critic, False))
    found = tokens.difference({**ours, "template": ""}, {**theirs, "template": ""})
    if found:
        raise ConfigError(f"{where}: {critic} does not fit the policy: {found}")
