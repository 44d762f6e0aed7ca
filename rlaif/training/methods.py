"""The trainers by name."""

from __future__ import annotations

import importlib

from rlaif.errors import ConfigError
from rlaif.training.fitting import Method

_METHODS = {
    "sft": "rlaif.training.sft:SFT",
    "reward": "rlaif.training.reward:Reward",
    "dpo": "rlaif.training.dpo:DPO",
    "kto": "rlaif.training.kto:KTO",
    "ppo": "rlaif.training.ppo.method:PPO",
    "grpo": "rlaif.training.grpo:GRPO",
}


def method(name: str) -> Method:
    """The method of `train.NAME`. Errors: ConfigError for one that is not there."""
    if name not in _METHODS:
        raise ConfigError(f"train.{name}: no such trainer; there are: {', '.join(_METHODS)}")
    module, _, cls = _METHODS[name].partition(":")
    found: Method = getattr(importlib.import_module(module), cls)()
    return found
