"""PPO's own arguments beside those of `trl.GRPOConfig`, whose names all pass through. This module imports TRL."""

from __future__ import annotations

from dataclasses import dataclass, field

from trl import GRPOConfig

from rlaif.training.on_policy import check_passes


@dataclass
class PPOConfig(GRPOConfig):  # type: ignore[misc]
    """`num_iterations` is the number of PPO epochs over one rollout, `epsilon` the clip range of the ratio.

    One rollout holds per_device_train_batch_size × steps_per_generation × processes sequences; default: four
    optimizer steps' worth.
    """

    num_iterations: int = field(default=4, metadata={"help": "PPO epochs over one rollout"})
    num_generations: int = field(default=1, metadata={"help": "completions per prompt; PPO needs no group"})
    loss_type: str = field(default="bnpo", metadata={"help": "policy loss: a mean over the tokens of the batch"})
    kl_coef: float = field(default=0.05, metadata={"help": "KL penalty in the reward, per nat and token"})
    kl_estimator: str = field(default="k1", metadata={"help": "k1, k2 or k3"})
    kl_target: float | None = field(default=None, metadata={"help": "nats per sequence: adaptive kl_coef"})
    kl_horizon: float = field(default=10_000, metadata={"help": "sequences over which kl_coef adapts"})
    gamma: float = field(default=1.0, metadata={"help": "discount per token"})
    lam: float = field(default=0.95, metadata={"help": "λ of generalised advantage estimation"})
    vf_coef: float = field(default=0.1, metadata={"help": "weight of the value loss"})
    cliprange_value: float | None = field(default=0.2, metadata={"help": "clip range of the value; null: none"})
    whiten_advantages: bool = field(default=True, metadata={"help": "to mean 0 and sd 1 over the rollout"})
    whiten_rewards: bool = field(default=False, metadata={"help": "to sd 1 over the rollout, mean kept"})
    normalize_scores: bool = field(default=True, metadata={"help": "by the running mean and sd of all scores"})
    score_clip: float | None = field(default=None, metadata={"help": "clip of the (normalised) score, ±"})
    disable_dropout: bool = field(default=True, metadata={"help": "the ratio of an unchanged policy must be 1"})
    ddp_find_unused_parameters: bool | None = False  # policy and critic are two forwards: a search would count twice
    missing_eos_penalty: float | None = field(
        default=1.0, metadata={"help": "taken from the score of a completion that never ended"}
    )
    critic_learning_rate: float | None = field(default=None, metadata={"help": "default: learning_rate × 5"})
    critic_max_grad_norm: float | None = field(default=None, metadata={"help": "default: max_grad_norm"})
    critic_warmup_steps: int = field(default=0, metadata={"help": "first optimizer steps that train the critic only"})
    approx_kl_limit: float | None = field(
        default=None,
        metadata={"help": "nats per token from the rollout's policy: the rest of its epochs is skipped"},
    )
    ptx_coef: float = field(default=0.0, metadata={"help": "weight of the likelihood of replayed demonstrations"})
    max_prompt_length: int | None = field(default=None, metadata={"help": "tokens; longer prompts are left out"})

    def __post_init__(self) -> None:
        if self.beta:
            raise ValueError("beta: PPO's KL penalty stands in the reward: set kl_coef instead")
        if self.kl_estimator not in ("k1", "k2", "k3"):
            raise ValueError(f"kl_estimator: k1, k2 or k3, got {self.kl_estimator!r}")
        if self.critic_learning_rate is None:
            self.critic_learning_rate = 5 * self.learning_rate
        if self.critic_max_grad_norm is None:
            self.critic_max_grad_norm = self.max_grad_norm
        if self.critic_max_grad_norm and not self.max_grad_norm:
            raise ValueError("critic_max_grad_norm: max_grad_norm: 0 turns clipping off for both")
        if self.generation_batch_size is None and self.steps_per_generation is None:
            self.steps_per_generation: int = 4 * self.gradient_accumulation_steps
        wanted = self.num_generations
        if wanted == 1:  # TRL's groups need two or more; PPO's baseline is the critic
            per_process = self.per_device_train_batch_size * (self.steps_per_generation or 1)
            self.num_generations = self.generation_batch_size or per_process  # any divisor of the rollout
            if self.num_generations < 2:
                raise ValueError(
                    "a rollout of one completion: raise per_device_train_batch_size or steps_per_generation"
                )
            self.num_generations_eval: int | None = self.num_generations_eval or 1
        super().__post_init__()
        self.num_generations = wanted
        check_passes(self)
