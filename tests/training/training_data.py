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


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two sets of weights are equal, bit for bit."""
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


# dies by SIGKILL once it has written the checkpoint of step 4; arguments: trainer, section, data, out
KILLED = """
import importlib, os, signal, sys
from pathlib import Path
from transformers import Trainer
from rlaif import config

save = Trainer._save_checkpoint
def save_and_die(self, *args, **kwargs):
    save(self, *args, **kwargs)
    if self.state.global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._save_checkpoint = save_and_die
name, section, data, out = sys.argv[1:]
train = getattr(importlib.import_module(f"rlaif.training.{name}"), f"train_{name}")
train(getattr(config, f"{name.upper()}Section").model_validate_json(section), data, Path(out), seed=1)
"""


def killed_after_step_4(trainer: str, section: Any, data: Path, out: Path) -> None:
    import signal
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", KILLED, trainer, section.model_dump_json(), str(data), str(out)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-500:]
    assert not out.exists()
