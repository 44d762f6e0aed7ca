"""`rlaif train ppo`: from a section to a policy folder, on the common course of `fitting.train`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.config.training import PPOSection, RewardSource
from rlaif.errors import ConfigError, DataError, one_line
from rlaif.training import common, fitting, tokens
from rlaif.training.data import Splits, dataset_sha256, located
from rlaif.training.demonstrations import load_demonstrations
from rlaif.training.fitting import Method
from rlaif.training.guard.probes import ProbeJudge
from rlaif.training.ppo.prompts import demonstration, load_prompts, prompt_length
from rlaif.training.ppo.rewards import RewardFunction, Rewards, build_rewards, weights_of
from rlaif.training.scoring import RewardScorer, load_reward

CRITIC_FOLDER = "critic"
_STATE_FILE = "ppo_state.json"


def train_ppo(
    section: PPOSection,
    dataset: Path | str,
    out: Path,
    seed: int,
    *,
    functions: Mapping[str, RewardFunction] | None = None,
    callbacks: Sequence[Any] = (),
    judge: ProbeJudge | None = None,
) -> dict[str, Any]:
    """PPO against `section.rewards`, on the prompts of `dataset` (column `prompt`, or a run's prompts.jsonl).

    functions: what each `function:` of the section stands for, as TRL calls reward functions; `prompt_ids` and
    `completion_ids` are the policy's own, the end token kept. callbacks: of transformers, more to do on the way.
    out: the policy, and the critic in out/critic. What else is read, written, returned and raised: `fitting.train`.
    A killed training goes on as if it had not been, from a checkpoint at the end of a rollout (`args.save_steps`).
    """
    return fitting.train(PPO(functions or {}, callbacks), section, dataset, Path(out), seed, judge)


class PPO(Method):
    name = "ppo"

    def __init__(self, functions: Mapping[str, RewardFunction] | None = None, callbacks: Sequence[Any] = ()) -> None:
        self._functions, self._callbacks = functions or {}, list(callbacks)
        self._demonstrations: Any = None  # to replay: a dataset of prompt and completion
        self._facts: dict[str, Any] = {}

    def config_class(self) -> Any:
        from rlaif.training.ppo.arguments import PPOConfig

        return PPOConfig

    def load(self, section: PPOSection, dataset: Path | str, cache: Path, seed: int) -> Splits:
        splits = load_prompts(dataset, cache)
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
        if config.reward_weights is not None:
            raise ConfigError(f"{self.where}.args.reward_weights: the weight of each reward stands in rewards")
        config.reward_weights = [source.weight for source in section.rewards]
        config.ptx_coef = section.replay.weight if section.replay else 0.0
        self._check_saves(section, config)
        if section.one_backbone:
            if section.args.get("gradient_checkpointing"):
                raise ConfigError(
                    f"{self.where}.args.gradient_checkpointing: not with one_backbone: the backward pass would run "
                    "again through whichever adapter is on then"
                )
            config.gradient_checkpointing = False

    def _check_saves(self, section: PPOSection, config: Any) -> None:
        """Only at the end of a rollout is a checkpoint all there is: half-used rollouts are not kept."""
        rollout = config.steps_per_rollout
        if str(config.save_strategy.value) != "steps" or config.save_steps % rollout == 0:
            return
        nearest = max(1, round(config.save_steps / rollout)) * rollout
        if "save_steps" in section.args:
            raise ConfigError(
                f"{self.where}.args.save_steps: {config.save_steps}: a checkpoint must fall on the end of a rollout, "
                f"every {rollout} steps (steps_per_generation × num_iterations / gradient_accumulation_steps): "
                f"take {nearest}"
            )
        config.save_steps = nearest

    def logging_steps(self, config: Any, n_rows: int) -> int:
        """Whole rollouts, so that each point of the curve has generated as much."""
        rollout = int(config.steps_per_rollout)
        rollouts = n_rows // config.generation_batch_size * config.num_train_epochs
        total = config.max_steps if config.max_steps > 0 else rollouts * rollout
        return rollout * max(1, int(total / rollout / fitting.CURVE_POINTS))

    def trainer(self, section: PPOSection, splits: Splits, **arguments: Any) -> Any:
        from rlaif.training.ppo.trainer import PPOTrainer

        tokenizer, config = arguments["processing_class"], arguments["args"]
        backbone = self._backbone(section, tokenizer) if section.one_backbone else None

        def load(source: RewardSource) -> RewardScorer:
            if backbone is not None:
                scorer: RewardScorer = backbone.scorer(source)
                return scorer
            scorer = load_reward(
                located(str(source.model)), weights=weights_of(source), pessimism=source.pessimism,
                batch_size=config.per_device_train_batch_size,
            )  # fmt: skip
            scorer.check_policy(tokenizer)
            return scorer

        rewards = build_rewards(section, self._functions, load, self.where)
        critic = backbone.critic if backbone else self._critic(section, rewards, tokenizer)
        limit = self._limit(section, config, rewards)
        for name in ("train_dataset", "eval_dataset"):
            arguments[name] = self._that_fit(arguments[name], tokenizer, limit, config.max_prompt_length)
        n_prompts, rollout = len(arguments["train_dataset"]), config.generation_batch_size
        if n_prompts < rollout:
            raise DataError(
                f"{self.where}: {n_prompts} prompts fit, one rollout takes {rollout} (per_device_train_batch_size × "
                "steps_per_generation × processes): lower one of them or give more prompts"
            )
        rows = self._replayed(section, tokenizer, limit)
        return PPOTrainer(
            **arguments, reward_funcs=rewards.functions, critic=critic, ptx_rows=rows, callbacks=self._callbacks
        )

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
        folder = _one_member(located(source))
        if scorer is None and source != section.model:
            _check_ids(folder, tokenizer, f"{self.where}.critic")
        return lambda policy: load_critic(folder, tokenizer.pad_token_id, head)

    def _limit(self, section: PPOSection, config: Any, rewards: Rewards) -> int | None:
        """Tokens that a prompt may have, so that policy, critic and reward models take it with its completion."""
        models = [section.model, section.critic, *(section.rewards[at].model for at in rewards.scorers)]
        positions = [_positions(_one_member(located(model))) for model in models if model]
        known = [n for n in positions if n is not None]
        return min(known) - (config.max_completion_length or 0) if known else None

    def _that_fit(self, split: Any, tokenizer: Any, limit: int | None, asked: int | None) -> Any:
        if split is None:
            return None
        limits = [n for n in (limit, asked) if n is not None]
        if not limits:
            return split
        lengths = [prompt_length(tokenizer, prompt) for prompt in split["prompt"]]
        kept = [at for at, n in enumerate(lengths) if n <= min(limits)]
        if not kept:
            raise DataError(
                f"{self.where}: no prompt fits in {min(limits)} tokens (the shortest has {min(lengths)}): with "
                "args.max_completion_length it must fit into policy, critic and reward models"
            )
        return split.select(kept) if len(kept) < len(split) else split

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

    def lengths(self, trainer: Any) -> list[int]:
        return [0] * len(trainer.train_dataset)  # nothing is cut

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
        steps = trainer.args.steps_per_rollout
        return {**self._facts, "rollouts": -(-trainer.state.global_step // steps), "state": state}


def _one_member(folder: str) -> str:
    """Of an ensemble of reward models, the first."""
    from rlaif.training.scoring import read_reward_file

    index = read_reward_file(Path(folder))
    return str(Path(folder) / index["members"][0]) if index and index.get("members") else folder


def _positions(model: str) -> int | None:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{model}: cannot read its config: {one_line(error)}") from error
    found: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found


def _check_ids(critic: str, tokenizer: Any, where: str) -> None:
    """Errors: ConfigError where the critic would read the policy's ids as something else."""
    ours, theirs = tokens.fingerprint(tokenizer), tokens.fingerprint(common.load_tokenizer(critic, False))
    found = tokens.difference({**ours, "template": ""}, {**theirs, "template": ""})
    if found:
        raise ConfigError(f"{where}: {critic} does not fit the policy: {found}")
