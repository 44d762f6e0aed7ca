"""What the reward benchmarks share: pairs of the tiny world with the oracle's opinion, training, and measuring.

Settings are chosen on `--split dev` (other prompts and phrases than either training or held-out ones); what is
reported is `heldout`.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from rlaif.config import RewardSection  # noqa: E402
from rlaif.metrics import Floats  # noqa: E402
from rlaif.world.grammar import POLICY_MIX, write_response  # noqa: E402
from rlaif.world.oracle import quality  # noqa: E402
from rlaif.world.prompts import sample_prompt  # noqa: E402

START = "shipped:data/tiny/judge"  # the judge as the starting model: it knows what the policy does not
N_TEST = 1500


@dataclass(frozen=True)
class Pair:
    """Two responses of which the oracle finds the first one better, by `gap` (of quality, in (0, 1])."""

    prompt: str
    better: str
    worse: str
    gap: float

    def row(self, *, flipped: bool = False, probability: float = 1.0) -> dict[str, Any]:
        """TRL's columns; flipped: the worse one as chosen."""
        chosen, rejected = (self.worse, self.better) if flipped else (self.better, self.worse)
        return {
            "prompt": [{"role": "user", "content": self.prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "probability": probability,
        }


def oracle_pairs(n: int, seed: int, split: str, min_gap: float = 0.02) -> list[Pair]:
    """`n` pairs of responses in the policy's mix that the oracle tells apart by `min_gap`, written by the grammar."""
    rng = random.Random(f"reward-pairs/{seed}/{split}")
    pairs: list[Pair] = []
    while len(pairs) < n:
        prompt = sample_prompt(rng, split)  # type: ignore[arg-type]
        a, b = (write_response(rng, prompt, split, POLICY_MIX) for _ in range(2))  # type: ignore[arg-type]
        gap = quality(prompt, a) - quality(prompt, b)
        if abs(gap) >= min_gap:
            better, worse = (a, b) if gap > 0 else (b, a)
            pairs.append(Pair(prompt.text, better, worse, abs(gap)))
    return pairs


def trained_scores(
    rows: Sequence[dict[str, Any]], test: Sequence[Pair], section: dict[str, Any], seed: int
) -> tuple[Floats, dict[str, Any]]:
    """Train on rows; (N,) r(better) − r(worse) on the test pairs, in the model's own unit, and the record."""
    from rlaif.training.reward import train_reward
    from rlaif.training.scoring import load_reward

    with tempfile.TemporaryDirectory() as temporary:
        data, out = Path(temporary) / "train.jsonl", Path(temporary) / "reward"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        record = train_reward(RewardSection.model_validate({"model": START, **section}), data, out, seed)
        scorer = load_reward(out, normalise=False, device="cpu")
        prompts = [[{"role": "user", "content": pair.prompt}] for pair in test]
        better = scorer.score(prompts, [pair.better for pair in test]).reward
        worse = scorer.score(prompts, [pair.worse for pair in test]).reward
    return better - worse, record


def accuracy(difference: Floats) -> float:
    """Share of pairs in the oracle's order, ties ½."""
    import numpy as np

    return float(np.mean((np.sign(difference) + 1) / 2))


def quiet() -> None:
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)


def mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
