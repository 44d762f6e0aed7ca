"""How much of the best-worst gap a tournament keeps with a share of the calls, replayed on recorded GPT-4 verdicts.

    python benchmarks/tournament_replay.py --data DIR [--seeds 200] [--plot FILE]
    python benchmarks/tournament_replay.py --simulated [--seeds 20]

DIR holds `vicuna_pairwise_gpt4.jsonl.gz` of the QLoRA repository's complete tournament: 8 systems, 80 prompts, all 56
ordered pairs of each, the verdict on the last line of GPT-4's text (1 first, 2 second, 3 tie). The order shown is
decided by answer ids: `a1` was shown first.

`TournamentJudge` and `PairwiseJudge` run as they do in a pipeline; a request is answered with the recorded text for
the two responses it shows. `pair` makes the label. Every response has a score over the full tournament: its mean
points (win 1, tie ½) over all its recorded meetings. The gap of a label is score(chosen) − score(rejected), 0 where
there is no label; `gap kept` is its sum over prompts, divided by the sum of the largest possible gaps (highest −
lowest score). `--simulated` draws such tournaments instead (strengths, a position effect, ties, and pairs that do not
follow strength): on these the scheme and its settings were chosen, not on the recorded one. Baselines at the same
number of calls: Swiss, and random pairs, both with the same selector; and random pairs with the mean P(win). Last
line: JSON.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlaif.config import PairSection
from rlaif.judges.base import Task
from rlaif.judges.pairwise import PairwiseJudge
from rlaif.judges.tournament import TournamentJudge
from rlaif.judges.verdicts import Choice
from rlaif.paths import shipped
from rlaif.records import Judgment, Prompt, Reply, Request, Response
from rlaif.rubric import load_rubric
from rlaif.stages.pair import pair
from rlaif.templates import load_frame

VERDICT = {"1": "A", "2": "B", "3": "C"}  # GPT-4's number → our label, in the order shown
CALLS = (7, 10, 14, 20, 28, 42, 56)  # of 56
BAR = 14
CURVES = {
    "best_worst": ("best_worst", "bradley_terry"),
    "swiss": ("swiss", "bradley_terry"),
    "random pairs": ("random", "bradley_terry"),
    "random pairs, mean P(win)": ("random", "best_vs_worst"),
}


class Recorded(NamedTuple):
    """One prompt's tournament. `replies`: (shown first, shown second) → the text that GPT-4's amounts to."""

    task: Task
    replies: Mapping[tuple[str, str], str]
    scores: Mapping[str, float]


def load(path: Path) -> list[Recorded]:
    rows: dict[int, list[dict[str, Any]]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            rows.setdefault(row["q"], []).append(row)
    return [_recorded(number, rows[number]) for number in sorted(rows)]


def _recorded(number: int, rows: list[dict[str, Any]]) -> Recorded:
    prompt = Prompt(id=f"q{number}", messages=[{"role": "user", "content": f"question {number}"}])
    ids = sorted({row["a1"] for row in rows})
    responses = [Response(id=id_, prompt_id=prompt.id, text=f"answer {id_}") for id_ in ids]
    replies: dict[tuple[str, str], str] = {}
    points: dict[str, list[float]] = {id_: [] for id_ in ids}
    for row in rows:
        label = VERDICT.get(row["text"].strip().splitlines()[-1].strip())
        replies[row["a1"], row["a2"]] = f"Verdict: {label}" if label else row["text"]
        if label:
            won = {"A": 1.0, "B": 0.0, "C": 0.5}[label]
            points[row["a1"]].append(won)
            points[row["a2"]].append(1 - won)
    scores = {id_: sum(found) / len(found) for id_, found in points.items()}
    return Recorded(Task(prompt=prompt, responses=responses), replies, scores)


def simulated(n_prompts: int = 80, n: int = 8, seed: int = 0) -> list[Recorded]:
    """Complete tournaments of `n`: log-odds = difference of strengths (sd 1.2 each) + 0.6 for the first place + what
    is
    peculiar to the pair (sd 0.7), with ties as in Davidson's model (ν = 0.6)."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(n_prompts):
        strengths, peculiar = rng.normal(0, 1.2, n), rng.normal(0, 0.5, (n, n))
        rows = []
        for i in range(n):
            for j in range(n):
                if i != j:
                    half = (strengths[i] - strengths[j] + 0.6 + peculiar[i, j] - peculiar[j, i]) / 2
                    weights = np.array([np.exp(half), np.exp(-half), 0.6])
                    verdict = rng.choice(["1", "2", "3"], p=weights / weights.sum())
                    rows.append({"a1": f"r{i}", "a2": f"r{j}", "text": verdict})
        found.append(_recorded(number, rows))
    return found


def pairwise() -> PairwiseJudge:
    """The text judge with ties, as `judge: tournament` builds it inside."""
    frame = load_frame(shipped("prompts") / "judges" / "pairwise.jinja")
    choice = Choice(labels=("A", "B", "C"), read="text", tie="C")
    return PairwiseJudge(frame=frame, choice=choice, rubric=load_rubric("helpfulness"), orders="given")


def play(judge: TournamentJudge, recorded: Recorded, seed: int) -> tuple[list[Judgment], int]:
    """The judgments, and how many requests they took."""
    run = judge(Task(prompt=recorded.task.prompt, responses=recorded.task.responses, seed=seed))
    asked = 0
    try:
        requests = next(run)
        while True:
            asked += len(requests)
            requests = run.send([_answer(request, recorded) for request in requests])
    except StopIteration as stop:
        return stop.value, asked


