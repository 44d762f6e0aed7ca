"""What the trainer does with batches: sequences of prompt and completion, minibatches anew, demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Batch = dict[str, Any]


def sequences(batch: Batch) -> tuple[Any, Any, Any]:
    """Token ids and attention of prompt and completion, (B, P + T), and the mask of learned tokens, (B, T)."""
    mask = batch["completion_mask"] * batch.get("tool_mask", 1)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    return ids, torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1), mask.float()


def reshuffled(batches: Sequence[Batch]) -> list[Batch]:
    """The rows of several batches, mixed and cut into as many batches of the same size.

    Draws from torch's global generator, whose state a checkpoint keeps. Values without rows (scalars, None) stay as
    they are; batches that hold anything else (images have several rows each) stay whole.
    """
    n = batches[0]["completion_ids"].size(0)
    by_row = {name for name, value in batches[0].items() if torch.is_tensor(value) and value.dim() > 0}
    if any(batch[name].size(0) != n for batch in batches for name in by_row):
        return list(batches)
    if any(isinstance(value, list | tuple) for value in batches[0].values()):
        return list(batches)
    order = torch.randperm(n * len(batches))
    rows = {name: torch.cat([batch[name] for batch in batches]) for name in by_row}
    rows = {name: value[order.to(value.device)] for name, value in rows.items()}
    return [
        {**batch, **{name: value[at * n : (at + 1) * n] for name, value in rows.items()}}
        for at, batch in enumerate(batches)
    ]


class Demonstrations:
    """Batches of tokenised demonstrations, drawn with a seed; the n-th batch is the same in every run."""

    def __init__(self, rows: Sequence[Any], pad_token_id: int, seed: int) -> None:
        self._rows, self._pad, self._seed, self.drawn = rows, pad_token_id, seed, 0

    def __bool__(self) -> bool:
        return bool(len(self._rows))

    def skip(self, drawn: int) -> None:
        self.drawn = drawn

    def draw(self, n: int, device: Any) -> Batch:
        """input_ids, attention_mask and labels, (n, T), padded on the right."""
        rng = torch.Generator().manual_seed((self._seed << 20) + self.drawn)
        self.drawn += 1
        rows = [self._rows[int(i)] for i in torch.randint(len(self._rows), (n,), generator=rng)]
        pad = torch.nn.utils.rnn.pad_sequence
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        batch = {
            "input_ids": pad(ids, batch_first=True, padding_value=self._pad),
            "attention_mask": pad([torch.ones_like(x) for x in ids], batch_first=True),
            "labels": pad([torch.tensor(row["labels"]) for row in rows], batch_first=True, padding_value=-100),
        }
        return {name: value.to(device) for name, value in batch.items()}
