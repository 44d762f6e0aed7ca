from __future__ import annotations

import math

import pytest
import torch

from rlaif.training.losses import soft_dpo_loss


@pytest.mark.parametrize(
    ("logit", "probability", "expected"),
    [
        (0.0, 1.0, math.log(2)),  # −log ½
        (0.0, 0.7, math.log(2)),  # .7 log 2 + .3 log 2
        (1.0, 1.0, 0.313262),  # log(1 + e⁻¹)
        (1.0, 0.0, 1.313262),  # log(1 + e¹)
        (1.0, 0.8, 0.513262),  # .8 · .313262 + .2 · 1.313262
        (-2.0, 0.5, 1.126928),  # ½ · (2.126928 + .126928)
        (1000.0, 1.0, 0.0),
        (-1000.0, 1.0, 1000.0),  # no overflow
    ],
)
def test_by_hand(logit: float, probability: float, expected: float) -> None:
    assert soft_dpo_loss(torch.tensor([logit]), torch.tensor([probability])).tolist() == pytest.approx(
        [expected], abs=1e-6
    )


def test_swapping_the_pair_changes_nothing() -> None:
    logits, p = torch.randn(64, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 1, 64)
    assert torch.allclose(soft_dpo_loss(logits, p), soft_dpo_loss(-logits, 1 - p))


def test_least_where_the_model_says_the_probability() -> None:
    """The gradient is σ(h) − p."""
    p = torch.tensor([0.6, 0.75, 0.95])
    logits = torch.log(p / (1 - p)).requires_grad_()
    soft_dpo_loss(logits, p).sum().backward()
    assert logits.grad is not None and torch.allclose(logits.grad, torch.zeros(3), atol=1e-6)
