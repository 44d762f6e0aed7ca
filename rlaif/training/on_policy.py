"""What PPO and GRPO have in common: prompts that fit, rewards, rollouts that training is cut into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.config.training import OnlineSection, RewardSource
from rlaif.errors import ConfigError, DataError, one_line
from rlaif.training import fitting
from rlaif.training.data import Splits, located
from rlaif.training.fitting import Method
from rlaif.training.prompts import load_prompts, prompt_length
from rlaif.training.rewards import JudgeReward, RewardFunction, Rewards, build_rewards, weights_of
from rlaif.training.scoring import RewardScorer, load_reward, read_reward_file


class OnPolicy(Method):
    """Trains on what the policy itself writes.

    functions: what each `function:` of the section stands for, as TRL calls reward functions. judges: place in
    `rewards` → what a `judge:` there stands for. callbacks: of transformers, more to do on the way.
    """

    def __init__(
        self,
        functions: Mapping[str, RewardFunction] | None = None,
        judges: Mapping[int, JudgeReward] | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self._functions, self._judges, self._callbacks = functions or {}, judges or {}, list(callbacks)

    def load(self, section: Any, dataset: Path | str, cache: Path, seed: int) -> Splits:
        splits = load_prompts(dataset, cache)
        if not self._judges:
            return splits
        # a killed training is not continued under another judge
        judged_by = {str(at): judge.identity for at, judge in sorted(self._judges.items())}
        return splits._replace(facts={**splits.facts, "judged_by": judged_by})

    def check(self, section: Any, config: Any) -> None:
        if config.reward_weights is not None:
            raise ConfigError(f"{self.where}.args.reward_weights: the weight of each reward stands in rewards")
        config.reward_weights = [source.weight for source in section.rewards]
        self._check_saves(section, config)

    def _check_saves(self, section: OnlineSection, config: Any) -> None:
        """Only at the end of a rollout is a checkpoint all there is: half-used rollouts are not kept."""
        rollout = steps_per_rollout(config)
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
        rollout = steps_per_rollout(config)
        rollouts = n_rows // prompts_per_rollout(config) * config.num_train_epochs
        total = config.max_steps if config.max_steps > 0 else rollouts * rollout
        return rollout * max(1, int(total / rollout / fitting.CURVE_POINTS))

    def rewards(self, section: Any, tokenizer: Any, batch_size: int) -> Rewards:
        """All parts of the reward; reward models as whole models of their own. Errors: ConfigError."""

        def load(source: RewardSource) -> RewardScorer:
            scorer = load_reward(
                located(str(source.model)), weights=weights_of(source), pessimism=source.pessimism,
                batch_size=batch_size,
            )  # fmt: skip
            scorer.check_policy(tokenizer)
            return scorer

        return build_rewards(section, self._functions, self._judges, load, self.where)

    def limit(self, models: Sequence[str | None], config: Any) -> int | None:
        """Tokens that a prompt may have, so that each of `models` takes it with its completion."""
        positions = [_positions(one_member(located(model))) for model in models if model]
        known = [n for n in positions if n is not None]
        return min(known) - (config.max_completion_length or 0) if known else None

    def fit(self, arguments: dict[str, Any], limit: int | None) -> None:
        """Leaves out the prompts that are longer than `limit` or max_prompt_length. Errors: DataError."""
        config = arguments["args"]
        for name in ("train_dataset", "eval_dataset"):
            arguments[name] = self._that_fit(
                arguments[name], arguments["processing_class"], limit, config.max_prompt_length
            )
        n_prompts, wanted = len(arguments["train_dataset"]), prompts_per_rollout(config)
        if n_prompts < wanted:
            raise DataError(
                f"{self.where}: {n_prompts} prompts fit, one rollout takes {wanted} (per_device_train_batch_size × "
                "steps_per_generation × processes / num_generations): lower one of them or give more prompts"
            )

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
                "args.max_completion_length it must fit into every model that reads it"
            )
        return split.select(kept) if len(kept) < len(split) else split

    def lengths(self, trainer: Any) -> list[int]:
        return [0] * len(trainer.train_dataset)  # nothing is cut

    def n_rollouts(self, trainer: Any) -> int:
        return int(-(-trainer.state.global_step // steps_per_rollout(trainer.args)))


def steps_per_rollout(config: Any) -> int:
    """Optimizer steps between two rollouts."""
    return int(config.steps_per_generation * config.num_iterations // config.gradient_accumulation_steps)


def prompts_per_rollout(config: Any) -> int:
    return max(1, int(config.generation_batch_size // config.num_generations))


def n_written(name: str, section: OnlineSection, n_prompts: int) -> tuple[int, int]:
    """How many groups a training of one or more processes writes at most, and how many completions are in each."""
    from rlaif.training.memory_plan import arguments_of, n_processes_of

    args = arguments_of(name, section)
    n_each, per_step = int(args["num_generations"]), int(args["per_device_train_batch_size"])
    accumulation = int(args.get("gradient_accumulation_steps") or 1)
    per_rollout = int(args.get("steps_per_generation") or 4 * accumulation)
    written = int(args.get("generation_batch_size") or per_step * per_rollout * n_processes_of(section.launch))
    groups = max(1, written // n_each)  # of a rollout
    n_rollouts = int(n_prompts // groups * float(args["num_train_epochs"]))
    max_steps = int(float(args.get("max_steps") or -1))
    if max_steps > 0:
        steps = max(1, per_rollout * int(args["num_iterations"]) // accumulation)
        n_rollouts = -(-max_steps // steps)
    return groups * n_rollouts, n_each


def check_passes(config: Any) -> None:
    """Errors: ValueError where an optimizer step would span two rollouts."""
    passes = config.steps_per_generation * config.num_iterations
    if passes % config.gradient_accumulation_steps:
        raise ValueError(
            f"gradient_accumulation_steps: {config.gradient_accumulation_steps} does not divide "
            f"steps_per_generation × num_iterations = {passes}: a step would span two rollouts"
        )


def one_member(folder: str) -> str:
    """Of an ensemble of reward models, the first."""
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
