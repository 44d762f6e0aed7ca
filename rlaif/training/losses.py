"""Losses that TRL does not have, as pure functions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from torch.nn.functional import softplus  # −log σ(x) = softplus(−x), without overflow

    return probability * softplus(-logits) + (1 - probability) * softplus(logits)
