"""The shipped reward recipe on the tiny world, beside the same recipe on the oracle's labels.

    nice python benchmarks/reward_recipe.py [--quick] [--split heldout] [--seeds 3]

Runs pipelines/reward-tiny.yaml, then trains its `train.reward` again on the same pairs turned as the oracle finds
them. Test pairs are the shipped policy's own samples on held-out prompts, three pairs a prompt from four samples,
without ties of the oracle. Reported, all against the oracle:

    judge, train     how many of the labels that the model is trained on are right: the judge's error
    judge labels     the reward model of the pipeline: judge error and training error
    oracle labels    the same recipe on right labels: training error alone
    hard             as `judge labels`, with the judge's probabilities rounded to certainty
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from reward_world import ROOT, Pair, accuracy, mean, quiet, trained_scores

from rlaif.world.oracle import quality
from rlaif.world.prompts import find, prompts_of

PIPELINE = ROOT / "pipelines" / "reward-tiny.yaml"
N_SAMPLES = 4
COLUMNS = ("judge, train", "judge labels", "oracle labels", "hard")


def sampled_pairs(seed: int, split: str, limit: int) -> list[Pair]:
    """Pairs of the policy's samples on prompts of the split that the oracle tells apart."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlaif.paths import shipped
    from rlaif.world.measure import sample_policy

    folder = shipped("data/tiny/policy")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder).float().eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    prompts = list(prompts_of(split))[:limit]  # type: ignore[arg-type]
    rng = random.Random(f"recipe/{seed}")
    pairs = []
    for prompt, texts in sample_policy(model, tokenizer, prompts, N_SAMPLES, 1000 + seed).items():
        for a, b in (rng.sample(texts, 2) for _ in range(3)):
            gap = quality(prompt, a) - quality(prompt, b)
            if a and b and abs(gap) > 0.02:
                pairs.append(Pair(prompt.text, *((a, b) if gap > 0 else (b, a)), abs(gap)))
    return pairs


def oracle_rows(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], float]:
    """The rows that the oracle tells apart, turned its way, and the share of them that the judge had so."""
    turned, right = [], []
    for row in rows:
        prompt = find(row["prompt"][0]["content"])
        assert prompt is not None
        gap = quality(prompt, row["chosen"][0]["content"]) - quality(prompt, row["rejected"][0]["content"])
        if abs(gap) > 0.02:
            right.append(float(gap > 0))
            chosen, rejected = ("chosen", "rejected") if gap > 0 else ("rejected", "chosen")
            turned.append({**row, "chosen": row[chosen], "rejected": row[rejected], "probability": 1.0})
    return turned, mean(right)


def run(seed: int, split: str, limit: int, overrides: list[str]) -> dict[str, float]:
    import rlaif
    from rlaif.config import load

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        general = [f"run={temporary}/run", f"seed={seed}", "export.formats=[jsonl]", *overrides]
        rlaif.run(PIPELINE, overrides=[*general, "train=null"])
        lines = Path(temporary, "run", "dataset", "train.jsonl").read_text(encoding="utf-8").splitlines()
    section = load(PIPELINE, overrides).train.reward.model_dump(exclude_unset=True)  # type: ignore[union-attr]
    names = ("prompt", "chosen", "rejected", "probability")
    rows = [{name: json.loads(line)[name] for name in names} for line in lines]
    by_oracle, right = oracle_rows(rows)
    test = sampled_pairs(seed, split, limit)
    found = {"judge, train": right}
    for name, labelled, changed in (
        ("judge labels", rows, {}),
        ("oracle labels", by_oracle, {}),
        ("hard", rows, {"soft_labels": False}),
    ):
        found[name] = accuracy(trained_scores(labelled, test, {**section, **changed}, seed)[0])
    shown = "  ".join(f"{name} {value:.3f}" for name, value in found.items())
    print(
        f"seed {seed}: {len(rows)} pairs, {len(test)} test pairs; {shown}; {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 prompts, one seed: does it run at all?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("dev", "heldout"), default="heldout")
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="as of rlaif run")
    args = parser.parse_args()
    overrides = [*(["prompts.limit=40"] if args.quick else []), *args.overrides]
    quiet()
    found = [
        run(seed, args.split, 40 if args.quick else 10_000, overrides)
        for seed in range(1 if args.quick else args.seeds)
    ]
    print("\n" + "".join(f"{name:>24}" for name in COLUMNS))
    cells = []
    for name in COLUMNS:
        values = [row[name] for row in found]
        cells.append(f"{mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]".rjust(24))
    print("".join(cells))
    print(json.dumps({"split": args.split, "by_seed": found}))


if __name__ == "__main__":
    main()
