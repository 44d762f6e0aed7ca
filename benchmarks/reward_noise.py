"""How much of its accuracy a reward model loses when 20 % of the labels are flipped, by loss.

    nice python benchmarks/reward_noise.py [--quick] [--split heldout] [--seeds 3]

Pairs of the tiny world that the oracle tells apart by .2 of quality, labelled by it, a fifth of them then turned
round at random; the same pairs, starting model, epochs and order of rows for every loss. Accuracy is against the
oracle on prompts and phrases that training never saw. `lost` is the accuracy of the plain loss on clean labels minus
that of the loss on flipped ones; the bar: a robust loss loses at most half of what the plain one loses.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

from reward_world import N_TEST, accuracy, mean, oracle_pairs, quiet, trained_scores

FLIPPED = 0.2
N_TRAIN, EPOCHS = 1500, 6  # enough for the plain loss to learn its wrong labels by heart
MIN_GAP = 0.2
PLAIN: dict[str, Any] = {}
LOSSES: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "forward": {"loss": "forward", "flip_rate": FLIPPED},
    "symmetric": {"loss": "symmetric"},
    "label_smoothing": {"label_smoothing": FLIPPED},
    "backward": {"loss": "backward", "flip_rate": FLIPPED},
}
ROBUST = ("forward", "symmetric")


def run(seed: int, split: str, n_train: int, epochs: float, min_gap: float, names: list[str]) -> dict[str, float]:
    """Accuracy by loss, and of the plain one on clean labels."""
    test = oracle_pairs(N_TEST, 1000 + seed, split, min_gap)
    train = oracle_pairs(n_train, seed, "train", min_gap)
    rng = random.Random(f"flips/{seed}")
    flips = [rng.random() < FLIPPED for _ in train]
    args = {
        "num_train_epochs": epochs,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 20,
        "per_device_train_batch_size": 16,
        "max_length": 256,
    }
    found = {}
    for name in ("clean", *names):
        rows = [pair.row(flipped=flip and name != "clean") for pair, flip in zip(train, flips, strict=True)]
        started = time.process_time()
        difference, _ = trained_scores(rows, test, {"args": args, **LOSSES.get(name, PLAIN)}, seed)
        found[name] = accuracy(difference)
        seconds = time.process_time() - started
        print(f"seed {seed}  {name:16} accuracy {found[name]:.3f}  ({seconds:.0f} CPU s)", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="160 pairs, one seed: does it run at all?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=("dev", "heldout"), default="heldout")
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--min-gap", type=float, default=MIN_GAP, help="of the oracle's quality")
    parser.add_argument("--losses", nargs="+", choices=list(LOSSES), default=["plain", *ROBUST])
    args = parser.parse_args()
    n_train, seeds, epochs = (160, 1, 1) if args.quick else (N_TRAIN, args.seeds, args.epochs)
    quiet()
    by_seed = [run(seed, args.split, n_train, epochs, args.min_gap, args.losses) for seed in range(seeds)]
    print(f"\n{'':18}{'accuracy':>10}{'lost':>10}{'of plain':>10}   by seed")
    lost = {name: mean(found["clean"] - found[name] for found in by_seed) for name in args.losses}
    shares = {}
    for name in ("clean", *args.losses):
        values = [found[name] for found in by_seed]
        share = lost[name] / lost["plain"] if name in lost and lost.get("plain") else 0.0
        shares[name] = share
        tail = f"{lost[name]:10.3f}{share:10.2f}" if name in lost else " " * 20
        print(f"{name:18}{mean(values):10.3f}{tail}   " + " ".join(f"{value:.3f}" for value in values))
    print(
        json.dumps(
            {"split": args.split, "n_train": n_train, "epochs": epochs, "by_seed": by_seed, "share_of_plain": shares}
        )
    )


if __name__ == "__main__":
    main()
