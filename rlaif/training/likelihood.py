"""How likely a causal LM in a folder finds given completions, token by token; KL of two policies from that.

Only token ids come in, as the policy met them: prompt ids, and the ids that it wrote (rlaif.training.tokens).
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rlaif.errors import ConfigError, one_line
from rlaif.training.guard.monitors import kl_of
from rlaif.training.tokens import Ids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_Name = TypeVar("_Name")
_BATCH_TOKENS = 4096  # rows × longest of a forward pass: its logits are that times the vocabulary


class Texts(NamedTuple):
    """N prompts with completions. `temperature`: log-probs are of softmax(logits / temperature)."""

    rows: Sequence[Ids]
    temperature: float = 1.0


class KL(NamedTuple):
    """Of N completions that π wrote: estimates of KL(π ‖ π_start) in nats, sums over the tokens of each (see
    `guard.monitors.kl_of`), and how many tokens that were."""

    k1: list[float]  # (N,)
    k3: list[float]
    tokens: list[int]


def kl(ours: Sequence[Floats], start: Sequence[Floats]) -> KL:
    """From log-probs of the same completions under both, N arrays of as many numbers as tokens."""
    pairs = [kl_of(a.tolist(), b.tolist()) for a, b in zip(ours, start, strict=True)]
    return KL([k1 for k1, _ in pairs], [k3 for _, k3 in pairs], [len(row) for row in ours])


def log_likelihoods(
    folder: Path, asked: Mapping[_Name, Texts], *, dtype: str = "auto", device: str = "auto"
) -> dict[_Name, list[Floats]]:
    """Name → for each completion (T,) log p(token | what came before), nats. The model is loaded for that and freed.

    `dtype: auto` is the checkpoint's own, but float32 on a CPU, as in the engine. Errors: ConfigError for a folder
    that does not load, and for a sequence longer than the model takes: it is never cut.
    """
    import torch

    model = _loaded(folder, dtype, device)
    try:
        return {name: _of(model, texts, folder) for name, texts in asked.items()}
    finally:
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _loaded(folder: Path, dtype: str, device: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    wanted = "float32" if dtype == "auto" and where == "cpu" else dtype
    try:
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=wanted, use_safetensors=True)
        return model.eval().requires_grad_(False).to(where)
    except Exception as error:  # transformers and torch raise errors of every kind here
        raise ConfigError(f"{folder}: cannot load this policy: {one_line(error)}") from None


def _of(model: Any, texts: Texts, folder: Path) -> list[Floats]:
    """In batches of similar length; a row's log-probs move in their last digits with its neighbours."""
    import torch

    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max((len(row.whole) for row in texts.rows), default=0)
    if limit is not None and longest > limit:
        raise ConfigError(f"{folder}: a prompt and completion of {longest} tokens, this model takes {limit}")
    found: list[Any] = [None] * len(texts.rows)
    order = sorted(range(len(texts.rows)), key=lambda at: len(texts.rows[at].whole))
    with torch.inference_mode():
        for batch in _batches(order, texts.rows):
            for at, values in zip(batch, _forward(model, [texts.rows[at] for at in batch], texts), strict=True):
                found[at] = values
    return found


def _batches(order: Sequence[int], rows: Sequence[Ids]) -> list[list[int]]:
    batches: list[list[int]] = []
    for at in order:  # ascending: the next row is the longest of its batch
        room = _BATCH_TOKENS // max(1, len(rows[at].whole))
        if batches and len(batches[-1]) < room:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


def _forward(model: Any, rows: Sequence[Ids], texts: Texts) -> list[Floats]:
    import torch

    wide = max(len(row.whole) for row in rows)
    ids = torch.zeros((len(rows), wide), dtype=torch.long)  # padded on the right: no real token sees it
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row.whole)], mask[at, : len(row.whole)] = torch.tensor(row.whole), 1
    logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
    found = []
    for at, row in enumerate(rows):  # a row at a time: the float copy is its own size only
        start, end = len(row.prompt), len(row.whole)
        scaled = logits[at, start - 1 : end - 1].float() / texts.temperature
        chosen = ids[at, start:end, None].to(scaled.device)
        found.append(scaled.log_softmax(-1).gather(-1, chosen)[:, 0].double().cpu().numpy())
    return found
