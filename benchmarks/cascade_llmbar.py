"""Promises of cascades, checked on recorded judgments of LLMBar: are they kept, and where are they refused?

    python benchmarks/cascade_llmbar.py --data DIR [--halves 500]

DIR holds `llmbar_results.jsonl.gz`: per evaluator and item the winner in either shown order, mapped back to the two
outputs, and the gold label. Natural: 100 items; adversarial: 319.

For each cascade and set, the items are cut at random into halves 500 times. The plan (`metrics.selective`) is made on
one half for α = δ = 0.1, and applied to the other: a promise is broken if the cascade's answers there agree with gold
in a share below 1 − α. (That share is itself a draw from a finite half: a promise right at its limit would be called
broken half of the time.) Confidence: a single recorded evaluator says no more than whether its two orders agree,
which is one level. Finer levels come from several evaluators of one base model (names with "×"): the mean of their
verdicts, which costs as many calls, and is not self-consistency, for which nothing is recorded.

`asked last`: share of the other half that reaches the last judge. Last line: JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaif.metrics.selective import EVERYTHING, apply_plan, calibrate_cascade

ALPHA = DELTA = 0.1
SETS = ("natural", "adversarial")
STRATEGIES = ("Vanilla", "Vanilla_NoRules", "CoT", "Metrics", "Reference")
WEAK = ("ChatGPT", "ChatGPT-0301", "LLaMA2", "PaLM2", "Falcon")
CASCADES: dict[str, tuple[str, ...]] = {
    "GPT-4": ("GPT-4/Vanilla",),
    **{name: (f"{name}/Vanilla",) for name in WEAK},
    **{f"{name} → GPT-4": (f"{name}/Vanilla", "GPT-4/Vanilla") for name in WEAK},
    "ChatGPT ×5": ("ChatGPT ×5",),
    "GPT-4 ×5": ("GPT-4 ×5",),
    "ChatGPT ×5 → GPT-4": ("ChatGPT ×5", "GPT-4/Vanilla"),
    "PaLM2 ×5 → GPT-4": ("PaLM2 ×5", "GPT-4/Vanilla"),
    "ChatGPT → PaLM2 → GPT-4": ("ChatGPT/Vanilla", "PaLM2/Vanilla", "GPT-4/Vanilla"),
}


class Recorded(NamedTuple):
    """One set. `probabilities`: evaluator → (N,) P(output 1 is better); NaN: an order gave no verdict."""

    probabilities: Mapping[str, NDArray[np.float64]]
    truths: NDArray[np.float64]


def load(path: Path) -> dict[str, Recorded]:
    votes: dict[str, dict[str, dict[tuple[str, int], float]]] = {name: {} for name in SETS}
    labels: dict[str, dict[tuple[str, int], float]] = {name: {} for name in SETS}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            which = "natural" if row["dataset"].endswith("Natural") else "adversarial"
            item = (row["dataset"], row["i"])
            labels[which][item] = float(row["label"] == 1)
            votes[which].setdefault(row["evaluator"], {})[item] = _probability(row["results"][-1])
    found = {}
    for name in SETS:
        items = sorted(labels[name])
        columns = {who: np.array([said[item] for item in items]) for who, said in votes[name].items()}
        for base in ("GPT-4", *WEAK):
            several = [columns[f"{base}/{strategy}"] for strategy in STRATEGIES]
            columns[f"{base} ×5"] = np.mean(several, axis=0)  # NaN where any has no verdict: unsure
        found[name] = Recorded(columns, np.array([labels[name][item] for item in items]))
    return found


def _probability(stage: Mapping[str, Any]) -> float:
    winners = [stage[order]["winner"] for order in ("swap = False", "swap = True") if order in stage]
    if len(winners) != 2 or None in winners:
        return float("nan")
    return sum(winner == "1" for winner in winners) / 2


def halves(recorded: Recorded, members: Sequence[str], n_halves: int, seed: int = 0) -> dict[str, float]:
    """Over random halves: how often promised, how often promised and broken, and means over the promised ones."""
    rng = np.random.default_rng(seed)
    n = recorded.truths.size
    promised = broken = 0
    answered, agreement, last = [], [], []
    for _ in range(n_halves):
        order = rng.permutation(n)
        ours, theirs = order[: n // 2], order[n // 2 :]
        plan = calibrate_cascade(
            {name: recorded.probabilities[name][ours] for name in members},
            recorded.truths[ours],
            agreement=1 - ALPHA,
            confidence=1 - DELTA,
        ).slices[EVERYTHING]
        if not plan.promised:
            continue
        promised += 1
        there = {name: recorded.probabilities[name][theirs] for name in members}
        found = apply_plan(plan, there, recorded.truths[theirs])
        share = 1 - found.errors / found.answered if found.answered else 1.0
        broken += share < 1 - ALPHA - 1e-12
        answered.append(found.answered / theirs.size)
        agreement.append(share)
        last.append(found.asked[-1])
    mean = {name: float(np.mean(x)) if x else float("nan")
            for name, x in (("answered", answered), ("agreement", agreement), ("asked_last", last))}  # fmt: skip
    return {"promised": promised / n_halves, "broken": broken / n_halves, **mean}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "llmbar"
    parser.add_argument("--data", type=Path, default=beside, help="folder with llmbar_results.jsonl.gz")
    parser.add_argument("--halves", type=int, default=500)
    arguments = parser.parse_args()
    path = arguments.data / "llmbar_results.jsonl.gz"
    if not path.exists():
        print(json.dumps({"skipped": f"{path.name} is not in {arguments.data}"}))
        return
    data = load(path)
    print(
        f"{'cascade':<26}{'set':<13}{'promised':>9}{'broken':>8}{'answered':>10}{'agreement':>11}{'asked last':>12}"
    )
    results: dict[tuple[str, str], dict[str, float]] = {}
    for name, members in CASCADES.items():
        for which in SETS:
            row = results[name, which] = halves(data[which], members, arguments.halves)
            print(
                f"{name:<26}{which:<13}{row['promised']:>9.3f}{row['broken']:>8.3f}{row['answered']:>10.3f}"
                f"{row['agreement']:>11.3f}{row['asked_last']:>12.3f}",
                flush=True,
            )
    cascade = results["ChatGPT → GPT-4", "natural"]
    print(
        json.dumps(
            {
                "most_broken": round(max(row["broken"] for row in results.values()), 4),
                "broken_allowed": round(DELTA + 3 * (DELTA * (1 - DELTA) / arguments.halves) ** 0.5, 4),
                "gpt4_natural_promised": results["GPT-4", "natural"]["promised"],
                "weak_adversarial_promised": max(results[name, "adversarial"]["promised"] for name in WEAK),
                "cascade_natural_asked_last": round(cascade["asked_last"], 4),
                "cascade_natural_promised": cascade["promised"],
                "halves": arguments.halves,
            }
        )
    )


if __name__ == "__main__":
    main()
