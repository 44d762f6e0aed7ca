"""The value model: a submodule of the policy that is reached through the policy's own forward.

One module for DDP, FSDP and the optimizer, one checkpoint; `forward(…, critic_forward=True)` is the critic.
"""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import Any

from rlaif.errors import ConfigError, one_line

FOLDER = "critic"
PREFIX = "critic."


def load_critic(source: str | Path, pad_token_id: int | None, device: Any) -> Any:
    """A token classifier with one output. A reward model's head is kept, a policy gets a new one of zeros.

    `score` of a sequence classifier becomes the head of every token. Several heads (a multi-head reward model) are
    averaged. Errors: ConfigError.
    """
    import torch
    from transformers import AutoConfig, AutoModelForTokenClassification

    try:
        config = AutoConfig.from_pretrained(source)
        heads = config.num_labels if _is_classifier(config) else 0
        critic = AutoModelForTokenClassification.from_pretrained(
            source, num_labels=max(1, heads), dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"critic: cannot load {source} as a value model: {one_line(error)}") from error
    with torch.no_grad():
        weight = critic.score.weight
        head = torch.nn.Linear(weight.size(1), 1)
        head.weight.copy_(weight.float().mean(0, keepdim=True) if heads else torch.zeros_like(head.weight))
        head.bias.zero_()
    critic.score, critic.config.num_labels, critic.num_labels = head, 1, 1
    critic.config.pad_token_id = pad_token_id
    for module in critic.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return critic.to(device)


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


def split_state(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the policy's weights, the critic's without their prefix)."""
    policy = {name: value for name, value in state.items() if not name.startswith(PREFIX)}
    critic = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    return policy, critic
