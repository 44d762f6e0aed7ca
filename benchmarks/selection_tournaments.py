"""Part (b) of label_efficiency.py: which comparisons of a recorded tournament to ask for, at equal calls.

No text is trained on. What is known of a prompt's responses is a Bradley–Terry model of the comparisons so far, whose
posterior (the Laplace approximation that `rlaif.metrics.ranking` gives) is what an ensemble is elsewhere: 32 draws of
all strengths are the opinions. A step asks for as many comparisons as there are prompts; which ones `order_pairs`
says, over all pairs of all prompts that were not asked yet. Each pair is shown in one order: who was shown first less
often goes first. After that `pair` makes the labels with `select: bradley_terry`. `both ends`: every second step
looks for the worst instead of the best, by the same rule on the negated strengths.

gap kept    as in tournament_replay.py: score(chosen) − score(rejected) over all prompts, of the largest possible
best kept   (score of the strongest − mean score) over (highest − mean score), means over prompts
tau         Kendall's τ of the strengths with the scores of the full tournament, mean over prompts

`tournament` is `judge: tournament` with its defaults, which asks within each prompt for its own: the rule that ships.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tournament_replay as replay
from reward_world import ROOT

from rlaif.config import PairSection
from rlaif.metrics.choosing import RULES, order_pairs
from rlaif.metrics.ranking import BradleyTerry, bradley_terry
from rlaif.records import Judgment
from rlaif.stages.pair import pair

DRAWS = 32
CALLS = (6, 8, 10, 14, 20)  # a prompt, on average; of 28 pairs in one order each
_VERDICTS = {"A": "first", "B": "second", "C": "tie"}
_POINTS = {"first": 1.0, "second": 0.0, "tie": 0.5}


class Table:
    """One prompt: what was asked, and how strong that makes everybody."""

    def __init__(self, recorded: replay.Recorded) -> None:
        self.recorded = recorded
        self.ids = [response.id for response in recorded.task.responses]
        self.judgments: list[Judgment] = []
        self._shown_first = [0] * len(self.ids)
        self._rows: list[tuple[int, int, float]] = []
        self._fit: BradleyTerry | None = None

    def ask(self, i: int, j: int, rng: np.random.Generator) -> None:
        lean = self._shown_first[i] - self._shown_first[j]
        if lean > 0 or (lean == 0 and rng.random() < 0.5):
            i, j = j, i
        self._shown_first[i] += 1
        self._shown_first[j] -= 1
        shown = [self.ids[i], self.ids[j]]
        text = self.recorded.replies[shown[0], shown[1]]
        verdict = _VERDICTS.get(text.removeprefix("Verdict: "))
        status = "ok" if verdict else "unparsed"
        self.judgments.append(
            Judgment(id="-".join(shown), prompt_id=self.recorded.task.prompt.id, response_ids=shown, verdict=verdict,
                     status=status, meta={"orders": "random"})
        )  # type: ignore[arg-type]  # fmt: skip
        if verdict:
            self._rows.append((i, j, _POINTS[verdict]))
            self._fit = None

    @property
    def fit(self) -> BradleyTerry:
        if self._fit is None:
            first, second, points = zip(*self._rows, strict=True) if self._rows else ((), (), ())
            self._fit = bradley_terry(first, second, points, len(self.ids), order_effect=True)
        return self._fit

    def draws(self, rng: np.random.Generator) -> Any:
        """(M, n) strengths from the posterior."""
        return rng.multivariate_normal(self.fit.strengths, self.fit.covariance, size=DRAWS, method="eigh")


def measures(tables: Sequence[Table]) -> dict[str, float]:
    from scipy.stats import kendalltau

    kept = widest = 0.0
    best, taus = [], []
    for table in tables:
        scores = table.recorded.scores
        found, _ = pair(table.judgments, PairSection(select="bradley_terry"))
        kept += sum(scores[row.chosen_id] - scores[row.rejected_id] for row in found)
        values = np.array([scores[id_] for id_ in table.ids])
        widest += float(np.ptp(values))
        top = int(np.argmax(table.fit.strengths.round(9)))
        best.append((values[top] - values.mean()) / (values.max() - values.mean()))
        taus.append(kendalltau(table.fit.strengths.round(9), values).statistic)
    return {"gap_kept": kept / widest, "best_kept": float(np.mean(best)), "tau": float(np.nanmean(taus))}


BOTH_ENDS = ", both ends"
PLAYED = (*RULES, *(rule + BOTH_ENDS for rule in ("thompson", "upper_bound")))


def play(data: Sequence[replay.Recorded], name: str, seed: int, calls: Sequence[int]) -> dict[int, dict[str, float]]:
    """Mean calls a prompt → measures."""
    rule, both = name.removesuffix(BOTH_ENDS), name.endswith(BOTH_ENDS)
    rng = np.random.default_rng([seed, 7])
    tables = [Table(recorded) for recorded in data]
    n = len(tables[0].ids)
    pairs = [(k * n + i, k * n + j) for k in range(len(tables)) for i, j in itertools.combinations(range(n), 2)]
    prompts = np.repeat(np.arange(len(tables)), n)
    found = {}
    for step in range(1, max(calls) + 1):
        rewards = None if rule == "random" else np.concatenate([table.draws(rng) for table in tables], axis=1)
        if both and step % 2 == 0:
            rewards = -rewards
        order = order_pairs(rule, pairs, prompts, rewards, rng)  # type: ignore[arg-type]
        for i, j in [pairs[at] for at in order[: len(tables)]]:
            tables[i // n].ask(i % n, j % n, rng)
            pairs.remove((i, j))
        if step in calls:
            found[step] = measures(tables)
    return found


def tournaments(
    folder: Path | None, seeds: Sequence[int], quick: bool, simulated: bool = False
) -> dict[str, Any] | None:
    path = (folder or ROOT.parent / "shared" / "data" / "qlora") / "vicuna_pairwise_gpt4.jsonl.gz"
    if not path.exists() and not simulated:
        print(f"\ntournaments: skipped: {path.name} is not in {path.parent}")
        return None
    data = (replay.simulated() if simulated else replay.load(path))[: 10 if quick else None]
    calls = CALLS[:2] if quick else CALLS
    found: dict[str, Any] = {}
    print("\n" + f"{'rule':24}{'measure':10}" + "".join(f"{n:>24} calls" for n in calls))
    for rule in PLAYED:
        runs = [play(data, rule, seed, calls) for seed in seeds]
        for name in ("gap_kept", "best_kept", "tau"):
            values = {n: [run[n][name] for run in runs] for n in calls}
            found.setdefault(rule, {})[name] = {n: [round(x, 4) for x in of] for n, of in values.items()}
            cells = [f"{np.mean(of):.3f} [{min(of):.3f}, {max(of):.3f}]".rjust(30) for of in values.values()]
            print(f"{rule:24}{name:10}" + "".join(cells), flush=True)
    judge = replay.TournamentJudge(judge=replay.pairwise(), scheme="best_worst", calls=None)
    kept = [replay.gap_kept(data, judge, "bradley_terry", seed)[:2] for seed in seeds]
    found["tournament"] = {"gap_kept": [round(x, 4) for x, _ in kept], "calls": round(float(kept[0][1]), 2)}
    print(f"{'tournament':24}{'gap_kept':10}{np.mean([x for x, _ in kept]):.3f} at {kept[0][1]:.1f} calls")
    return found
