"""The value model: a submodule of the policy that is reached through the policy's own forward.

One module for DDP, FSDP and the optimizer, one checkpoint; `forward(…, critic_forward=True)` is the critic.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.errors import ConfigError, one_line

FOLDER = "critic"
PREFIX = "critic."


class Head(NamedTuple):
    """The reward as a linear function of a reward model's K outputs: Σ weights_k · output_k + bias."""

    weights: list[float]
    bias: float


def load_critic(source: str | Path, pad_token_id: int | None, head: Head | None = None) -> Any:
    """A token classifier with one output. A reward model's head is kept, a policy gets a new one of zeros.

    `score` of a sequence classifier becomes the head of every token. head: how K heads become one; default: their
    mean. Errors: ConfigError.
    """
    import torch
    from transformers import AutoConfig, AutoModelForTokenClassification
    from transformers.utils import logging

    told = logging.get_verbosity()
    logging.set_verbosity_error()  # that the head is new is meant
    try:
        config = AutoConfig.from_pretrained(source)
        heads = config.num_labels if _is_classifier(config) else 0
        critic = AutoModelForTokenClassification.from_pretrained(
            source, num_labels=max(1, heads), dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"critic: cannot load {source} as a value model: {one_line(error)}") from error
    finally:
        logging.set_verbosity(told)
    score = critic.score.weight.float() if heads else torch.zeros(1, critic.score.weight.size(1))
    critic.score, critic.config.num_labels, critic.num_labels = value_head(score, head), 1, 1
    critic.config.pad_token_id = pad_token_id
    for module in critic.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return critic


def value_head(score: Any, head: Head | None = None) -> Any:
    """Linear, (…, hidden) → (…, 1), from the weights of K scores, (K, hidden)."""
    import torch

    mix = torch.tensor(head.weights) if head else torch.full((score.size(0),), 1 / score.size(0))
    made = torch.nn.Linear(score.size(1), 1)
    with torch.no_grad():
        made.weight.copy_((mix[:, None] * score.float()).sum(0, keepdim=True))
        made.bias.fill_(head.bias if head else 0.0)
    return made


def _is_classifier(config: Any) -> bool:
    return any(
        "SequenceClassification" in name or "TokenClassification" in name for name in config.architectures or []
    )


def attach(model: Any, critic: Any) -> None:
    """Make `critic` reachable as `model(..., critic_forward=True)` and as `model.critic`."""
    model.add_module(FOLDER, critic)
    policy_forward = model.forward

    @functools.wraps(getattr(policy_forward, "__func__", policy_forward))
    def forward(self: Any, *args: Any, critic_forward: bool = False, **kwargs: Any) -> Any:
        return self.critic(*args, **kwargs) if critic_forward else policy_forward(*args, **kwargs)

    model.forward = types.MethodType(forward, model)


@contextmanager
def detached(model: Any) -> Iterator[None]:
    """Within, `model` has no critic among its modules and parameters: for what wants the policy alone."""
    critic = model._modules.pop(FOLDER)
    try:
        yield
    finally:
        model._modules[FOLDER] = critic


def split_state(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the policy's weights, the critic's without their prefix)."""
    policy = {name: value for name, value in state.items() if not name.startswith(PREFIX)}
    critic = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    return policy, critic
