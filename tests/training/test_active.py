"""Choose, label, train, choose again: the loop with a trainer that only notes what it is given, and once for real."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif.config import RewardSection
from rlaif.errors import ConfigError, DataError
from rlaif.training.active import Candidate, Pair, candidate_rewards, learn, opinions
from rlaif.training.scoring import load_reward

CANDIDATES = [Candidate(f"Question {n}?", ["bad", "middling", "quite good", "best of all"]) for n in range(5)]
PAIRS = 5 * 6


def by_length(pairs: Sequence[Pair]) -> list[float | None]:
    """The longer one is better, with .9."""
    texts = [CANDIDATES[pair.candidate].responses for pair in pairs]
    return [0.9 if len(t[p.first]) > len(t[p.second]) else 0.1 for p, t in zip(pairs, texts, strict=True)]


def section(**options: Any) -> RewardSection:
    return RewardSection.model_validate({"model": "m", "ensemble": 2, "soft_labels": True, **options})


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """The rows of each training. The ensemble that comes of it is unsure of the last prompt alone."""
    seen: list[list[dict[str, Any]]] = []

    def train(section: RewardSection, dataset: Path, out: Path, seed: int) -> dict[str, Any]:
        seen.append([json.loads(line) for line in dataset.read_text().splitlines()])
        return {"n_train": len(seen[-1])}

    def rewards(folder: Path, candidates: Sequence[Candidate]) -> Any:
        lengths = np.array([len(text) for candidate in candidates for text in candidate.responses], dtype=float)
        of_last = np.arange(len(lengths)) >= len(lengths) - 4
        return np.stack([np.where(of_last, lengths, 0), np.where(of_last, -lengths, 0)])

    monkeypatch.setattr("rlaif.training.reward.train_reward", train)
    monkeypatch.setattr("rlaif.training.active.candidate_rewards", rewards)
    return seen


def test_labels_accumulate_and_no_pair_is_asked_twice(tmp_path: Path, trained: list[list[dict[str, Any]]]) -> None:
    shown: list[int] = []
    rounds = learn(
        CANDIDATES, by_length, section(), tmp_path, by="thompson", batch=7, n_rounds=4,
        on_round=lambda done: shown.append(done.n_asked),
    )  # fmt: skip
    assert [done.n_asked for done in rounds] == shown == [7, 14, 21, 28]
    asked = [pair for done in rounds for pair in done.pairs]
    assert len(set(asked)) == 28
    assert [len(rows) for rows in trained] == [7, 14, 21, 28]
    assert trained[3][:21] == trained[2], "the earlier labels stay, in their order"
    assert [done.model for done in rounds] == [tmp_path / f"round-{n}" for n in (1, 2, 3, 4)]


def test_the_first_round_is_chance_and_the_same_for_every_rule(tmp_path: Path, trained: Any) -> None:
    firsts = {
        tuple(learn(CANDIDATES, by_length, section(), tmp_path, by=rule, batch=6, n_rounds=1, seed=3)[0].pairs)
        for rule in ("random", "uncertainty", "thompson", "upper_bound")
    }  # type: ignore[arg-type]
    assert len(firsts) == 1


def test_the_ensemble_chooses_what_it_is_unsure_of(tmp_path: Path, trained: Any) -> None:
    """Members differ on the last prompt alone: every round after the first begins with a pair of it that is left."""
    rounds = learn(CANDIDATES, by_length, section(), tmp_path, by="uncertainty", batch=2, n_rounds=4)
    for done in rounds[1:]:
        assert done.pairs[0].candidate == 4
    random = learn(CANDIDATES, by_length, section(), tmp_path, by="random", batch=2, n_rounds=4)
    assert [done.pairs for done in random] != [done.pairs for done in rounds]


def test_rows_are_turned_to_the_better_one(tmp_path: Path, trained: list[list[dict[str, Any]]]) -> None:
    learn(CANDIDATES, by_length, section(), tmp_path, by="random", batch=PAIRS, n_rounds=1)
    for row in trained[0]:
        assert len(row["chosen"][0]["content"]) > len(row["rejected"][0]["content"])
        assert row["probability"] == pytest.approx(0.9)
        assert row["prompt"][0]["role"] == "user"
    texts = CANDIDATES[0].responses
    expected = {(max(x, y, key=len), min(x, y, key=len)) for x, y in combinations(texts, 2)}
    assert {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in trained[0]} == expected


@pytest.mark.parametrize(("soft", "rows"), [(True, PAIRS - 1), (False, PAIRS - 2)])
def test_no_label_teaches_nothing_and_a_tie_only_where_labels_are_soft(
    tmp_path: Path, trained: list[list[dict[str, Any]]], soft: bool, rows: int
) -> None:
    def label(pairs: Sequence[Pair]) -> list[float | None]:
        return [None, 0.5, *by_length(pairs)[2:]]

    rounds = learn(CANDIDATES, label, section(soft_labels=soft), tmp_path, by="random", batch=PAIRS, n_rounds=1)
    assert (rounds[0].n_asked, len(trained[0])) == (PAIRS, rows)


def test_what_cannot_work_is_said_before_anything_is_labelled(tmp_path: Path, trained: Any) -> None:
    def never(pairs: Sequence[Pair]) -> list[float | None]:
        raise AssertionError("asked")

    def refused(error: type[Exception], match: str, *, batch: int = 2, by: Any = "thompson", **options: Any) -> None:
        with pytest.raises(error, match=match):
            learn(CANDIDATES, never, section(**options), tmp_path, by=by, batch=batch, n_rounds=2)

    refused(ConfigError, "ensemble: 1: thompson needs two or more", ensemble=1)
    refused(ConfigError, "kind: ranking", kind="ranking", soft_labels=False)
    refused(DataError, "30 pairs of candidates: too few for 2 rounds of 16", batch=16)
    with pytest.raises(DataError, match="none of 2 pairs has a label"):
        learn(CANDIDATES, lambda pairs: [None] * len(pairs), section(), tmp_path, by="random", batch=2, n_rounds=1)


@pytest.mark.integration  # trains two members twice
def test_a_real_ensemble(tmp_path: Path, tiny_model: Path, write_dataset: Callable[..., Path]) -> None:
    real = section(
        model=str(tiny_model), args={"num_train_epochs": 1, "max_length": 64, "report_to": "none", "use_cpu": True}
    )
    rounds = learn(CANDIDATES, by_length, real, tmp_path, by="thompson", batch=6, n_rounds=2)
    assert [done.record["n_train"] for done in rounds] == [6, 12]
    found = candidate_rewards(rounds[-1].model, CANDIDATES)
    assert found.shape == (2, 20)
    texts = [text for candidate in CANDIDATES for text in candidate.responses]
    prompts = [candidate.prompt for candidate in CANDIDATES for _ in candidate.responses]
    whole = load_reward(rounds[-1].model, normalise=False).score(prompts, texts)
    assert found.mean(axis=0) == pytest.approx(whole.reward)
    assert found.std(axis=0, ddof=1) == pytest.approx(whole.disagreement)
    for member, row in enumerate(found):
        alone = load_reward(rounds[-1].model / f"member-{member}", normalise=False).score(prompts, texts)
        assert row == pytest.approx(alone.reward)
    with pytest.raises(ConfigError, match="one reward model does not say how unsure it is"):
        opinions(rounds[-1].model / "member-0", prompts, texts)
