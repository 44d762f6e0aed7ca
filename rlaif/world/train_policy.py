"""Train the tiny policy: plain next-token training on the answers of an imperfect help desk."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from rlaif.world.grammar import POLICY_MIX, write_response
from rlaif.world.model import POLICY_SHAPE, new_model, optimizer_for, save_model
from rlaif.world.prompts import sample_prompt
from rlaif.world.tokenizer import ASSISTANT, END, USER, build_tokenizer

DEFAULT_STEPS = 2200
_BATCH, _BATCHES_PER_DRAW = 32, 20
_LR, _WARMUP, _WEIGHT_DECAY = 3e-3, 60, 0.02
_IGNORE = -100


def train_policy(folder: Path, seed: int, steps: int = DEFAULT_STEPS) -> None:
    """Train from scratch and save to `folder`."""
    import torch

    tokenizer = build_tokenizer()
    model = new_model(tokenizer, POLICY_SHAPE, seed)
    optimizer = optimizer_for([model], _LR, _WEIGHT_DECAY)
    rng = random.Random(f"policy/{seed}")
    queue: list[list[list[int]]] = []
    started = time.perf_counter()
    for step in range(steps):
        queue = queue or _draw(rng, tokenizer)
        for group in optimizer.param_groups:
            group["lr"] = _LR * min(1.0, (step + 1) / _WARMUP) * max(0.02, 1 - step / steps)
        loss = _loss(model, queue.pop(), tokenizer.pad_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}/{steps} {time.perf_counter() - started:.0f} s loss {loss.item():.3f}", flush=True)
    save_model(model, tokenizer, folder)


def _draw(rng: random.Random, tokenizer: Any) -> list[list[list[int]]]:
    """Batches of token ids, of like length within a batch."""
    texts = []
    for _ in range(_BATCH * _BATCHES_PER_DRAW):
        prompt = sample_prompt(rng, "train")
        texts.append(f"{USER}{prompt.text}{END}{ASSISTANT}{write_response(rng, prompt, 'train', POLICY_MIX)}{END}")
    rows = sorted(tokenizer(texts, add_special_tokens=False)["input_ids"], key=len)
    batches = [rows[i : i + _BATCH] for i in range(0, len(rows), _BATCH)]
    rng.shuffle(batches)
    return batches


def _loss(model: Any, rows: list[list[int]], pad_id: int) -> Any:
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [_IGNORE] * (width - len(row)) for row in rows])
    logits = model(input_ids=ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORE)
