"""Losses that TRL does not have, as pure functions of tensors.

TRL's own pairwise losses are here too, as functions of one number a pair, because two things can be done with such a
function that TRL does not do: it can be expected under a soft label, and each pair can have a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


def soft_dpo_loss(logits: Tensor, probability: Tensor) -> Tensor:
    """The DPO loss expected when the chosen response is the better one only with `probability`; per pair.

        L = −p · log σ(h) − (1 − p) · log σ(−h)

    logits: (B,) h = β · [(log π(chosen) − log π_ref(chosen)) − (log π(rejected) − log π_ref(rejected))], the argument
    of σ in eq. 7 of DPO (Rafailov et al. 2023, 2305.18290). probability: (B,) in [0, 1]. Returns (B,).
    With one p = 1 − ε for all pairs it is conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences");
    soft AI labels as targets of a cross-entropy are RLAIF's (Lee et al. 2023, 2309.00267). It is least at
    h = log(p / (1 − p)), so an uncertain pair stops pulling at a finite margin.
    """
    return expected(sigmoid_loss(logits), sigmoid_loss(-logits), probability)


def expected(loss: Tensor, swapped: Tensor, probability: Tensor) -> Tensor:
    """A pair's loss when its label is right only with `probability`: p · loss + (1 − p) · swapped.

    loss, swapped: (B,) of the pair as it is labelled and with its two responses exchanged. Returns (B,).
    """
    return probability * loss + (1 - probability) * swapped


def moved(probability: Tensor, smoothing: float) -> Tensor:
    """(1 − ε) · p + ε · (1 − p): what is known of a label of which a share ε is taken to be on the wrong side.

    From p = 1 it gives conservative DPO's 1 − ε. Szegedy et al. 2016 (1512.00567), sec. 7, for two classes.
    """
    return (1 - smoothing) * probability + smoothing * (1 - probability)


def sigmoid_loss(h: Tensor) -> Tensor:
    """−log σ(h): DPO, eq. 7 of Rafailov et al. 2023 (2305.18290); h as in `soft_dpo_loss`."""
    from torch.nn.functional import softplus  # −log σ(x) = softplus(−x), without overflow

    return softplus(-h)


def hinge_loss(h: Tensor) -> Tensor:
    """max(0, 1 − h): SLiC's hinge (Zhao et al. 2023, 2305.10425) on the normalised margin h, as RSO has it
    (Liu et al. 2023, 2309.06657)."""
    return (1 - h).relu()


def ipo_loss(h: Tensor, beta: float) -> Tensor:
    """(h/β − 1/(2β))²: IPO (Azar et al. 2023, 2310.12036, eq. 17), where β is its τ and h/β the difference of the
    responses' mean log-ratios per token, as TRL has it."""
    return (h / beta - 1 / (2 * beta)) ** 2


def robust_loss(h: Tensor, flip_rate: float) -> Tensor:
    """[−(1 − ε) · log σ(h) + ε · log σ(−h)] / (1 − 2ε): Robust DPO (Ray Chowdhury et al. 2024, 2403.00409).

    Its mean over labels that are flipped with probability ε is the clean sigmoid loss. flip_rate: ε in [0, ½).
    """
    clean, flipped = sigmoid_loss(h), sigmoid_loss(-h)
    return ((1 - flip_rate) * clean - flip_rate * flipped) / (1 - 2 * flip_rate)


class Pairwise(NamedTuple):
    """A loss that is a function of one number a pair. `per_token`: the log-ratios are divided by the responses'
    lengths first. `loss`: of h (B,), β and the ε of TRL's `label_smoothing`."""

    loss: Callable[[Tensor, float, float], Tensor]
    per_token: bool = False


PAIRWISE: dict[str, Pairwise] = {  # by TRL's names
    "sigmoid": Pairwise(lambda h, beta, epsilon: sigmoid_loss(h)),
    # length-normalised: Lambert et al. 2024 (2411.15124)
    "sigmoid_norm": Pairwise(lambda h, beta, epsilon: sigmoid_loss(h), per_token=True),
    "hinge": Pairwise(lambda h, beta, epsilon: hinge_loss(h)),
    "ipo": Pairwise(lambda h, beta, epsilon: ipo_loss(h, beta), per_token=True),
    "robust": Pairwise(lambda h, beta, epsilon: robust_loss(h, epsilon)),
}


def preference_loss(
    logps: Tensor,
    ref_logps: Tensor,
    lengths: Tensor,
    probability: Tensor,
    weight: Tensor,
    types: Sequence[tuple[str, float]],
    *,
    beta: float,
    epsilon: float = 0.0,
    chosen_tokens: Tensor | None = None,
) -> Tensor:
    """The loss of a batch of B pairs: Σ_k c_k · mean_i w_i · [p_i · L_k(h_i) + (1 − p_i) · L_k(−h_i)]; a scalar.

    logps, ref_logps: (2B,) log π and log π_ref of the responses, the chosen ones first, in nats, summed over their
    tokens; lengths: (2B,) their tokens; probability, weight: (B,). types: TRL's names (`PAIRWISE`, and "sft") with
    their coefficients c_k. "sft" is TRL's term, whatever the label: the mean over the chosen responses' tokens of
    −log π, here with w_i on the tokens of pair i. chosen_tokens: what that sum is divided by, where the batch is one
    process's part of a larger one; default: the chosen responses' tokens in this batch.
    """
    ratios = logps - ref_logps
    per_token = ratios / lengths.clamp(min=1)
    total = logps.new_zeros(())
    for name, coefficient in types:
        if name == "sft":
            chosen, n_tokens = logps.chunk(2)[0], lengths.chunk(2)[0]
            divisor = n_tokens.sum() if chosen_tokens is None else chosen_tokens
            total = total - coefficient * (weight * chosen).sum() / divisor
            continue
        kind = PAIRWISE[name]
        chosen, rejected = (per_token if kind.per_token else ratios).chunk(2)
        h = beta * (chosen - rejected)
        loss = expected(kind.loss(h, beta, epsilon), kind.loss(-h, beta, epsilon), probability)
        total = total + coefficient * (weight * loss).mean()
    return total
