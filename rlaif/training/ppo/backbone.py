"""One frozen base for four roles: policy, critic and reward models are LoRA adapters over it, the reference is none.

The base is the policy before PPO, with SFT merged in (what `rlaif train sft` writes), so that with adapters off it is
the reference, and KL is 0 at the first step. Reward models must have been trained with `lora` on that same folder.
A base may be quantised (`quantization`), which nobody has tried here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from rlaif.config.training import PPOSection, RewardSource
from rlaif.digests import path_sha256
from rlaif.errors import ConfigError, one_line
from rlaif.training.data import located
from rlaif.training.ppo.critic import FOLDER, Head, value_head
from rlaif.training.rewards import weights_of
from rlaif.training.scoring import RewardScorer, load_reward
from rlaif.training.workspace import TRAINING_FILE

POLICY = "default"  # what TRL calls the adapter that it trains
CRITIC = FOLDER  # peft saves it in a folder of this name, beside the policy's


class Backbone:
    """Made before the trainer: `scorer` gives scorers that work once `critic` has met the trainer's model."""

    def __init__(self, section: PPOSection, tokenizer: Any, where: str) -> None:
        self._section, self._tokenizer, self._where = section, tokenizer, where
        self._adapters: dict[str, _Adapter] = {}
        self._scorers: list[RewardScorer] = []
        self._model = _Switchable()

    def scorer(self, source: RewardSource) -> RewardScorer:
        """Errors: ConfigError for a reward model that is no adapter over this base."""

        def adapter(part: str) -> tuple[Any, Any]:
            name = f"reward{len(self._adapters)}"
            self._adapters[name] = _Adapter.load(Path(part), self._section.model, self._where)
            config = _classifier_config(part, self._tokenizer.pad_token_id)
            return _Scores(self._model, name, self._adapters[name].score, config), _tokenizer_of(part)

        found = load_reward(
            located(str(source.model)), weights=weights_of(source), pessimism=source.pessimism, classifier=adapter
        )
        found.check_policy(self._tokenizer)
        self._scorers.append(found)
        return found

    def critic(self, model: Any) -> nn.Module:
        """Puts all adapters onto `model`, the policy with its own; returns the value head over the critic's."""
        first = next(iter(self._adapters.values()), None)
        if first is None:
            model.add_adapter(CRITIC, model.peft_config[POLICY])
            head = value_head(torch.zeros(1, model.config.get_text_config().hidden_size))
        else:
            first.put(model, CRITIC)
            head = value_head(first.score, Head(*self._scorers[0].linear()))
        for name, adapter in self._adapters.items():
            adapter.put(model, name)
        model.set_adapter(POLICY)
        self._model.bind(model)
        critic = BackboneCritic(
            self._model, head, [w for name, w in model.named_parameters() if f".{CRITIC}." in name]
        )
        for weight in critic.parameters():
            weight.requires_grad_(True)
        return critic


class _Adapter:
    """What `rlaif train reward` with `lora` left in FOLDER/adapter: a LoRA and the scores' head, (K, hidden)."""

    def __init__(self, config: Any, weights: dict[str, Any], score: Any) -> None:
        self._config, self._weights, self.score = config, weights, score

    @classmethod
    def load(cls, folder: Path, policy: str, where: str) -> _Adapter:
        """Errors: ConfigError for a folder without an adapter, or one over another base than `policy`."""
        from peft import PeftConfig
        from safetensors.torch import load_file

        path = folder / "adapter"
        if not (path / "adapter_model.safetensors").is_file():
            raise ConfigError(f"{where}: {folder}: no adapter there; train this reward model with lora on {policy}")
        _check_base(folder, policy, where)
        config = PeftConfig.from_pretrained(str(path))
        if getattr(config, "bias", "none") != "none":
            raise ConfigError(f"{where}: {path}: an adapter with bias {config.bias!r} cannot lie beside others")
        # the same modules of the same base; its dropout was for its own training
        config.task_type, config.modules_to_save, config.lora_dropout = "CAUSAL_LM", None, 0.0
        found = load_file(path / "adapter_model.safetensors")
        scores = [value for name, value in found.items() if ".score." in name]
        return cls(config, {name: value for name, value in found.items() if ".score." not in name}, scores[0])

    def put(self, model: Any, name: str) -> None:
        """Onto `model` as the adapter `name`, frozen."""
        from peft import set_peft_model_state_dict

        model.add_adapter(name, self._config)
        told = set_peft_model_state_dict(model, self._weights, adapter_name=name)
        assert not told.unexpected_keys, told.unexpected_keys  # the same base has the same modules
        for key, weight in model.named_parameters():
            if f".{name}." in key:
                weight.requires_grad_(False)


