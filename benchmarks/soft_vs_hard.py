"""Soft against hard AI labels for reward models, with judges that are noisy, biased or too sure of themselves.

    nice python benchmarks/soft_vs_hard.py [--quick] [--split heldout] [--seeds 3]

The truth of a pair is p* = σ(6 · gap of the oracle's quality). A simulated judge sees it through its own logit: noise
per shown order, a liking for the response shown first and for the longer one, a temperature. Orders are averaged
before anything else, as `pair` does it. The same pairs and judge give soft labels (the target is the probability) and
hard ones (the more probable response is the better one, for certain). Measured on prompts and phrases that training
never saw: accuracy against the oracle's order; Brier score, calibration error and slope of the margin against p*
(slope 1 is calibrated, less is over-confident); `longer`: how often the model prefers the longer response, minus how
often the oracle does.
"""

from __future__ import annotations

import argparse
import json
import random
from typing import Any

import numpy as np
from reward_world import N_TEST, Pair, accuracy, mean, oracle_pairs, quiet, trained_scores

from rlaif.training.reward_measure import pair_figures, sigmoid

SHARPNESS = 6.0  # of the truth: p* = σ(6 · gap), .65 at a gap of .1
N_TRAIN, EPOCHS = 800, 3
# noise: sd of the logit, drawn for each order; first, longer: added to the logit of the response shown first, and for
# each ten words more; scale: what the logit is multiplied with (over-confidence); orders: 2 averaged, 1 at random
JUDGES: dict[str, dict[str, float]] = {
    "perfect": {},
    "noisy": {"noise": 1.5},
    "biased, noisy": {"noise": 1.5, "first": 1.0, "longer": 0.75},
    "one order": {"noise": 1.5, "first": 1.0, "longer": 0.75, "orders": 1},
    "too sure": {"noise": 1.5, "first": 1.0, "longer": 0.75, "scale": 3.0},
}
METRICS = ("accuracy", "brier", "ece", "slope", "longer")


def judged(pair: Pair, rng: random.Random, judge: dict[str, float]) -> float:
    """P(the better one by the oracle is better), as this judge says after averaging its orders."""
    words = len(pair.better.split()) - len(pair.worse.split())
    seen = []
    shown_first = [1, -1] if judge.get("orders", 2) == 2 else [rng.choice((1, -1))]
    for place in shown_first:
        logit = SHARPNESS * pair.gap + rng.gauss(0, judge.get("noise", 0.0))
        logit += judge.get("first", 0.0) * place + judge.get("longer", 0.0) * words / 10
        seen.append(float(sigmoid(np.array(judge.get("scale", 1.0) * logit))))
    return mean(seen)


def run(seed: int, split: str, name: str, n_train: int) -> dict[str, dict[str, float]]:
    test, train = oracle_pairs(N_TEST, 1000 + seed, split), oracle_pairs(n_train, seed, "train")
    rng = random.Random(f"judge/{seed}/{name}")
    p = [judged(pair, rng, JUDGES[name]) for pair in train]
    rows = [pair.row(flipped=q < 0.5, probability=max(q, 1 - q)) for pair, q in zip(train, p, strict=True)]
    args = {
        "num_train_epochs": EPOCHS,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 20,
        "per_device_train_batch_size": 16,
        "max_length": 256,
    }
    truth = sigmoid(SHARPNESS * np.array([pair.gap for pair in test]))
    longer = np.array([np.sign(len(pair.better) - len(pair.worse)) for pair in test])
    found = {"labels": {"accuracy": mean(float(q > 0.5) for q in p)}}
    for kind in ("hard", "soft"):
        difference, _ = trained_scores(rows, test, {"args": args, "soft_labels": kind == "soft"}, seed)
        figures = pair_figures(difference, truth)
        found[kind] = {
            "accuracy": accuracy(difference),
            **{key: float(figures[key]) for key in ("brier", "ece", "slope")},
            "longer": float(np.mean(np.sign(difference) * longer - longer) / 2),
        }
        shown = " ".join(f"{key} {found[kind][key]:.3f}" for key in METRICS)
        print(f"seed {seed}  {name:14} {kind}: {shown}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 pairs, one seed, two judges: does it run at all?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("dev", "heldout"), default="heldout")
    args = parser.parse_args()
    n_train, seeds = (100, 1) if args.quick else (N_TRAIN, args.seeds)
    names = list(JUDGES)[1:3] if args.quick else list(JUDGES)
    quiet()
    results: dict[str, Any] = {}
    for name in names:
        results[name] = [run(seed, args.split, name, n_train) for seed in range(seeds)]
    print(f"\n{'judge':15}{'right':>7}  {'labels':7}" + "".join(f"{key:>22}" for key in METRICS))
    for name, by_seed in results.items():
        right = mean(found["labels"]["accuracy"] for found in by_seed)
        for kind in ("hard", "soft"):
            cells = []
            for key in METRICS:
                values = [found[kind][key] for found in by_seed]
                cells.append(f"{mean(values):7.3f} [{min(values):.3f}, {max(values):.3f}]".rjust(22))
            print(f"{name:15}{right:7.3f}  {kind:7}" + "".join(cells))
    print(json.dumps({"split": args.split, "n_train": n_train, "epochs": EPOCHS, "results": results}))


if __name__ == "__main__":
    main()
