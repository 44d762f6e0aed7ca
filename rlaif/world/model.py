"""The tiny models: plain Llama, trained in float32, stored in bfloat16, loaded by the Auto classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.world.tokenizer import MAX_LENGTH

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

HEAD_SIZE = 32  # vLLM's CPU build takes 32 or 64, nothing smaller


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama; the number of heads follows from the hidden size."""

    hidden: int
    layers: int
    feed_forward: int


JUDGE_SHAPE = Shape(hidden=96, layers=4, feed_forward=256)
SECOND_JUDGE_SHAPE = Shape(hidden=128, layers=3, feed_forward=320)
POLICY_SHAPE = Shape(hidden=96, layers=3, feed_forward=256)


def new_model(tokenizer: PreTrainedTokenizerFast, shape: Shape, seed: int) -> Any:
    """A fresh `LlamaForCausalLM`; the wide initialiser is what lets so small a model start to learn."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = shape.hidden // HEAD_SIZE
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=MAX_LENGTH,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.06,
    )
    return LlamaForCausalLM(config)


def save_model(model: Any, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights (bfloat16 safetensors), configs and tokenizer. The module itself is left in float32."""
    import copy

    import torch
    from transformers import GenerationConfig

    folder.mkdir(parents=True, exist_ok=True)
    stored = copy.deepcopy(model).to(torch.bfloat16)
    stored.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, max_new_tokens=96
    )
    stored.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def load(folder: Path) -> tuple[Any, Any]:
    """(model in float32 and eval mode, tokenizer) from a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), tokenizer


def optimizer_for(modules: list[Any], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW (0.9, 0.98); matrices decay, vectors do not."""
    import torch

    parameters = [p for module in modules for p in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
