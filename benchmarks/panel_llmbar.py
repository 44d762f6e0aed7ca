"""Panels of real judges on LLMBar: what 50 gold labels make of 65 evaluators, below chance many of them.

    python benchmarks/panel_llmbar.py [--data FOLDER] [--draws 300] [--gold 50]

Reads the recorded verdicts of LLMBar's evaluators (`llmbar_results.jsonl.gz`), both orders. A member's verdict on an
item is the sign of the two orders' mean; an evaluator with no verdict in one order says nothing there. In every draw
`--gold` items are drawn at random as gold and every method is scored on the rest: 1 right, ½ a tie, 0 wrong. What was
tried before, and why it was not enough, is in docs/log.md.

- `best`: the one judge that is best on the whole slice, which nobody knows beforehand, scored on the same rest
- `picked`: the one judge that is best on the gold
- `majority`: of the verdicts; no gold
- `independent`: Dawid–Skene anchored on gold, the members taken as independent
- `weighted`, `dawid_skene`: as `pair.panel` has them, with allowance for members that err together

Panels: each strategy that at least five base models were run with, one evaluator for each model; all evaluators; all
but GPT-4's; and one model's evaluators.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rlaif.metrics import panel  # noqa: E402

FILE = "llmbar_results.jsonl.gz"
SLICES = ("natural", "adversarial")
METHODS = ("best", "picked", "majority", "independent", "weighted", "dawid_skene")
BEHIND = 0.02  # so much below the best judge is still as good
_NOISE = 1e-9

Votes = dict[str, np.ndarray]  # slice → (M, N) 1 right, −1 wrong, 0 tie, NaN none


def load(folder: Path) -> tuple[list[str], Votes]:
    """Evaluators, and the verdict of each on each item, told as right or wrong."""
    rows: dict[str, dict[str, dict[tuple[str, int], float]]] = {name: defaultdict(dict) for name in SLICES}
    with gzip.open(folder / FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            last = row["results"][-1]
            winners = [last[order]["winner"] for order in ("swap = False", "swap = True")]
            said = [np.nan if winner is None else 1.0 if int(winner) == row["label"] else -1.0 for winner in winners]
            where = rows["natural" if "Natural" in row["dataset"] else "adversarial"]
            where[row["evaluator"]][row["dataset"], row["i"]] = float(np.sign(np.mean(said)))
    names = sorted(rows["natural"])
    votes = {}
    for name, found in rows.items():
        items = sorted(next(iter(found.values())))
        votes[name] = np.array([[found[evaluator][item] for item in items] for evaluator in names])
    return names, votes


def panels(names: Iterable[str]) -> dict[str, list[str]]:
    """Panel → its members."""
    names = list(names)
    of_strategy: dict[str, list[str]] = defaultdict(list)
    of_model: dict[str, list[str]] = defaultdict(list)
    for name in names:
        model, strategy = name.split("/")
        of_strategy[strategy].append(name)
        of_model[model].append(name)
    found = {f"strategy {key}": members for key, members in of_strategy.items() if len(members) >= 5}
    found |= {"all": names, "all but GPT-4": [name for name in names if not name.startswith("GPT-4/")]}
    return found | {f"model {key}": members for key, members in of_model.items()}


def score(said: np.ndarray) -> float:
    """Mean of 1 right, ½ tie, 0 wrong, where right is positive."""
    known = said[~np.isnan(said)]
    return float(np.mean((1 + np.sign(np.where(np.abs(known) < _NOISE, 0.0, known))) / 2))


def one_draw(votes: np.ndarray, gold: np.ndarray, moment: np.ndarray, best: int) -> dict[str, Any]:
    """Every method's score on what is not gold, and the flags. `gold`: (N,) which items are."""
    rest = votes[:, ~gold]
    counts = panel.right_on(votes[:, gold], np.ones(int(gold.sum())))
    standings = [panel.Standing.of(*found) for found in counts]
    accuracy = np.array([standing.accuracy for standing in standings])
    weights, _ = panel.pool_weights(accuracy, moment, (~np.isnan(votes)).mean(axis=1))
    independent = panel.dawid_skene(votes, counts, gold)
    anchored = panel.dawid_skene(votes, counts, gold, moment)
    return {
        "best": score(rest[best]),
        "picked": score(rest[int(np.argmax(accuracy))]),
        "majority": score(panel.majority(rest)),
        "independent": score(independent.difference(rest)),
        "weighted": score(weights @ np.nan_to_num(rest)),
        "dawid_skene": score(anchored.difference(rest)),
        "flags": [standing.flag for standing in standings],
    }