def _answer(request: Request, recorded: Recorded) -> Reply:
    _, first, second = request.subject
    return Reply(text=recorded.replies[first, second])


def gap_kept(data: list[Recorded], judge: TournamentJudge, select: str, seed: int) -> tuple[float, float, int]:
    """Over all prompts: the gap kept, mean calls a prompt, and how many prompts had no label."""
    kept = best = 0.0
    asked = unlabelled = 0
    for recorded in data:
        judgments, n = play(judge, recorded, seed)
        asked += n
        preferences, _ = pair(judgments, PairSection(select=select))
        scores = recorded.scores
        best += max(scores.values()) - min(scores.values())
        kept += sum(scores[row.chosen_id] - scores[row.rejected_id] for row in preferences)
        unlabelled += not preferences
    return kept / best, asked / len(data), unlabelled


def curve(data: list[Recorded], scheme: Any, select: str, calls: int | None, seeds: int) -> dict[str, Any]:
    """Gap kept over seeds: mean, interval (2.5 % and 97.5 % of seeds), calls."""
    judge = TournamentJudge(judge=pairwise(), scheme=scheme, calls=calls)
    runs = [gap_kept(data, judge, select, seed) for seed in range(seeds)]
    kept = np.array([run[0] for run in runs])
    low, high = np.quantile(kept, [0.025, 0.975])
    return {
        "mean": float(kept.mean()),
        "low": float(low),
        "high": float(high),
        "calls": float(np.mean([run[1] for run in runs])),
        "unlabelled": float(np.mean([run[2] for run in runs])),
    }


def plot(curves: Mapping[str, list[dict[str, Any]]], path: Path, n_ordered: int, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.5), layout="constrained")
    styles = {"best_worst": "o-", "swiss": "s-", "random pairs": "^--", "random pairs, mean P(win)": "v:"}
    for name, points in curves.items():
        share = [100 * point["calls"] / n_ordered for point in points]
        (line,) = axes.plot(share, [100 * point["mean"] for point in points], styles[name], label=name)
        axes.fill_between(share, [100 * p["low"] for p in points], [100 * p["high"] for p in points], alpha=0.15,
                          color=line.get_color(), linewidth=0)  # fmt: skip
    axes.axvline(100 * BAR / n_ordered, color="grey", linewidth=0.8, linestyle=":")
    axes.set_xlabel(f"requests, % of all {n_ordered} ordered pairs")
    axes.set_ylabel("best–worst gap kept, %")
    axes.set_title(f"{title}; bands: 95 % of seeds", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "qlora"
    parser.add_argument("--data", type=Path, default=beside, help="folder with vicuna_pairwise_gpt4.jsonl.gz")
    parser.add_argument("--simulated", action="store_true", help="drawn tournaments instead of recorded ones")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--plot", type=Path, default=None, help="a PNG or SVG to write; needs matplotlib")
    arguments = parser.parse_args()
    path = arguments.data / "vicuna_pairwise_gpt4.jsonl.gz"
    if not path.exists() and not arguments.simulated:
        print(json.dumps({"skipped": f"{path.name} is not in {arguments.data}"}))
        return
    data = simulated() if arguments.simulated else load(path)
    n_ordered = len(data[0].replies)
    print(f"{'scheme':<28}{'calls':>6}{'share':>8}{'gap kept':>10}   95 % of seeds   prompts without a label")
    curves: dict[str, list[dict[str, Any]]] = {}
    for name, (scheme, select) in CURVES.items():
        for calls in CALLS if arguments.plot else (BAR,):
            seeds = arguments.seeds if calls == BAR else min(20, arguments.seeds)
            # at the bar the judge's own default is what is measured
            limit = None if calls == BAR else calls
            point = curve(data, scheme, select, limit, seeds)
            curves.setdefault(name, []).append(point)
            print(
                f"{name:<28}{point['calls']:>6.1f}{point['calls'] / n_ordered:>8.1%}{point['mean']:>10.4f}"
                f"   {point['low']:.3f} – {point['high']:.3f}   {point['unlabelled']:.1f}",
                flush=True,
            )
    if arguments.plot:
        source = "Simulated tournaments" if arguments.simulated else "Recorded GPT-4 tournament"
        plot(curves, arguments.plot, n_ordered, f"{source}: 8 responses, 80 prompts")
    at_bar = {name: min(points, key=lambda p: abs(p["calls"] - BAR)) for name, points in curves.items()}
    ours, chance = at_bar["best_worst"], at_bar["random pairs"]
    print(
        json.dumps(
            {
                "gap_kept": round(ours["mean"], 4),
                "gap_kept_95": [round(ours["low"], 4), round(ours["high"], 4)],
                "calls_share": round(ours["calls"] / n_ordered, 4),
                "random_gap_kept": round(chance["mean"], 4),
                "random_gap_kept_95": [round(chance["low"], 4), round(chance["high"], 4)],
                "swiss_gap_kept": round(at_bar["swiss"]["mean"], 4),
                "seeds": arguments.seeds,
                "simulated": arguments.simulated,
            }
        )
    )


if __name__ == "__main__":
    main()
