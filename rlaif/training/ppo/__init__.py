"""Proximal Policy Optimisation with actor, critic, reference and reward model, on the seams of TRL's GRPOTrainer.

method       `rlaif train ppo`: from a section of a pipeline to a policy folder
arguments    PPO's own arguments beside those of `trl.GRPOConfig`
trainer      GRPOTrainer with a critic; every override wraps `super()`
critic       the value model, reached through the policy's own forward
backbone     policy, critic, reward models and reference over one frozen base
estimators   advantages, KL, value loss, controllers: pure functions and small states
batches      minibatches and demonstrations

What it has in common with GRPO: `rlaif.training.on_policy`, `prompts`, `rewards` and `rollouts`.
"""
