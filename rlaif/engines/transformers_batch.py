"""What a batch of the transformers engine is made of: rows, shared beginnings, the cache, sampling, log-probs."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlaif.engines import local
from rlaif.records import Request, TokenLogprob


class Row:
    """One request on its way through a batch."""

    def __init__(self, request: Request, ids: list[int], seed: int, label_ids: set[int]) -> None:
        self.request, self.ids, self.seed = request, ids, seed
        self.label_ids = sorted(label_ids)
        self.wants_logprobs = bool(request.labels or request.top_logprobs)
        self.kind = (request.max_tokens > 1, request.temperature > 0, request.top_p < 1, self.wants_logprobs)
        # One number per step is all the randomness of a sample: it depends on (seed, step), never on batch mates.
        self.uniforms: np.ndarray[Any, np.dtype[np.float64]] | None = None
        if request.temperature > 0:
            self.uniforms = np.random.Generator(np.random.PCG64(seed)).random(request.max_tokens)
        self.reset()

    def reset(self) -> None:
        self.out: list[int] = []
        self.logprobs: list[TokenLogprob] = []
        self.finish_reason = ""


class State:
    """Attention mask (B, T so far) and key-value cache of a batch. Padding may stand before every block of tokens."""

    def __init__(self, device: Any, cached: bool) -> None:
        self.device, self.cached = device, cached
        self.mask: Any = None
        self.cache: Any = None

    def extend(self, blocks: list[list[int]]) -> Any:
        """Make room for one block per row; their ids (B, longest)."""
        import torch

        longest = max(map(len, blocks))
        ids = torch.tensor([[0] * (longest - len(block)) + block for block in blocks], device=self.device)
        mask = torch.tensor([[0] * (longest - len(block)) + [1] * len(block) for block in blocks], device=self.device)
        self.mask = mask if self.mask is None else torch.cat([self.mask, mask], dim=1)
        return ids

    def positions(self, n: int) -> Any:
        """Positions of the last n tokens, (B, n): padding takes none."""
        return (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -n:]

    def select(self, index: Any) -> None:
        """Keep, repeat or reorder rows."""
        self.mask = self.mask[index]
        if self.cache is not None:
            self.cache.batch_select_indices(index)


class Family:
    """Neighbours whose prompts begin alike for at least half of their tokens; `shared` tokens are common to all."""

    def __init__(self, row: Row) -> None:
        self.rows, self.shared = [row], len(row.ids) - 1  # each keeps at least one token of its own

    def admit(self, row: Row) -> bool:
        first = self.rows[0]
        limit = min(self.shared, len(row.ids) - 1)
        shared = next((i for i in range(limit) if first.ids[i] != row.ids[i]), limit)
        if first.kind != row.kind or shared == 0 or shared * 2 < len(row.ids):
            return False
        self.rows.append(row)
        self.shared = shared
        return True


def families_of(rows: list[Row]) -> list[Family]:
    """The rows, in their order, cut into families."""
    families: list[Family] = []
    for row in rows:
        if not families or not families[-1].admit(row):
            families.append(Family(row))
    return families


def pick_tokens(logits: Any, batch: list[Row], step: int) -> Any:
    """Next tokens (B,) from logits (B, V): argmax, or the inverse of the cumulative distribution at a uniform."""
    import torch

    if batch[0].uniforms is None:
        return logits.argmax(-1)
    # Rows that are done but not yet dropped may have no number left.
    draws = [row.uniforms[step] if step < len(row.uniforms) else 0.0 for row in batch if row.uniforms is not None]
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    column = {"device": logits.device, "dtype": wide}
    temperature = torch.tensor([row.request.temperature for row in batch], **column)[:, None]
    probabilities = (logits.to(wide) / temperature).softmax(-1)
    uniform = torch.tensor(draws, **column)[:, None]
    if batch[0].request.top_p >= 1:
        return _invert(probabilities, uniform)
    ranked, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    top_p = torch.tensor([row.request.top_p for row in batch], **column)[:, None]
    outside = ranked.cumsum(-1) - ranked >= top_p  # the token that crosses top_p is still inside
    return tokens.gather(-1, _invert(ranked.masked_fill(outside, 0.0), uniform)[:, None])[:, 0]


def _invert(weights: Any, uniform: Any) -> Any:
    """Index (B,) of the first cumulative weight above uniform × total; weights (B, V), uniform (B, 1) in [0, 1)."""
    import torch

    cumulative = weights.cumsum(-1)
    found = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return found.clamp(max=weights.shape[-1] - 1)[:, 0]


def read_logprobs(logits: Any, tokens: Any, batch: list[Row], chat: local.ChatFormat) -> list[TokenLogprob]:
    """For each row: its token, every variant of its labels, its `top_logprobs` best; natural logs, temperature 1."""
    import torch

    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(-1, tokens[:, None])[:, 0].tolist()
    wanted = sorted({i for row in batch for i in row.label_ids})
    of_labels = logprobs[:, torch.tensor(wanted, dtype=torch.long, device=logits.device)].tolist()
    k = min(max(row.request.top_logprobs for row in batch), logits.shape[-1])
    best = logprobs.topk(k, dim=-1) if k else None
    values, ids = (best.values.tolist(), best.indices.tolist()) if best else ([[]] * len(batch),) * 2
    column = {token_id: i for i, token_id in enumerate(wanted)}
    notes = []
    for r, (row, token) in enumerate(zip(batch, tokens.tolist(), strict=True)):
        n = row.request.top_logprobs
        found = {token: own[r]} if n else {}
        found.update(zip(ids[r][:n], values[r][:n], strict=True))
        found.update((i, of_labels[r][column[i]]) for i in row.label_ids)
        notes.append(TokenLogprob(chat.token_text(token), own[r], chat.top(found)))
    return notes


def stops(chat: local.ChatFormat, row: Row) -> bool:
    """Whether a stop string has just been completed. Only a tail is decoded: a token is at least a byte."""
    tail = max(len(stop.encode()) for stop in row.request.stop) + 4
    text = chat.decode(row.out[-tail:])
    return any(stop in text for stop in row.request.stop)
