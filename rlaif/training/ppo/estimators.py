"""The arithmetic of PPO as pure functions of tensors, and its two running states.

Shapes: (B, T) over completion tokens; `mask` is a float, 1 on tokens that the policy wrote and 0 on padding (or on
text that others put in between).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Σ x·m / Σ m, 0 where the mask is empty."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def kl_per_token(logps: Tensor, ref_logps: Tensor, estimator: KLEstimator = "k1") -> Tensor:
    """Estimates of KL(π ‖ π_ref) from tokens that π sampled; (B, T), nats (Schulman 2020, Approximating KL).

    k1 = log π/π_ref        unbiased, may be negative
    k2 = ½ (log π/π_ref)²   biased, low variance
    k3 = π_ref/π − 1 + log π/π_ref   unbiased, never negative
    """
    d = logps - ref_logps
    if estimator == "k1":
        return d
    if estimator == "k2":
        return 0.5 * d * d
    return (-d).exp() - 1 + d


def token_rewards(score: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """−kl_coef · KL on every token, and the score on the last one (Ziegler et al. 2019, 1909.08593, eq. 2).

    score: (B,), kl and mask: (B, T). Returns (B, T), 0 outside the mask. A row without any token gets nothing.
    """
    import torch

    rewards = -kl_coef * kl * mask
    last = (mask.cumsum(1) * mask).argmax(1)
    rows = torch.arange(mask.size(0), device=mask.device)
    rewards[rows, last] += score * mask[rows, last]
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, 1506.02438, eq. 16) and the value targets.

        δ_t = r_t + γ V_{t+1} − V_t,   A_t = Σ_k (γλ)^k δ_{t+k},   target_t = A_t + V_t

    values: (B, T), V of the state before each token. Masked positions are passed over: what comes next is the next
    token of the mask. V after the last one is 0. Returns (advantages, targets), both (B, T) and 0 outside the mask.
    """
    import torch

    advantages = torch.zeros_like(rewards)
    running = torch.zeros(rewards.size(0), device=rewards.device, dtype=rewards.dtype)
    next_value = torch.zeros_like(running)
    for t in range(rewards.size(1) - 1, -1, -1):
        here = mask[:, t] > 0
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        running = torch.where(here, delta + gamma * lam * running, running)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = running * mask[:, t]
    return advantages, (advantages + values) * mask


def whiten(x: Tensor, mask: Tensor, moments: tuple[Tensor, Tensor, Tensor], *, shift_mean: bool = True) -> Tensor:
    """(x − mean) / sd over the mask (with n − 1), 0 outside it; `shift_mean=False` keeps the mean.

    moments: Σ x, Σ x², Σ 1 over the mask, of all processes together (see `masked_moments`).
    """
    import torch

    total, squares, n = moments
    n = n.clamp(min=1)  # an empty mask has nothing to scale
    mean = total / n
    variance = (squares / n - mean**2).clamp(min=0) * n / (n - 1).clamp(min=1)
    scaled = (x - mean) * torch.rsqrt(variance + 1e-8)
    return (scaled if shift_mean else scaled + mean) * mask


def masked_moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ x, Σ x², Σ 1 over the mask."""
    return (x * mask).sum(), (x * x * mask).sum(), mask.sum()


def value_loss(
    values: Tensor, targets: Tensor, old_values: Tensor, mask: Tensor, cliprange: float | None
) -> tuple[Tensor, Tensor]:
    """½ · mean of max((V − R)², (clip(V, V_old ± ε) − R)²), and the share of tokens where the clip decided.

    The value clipping of PPO's reference implementation (Schulman et al. 2017, 1707.06347; Huang et al. 2024,
    2403.17031). `cliprange=None`: no clipping. Both results are scalars.
    """
    import torch

    squares = (values - targets) ** 2
    if cliprange is None:
        return 0.5 * masked_mean(squares, mask), torch.zeros((), device=values.device)
    clipped = old_values + (values - old_values).clamp(-cliprange, cliprange)
    other = (clipped - targets) ** 2
    share = masked_mean((other > squares).float(), mask)
    return 0.5 * masked_mean(torch.maximum(squares, other), mask), share


def approximate_kl(logps: Tensor, old_logps: Tensor, mask: Tensor) -> Tensor:
    """½ · mean of (log π − log π_old)² over the mask: how far this epoch has moved from the rollout; nats a token."""
    return masked_mean(0.5 * (logps - old_logps) ** 2, mask)


class RunningMoments:
    """Mean and variance of all scores seen (Chan et al. 1979, parallel update). Starts at mean 0, variance 1."""

    def __init__(self) -> None:
        self.mean, self.variance, self.count = 0.0, 1.0, 1e-4

    def update(self, x: Tensor) -> None:
        """x: (N,), of all processes together; an empty one changes nothing."""
        n = x.numel()
        if n == 0:
            return
        mean, variance = x.mean().item(), x.var(unbiased=False).item()
        delta, total = mean - self.mean, self.count + n
        self.mean += delta * n / total
        self.variance = (self.variance * self.count + variance * n + delta**2 * self.count * n / total) / total
        self.count = total

    def normalised(self, x: Tensor) -> Tensor:
        normalised: Tensor = (x - self.mean) / (self.variance**0.5 + 1e-8)
        return normalised

    def state(self) -> dict[str, float]:
        return {"mean": self.mean, "variance": self.variance, "count": self.count}

    def restore(self, state: dict[str, float]) -> None:
        self.mean, self.variance, self.count = state["mean"], state["variance"], state["count"]


class KLController:
    """The KL coefficient: fixed, or moved towards a target KL per sequence (Ziegler et al. 2019, 1909.08593, 2.2).

    e = clip(KL / target − 1, ±0.2),   β ← β · (1 + e · n / horizon)
    """

    def __init__(self, coefficient: float, target: float | None = None, horizon: float = 10_000) -> None:
        self.coefficient, self.target, self.horizon = coefficient, target, horizon

    def update(self, kl: float, n: int) -> None:
        """kl: mean per sequence, nats; n: how many sequences it is the mean of."""
        if self.target is not None:
            error = max(-0.2, min(0.2, kl / self.target - 1))
            self.coefficient *= 1 + error * n / self.horizon