def _check_base(folder: Path, policy: str, where: str) -> None:
    try:
        record = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}: {folder / TRAINING_FILE}: cannot read: {one_line(error)}") from None
    same = record["model_sha256"] == (path_sha256(Path(policy)) or None)
    if not same or (record["model_sha256"] is None and record["model"] != policy):
        raise ConfigError(
            f"{where}: {folder} is an adapter over {record['model']}, the policy is {policy}: both must lie over the "
            "same weights"
        )


class _Switchable:
    """A model whose forward can run through any one of its adapters, without a weight being frozen or thawed."""

    def __init__(self) -> None:
        self._backbone: Any = None
        self._layers: list[Any] = []

    def bind(self, model: Any) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        base = model.get_base_model()
        self._backbone = getattr(base, base.base_model_prefix)
        self._layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]

    @contextmanager
    def through(self, adapter: str) -> Iterator[None]:
        """peft's own `set_adapter` would also set which weights require a gradient, in the middle of a step."""
        before = [layer._active_adapter for layer in self._layers]
        for layer in self._layers:
            layer._active_adapter = [adapter]
        try:
            yield
        finally:
            for layer, name in zip(self._layers, before, strict=True):
                layer._active_adapter = name

    def hidden(self, adapter: str, input_ids: Any, attention_mask: Any) -> Any:
        """(B, T, hidden) of the last layer."""
        with self.through(adapter):
            out = self._backbone(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return out.last_hidden_state

    @property
    def device(self) -> Any:
        return next(self._backbone.parameters()).device


class BackboneCritic(nn.Module):
    """A value of every token: the backbone through the critic's adapter, and a linear head.

    The adapter's weights belong to the policy's module and are saved with it by peft; `parameters` names them too,
    so that they get the critic's learning rate and clipping.
    """

    def __init__(self, model: _Switchable, head: nn.Linear, adapter: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.score = head
        self._model, self._adapter = model, list(adapter)

    def forward(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        hidden = self._model.hidden(CRITIC, input_ids, attention_mask)
        return SimpleNamespace(logits=self.score(hidden.float()))

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        yield from super().parameters(recurse)
        yield from self._adapter

    def save_pretrained(self, folder: str, state_dict: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        Path(folder).mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in state_dict.items()}, f"{folder}/model.safetensors")


class _Scores:
    """A reward model as `scoring.predict` knows one: (N, T) padded on the right → logits (N, K)."""

    def __init__(self, model: _Switchable, adapter: str, score: Any, config: Any) -> None:
        self._model, self._adapter, self._score, self.config = model, adapter, score, config

    def parameters(self) -> Iterator[Any]:
        yield torch.empty(0, device=self._model.device)  # all that is asked of it is where it is

    def __call__(self, input_ids: Any, attention_mask: Any, **_: Any) -> Any:
        hidden = self._model.hidden(self._adapter, input_ids, attention_mask)
        positions = torch.arange(input_ids.size(1), device=input_ids.device)
        last = (positions * (input_ids != self.config.pad_token_id)).argmax(1)  # as transformers' classifiers pool
        pooled = hidden[torch.arange(hidden.size(0), device=hidden.device), last].float()
        return SimpleNamespace(logits=pooled @ self._score.float().to(pooled.device).T)


def _classifier_config(part: str, pad_token_id: int | None) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(part)
    if config.pad_token_id is None:
        config.pad_token_id = pad_token_id
    return config


def _tokenizer_of(part: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(part)
