"""Learning a reward model from few labels: choose pairs, have them labelled, train an ensemble, choose the next ones.

    rounds = learn(candidates, label, section, "runs/active", by="thompson", batch=100, n_rounds=4)

`label` is any function of pairs: a judge, people, a table. A pipeline does the same with `judge.choose` and
`train.reward`, one round a run (docs/selection.md).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.config import RewardSection
from rlaif.errors import ConfigError, DataError
from rlaif.metrics.choosing import Rule, order_pairs
from rlaif.training.scoring import load_reward, read_reward_file
from rlaif.training.tokens import Messages

if TYPE_CHECKING:
    from rlaif.metrics.rates import Floats


class Candidate(NamedTuple):
    """A prompt (text or messages) with two or more responses."""

    prompt: str | Messages
    responses: Sequence[str]


class Pair(NamedTuple):
    """Two responses of a candidate, by number: candidate, first response, second response."""

    candidate: int
    first: int
    second: int


class Round(NamedTuple):
    """`pairs`: asked in this round. `n_asked`: so far. `model`: the ensemble trained on all labels so far."""

    pairs: list[Pair]
    n_asked: int
    model: Path
    record: dict[str, Any]


# pairs → P(first better) of each; None: no label, which is asked and teaches nothing
Label = Callable[[Sequence[Pair]], Sequence[float | None]]


def learn(
    candidates: Sequence[Candidate],
    label: Label,
    section: RewardSection,
    out: Path | str,
    *,
    by: Rule,
    batch: int,
    n_rounds: int,
    seed: int = 0,
    bonus: float = 1.0,
    on_round: Callable[[Round], None] | None = None,
) -> list[Round]:
    """`n_rounds` rounds of `batch` labels each; the last round's model has learned from all of them.

    The first round's pairs are drawn at random, the later ones chosen by `by` (see `metrics.choosing`) with the
    ensemble of the round before. Each ensemble starts from `section.model`, not from the one before. Written:
    out/round-i (the model) and out/round-i.jsonl (all labels so far, TRL's columns). A tie teaches nothing without
    `section.soft_labels`. `on_round` is called as each round ends.
    Errors: ConfigError (one member cannot disagree, `kind` is not pair), DataError (fewer pairs than asked for, no
    label at all), and those of training.
    """
    import numpy as np

    from rlaif.training.reward import train_reward

    if section.kind != "pair":
        raise ConfigError(f"train.reward.kind: {section.kind}: active learning labels pairs")
    if by != "random" and section.ensemble < 2:
        raise ConfigError(
            f"train.reward.ensemble: {section.ensemble}: {by} needs two or more members that may disagree"
        )
    pairs = [
        Pair(number, i, j)
        for number, candidate in enumerate(candidates)
        for i, j in itertools.combinations(range(len(candidate.responses)), 2)
    ]
    if len(pairs) < batch * n_rounds:
        raise DataError(f"{len(pairs):,} pairs of candidates: too few for {n_rounds} rounds of {batch}")
    out = Path(out)
    asked: dict[Pair, float | None] = {}
    rounds: list[Round] = []
    for number in range(1, n_rounds + 1):
        rng = np.random.default_rng([seed, number])
        rewards = None
        if rounds and by != "random":
            rewards = candidate_rewards(rounds[-1].model, candidates)
        left = [pair for pair in pairs if pair not in asked]
        new = _ordered(by if rounds else "random", left, candidates, rewards, rng, bonus)[:batch]
        asked.update(zip(new, label(new), strict=True))
        rows = _rows(candidates, asked, soft=section.soft_labels)
        if not rows:
            raise DataError(f"none of {len(asked):,} pairs has a label: there is nothing to train on")
        data = out / f"round-{number}.jsonl"
        data.parent.mkdir(parents=True, exist_ok=True)
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        record = train_reward(section, data, out / f"round-{number}", seed)
        rounds.append(Round(new, len(asked), out / f"round-{number}", record))
        if on_round is not None:
            on_round(rounds[-1])
    return rounds


def candidate_rewards(folder: Path | str, candidates: Sequence[Candidate]) -> Floats:
    """(M, N) of all responses of all candidates, one after the other."""
    prompts = [candidate.prompt for candidate in candidates for _ in candidate.responses]
    texts = [text for candidate in candidates for text in candidate.responses]
    return opinions(folder, prompts, texts)


def opinions(
    folder: Path | str,
    prompts: Sequence[str | Messages],
    responses: Sequence[str],
    finished: Sequence[bool] | None = None,
) -> Floats:
    """(M, N) rewards by each member of an ensemble, in log-odds up to a constant where it was trained on pairs or
    rankings; of heads, the sum of the standardised ones. Errors: ConfigError, also for less than two members."""
    folder = Path(folder)
    described = read_reward_file(folder)
    scorer = load_reward(folder, normalise=described is not None and described["kind"] == "scores")
    if scorer.n_members < 2:
        raise ConfigError(
            f"{folder}: one reward model does not say how unsure it is; set train.reward.ensemble: 4, say"
        )
    return scorer.score_members(prompts, responses, finished)


def _ordered(
    by: Rule,
    pairs: Sequence[Pair],
    candidates: Sequence[Candidate],
    rewards: Floats | None,
    rng: Any,
    bonus: float,
) -> list[Pair]:
    sizes = [len(candidate.responses) for candidate in candidates]
    start = [0, *itertools.accumulate(sizes)]
    at = [(start[pair.candidate] + pair.first, start[pair.candidate] + pair.second) for pair in pairs]
    prompts = [number for number, size in enumerate(sizes) for _ in range(size)]
    return [pairs[index] for index in order_pairs(by, at, prompts, rewards, rng, bonus=bonus)]


def _rows(candidates: Sequence[Candidate], asked: dict[Pair, float | None], *, soft: bool) -> list[dict[str, Any]]:
    """TRL's columns; a tie is a label of ½ where labels are soft, and none where they are not."""
    rows = []
    for pair, p in asked.items():
        if p is None or (not soft and abs(p - 0.5) < 1e-9):
            continue
        candidate = candidates[pair.candidate]
        better, worse = (pair.first, pair.second) if p >= 0.5 else (pair.second, pair.first)
        prompt = candidate.prompt
        rows.append(
            {
                "prompt": [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt),
                "chosen": [{"role": "assistant", "content": candidate.responses[better]}],
                "rejected": [{"role": "assistant", "content": candidate.responses[worse]}],
                "probability": max(p, 1 - p),
            }
        )
    return rows
