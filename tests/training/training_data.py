"""A random tiny Llama with a chat template, and preference datasets it can learn from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]


def pairs(n: int, **columns: Any) -> list[dict[str, Any]]:
    """Chosen says yes, rejected says no: easy to learn."""
    return [
        {
            "prompt": [{"role": "user", "content": f"is it good {i}"}],
            "chosen": [{"role": "assistant", "content": f"yes {'very ' * (i % 3)}good"}],
            "rejected": [{"role": "assistant", "content": f"no {'not ' * (i % 4)}good"}],
            "probability": 0.9,
            "judge_margin": 0.8,
            **columns,
        }
        for i in range(n)
    ]


def build_model(folder: Path, *, template: str | None = TEMPLATE, pad: bool = True, end: bool = True) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        ["is it good yes no very not"],
        trainers.BpeTrainer(vocab_size=280, special_tokens=SPECIAL, initial_alphabet=alphabet),
    )
    names = ({"pad_token": "<|pad|>"} if pad else {}) | ({"eos_token": "<|end|>"} if end else {})
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
