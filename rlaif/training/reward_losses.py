"""Losses of reward models, as pure functions of tensors.

Pairs: d = r(chosen) − r(rejected), (B,), and p = P(chosen is the better one), (B,) in [0, 1]; all of them are
written for one pair and return (B,). σ is the logistic function, ℓ(x) = −log σ(x).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def smoothed(probability: Tensor, label_smoothing: float) -> Tensor:
    """p' = (1 − ε)·p + ε·(1 − p): what the label says if a share ε of labels is the wrong way round.

    label_smoothing: ε in [0, ½). With p = 1 the cross-entropy on p' is conservative DPO's (Mitchell 2023, "A note on
    DPO with noisy preferences").
    """
    return probability * (1 - 2 * label_smoothing) + label_smoothing


def bradley_terry(difference: Tensor, probability: Tensor) -> Tensor:
    """Cross-entropy between the label and the Bradley–Terry model σ(d).

        L = p · ℓ(d) + (1 − p) · ℓ(−d)

    With p = 1 it is eq. 1 of InstructGPT (Ouyang et al. 2022, 2203.02155) for one pair and what TRL trains on; with
    p in between, RLAIF's soft labels (Lee et al. 2023, 2309.00267, section 2.2). It is least at d = log(p / (1 − p)).
    """
    from torch.nn.functional import softplus  # ℓ(x) = softplus(−x), without overflow

    return probability * softplus(-difference) + (1 - probability) * softplus(difference)


def forward_corrected(difference: Tensor, probability: Tensor, flip_rate: float) -> Tensor:
    """Cross-entropy between the label and what a labeller who errs at random would say.

        q = (1 − ε) · σ(d) + ε · σ(−d)
        L = −p · log q − (1 − p) · log(1 − q)

    flip_rate: ε in [0, ½), the share of labels that are the wrong way round. The forward correction of Patrini et
    al. 2017 (1609.03683, eq. 7 onwards) for two classes; Christiano et al. 2017 (1706.03741, section 2.2.3) train
    their reward model so, with ε = .05. A label that the model finds impossible costs −log ε at most and pulls less
    and less, unlike under plain Bradley–Terry; ε = 0 is plain.
    """
    from torch import logaddexp
    from torch.nn.functional import logsigmoid

    if flip_rate == 0:
        return bradley_terry(difference, probability)
    right, wrong = logsigmoid(difference), logsigmoid(-difference)
    log = difference.new_tensor([1 - flip_rate, flip_rate]).log()
    log_q = logaddexp(log[0] + right, log[1] + wrong)
    log_not_q = logaddexp(log[1] + right, log[0] + wrong)
    return -probability * log_q - (1 - probability) * log_not_q


def backward_corrected(difference: Tensor, probability: Tensor, flip_rate: float) -> Tensor:
    """The unbiased estimate of the loss on the true labels: its mean over flips at rate ε is Bradley–Terry's.

        L = [(1 − ε) · ℓ(d) − ε · ℓ(−d)] / (1 − 2ε)          for p = 1, and linear in p

    flip_rate: ε in [0, ½). rDPO's loss (Chowdhury et al. 2024, 2403.00409, eq. 12) with rewards for log-ratios; the
    backward correction of Natarajan et al. 2013. TRL's `robust`. It is not bounded below: a model that can tell the
    pairs apart drives d to infinity, so it needs few epochs.
    """
    return bradley_terry(difference, (probability - flip_rate) / (1 - 2 * flip_rate))


def symmetric(difference: Tensor, probability: Tensor) -> Tensor:
    """The probability that the model gives to the wrong answer.

        L = p · σ(−d) + (1 − p) · σ(d)

    L(d) + L(−d) = 1, and a loss with this property has the same minimiser with or without labels flipped at random
    (Ghosh et al. 2017, 1712.09482, theorem 1), whatever the rate. It ranks and does not calibrate: for p above ½ it
    is least at d = ∞. Its gradient vanishes on pairs that the model gets very wrong, so it is slow to start.
    """
    from torch import sigmoid

    return probability * sigmoid(-difference) + (1 - probability) * sigmoid(difference)


def plackett_luce(scores: Tensor, present: Tensor) -> Tensor:
    """Negative log-likelihood of a ranking, a mean over its choices.

        L = −1/(n − 1) · Σ_{i<n} [s_i − log Σ_{j≥i} exp s_j]

    scores: (B, N), best candidate first; present: (B, N) true where there is a candidate, padding last; returns (B,).
    Plackett 1975, Luce 1959; as a training loss ListMLE (Xia et al. 2008). With two candidates it is Bradley–Terry.
    """
    hidden = scores.masked_fill(~present, float("-inf"))
    left = hidden.flip(-1).logcumsumexp(-1).flip(-1)  # log Σ_{j≥i} exp s_j
    chosen = present[:, 1:]  # a choice is made where another candidate follows
    losses = (left[:, :-1] - scores[:, :-1]).masked_fill(~chosen, 0.0)
    return losses.sum(-1) / chosen.sum(-1).clamp(min=1)


def centring(scores: Tensor, present: Tensor) -> Tensor:
    """(2 · mean score)², which keeps rewards around 0: for a pair (r_chosen + r_rejected)², eq. 2 of Eisenstein et
    al. 2023 (2312.09244) and TRL's `center_rewards_coefficient`. scores, present: (B, N); returns (B,)."""
    total = scores.masked_fill(~present, 0.0).sum(-1)
    return (2 * total / present.sum(-1).clamp(min=1)) ** 2


def masked_squared_error(predicted: Tensor, target: Tensor, head_weight: Tensor) -> Tensor:
    """Squared error over the heads that were judged.

        L = 1/K · Σ_k w_k · (ŷ_k − y_k)²            over k with y_k judged

    predicted: (B, K); target: (B, K), NaN where not judged; head_weight: (K,), 1 / share of rows in which the head is
    judged: then every head counts the same however rarely it is judged, and a batch's loss does not depend on how
    rows fall on processes. Returns (B,).
    """
    from torch import where, zeros_like

    judged = ~target.isnan()
    error = where(judged, predicted - where(judged, target, zeros_like(target)), zeros_like(predicted))
    return (head_weight * error**2).mean(-1)
