from __future__ import annotations

import math

import pytest
import torch

from rlaif.training.losses import (
    expected,
    hinge_loss,
    ipo_loss,
    moved,
    preference_loss,
    robust_loss,
    sigmoid_loss,
    soft_dpo_loss,
)


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


# --- the losses that TRL has too, as functions of one number -----------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "expected_value"),
    [
        (hinge_loss(torch.tensor(0.25)), 0.75),
        (hinge_loss(torch.tensor(1.5)), 0.0),
        (ipo_loss(torch.tensor(0.2), 0.1), 9.0),  # (.2/.1 − 1/.2)² = (2 − 5)²
        (ipo_loss(torch.tensor(0.5), 0.1), 0.0),  # h/β = 5 = 1/(2β)
        (robust_loss(torch.tensor(1.0), 0.0), 0.313262),  # log(1 + e⁻¹)
        (robust_loss(torch.tensor(1.0), 0.2), -0.020072),  # (.8 · .313262 − .2 · 1.313262) / .6
        (moved(torch.tensor(1.0), 0.1), 0.9),
        (moved(torch.tensor(0.8), 0.1), 0.74),  # .9 · .8 + .1 · .2
        (moved(torch.tensor(0.5), 0.3), 0.5),
        (expected(torch.tensor(2.0), torch.tensor(10.0), torch.tensor(0.75)), 4.0),
    ],
)
def test_values_by_hand(loss: torch.Tensor, expected_value: float) -> None:
    assert loss.item() == pytest.approx(expected_value, abs=1e-6)


def test_robust_loss_is_unbiased() -> None:
    """Over labels of which a share ε is flipped, its mean is the clean loss."""
    h = torch.linspace(-3, 3, 13)
    flipped = expected(robust_loss(h, 0.3), robust_loss(-h, 0.3), torch.tensor(0.7))
    assert torch.allclose(flipped, sigmoid_loss(h), atol=1e-6)


def test_a_batch_by_hand() -> None:
    """Two pairs; log-ratios of the chosen 1, 2 over 2, 4 tokens and of the rejected −1, 0 over 1, 5; β ½."""
    logps, ref = torch.tensor([-3.0, -8.0, -5.0, -9.0]), torch.tensor([-4.0, -10.0, -4.0, -9.0])
    lengths = torch.tensor([2, 4, 1, 5])
    p, weight = torch.tensor([1.0, 0.5]), torch.tensor([0.5, 1.5])

    def loss(*types: tuple[str, float]) -> float:
        return preference_loss(logps, ref, lengths, p, weight, types, beta=0.5).item()

    # h = ½ · (1 + 1), ½ · (2 − 0): 1, 1. Hinge: 0, and ½ · 0 + ½ · 2
    assert loss(("hinge", 1.0)) == pytest.approx((0.5 * 0 + 1.5 * 1) / 2)
    # per token: ½ · (½ + 1) = ¾, ½ · (½ − 0) = ¼. Sigmoid: log(1 + e^−¾); ½ · log(1 + e^−¼) + ½ · log(1 + e^¼)
    first = math.log1p(math.exp(-0.75))
    second = (math.log1p(math.exp(-0.25)) + math.log1p(math.exp(0.25))) / 2
    assert loss(("sigmoid_norm", 1.0)) == pytest.approx((0.5 * first + 1.5 * second) / 2, abs=1e-6)
    # sft: (½ · 3 + 1½ · 8) nats over 6 tokens
    assert loss(("sft", 1.0)) == pytest.approx(13.5 / 6)
    assert loss(("hinge", 2.0), ("sft", 0.1)) == pytest.approx(2 * 0.75 + 0.1 * 2.25)