def measure(votes: np.ndarray, n_gold: int, draws: int, seed: int = 0) -> dict[str, Any]:
    """Means over draws; `flagged`: (M,) share of draws in which the member is shown to be below chance.

    Votes are told as right or wrong instead of first or second; every method is odd in each item, so that this is
    the same.
    """
    rng = np.random.default_rng(seed)
    n_items = votes.shape[1]
    moment = panel.moments(votes)
    accuracy = np.nanmean((1 + votes) / 2, axis=1)
    rows = []
    for _ in range(draws):
        gold = np.isin(np.arange(n_items), rng.choice(n_items, n_gold, replace=False))
        rows.append(one_draw(votes, gold, moment, int(np.argmax(accuracy))))
    found: dict[str, Any] = {name: float(np.mean([row[name] for row in rows])) for name in METHODS}
    flags = np.array([[flag == panel.BELOW_CHANCE for flag in row["flags"]] for row in rows])
    shrunk = (np.nansum((1 + votes) / 2, axis=1) + 1) / ((~np.isnan(votes)).sum(axis=1) + 2)
    return found | {
        "flagged": flags.mean(axis=0),
        "accuracy": accuracy,
        "n_effective": panel.effective_number(panel.correlations_of(votes, shrunk)),
    }


def table(names: list[str], votes: Votes, chosen: Mapping[str, list[str]], n_gold: int, draws: int) -> dict[str, Any]:
    """Prints one line for each panel and slice; returns the figures."""
    index = {name: i for i, name in enumerate(names)}
    found: dict[str, Any] = {}
    print(f"{'panel':<28}{'slice':<12}{'M':>3}{'n_eff':>7}" + "".join(f"{name:>13}" for name in METHODS))
    for title, members in chosen.items():
        for where in SLICES:
            figures = measure(votes[where][[index[name] for name in members]], n_gold, draws)
            found[f"{title} | {where}"] = figures
            shown = "".join(
                f"{figures[name]:>12.3f}" + ("*" if figures[name] < figures["best"] - BEHIND else " ")
                for name in METHODS
            )
            print(f"{title:<28}{where:<12}{len(members):>3}{figures['n_effective']:>7.1f}{shown}", flush=True)
    print(f"* more than {BEHIND} below the best single judge. n_eff: of the errors on the whole slice")
    return found


def flags_table(names: list[str], figures: Mapping[str, Any]) -> None:
    """How often a judge of a given accuracy is shown to be below chance, all evaluators on the adversarial slice."""
    accuracy, flagged = figures["accuracy"], figures["flagged"]
    print("\nflagged as below chance, mean share of draws, by accuracy on all adversarial items:")
    for low, high in ((0.2, 0.3), (0.3, 0.35), (0.35, 0.4), (0.4, 0.5), (0.5, 1.0)):
        inside = (accuracy >= low) & (accuracy < high)
        if inside.any():
            print(f"  {low:.2f} to {high:.2f}: {inside.sum():>3} judges, {flagged[inside].mean():.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "llmbar")
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--gold", type=int, default=50)
    arguments = parser.parse_args()
    if not (arguments.data / FILE).exists():
        raise SystemExit(
            f"{arguments.data / FILE}: not there; --data names the folder with LLMBar's recorded results"
        )
    names, votes = load(arguments.data)
    found = table(names, votes, panels(names), arguments.gold, arguments.draws)
    flags_table(names, found["all | adversarial"])
    plain = {key: {name: round(row[name], 4) for name in METHODS} for key, row in found.items()}
    shown = [key for key in plain if key.startswith(("strategy", "all |"))]
    behind = {
        name: round(max(plain[key]["best"] - plain[key][name] for key in shown), 4)
        for name in ("majority", "independent", "weighted", "dawid_skene")
    }
    print(json.dumps({"draws": arguments.draws, "gold": arguments.gold, "most_behind_best": behind, "panels": plain}))


if __name__ == "__main__":
    main()
