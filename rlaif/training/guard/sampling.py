"""Responses and log-probabilities of the very model that is trained, which leave no trace in it.

A sample's randomness is one number per step, made from (seed, prompt, sample) alone: the same in every probe, so that
two probes differ by what the policy has learnt and as little as possible by luck, and nothing is drawn from the
generators that the training draws from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from rlaif.training.guard.monitors import Sample, kl_of


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Within, `model` is in evaluation mode and nothing is learnt; afterwards every module's mode and every global
    generator of random numbers is as before."""
    modes = [(module, module.training) for module in model.modules()]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if on_gpu is not None:
            torch.cuda.set_rng_state_all(on_gpu)


class _Draw(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token possible: the inverse of the cumulative distribution at each row's number of this step."""

    def __init__(self, uniforms: np.ndarray[Any, Any], temperature: float) -> None:
        self._uniforms, self._temperature, self._step = uniforms, temperature, 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        wide = torch.float32 if scores.device.type == "mps" else torch.float64
        cumulative = (scores.to(wide) / self._temperature).softmax(-1).cumsum(-1)
        uniform = torch.tensor(self._uniforms[:, self._step], device=scores.device, dtype=wide)[:, None]
        self._step += 1
        token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
        token = token.clamp(max=scores.size(-1) - 1)
        return torch.full_like(scores, float("-inf")).scatter_(1, token, 0.0)


def uniforms(seed: int, prompt: int, sample: int, n: int) -> np.ndarray[Any, Any]:
    """(n,) numbers in [0, 1) of one response."""
    return np.random.Generator(np.random.PCG64([seed, prompt, sample])).random(n)


def write(
    model: Any,
    prompts: Sequence[Sequence[int]],
    draws: np.ndarray[Any, Any],
    *,
    temperature: float,
    ends: Sequence[int],
    pad: int,
    batch_size: int,
) -> list[list[int]]:
    """What the model answers to prompts of token ids, the end token included where it came to one.

    draws: (N, T), a number for each response and step; T is the most tokens of a response.
    """
    most = draws.shape[1]
    config = GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=most, pad_token_id=pad, eos_token_id=list(ends), use_cache=True,
        repetition_penalty=1.0, disable_compile=True,
    )  # fmt: skip
    found: list[list[int]] = [[] for _ in prompts]
    for rows in _batches([len(ids) for ids in prompts], batch_size):
        ids, mask = _padded([prompts[row] for row in rows], pad, left=True)
        device = next(model.parameters()).device
        out = model.generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config,
            logits_processor=LogitsProcessorList([_Draw(draws[rows], temperature)]),
        )  # fmt: skip
        for row, written in zip(rows, out[:, ids.size(1) :].tolist(), strict=True):
            end = next((at for at, token in enumerate(written) if token in ends), None)
            found[row] = written if end is None else written[: end + 1]
    return found


def logps(
    model: Any,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    temperature: float,
    pad: int,
    batch_size: int,
) -> list[list[float]]:
    """Of each completion's tokens, natural logs, of the distribution that it was drawn from (at `temperature`)."""
    device = next(model.parameters()).device
    found: list[list[float]] = [[] for _ in prompts]
    lengths = [len(p) + len(c) for p, c in zip(prompts, completions, strict=True)]
    for rows in _batches(lengths, batch_size):
        ids, mask = _padded([[*prompts[row], *completions[row]] for row in rows], pad, left=False)
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits
        for at, row in enumerate(rows):
            start, n = len(prompts[row]), len(completions[row])
            written = torch.tensor(list(completions[row]), device=device, dtype=torch.long)[:, None]
            own = (logits[at, start - 1 : start + n - 1].float() / temperature).log_softmax(-1)
            found[row] = own.gather(-1, written)[:, 0].tolist()
    return found


def as_samples(
    completions: Sequence[Sequence[int]],
    of_prompt: Sequence[int],
    ours: Sequence[Sequence[float]],
    starts: Sequence[Sequence[float]],
    *,
    ends: Sequence[int],
    decode: Callable[[Sequence[int]], str],
) -> list[Sample]:
    """The responses as the monitors see them."""
    found = []
    for ids, prompt, logp, start in zip(completions, of_prompt, ours, starts, strict=True):
        ended = bool(ids) and ids[-1] in ends
        body = list(ids[:-1] if ended else ids)
        k1, k3 = kl_of(logp, start)
        found.append(Sample(prompt, decode(body), body, ended, k1, k3, len(logp)))
    return found


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Numbers of rows, similar lengths together."""
    order = sorted(range(len(lengths)), key=lambda at: (lengths[at], at))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _padded(rows: Sequence[Sequence[int]], pad: int, *, left: bool) -> tuple[Any, Any]:
    """(ids, mask), each (B, longest)."""
    longest = max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), pad), torch.zeros((len(rows), longest), dtype=torch.long)
    for at, row in enumerate(rows):
        where = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[at, where], mask[at, where] = torch.tensor(list(row), dtype=torch.long), 1
    return ids, mask
