"""PPO on TRL's GRPOTrainer (versions that passed: docs/ppo.md).

From GRPOTrainer: generation, reward functions, the reference model, the rollout buffer and its reuse over epochs, the
clipped ratio loss, logging, sharding. Added here: the critic, the KL penalty in per-token rewards, advantages over
(B, T), the value loss, score normalisation, controllers. Nothing is copied: each override wraps `super()`, and a test
for each seam fails when TRL moves it. This module imports TRL: import it where it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from transformers import TrainerCallback, set_seed

from rlaif.training.ppo import estimators
from rlaif.training.ppo.batches import Demonstrations, reshuffled, sequences
from rlaif.training.ppo.critic import FOLDER, attach, detached, load_critic, split_state
from rlaif.training.rollouts import RolloutTrainer

STATE_FILE = "ppo_state.json"


class PPOTrainer(RolloutTrainer):
    """`critic`: a folder (a reward model, or a policy for a new head), or a function that makes one for the policy.
    `ptx_rows`: tokenised demonstrations, each {"input_ids", "labels"} with −100 where nothing is to be learned.
    Reward functions: see `RolloutTrainer`.
    """

    _name = "PPO"
    _tag_names = ["trl", "ppo"]  # as TRL has it

    def __init__(
        self,
        *args: Any,
        critic: str | Path | Callable[[Any], Any],
        ptx_rows: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        given = kwargs["args"]
        set_seed(given.seed)  # adapters begin at random, and TRL before 1.16 draws them before it sets a seed
        given.beta = given.kl_coef  # a beta makes the base class keep a reference
        try:
            super().__init__(*args, **kwargs)
        finally:
            given.beta = 0.0
        self.beta_of_reference, self.beta = float(given.kl_coef), 0.0
        self.kl = estimators.KLController(given.kl_coef, given.kl_target, given.kl_horizon)
        self.moments = estimators.RunningMoments()
        pad_token_id = self._tokenizer.pad_token_id
        made = critic(self.model) if callable(critic) else load_critic(critic, pad_token_id)
        attach(self.model, made.to(self.accelerator.device))
        self._learned = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._ptx = Demonstrations(ptx_rows or [], pad_token_id, given.seed)
        self._moved_too_far = False
        self._policy_learned = False
        self.add_callback(_HoldStill(self))
        if self.use_vllm:
            self._leave_the_critic_out_of_vllm()

    def _leave_the_critic_out_of_vllm(self) -> None:
        sync: Callable[[], None] = self.vllm_generation.sync_weights

        def sync_policy() -> None:
            with detached(self.accelerator.unwrap_model(self.model)):
                sync()

        self.vllm_generation.sync_weights = sync_policy

    def _thaw(self) -> None:
        """peft freezes adapters when it loads them or turns them off, and thaws the active one alone."""
        for weight in self._learned:
            weight.requires_grad_(True)

    # -- rollout ---------------------------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Each epoch cuts the rollout into other minibatches; TRL mixes its rows once."""
        per_epoch = self.args.steps_per_generation
        begins_epoch = self._step % per_epoch == 0 and self._step % (per_epoch * self.num_iterations) != 0
        buffered: Any = vars(self)["_buffered_inputs"]
        if self.model.training and begins_epoch and buffered is not None:
            self._buffered_inputs: Any = reshuffled(buffered)
        return super()._prepare_inputs(generation_batch)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        self._scores_by_function = super()._calculate_rewards(*args, **kwargs)  # (B of all processes, K)
        return self._scores_by_function

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._newest_logps = found[0].detach()
        return found

    @torch.no_grad()
    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        mode = "train" if self.model.training else "eval"
        self.beta = self.beta_of_reference  # so that it computes the reference's log-probabilities
        try:
            rollout: dict[str, Any] = super()._generate_and_score_completions(inputs)
        finally:
            self.beta = 0.0
            self._thaw()
        if mode == "train":
            self._moved_too_far = False
        ids, attention, mask = sequences(rollout)
        batch_size = getattr(self.args, f"per_device_{mode}_batch_size")
        if rollout.get("old_per_token_logps") is None:
            logps = self._get_per_token_logps_and_entropies(
                self.model, ids, attention, mask.size(1), batch_size=batch_size
            )[0]
            rollout["old_per_token_logps"] = logps
        logps = rollout["old_per_token_logps"]
        ref_logps = rollout.pop("ref_per_token_logps", None)
        score, scored, ended = self._scores(rollout, mask, mode)
        kl = torch.zeros_like(logps)
        if ref_logps is not None:
            kl = estimators.kl_per_token(logps, ref_logps, self.args.kl_estimator) * mask
        rewards = estimators.token_rewards(score, kl, mask, self.kl.coefficient)
        if self.args.whiten_rewards:
            rewards = estimators.whiten(rewards, mask, self._moments(rewards, mask), shift_mean=False)
        values = self._values(self.model, ids, attention, mask.size(1), batch_size) * mask
        advantages, targets = estimators.gae(rewards, values, mask, self.args.gamma, self.args.lam)
        learned = mask * scored.float()[:, None]  # what has no score teaches nothing
        if self.args.whiten_advantages:
            advantages = estimators.whiten(advantages, learned, self._moments(advantages, learned))
        rollout |= {
            "advantages": advantages * learned,
            "value_targets": targets,
            "old_values": values,
            "value_mask": learned,
        }
        self._log_rollout(mode, targets, values, learned, kl, score, ended)
        return rollout

    def _scores(self, rollout: dict[str, Any], mask: Any, mode: str) -> tuple[Any, Any, Any]:
        """(B,) each, of this process: the score on the last token, whether there is one, whether it ended."""
        by_function = self._scores_by_function
        total = (by_function * self.reward_weights.to(by_function.device)).nansum(1)
        scored = ~torch.isnan(by_function).all(1)
        if self.args.normalize_scores:
            if mode == "train":
                self.moments.update(total[scored])
            total = self.moments.normalised(total)
        n = mask.size(0)
        own = slice(self.accelerator.process_index * n, (self.accelerator.process_index + 1) * n)
        score, scored = total[own], scored[own]
        if self.args.score_clip is not None:
            score = score.clamp(-self.args.score_clip, self.args.score_clip)
        ends = getattr(self, "eos_token_ids", [self._tokenizer.eos_token_id])  # TRL 1.14 ends at the tokenizer's
        ends = torch.tensor(ends, device=mask.device)
        ended = (torch.isin(rollout["completion_ids"], ends) & mask.bool()).any(1)
        if self.args.missing_eos_penalty is not None:
            score = score - self.args.missing_eos_penalty * (~ended)
        return torch.where(scored, score, torch.zeros_like(score)), scored, ended

    def _values(self, model: Any, ids: Any, attention: Any, n: int, batch_size: int | None = None) -> Any:
        """(B, n): the critic's value of the state before each of the last n tokens."""
        parts = []
        for start in range(0, ids.size(0), batch_size or ids.size(0)):
            rows = slice(start, start + (batch_size or ids.size(0)))
            with self.accelerator.autocast():
                found = model(
                    input_ids=ids[rows], attention_mask=attention[rows], use_cache=False, critic_forward=True
                )
            parts.append(found.logits.squeeze(-1).float()[:, -n - 1 : -1])
        return torch.cat(parts)

    def _sums(self, *values: Any) -> Any:
        """Each scalar summed over all processes."""
        return self.accelerator.reduce(torch.stack([value.float() for value in values]), reduction="sum")

    def _moments(self, x: Any, mask: Any) -> tuple[Any, Any, Any]:
        total, squares, n = self._sums(*estimators.masked_moments(x, mask))
        return total, squares, n

    def _log_rollout(self, mode: str, targets: Any, values: Any, mask: Any, kl: Any, score: Any, ended: Any) -> None:
        errors = targets - values
        sums = estimators.masked_moments(targets, mask)[:2] + estimators.masked_moments(errors, mask)
        rows = torch.tensor(float(score.size(0)), device=score.device)
        t, tt, e, ee, n, kl_sum, score_sum, n_ended, n_rows = self._sums(
            *sums, kl.sum(), score.sum(), ended.sum(), rows
        )
        n = n.clamp(min=1)
        spread, left = tt / n - (t / n) ** 2, ee / n - (e / n) ** 2
        kl_per_sequence = (kl_sum / n_rows).item()
        log = self._metrics[mode]
        log["ppo/explained_variance"].append((1 - left / spread.clamp(min=1e-8)).item())
        log["ppo/kl"].append(kl_per_sequence)
        log["ppo/kl_coef"].append(self.kl.coefficient)
        log["ppo/score"].append((score_sum / n_rows).item())
        log["ppo/eos_rate"].append((n_ended / n_rows).item())
        if mode == "train":
            self.kl.update(kl_per_sequence, int(n_rows.item()))

    # -- loss ------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        mode = "train" if self.model.training else "eval"
        policy_loss = super()._compute_loss(model, inputs)  # self.beta is 0: no KL in the loss
        ids, attention, mask = sequences(inputs)
        values = self._values(model, ids, attention, mask.size(1))
        value_loss, clipped = estimators.value_loss(
            values, inputs["value_targets"], inputs["old_values"], inputs["value_mask"], self.args.cliprange_value
        )
        steps = self.current_gradient_accumulation_steps if mode == "train" else 1
        moved = estimators.approximate_kl(self._newest_logps, inputs["old_per_token_logps"], mask)
        moved, shown_value, shown_clipped, n = self._sums(
            moved, value_loss.detach(), clipped, torch.ones((), device=moved.device)
        )
        moved = (moved / n).item()
        learns = self._policy_learns(mode, moved)
        loss = learns * policy_loss + self.args.vf_coef * value_loss / steps
        log = self._metrics[mode]
        if learns and mode == "train" and self.args.ptx_coef and self._ptx:
            likelihood = self._ptx_loss(model)
            loss = loss + self.args.ptx_coef * likelihood / steps
            log["ppo/ptx_loss"].append(likelihood.item())
        log["ppo/approx_kl"].append(moved)
        log["ppo/value_loss"].append((shown_value / n).item())
        log["ppo/value_clip_rate"].append((shown_clipped / n).item())
        log["ppo/policy_learns"].append(learns)
        return loss

    def _policy_learns(self, mode: str, moved: float) -> float:
        """0 while only the critic is trained: in its warm-up, and once the policy has left its rollout too far."""
        if mode != "train":
            return 1.0
        limit = self.args.approx_kl_limit
        self._moved_too_far = self._moved_too_far or (limit is not None and moved > limit)
        warming_up = self.state.global_step < self.args.critic_warmup_steps
        learns = not (warming_up or self._moved_too_far)
        self._policy_learned = self._policy_learned or learns
        return float(learns)

    def _ptx_loss(self, model: Any) -> Any:
        batch = self._ptx.draw(self.args.per_device_train_batch_size, self.accelerator.device)
        with self.accelerator.autocast():
            return model(**batch).loss

    # -- optimizer and checkpoints -----------------------------------------------------------------------------

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        optimizer = super().create_optimizer(*args, **kwargs)
        critic = {id(weight) for weight in self._critic.parameters()}  # also those that live elsewhere in the model
        groups = []
        for group in optimizer.param_groups:
            for is_critic in (False, True):
                weights = [weight for weight in group["params"] if (id(weight) in critic) is is_critic]
                rate = {"lr": self.args.critic_learning_rate} if is_critic else {}
                if weights:
                    groups.append({**group, "params": weights, **rate})
        optimizer.param_groups[:] = groups
        return optimizer

    def _clip_grad_norm(self, model: Any) -> Any:
        """The policy's gradient by max_grad_norm, the critic's by its own; returns the policy's norm."""
        of_critic = {id(weight) for weight in self._critic.parameters()}
        policy = _Weights(weight for weight in model.parameters() if id(weight) not in of_critic)
        critic = _Weights(self._critic.parameters())
        limit = self.args.max_grad_norm
        try:
            self.args.max_grad_norm = self.args.critic_max_grad_norm
            norm = super()._clip_grad_norm(critic)
        finally:
            self.args.max_grad_norm = limit
        self._metrics["train"]["ppo/critic_grad_norm"].append(float(norm))
        return super()._clip_grad_norm(policy)

    def hold_still(self) -> None:
        """Before an optimizer step: no policy gradient where no part of the step was to teach the policy."""
        if not self._policy_learned:
            of_critic = {id(weight) for weight in self._critic.parameters()}
            for weight in self._learned:
                if id(weight) not in of_critic:
                    weight.grad = None
        self._policy_learned = False

    @property
    def _critic(self) -> Any:
        return self.accelerator.unwrap_model(self.model).critic

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        whole = state_dict if state_dict is not None else self.accelerator.unwrap_model(self.model).state_dict()
        policy, critic = split_state(whole)
        super()._save(str(folder), state_dict=policy)
        self._critic.save_pretrained(str(folder / FOLDER), state_dict=critic)
        state = {"kl_coef": self.kl.coefficient, "moments": self.moments.state(), "ptx": self._ptx.drawn}
        (folder / STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        from safetensors.torch import load_file

        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if is_peft_model(self.model):  # where there are several adapters, transformers loads all but the policy's
            self.model.load_adapter(resume_from_checkpoint, "default", is_trainable=True)
        self._thaw()
        folder = Path(resume_from_checkpoint)
        weights = load_file(folder / FOLDER / "model.safetensors")
        self.accelerator.unwrap_model(model or self.model).critic.load_state_dict(weights)
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        self.kl.coefficient = state["kl_coef"]
        self.moments.restore(state["moments"])
        self._ptx.skip(state["ptx"])


class _Weights:
    """Some of a model's parameters, for what asks a model for all of its own."""

    def __init__(self, weights: Iterable[Any]) -> None:
        self._weights = list(weights)

    def parameters(self) -> list[Any]:
        return self._weights


class _HoldStill(TrainerCallback):  # type: ignore[misc]
    """A policy that is not to learn in a step has no gradient in it: one of 0 would leave it to Adam's momentum."""

    def __init__(self, trainer: PPOTrainer) -> None:
        self._trainer = trainer

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._trainer.hold_still()
