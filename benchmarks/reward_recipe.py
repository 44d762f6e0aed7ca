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
CLEAR = 0.2  # of the oracle's quality: a smaller gap is a matter of tone or length
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


def oracle_rows(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[tuple[float, bool]]]:
    """The rows that the oracle tells apart, turned its way; of each, by how much, and whether the judge had it so."""
    turned, judged = [], []
    for row in rows:
        prompt = find(row["prompt"][0]["content"])
        assert prompt is not None
        gap = quality(prompt, row["chosen"][0]["content"]) - quality(prompt, row["rejected"][0]["content"])
        if abs(gap) > 0.02:
            judged.append((abs(gap), gap > 0))
            chosen, rejected = ("chosen", "rejected") if gap > 0 else ("rejected", "chosen")
            turned.append({**row, "chosen": row[chosen], "rejected": row[rejected], "probability": 1.0})
    return turned, judged


def run(seed: int, split: str, limit: int, overrides: list[str]) -> dict[str, list[float]]:
    """By column: accuracy on all pairs, and on those that the oracle tells apart by at least `CLEAR`."""
    import numpy as np

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
    by_oracle, judged = oracle_rows(rows)
    test = sampled_pairs(seed, split, limit)
    clear = np.array([pair.gap >= CLEAR for pair in test])
    found = {
        "judge, train": [mean(float(right) for _, right in judged), mean(float(r) for g, r in judged if g >= CLEAR)]
    }
    for name, labelled, changed in (
        ("judge labels", rows, {}),
        ("oracle labels", by_oracle, {}),
        ("hard", rows, {"soft_labels": False}),
    ):
        difference = trained_scores(labelled, test, {**section, **changed}, seed)[0]
        found[name] = [accuracy(difference), accuracy(difference[clear])]
    shown = "  ".join(f"{name} {every:.3f} {some:.3f}" for name, (every, some) in found.items())
    seconds = time.monotonic() - started
    print(f"seed {seed}: {len(rows)} pairs, {len(test)} test pairs; {shown}; {seconds:.0f} s", flush=True)
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
    seeds, limit = (1, 40) if args.quick else (args.seeds, 10_000)
    found = [run(seed, args.split, limit, overrides) for seed in range(seeds)]
    print("\n" + " " * 12 + "".join(f"{name:>24}" for name in COLUMNS))
    for at, which in enumerate(("all pairs", f"gap >= {CLEAR}")):
        cells = []
        for name in COLUMNS:
            values = [row[name][at] for row in found]
            cells.append(f"{mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]".rjust(24))
        print(f"{which:12}" + "".join(cells))
    print(json.dumps({"split": args.split, "by_seed": found}))


if __name__ == "__main__":
    main()
