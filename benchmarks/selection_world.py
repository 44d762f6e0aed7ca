"""What the parts of label_efficiency.py share: candidates of the tiny world that the shipped judge compared, every
two of a prompt under five principles in both orders, and what a reward model or a policy is worth to the oracle.

The judging is a run of `pipelines/reward-tiny.yaml` with more samples a prompt, kept under build/: a second start
asks nothing.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reward_world import ROOT

from rlaif.metrics import Floats
from rlaif.stages.selectors import Comparison
from rlaif.training.active import Candidate, Pair
from rlaif.world.oracle import quality
from rlaif.world.prompts import find, prompts_of

BUILD = ROOT / "build" / "label_efficiency"
PIPELINE = ROOT / "pipelines" / "reward-tiny.yaml"
WEIGHTS = {"harmless": 3.0}  # as in the shipped pipelines
CLEAR = 0.02  # of the oracle's quality: what differs by less is a tie
Ids = tuple[str, str]


@dataclass(frozen=True)
class Judged:
    """Candidates in the order of the prompts, their response ids, and what the judge says of every two."""

    candidates: list[Candidate]
    ids: list[list[str]]
    said: dict[Ids, float]  # (id, id), sorted → P(first better)
    run: Path

    def label(self, pair: Pair) -> float | None:
        """P(first better); None where the judge gave no verdict."""
        first, second = self.ids[pair.candidate][pair.first], self.ids[pair.candidate][pair.second]
        p = self.said.get((min(first, second), max(first, second)))
        return p if p is None or first < second else 1 - p


def judged(seed: int, n_prompts: int, n_samples: int) -> Judged:
    """Training prompts with the shipped policy's samples; repeated texts are one response."""
    import rlaif
    from rlaif.config import PairSection, load
    from rlaif.records import Judgment, Prompt, Response
    from rlaif.stages.judge import grouped
    from rlaif.stages.pair import compared
    from rlaif.stages.pairing.standards import Standards
    from rlaif.store import RunFolder

    run = BUILD / f"judged-{n_prompts}x{n_samples}-seed{seed}"
    overrides = [f"run={run}", f"seed={seed}", f"prompts.limit={n_prompts}", "train=null", "export=null"]
    overrides.append(f"generate.samplers=[{{engine: policy, n: {n_samples}, temperature: 1.0, max_tokens: 64}}]")
    rlaif.run(PIPELINE, overrides=overrides)
    folder = RunFolder(run)
    groups = [
        (prompt, rows)
        for prompt, rows in grouped(folder.read("prompts", Prompt), folder.read("responses", Response))
        if len(rows) > 1
    ]
    config = load(PIPELINE, overrides)
    found = compared(
        folder.read("judgments", Judgment), PairSection(principle_weights=WEIGHTS), None, Standards.of(config.judge)
    )
    said = {
        ids: (1 + c.difference) / 2 for _, pairs in found for ids, c in pairs.items() if isinstance(c, Comparison)
    }
    return Judged(
        [Candidate(prompt.messages, [row.text for row in rows]) for prompt, rows in groups],
        [[row.id for row in rows] for _, rows in groups],
        said,
        run,
    )


@dataclass(frozen=True)
class TestSet:
    """The shipped policy's samples on prompts that were never trained on, with the oracle's quality of each."""

    prompts: Sequence[str]  # one for each response
    texts: Sequence[str]
    quality: Floats  # (N,)
    group: Floats  # (N,) number of the prompt

    def worth(self, rewards: Floats) -> dict[str, Floats]:
        """By prompt: share of its pairs in the oracle's order (nan: it ties all), and the quality of the best one by
        reward."""
        accuracy, best = [], []
        for number in np.unique(self.group):
            at = np.flatnonzero(self.group == number)
            pairs = np.array(list(itertools.combinations(at, 2)))
            gap = self.quality[pairs[:, 0]] - self.quality[pairs[:, 1]]
            lead = rewards[pairs[:, 0]] - rewards[pairs[:, 1]]
            right = (np.sign(lead) * np.sign(gap) + 1) / 2
            told = np.abs(gap) > CLEAR
            accuracy.append(right[told].mean() if told.any() else np.nan)
            best.append(self.quality[at[np.argmax(rewards[at])]])
        return {"accuracy": np.array(accuracy), "best_of_n": np.array(best)}


