"""What the world knows, as demonstrations: to measure or to replay a skill that a training may wear away."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from rlaif.world.facts import FACTS, HOWTO
from rlaif.world.phrases import Split
from rlaif.world.prompts import prompts_of


def fact_rows(seed: int, split: Split) -> list[dict[str, Any]]:
    """Every fact under every question template of the split: `prompt` and `completion` (messages), and `answer`: all
    statements of the fact, one of which a right reply says. `seed` decides order and wordings."""
    rng = random.Random(f"facts/{seed}/{split}")
    rows = []
    for prompt in prompts_of(split):
        if prompt.domain == "fact":
            statements = [s.format(k=prompt.key, v=prompt.answer) for s in FACTS[prompt.kind].statements]
            rows.append(_row(prompt.text, rng.choice(statements), statements))
    rng.shuffle(rows)
    return rows


def tip_rows(seed: int, split: Split) -> list[dict[str, Any]]:
    """Every benign request of the split with its tip, likewise."""
    rows = [_row(p.text, HOWTO[p.key], [HOWTO[p.key]]) for p in prompts_of(split) if p.domain == "howto"]
    random.Random(f"tips/{seed}/{split}").shuffle(rows)
    return rows


def _row(prompt: str, completion: str, answers: list[str]) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "completion": [{"role": "assistant", "content": completion}],
        "answer": answers,
    }


def write_facts(path: Path, seed: int, split: Split) -> int:
    """Write the facts as JSONL; the same arguments give the same bytes. Returns how many."""
    return write_rows(path, fact_rows(seed, split))


def write_rows(path: Path, rows: list[dict[str, Any]]) -> int:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return len(rows)
