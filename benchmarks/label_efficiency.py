"""What chosen pairs are worth beside random ones at equal calls, and what each way of selecting makes of a policy.

    nice python benchmarks/label_efficiency.py --part reward        (a)
    nice python benchmarks/label_efficiency.py --part tournaments   (b; needs --data, see tournament_replay.py)
    nice python benchmarks/label_efficiency.py --part policies      (c)
    [--quick] [--seeds 3] [--split heldout] [--minutes M]

(a) The tiny world: 160 training prompts, 8 samples of the shipped policy each, about 4,400 pairs, which the shipped
judge compares under five principles in both orders: a label is ten calls. Round by round 24 pairs are chosen, by
chance or by the ensemble of the round before, and an ensemble is trained anew on all labels so far
(`rlaif.training.active.learn`). Measured on the policy's samples for prompts that were never trained on, against the
oracle: share of pairs in its order, and its quality of the best of four by the reward. The first round is drawn at
random, the same one for every rule.
(b) A recorded tournament (QLoRA's: GPT-4, 8 systems, 80 prompts): each response's strength is only known from the
comparisons so far, so the opinions are draws from a Bradley–Terry posterior. See selection_tournaments.py.
(c) DPO on as many preferences each from the same judgments, selected in different ways, and SFT on the chosen ones.
See selection_policies.py.

Intervals: 95 % of bootstrap samples of prompts, of the mean over seeds. Settings were chosen on `--split dev`. Parts
(a) and (c) keep each training's figures under build/label_efficiency/; remove it to measure anew. Last line: JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from reward_world import START, quiet
from selection_policies import policies
from selection_tournaments import tournaments
from selection_world import Judged, Pieces, TestSet, interval, judged, scored, test_set

from rlaif.config import RewardSection
from rlaif.metrics import Floats
from rlaif.metrics.choosing import RULES
from rlaif.training.active import Pair, learn

BATCH, ROUNDS = 24, 4
MEMBERS = 4
ARGS = {
    "num_train_epochs": 4,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 5,
    "per_device_train_batch_size": 8,
    "max_length": 256,
    "center_rewards_coefficient": 0.01,
}
MEASURES = ("accuracy", "best_of_n")


def section(members: int = MEMBERS) -> RewardSection:
    return RewardSection.model_validate({"model": START, "ensemble": members, "soft_labels": True, "args": ARGS})


def curve(world: Judged, test: TestSet, seed: int, rule: str, rounds: int, members: int) -> dict[str, Floats]:
    """Measure → (rounds, prompts)."""
    started = time.monotonic()
    by_round: dict[str, list[Floats]] = {name: [] for name in MEASURES}

    def note(done: Any) -> None:
        for name, values in scored(done.model, test).items():
            by_round[name].append(values)

    def label(pairs: Sequence[Pair]) -> list[float | None]:
        return [world.label(pair) for pair in pairs]

    with tempfile.TemporaryDirectory() as temporary:
        learn(world.candidates, label, section(members), temporary, by=rule, batch=BATCH, n_rounds=rounds,
              seed=seed, on_round=note)  # type: ignore[arg-type]  # fmt: skip
    shown = " ".join(f"{np.nanmean(values):.3f}" for values in by_round["accuracy"])
    print(f"seed {seed}  {rule:12} accuracy {shown}  ({time.monotonic() - started:.0f} s)", flush=True)
    return {name: np.stack(values) for name, values in by_round.items()}


def table(by_seed: Sequence[Mapping[str, Any]], measure: str) -> dict[str, Any]:
    """Printed, and returned as rule → labels → mean, interval, difference to random with its interval, by seed."""
    rounds = len(by_seed[0]["random"][measure])
    print(f"\n{measure:14}" + "".join(f"{BATCH * (number + 1):>26}" for number in range(rounds)))
    figures: dict[str, Any] = {}
    for rule in by_seed[0]:
        cells = []
        for number in range(rounds):
            values = [found[rule][measure][number] for found in by_seed]
            chance = [found["random"][measure][number] for found in by_seed]
            entry = {**interval(values), "by_seed": [round(float(np.nanmean(x)), 4) for x in values]}
            cell = f"{entry['mean']:.3f}"
            if rule != "random" and number:
                more = interval([x - y for x, y in zip(values, chance, strict=True)])
                entry["over_random"] = more
                cell += f" {more['mean']:+.3f} [{more['low']:+.3f}, {more['high']:+.3f}]"
            figures.setdefault(rule, {})[BATCH * (number + 1)] = entry
            cells.append(cell.rjust(26))
        print(f"{rule:14}" + "".join(cells))
    return figures


def reward(seeds: Sequence[int], split: str, quick: bool, pieces: Pieces) -> dict[str, Any]:
    n_prompts, n_samples, limit, rounds, members = (30, 3, 20, 2, 2) if quick else (160, 8, 400, ROUNDS, MEMBERS)
    by_seed: list[dict[str, Any]] = []
    for seed in seeds:
        world = judged(seed, n_prompts, n_samples)
        test = TestSet(**pieces.get(f"test-{split}-{limit}-{seed}", partial(test_set, seed, split, limit, 4)))
        by_seed.append({})
        for rule in RULES[:2] if quick else RULES:
            make = partial(curve, world, test, seed, rule, rounds, members)
            by_seed[-1][rule] = make() if quick else pieces.get(f"reward-{split}-{seed}-{rule}", make)
    return {measure: table(by_seed, measure) for measure in MEASURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("reward", "tournaments", "policies", "all"), default="all")
    parser.add_argument("--quick", action="store_true", help="one seed of little of everything: does it run at all?")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--split", choices=("dev", "heldout"), default="heldout")
    parser.add_argument("--minutes", type=float, help="stop after that; what is done is kept under build/")
    parser.add_argument("--simulated", action="store_true", help="tournaments: drawn ones instead of recorded ones")
    parser.add_argument("--data", type=Path, default=None, help="folder with vicuna_pairwise_gpt4.jsonl.gz")
    args = parser.parse_args()
    quiet()
    pieces = Pieces(args.minutes)
    seeds = range(args.first_seed, args.first_seed + (1 if args.quick else args.seeds))
    found: dict[str, Any] = {"split": args.split, "seeds": list(seeds)}
    if args.part in ("reward", "all"):
        found["reward"] = reward(seeds, args.split, args.quick, pieces)
    if args.part in ("tournaments", "all"):
        found["tournaments"] = tournaments(args.data, seeds, args.quick, args.simulated)
    if args.part in ("policies", "all"):
        found["policies"] = policies(seeds, args.split, args.quick, pieces)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