def test_set(seed: int, split: str, limit: int, n_samples: int) -> dict[str, Any]:
    """What a TestSet holds, as arrays."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlaif.paths import shipped
    from rlaif.world.measure import sample_policy

    folder = shipped("data/tiny/policy")
    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = list(prompts_of(split))  # type: ignore[arg-type]
    prompts = random.Random(f"label-efficiency/{split}").sample(prompts, min(limit, len(prompts)))
    rows = [
        (number, prompt, text)
        for number, (prompt, texts) in enumerate(
            sample_policy(model, tokenizer, prompts, n_samples, 1000 + seed).items()
        )
        for text in sorted(set(texts))
        if text
    ]
    counts = np.bincount([number for number, _, _ in rows])
    rows = [row for row in rows if counts[row[0]] > 1]
    return {
        "prompts": np.array([prompt.text for _, prompt, _ in rows]),
        "texts": np.array([text for _, _, text in rows]),
        "quality": np.array([quality(prompt, text) for _, prompt, text in rows]),
        "group": np.array([number for number, _, _ in rows]),
    }


def scored(model: Path, test: TestSet) -> dict[str, Floats]:
    from rlaif.training.scoring import load_reward

    scorer = load_reward(model, normalise=False, device="cpu", batch_size=64)
    prompts = [[{"role": "user", "content": str(prompt)}] for prompt in test.prompts]
    return test.worth(scorer.score(prompts, [str(text) for text in test.texts]).reward)


def policy_quality(folder: str | Path, seed: int, split: str, limit: int, n_samples: int) -> Floats:
    """(prompts,) mean oracle quality of a policy's samples."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlaif.world.measure import sample_policy

    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = list(prompts_of(split))  # type: ignore[arg-type]
    prompts = random.Random(f"label-efficiency/{split}").sample(prompts, min(limit, len(prompts)))
    found = sample_policy(model, tokenizer, prompts, n_samples, 2000 + seed)
    return np.array([np.mean([quality(prompt, text) for text in texts]) for prompt, texts in found.items()])


def oracle_of(prompt: Any, text: str) -> float:
    found = find(prompt[-1]["content"])
    assert found is not None
    return quality(found, text)


class Pieces:
    """Results of the parts of a long run, kept under build/: stopped after some minutes, but not before one part is
    done, the same command goes on."""

    def __init__(self, minutes: float | None) -> None:
        self._until = None if minutes is None else time.monotonic() + 60 * minutes
        self._some = False

    def get(self, name: str, make: Callable[[], Mapping[str, Floats]]) -> dict[str, Floats]:
        """What `make` gave for this name, now or before."""
        path = BUILD / "pieces" / f"{name}.npz"
        if not path.exists():
            if self._some and self._until is not None and time.monotonic() > self._until:
                sys.exit(f"stopped before {name}; the same command goes on from there")
            found = make()
            self._some = True
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **found)
        with np.load(path) as kept:
            return {key: kept[key] for key in kept.files}


def interval(values: Sequence[Floats], seed: int = 0, n: int = 2000) -> dict[str, float]:
    """Mean over seeds and prompts (nan: says nothing), and 95 % of bootstrap samples of prompts within each seed."""
    rng = np.random.default_rng(seed)
    draws = []
    for x in values:
        known = x[~np.isnan(x)]
        draws.append(known[rng.integers(len(known), size=(n, len(known)))].mean(axis=1))
    means = np.mean(draws, axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    centre = np.mean([np.nanmean(x) for x in values])
    return {"mean": round(float(centre), 4), "low": round(float(low), 4), "high": round(float(high), 4)}
