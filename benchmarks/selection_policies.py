"""Part (c) of label_efficiency.py: the same judgments, selected in different ways, as many preferences each, DPO.

160 training prompts of the tiny world with 8 samples each, every two of a prompt judged. Each way of selecting leaves
some number of preferences; of each as many are drawn at random as the one that leaves fewest has. DPO with the
settings of `pipelines/quickstart.yaml`, but for six epochs instead of three, since there are about half as many
pairs. Nothing was tuned for any of them. The policy is measured by the oracle's quality of two samples a prompt.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from reward_world import ROOT
from selection_world import PIPELINE, WEIGHTS, Judged, Pieces, interval, judged, policy_quality

from rlaif.config import DPOSection, PairSection, SFTSection, load
from rlaif.metrics import Floats
from rlaif.paths import shipped
from rlaif.records import Judgment, Prompt, Response
from rlaif.stages.pair import pair
from rlaif.stages.pairing.standards import Standards
from rlaif.store import RunFolder

POLICY = "shipped:data/tiny/policy"
EPOCHS = 6
Get = Callable[[str, Callable[[], dict[str, Floats]]], Mapping[str, Floats]]
WAYS: dict[str, dict[str, Any]] = {
    "best and worst": {},
    "rejected near μ − 2σ": {"rejected": "near"},
    "rejected near μ − σ": {"rejected": "near", "rejected_sds": 1.0},
    "shortest, longest of tiers": {"chosen": "shortest_among_best", "rejected": "longest_among_worst"},
    "lengths within 1.5": {"max_length_ratio": 1.5},
    "surest three quarters": {"min_confidence_quantile": 0.25},  # West-of-N without its likelihood filter
    "margins of .1 to .4": {"min_margin": 0.1, "max_margin": 0.4, "select": "all_pairs"},
    "any pairs": {"select": "all_pairs"},
}
SFT = "SFT on the chosen of the first"


def selected(world: Judged, way: Mapping[str, Any]) -> dict[str, Any]:
    """Prompt, chosen and rejected ids, and the probability of each preference, as arrays."""
    folder = RunFolder(world.run)
    given = {"min_margin": 0.05, "principle_weights": WEIGHTS, **way}
    judge = load(PIPELINE).judge
    found, _ = pair(
        folder.read("judgments", Judgment), PairSection(**given), standards=Standards.of(judge),
        responses=folder.read("responses", Response),
    )  # fmt: skip
    names = ("prompt_id", "chosen_id", "rejected_id", "probability")
    return {name: np.array([getattr(row, name) for row in found]) for name in names}


def rows_of(world: Judged, preferences: Mapping[str, Any], which: Sequence[int]) -> list[dict[str, Any]]:
    folder = RunFolder(world.run)
    prompts = {row.id: row.messages for row in folder.read("prompts", Prompt)}
    texts = {row.id: row.text for row in folder.read("responses", Response)}

    def said(name: str, at: int) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": texts[str(preferences[name][at])]}]

    return [
        {
            "prompt": prompts[str(preferences["prompt_id"][at])],
            "chosen": said("chosen_id", at),
            "rejected": said("rejected_id", at),
            "probability": float(preferences["probability"][at]),
        }
        for at in which
    ]


def trained(rows: Sequence[Mapping[str, Any]], out: Path, seed: int, *, sft: bool = False) -> Path:
    from rlaif.training.dpo import train_dpo
    from rlaif.training.sft import train_sft

    recipe = load(ROOT / "pipelines" / "quickstart.yaml").train.dpo  # type: ignore[union-attr]
    args = {**recipe.args, "num_train_epochs": EPOCHS}  # type: ignore[union-attr]
    data = out.with_suffix(".jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if sft:
        only = ("beta", "loss_type", "loss_weights")
        args = {name: value for name, value in args.items() if name not in only}
        train_sft(SFTSection(model=POLICY, on="chosen", args=args), data, out, seed)
    else:
        train_dpo(DPOSection(model=POLICY, args=args), data, out, seed)
    return out


def one_seed(seed: int, split: str, sizes: tuple[int, int, int], ways: Sequence[str], get: Get) -> dict[str, Floats]:
    """Way → (prompts,) oracle quality; "start" is the policy before."""
    n_prompts, n_samples, limit = sizes
    world = judged(seed, n_prompts, n_samples)
    by_way = {
        way: get(f"selected-{seed}-{number}", partial(selected, world, WAYS[way])) for number, way in enumerate(ways)
    }
    n = min(len(found["probability"]) for found in by_way.values())

    def before() -> dict[str, Floats]:
        return {"quality": policy_quality(shipped("data/tiny/policy"), seed, split, limit, 2)}

    def after(way: str) -> dict[str, Floats]:
        started = time.monotonic()
        preferences = by_way.get(way, by_way[ways[0]])
        n_there = len(preferences["probability"])
        rows = rows_of(world, preferences, random.Random(f"ways/{seed}").sample(range(n_there), n))
        with tempfile.TemporaryDirectory() as temporary:
            model = trained(rows, Path(temporary) / "model", seed, sft=way == SFT)
            found = policy_quality(model, seed, split, limit, 2)
        print(
            f"seed {seed}  {way:32} {n} of {n_there} preferences: quality {found.mean():.3f} "
            f"({time.monotonic() - started:.0f} s)",
            flush=True,
        )
        return {"quality": found}

    found = {"start": get(f"policies-{split}-{seed}-start", before)["quality"]}
    for number, way in enumerate([*ways, SFT]):
        found[way] = get(f"policies-{split}-{seed}-{number}", partial(after, way))["quality"]
    return found


def policies(seeds: Sequence[int], split: str, quick: bool, pieces: Pieces) -> dict[str, Any]:
    sizes = (30, 3, 16) if quick else (160, 8, 400)
    ways = list(WAYS)[:2] if quick else list(WAYS)
    get: Get = (lambda _, make: make()) if quick else pieces.get
    by_seed = [one_seed(seed, split, sizes, ways, get) for seed in seeds]
    found: dict[str, Any] = {}
    print(f"\n{'way':34}{'quality':>9}   over the first, 95 % over prompts   by seed")
    for way in by_seed[0]:
        values = [of[way] for of in by_seed]
        first = [of[ways[0]] for of in by_seed]
        more = interval([x - y for x, y in zip(values, first, strict=True)])
        found[way] = {
            **interval(values),
            "over_first": more,
            "by_seed": [round(float(np.mean(x)), 4) for x in values],
        }
        shown = f"{more['mean']:+.3f} [{more['low']:+.3f}, {more['high']:+.3f}]" if way != ways[0] else ""
        print(f"{way:34}{found[way]['mean']:>9.3f}   {shown:33}   " + " ".join(f"{np.mean(x):.3f}" for x in values))
    return found
