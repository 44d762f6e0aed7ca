"""Proximal Policy Optimisation with actor, critic, reference and reward model, on the seams of TRL's GRPOTrainer.

estimators   advantages, KL, value loss, controllers: pure functions and small states
arguments    PPO's own arguments beside those of `trl.GRPOConfig`
critic       the value model, reached through the policy's own forward
trainer      GRPOTrainer with all of that; every override wraps `super()`
"""
