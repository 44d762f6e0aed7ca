"""The prompts of the tiny world: question template × key, in three splits that share no such pair.

Of the eight templates of a key, in an order drawn by hash, three are held out, one is for development and
four are for training. So every key is known, and every held-out question is new.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rlaif.world.facts import ASK_HOW, ASK_UNKNOWN, FACTS, HARM, HOWTO, UNKNOWN
from rlaif.world.phrases import Split

DOMAINS = ("fact", "howto", "harm", "unknown")
DOMAIN_WEIGHTS = (0.48, 0.20, 0.22, 0.10)
_N_HELDOUT, _N_DEV = 3, 1


@dataclass(frozen=True)
class WorldPrompt:
    """A question and what it asks for. `answer` is set for facts only."""

    text: str
    domain: str
    kind: str
    key: str
    answer: str | None
    split: Split


def _order(kind: str, key: str, templates: tuple[str, ...]) -> list[str]:
    return sorted(templates, key=lambda t: hashlib.sha256(f"{kind}|{key}|{t}".encode()).hexdigest())


def _of_key(domain: str, kind: str, key: str, answer: str | None, templates: tuple[str, ...]) -> list[WorldPrompt]:
    prompts = []
    for rank, template in enumerate(_order(kind, key, templates)):
        split: Split = "heldout" if rank < _N_HELDOUT else "dev" if rank < _N_HELDOUT + _N_DEV else "train"
        prompts.append(WorldPrompt(template.format(k=key), domain, kind, key, answer, split))
    return prompts


@lru_cache(maxsize=1)
def all_prompts() -> tuple[WorldPrompt, ...]:
    """Every prompt of the world, in a fixed order."""
    prompts: list[WorldPrompt] = []
    for kind, fact in FACTS.items():
        for key, value in fact.table.items():
            prompts += _of_key("fact", kind, key, value, fact.questions)
    for key in HOWTO:
        prompts += _of_key("howto", "howto", key, None, ASK_HOW)
    for key in HARM:
        prompts += _of_key("harm", "harm", key, None, ASK_HOW)
    for key in UNKNOWN:
        prompts += _of_key("unknown", "unknown", key, None, ASK_UNKNOWN)
    return tuple(prompts)


@lru_cache(maxsize=4)
def prompts_of(split: Split) -> tuple[WorldPrompt, ...]:
    return tuple(prompt for prompt in all_prompts() if prompt.split == split)


@lru_cache(maxsize=4)
def _by_domain(split: Split) -> dict[str, list[WorldPrompt]]:
    return {domain: [p for p in prompts_of(split) if p.domain == domain] for domain in DOMAINS}


@lru_cache(maxsize=1)
def _by_text() -> dict[str, WorldPrompt]:
    return {prompt.text: prompt for prompt in all_prompts()}


def find(text: str) -> WorldPrompt | None:
    """The prompt with this text, or None where the world does not know it."""
    return _by_text().get(text.strip())


def sample_prompt(rng: random.Random, split: Split, domain: str | None = None) -> WorldPrompt:
    """One prompt of a split: a domain by `DOMAIN_WEIGHTS`, then a prompt of it."""
    chosen = domain or rng.choices(DOMAINS, DOMAIN_WEIGHTS)[0]
    return rng.choice(_by_domain(split)[chosen])


def prompt_rows(n: int, seed: int, split: Split) -> list[dict[str, str]]:
    """The first `n` prompts of a split in an order drawn from `seed`; `n` = 0 means all of them."""
    prompts = list(prompts_of(split))
    random.Random(f"prompts/{seed}").shuffle(prompts)
    rows = []
    for prompt in prompts[: n or len(prompts)]:
        digest = hashlib.sha256(prompt.text.encode()).hexdigest()[:10]
        rows.append({"id": f"{prompt.domain}-{digest}", "prompt": prompt.text, "domain": prompt.domain})
    return rows


def write_prompts(path: Path, n: int, seed: int, split: Split) -> int:
    """Write the rows as JSONL; the same arguments give the same bytes. Returns how many."""
    rows = prompt_rows(n, seed, split)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)
