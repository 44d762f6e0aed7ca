"""QLoRA's tournament of 8 systems on 80 prompts (arXiv 2305.14314): Table 1's Elo, Bradley–Terry, Table 6's ratios.

    python benchmarks/qlora_elo.py            # 10 seconds; wants ../shared/data/qlora, or RLAIF_TEST_DATA

Everything is read through the recordings that ship with rlaif, verdicts from GPT-4's raw texts; the answers' ids
decide who was shown first.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlaif import recordings
from rlaif.judges.patterns import numbers, pattern_choice
from rlaif.metrics.ranking import bradley_terry, elo

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "pipelines" / "recordings"
DATA = os.environ.get("RLAIF_TEST_DATA") or str(ROOT.parent / "shared" / "data")
NAMES = {  # the beginning of a system's name in the data → the paper's
    "gpt-4": "GPT-4",
    "gpt4": "GPT-4",
    "65b-guanaco": "Guanaco 65B",
    "30b-guanaco": "Guanaco 33B",
    "vicuna-13b": "Vicuna 13B",
    "gpt-3.5": "ChatGPT",
    "13b-guanaco": "Guanaco 13B",
    "bard": "Bard",
    "7b-guanaco": "Guanaco 7B",
    "30b-huggingchat": "Open Assistant 33B",
}
TABLE_1 = {  # Elo as published
    "GPT-4": 1348,
    "Guanaco 65B": 1022,
    "Guanaco 33B": 992,
    "Vicuna 13B": 974,
    "ChatGPT": 966,
    "Guanaco 13B": 916,
    "Bard": 902,
    "Guanaco 7B": 879,
}
TABLE_6 = {  # percent of ChatGPT's score as published: one order, the other, mean
    "GPT-4": (119.4, 110.1, 114.5),
    "Bard": (93.2, 96.4, 94.8),
    "Guanaco 65B": (96.7, 101.9, 99.3),
    "Guanaco 33B": (96.5, 99.2, 97.8),
    "Vicuna 13B": (91.2, 98.7, 94.9),
    "Guanaco 13B": (87.3, 93.4, 90.4),
    "Guanaco 7B": (84.1, 89.8, 87.0),
    "65b-alpaca": (63.0, 77.9, 70.7),
    "65b-flan": (37.0, 59.6, 48.4),
    "30b-alpaca": (67.2, 79.7, 73.6),
    "30b-flan": (26.3, 49.7, 38.0),
    "13b-alpaca": (63.8, 76.7, 69.4),
    "13b-hh-rlhf": (55.5, 69.1, 62.5),
    "13b-unnatural-instructions": (50.6, 69.8, 60.5),
    "13b-chip2": (49.2, 69.3, 59.5),
    "13b-longform": (44.9, 62.0, 53.6),
    "13b-self-instruct": (38.0, 60.5, 49.1),
    "13b-flan": (32.4, 61.2, 47.0),
    "7b-alpaca": (57.3, 71.2, 64.4),
    "7b-flan": (33.3, 56.1, 44.8),
}
# What the recorded scores are in the whole review, of which the data holds the first line only.
SCORES = "join(' ', [to_string(score[0]), to_string(score[1])])"


def name_of(source: str) -> str:
    known = next((name for start, name in NAMES.items() if source.startswith(start)), None)
    return known or source.partition("-vicuna-")[0]


def games() -> tuple[list[int], list[int], list[float]]:
    """The places in TABLE_1 of the systems shown first and second, and 1 | ½ | 0 for the first, of every text that
    holds a verdict."""
    recording = recordings.load(RECORDINGS / "qlora_pairs.yaml", {"data": DATA})
    assert recording.parse is not None
    choice = pattern_choice(recording.parse)
    system = {response.id: name_of(response.source) for found in recording.responses.values() for response in found}
    value = {"A": 1.0, "C": 0.5, "B": 0.0}
    names = list(TABLE_1)
    found: tuple[list[int], list[int], list[float]] = ([], [], [])
    for (_, first, second), replies in recording.replies.items():
        label = choice.parse(replies[0]).label
        if label is not None:
            game = (names.index(system[first]), names.index(system[second]), value[label])
            for column, item in zip(found, game, strict=True):
                column.append(item)  # type: ignore[arg-type]
    return found


def ratios() -> dict[str, tuple[float, float, float]]:
    """System → its score in percent of ChatGPT's: ChatGPT shown first, second, and both.

    As published: a total over the questions divided by a total, never a mean of ratios. For both orders each question
    counts with the mean over its orders that have scores.
    """
    recording = recordings.load(RECORDINGS / "qlora_relative.yaml", {"data": DATA, "text": SCORES})
    assert recording.parse is not None and recording.parse.compare is not None
    system = {response.id: str(response.meta["id"]) for all_ in recording.responses.values() for response in all_}
    scores: dict[str, dict[str, dict[bool, tuple[float, float]]]] = defaultdict(lambda: defaultdict(dict))
    for (prompt, first, second), replies in recording.replies.items():
        values, _ = numbers(recording.parse.compare, replies[0].text, recording.parse)
        if values is None:
            continue
        chatgpt_first = system[first] == "gpt-3.5"
        theirs, chatgpts = values[::-1] if chatgpt_first else values
        name = name_of(system[second if chatgpt_first else first])
        scores[name][prompt][chatgpt_first] = (theirs, chatgpts)
    found = {}
    for name, questions in scores.items():
        by_order = [[said[order] for said in questions.values() if order in said] for order in (True, False)]
        means = [np.mean(list(said.values()), axis=0) for said in questions.values()]
        one, other, both = (100 * np.sum(rows, axis=0)[0] / np.sum(rows, axis=0)[1] for rows in (*by_order, means))
        found[name] = (float(one), float(other), float(both))
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--orders", type=int, default=2000, help="random orders of the games")
    orders = parser.parse_args(argv).orders
    first, second, won = games()
    names = list(TABLE_1)
    ratings = {
        k: elo(first, second, won, len(names), np.random.default_rng(0), k=k, n_orders=orders) for k in (4.0, 32.0)
    }
    fitted = bradley_terry(first, second, won, len(names), order_effect=True, prior_sd=10)
    scale = 400 / np.log(10)  # from log-odds to Elo's points
    centre = np.eye(len(names)) - 1 / len(names)  # only differences are known, so errors are told of those
    error = scale * np.sqrt(np.diag(centre @ fitted.covariance @ centre))
    off = max(abs(ratings[4].mean(axis=0)[i] - TABLE_1[name]) for i, name in enumerate(names))
    print(f"{len(won):,} games; Elo over {orders:,} random orders, mean ± standard deviation over orders")
    print(f"{'system':<14}{'published':>10}{'Elo, K=4':>18}{'Elo, K=32':>18}{'Bradley–Terry + 1000':>23}")
    for i, name in enumerate(names):
        cells = [f"{ratings[k][:, i].mean():.1f} ± {ratings[k][:, i].std():.1f}" for k in (4, 32)]
        strength = f"{1000 + scale * fitted.strengths[i]:.1f} ± {error[i]:.1f}"
        print(f"{name:<14}{TABLE_1[name]:>10}{cells[0]:>18}{cells[1]:>18}{strength:>23}")
    advantage = scale * fitted.order
    print(f"being shown first is worth {advantage:.1f} points of Bradley–Terry's")
    said = ratios()
    wrong = [name for name, row in TABLE_6.items() if max_difference(said[name], row) > 0.05 + 1e-9]
    print("\npercent of ChatGPT's total score: ChatGPT shown first, second, both (published: both)")
    for name, row in sorted(said.items(), key=lambda item: -item[1][2]):
        shown = f"{TABLE_6[name][2]:.1f}" if name in TABLE_6 else ""
        print(f"{name:<28}{row[0]:>8.1f}{row[1]:>8.1f}{row[2]:>8.1f}{shown:>8}")
    print(
        json.dumps(
            {
                "games": len(won),
                "elo_off_by": round(off, 3),
                "ratios_compared": 3 * len(TABLE_6),
                "ratios_wrong": wrong,
                "first_shown_points": round(advantage, 1),
            }
        )
    )


def max_difference(ours: tuple[float, float, float], published: tuple[float, float, float]) -> float:
    """Over both orders, whichever is named first, and the mean."""
    pairs = zip([*sorted(ours[:2]), ours[2]], [*sorted(published[:2]), published[2]], strict=True)
    return max(abs(one - other) for one, other in pairs)


if __name__ == "__main__":
    main()
