from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlaif.training import reward_losses as losses

Loss = Callable[[Tensor, Tensor], Tensor]
T = torch.tensor
NAN = float("nan")
SIGMA_1 = 0.7310585786  # σ(1)


def forward(rate: float) -> Loss:
    return lambda d, p: losses.forward_corrected(d, p, rate)


def backward(rate: float) -> Loss:
    return lambda d, p: losses.backward_corrected(d, p, rate)


@pytest.mark.parametrize(
    ("loss", "d", "p", "expected"),
    [
        (losses.bradley_terry, 0.0, 0.7, math.log(2)),
        (losses.bradley_terry, 1.0, 1.0, 0.3132617),  # log(1 + e⁻¹)
        (losses.bradley_terry, 1.0, 0.8, 0.5132617),  # .8 · .3132617 + .2 · 1.3132617
        (losses.bradley_terry, -1000.0, 1.0, 1000.0),  # no overflow
        (forward(0.2), 0.0, 1.0, math.log(2)),  # q = ½ whatever ε
        (forward(0.2), 1.0, 1.0, 0.4484219),  # q = .8 · .7310586 + .2 · .2689414 = .6386351
        (forward(0.2), 1.0, 0.0, 1.0178673),  # −log .3613649
        (forward(0.2), -1000.0, 1.0, 1.6094379),  # −log .2: no label costs more
        (forward(0.0), 1.0, 0.8, 0.5132617),  # plain
        (backward(0.2), 0.0, 1.0, math.log(2)),
        (backward(0.2), 1.0, 1.0, -0.0200716),  # (.8 · .3132617 − .2 · 1.3132617) / .6
        (backward(0.2), 1.0, 0.5, 0.8132617),  # ½ on both sides stays: ½ · (.3132617 + 1.3132617)
        (losses.symmetric, 1.0, 1.0, 1 - SIGMA_1),
        (losses.symmetric, 1.0, 0.25, 0.25 * (1 - SIGMA_1) + 0.75 * SIGMA_1),
        (losses.symmetric, -1000.0, 1.0, 1.0),
    ],
)
def test_pair_losses_by_hand(loss: Loss, d: float, p: float, expected: float) -> None:
    assert loss(T([d]), T([p])).item() == pytest.approx(expected, abs=2e-6)


PAIR_LOSSES = [losses.bradley_terry, forward(0.1), forward(0.3), backward(0.2), losses.symmetric]


@pytest.mark.parametrize("loss", PAIR_LOSSES)
def test_swapping_the_pair_changes_nothing(loss: Loss) -> None:
    d, p = torch.randn(64, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 1, 64)
    assert torch.allclose(loss(d, p), loss(-d, 1 - p), atol=1e-6)


def test_backward_correction_is_unbiased() -> None:
    """The mean over labels flipped at rate ε is the loss on the true label."""
    d, rate = torch.linspace(-4, 4, 9), 0.3
    right, wrong = (losses.backward_corrected(d, T([p]), rate) for p in (1.0, 0.0))
    assert torch.allclose((1 - rate) * right + rate * wrong, losses.bradley_terry(d, T([1.0])), atol=1e-6)


def test_forward_correction_is_least_at_the_true_difference() -> None:
    """Labels that are right at rate 1 − ε where the truth is σ(d): the expected loss has its minimum at d."""
    truth, rate = T([0.9]), 0.2
    seen = losses.smoothed(truth, rate)  # .8 · .9 + .2 · .1 = .74
    assert seen.item() == pytest.approx(0.74)
    d = torch.log(truth / (1 - truth)).requires_grad_()
    losses.forward_corrected(d, seen, rate).sum().backward()
    assert d.grad is not None and abs(d.grad.item()) < 1e-6


def test_symmetric_loss_has_one_minimiser_whatever_the_noise() -> None:
    d = torch.linspace(-3, 3, 13)
    clean = losses.symmetric(d, T([1.0]))
    noisy = losses.symmetric(d, losses.smoothed(T([1.0]), 0.3))
    assert torch.allclose(noisy, 0.4 * clean + 0.3, atol=1e-6)  # (1 − 2ε) L + ε


def test_plackett_luce_by_hand() -> None:
    scores = T([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 99.0], [5.0, 7.0, 7.0]])
    present = T([[True, True, True], [True, True, True], [True, True, False], [True, False, False]])
    expected = [
        (math.log(1 + math.exp(-1) + math.exp(-2)) + math.log(1 + math.exp(-1))) / 2,
        (math.log(3) + math.log(2)) / 2,
        math.log(1 + math.exp(-1)),  # two candidates: Bradley–Terry; padding says nothing
        0.0,  # one candidate: no choice
    ]
    assert losses.plackett_luce(scores, present).tolist() == pytest.approx(expected, abs=1e-6)


def test_plackett_luce_has_finite_gradients_beside_padding() -> None:
    scores = T([[1.0, 0.0, 0.0, 0.0], [0.5, 2.0, 1.0, 0.0]]).requires_grad_()
    present = T([[True, True, False, False], [True, True, True, False]])
    losses.plackett_luce(scores, present).sum().backward()
    assert scores.grad is not None and bool(scores.grad.isfinite().all())
    assert scores.grad[0, 2:].tolist() == [0, 0] and scores.grad[0, 0].item() == pytest.approx(SIGMA_1 - 1, abs=1e-6)


def test_centring_by_hand() -> None:
    scores, present = T([[3.0, -1.0, 9.0], [1.0, 2.0, 3.0]]), T([[True, True, False], [True, True, True]])
    assert losses.centring(scores, present).tolist() == [4.0, 16.0]  # (3 − 1)², (2 · 2)²


def test_masked_squared_error_by_hand() -> None:
    predicted = T([[1.0, 2.0], [0.0, 5.0], [3.0, 3.0]]).requires_grad_()
    target = T([[0.0, NAN], [2.0, 4.0], [NAN, NAN]])
    loss = losses.masked_squared_error(predicted, target, T([1.5, 3.0]))
    assert loss.tolist() == pytest.approx([0.75, (1.5 * 4 + 3) / 2, 0.0])  # (1.5 · 1) / 2, …
    loss.sum().backward()
    assert predicted.grad is not None and predicted.grad.tolist() == [[1.5, 0.0], [-3.0, 3.0], [0.0, 0.0]]
