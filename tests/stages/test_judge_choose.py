"""`judge.choose`: which pairs are judged, that those chosen before stay, and that the plan counts them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlaif import cli, io, pipeline
from rlaif.config import ChooseSection, JudgeSection, Pipeline, validate
from rlaif.errors import ConfigError, StoreError
from rlaif.plan import dry_run
from rlaif.records import Judgment, Lineup

PROMPTS, RESPONSES = 6, 4
PAIRS = PROMPTS * 6


def config(folder: Path, choose: dict[str, Any] | None, **judge: Any) -> Pipeline:
    path = folder / "rows.jsonl"
    if not path.exists():
        texts = ["a", "a b", "a b c", "a b c d"][:RESPONSES]
        rows = [{"id": f"p{i}", "prompt": f"Question {i}?", "responses": texts} for i in range(PROMPTS)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = {
        "run": str(folder / "run"),
        "seed": 5,
        "engines": {"judge": {"engine": "scripted", "replies": [{"reply": "Verdict: A"}]}},
        "prompts": {"path": str(path)},
        "judge": {"rubric": "helpfulness", "orders": "given", **judge, **({"choose": choose} if choose else {})},
    }
    return validate(Pipeline, raw, "p.yaml")


def run(folder: Path, choose: dict[str, Any], **judge: Any) -> dict[str, Any]:
    found = pipeline.run(config(folder, choose, **judge), quiet=True, in_process=True)
    return dict(found["stages"]["judge"])


def judged(folder: Path) -> set[tuple[str, ...]]:
    rows = io.read_table(folder / "run" / "judgments.jsonl", Judgment)
    return {(row.prompt_id, *sorted(row.response_ids)) for row in rows}


def lineups(folder: Path) -> list[Lineup]:
    return list(io.read_table(folder / "run" / "lineups.jsonl", Lineup))


@pytest.fixture
def opinions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """An ensemble that is unsure of p3 and p5 alone; returns what it was asked, by number of responses."""
    asked: list[int] = []

    def of(folder: str, prompts: Any, texts: list[str], finished: list[bool]) -> Any:
        asked.append(len(texts))
        unsure = [str(prompt[-1]["content"]) in ("Question 3?", "Question 5?") for prompt in prompts]
        sides = np.array([len(text) if maybe else 0.0 for text, maybe in zip(texts, unsure, strict=True)])
        return np.stack([sides, -sides])

    monkeypatch.setattr("rlaif.training.active.opinions", of)
    (tmp_path / "ensemble").mkdir()
    return asked


def test_so_many_pairs_are_judged_and_the_others_are_counted(tmp_path: Path) -> None:
    entry = run(tmp_path, {"n_pairs": 10})
    assert entry["counts"]["comparisons"] == len(judged(tmp_path)) == 10
    assert entry["counts"]["not_chosen"] == PAIRS - 10
    assert entry["counts"]["chosen"] == {"random": 10}
    assert entry["requests"]["sent"] == 10
    assert not (tmp_path / "run" / "dropped.jsonl").read_text(), "what is not chosen is not dropped"


def test_a_share_is_rounded_up(tmp_path: Path) -> None:
    assert run(tmp_path, {"share": 0.26})["counts"]["comparisons"] == 10  # 9.36


def test_more_pairs_keep_those_that_are_there(tmp_path: Path) -> None:
    run(tmp_path, {"n_pairs": 7})
    first = judged(tmp_path)
    entry = run(tmp_path, {"n_pairs": 20})
    assert first < judged(tmp_path)
    assert entry["requests"] == {**entry["requests"], "sent": 13, "from_journal": 7}
    assert [row.batch for row in lineups(tmp_path)] == [0] * 7 + [1] * 13
    run(tmp_path, {"n_pairs": 7})
    assert judged(tmp_path) == first, "fewer are the first ones again"
    assert run(tmp_path, {"n_pairs": 20})["requests"]["sent"] == 0, "and nothing is paid for twice"


def test_a_fixed_ensemble_keeps_its_own_choice_in_front(tmp_path: Path, opinions: list[int]) -> None:
    by = {"by": "uncertainty", "reward": str(tmp_path / "ensemble")}
    run(tmp_path, {**by, "n_pairs": 2})
    first = judged(tmp_path)
    run(tmp_path, {**by, "n_pairs": 6})
    assert {prompt for prompt, *_ in first} == {"p3", "p5"}
    assert first < judged(tmp_path)
    assert len([key for key in judged(tmp_path) - first if key[0] in ("p3", "p5")]) == 2, "a round begins anew"
    assert opinions == [PROMPTS * RESPONSES, PROMPTS * RESPONSES]


def test_what_was_judged_at_random_stays_and_the_ensemble_adds(tmp_path: Path, opinions: list[int]) -> None:
    reward = str(tmp_path / "ensemble")
    run(tmp_path, {"n_pairs": 5, "reward": reward})
    assert opinions == [], "chance asks no ensemble"
    before = judged(tmp_path)
    entry = run(tmp_path, {"n_pairs": 7, "by": "uncertainty", "reward": reward})
    assert entry["counts"]["chosen"] == {"random": 5, "uncertainty": 2}
    new = judged(tmp_path) - before
    assert {prompt for prompt, *_ in new} == {"p3", "p5"}, "where its members disagree, one pair a prompt"
    run(tmp_path, {"n_pairs": 7, "by": "thompson", "reward": reward})
    assert len(opinions) == 1, "nothing to choose, nothing to score"


def test_an_ensemble_that_is_not_there_is_one_line_before_anything_is_paid(tmp_path: Path) -> None:
    choose = {"by": "thompson", "n_pairs": 3, "reward": "run:reward"}
    with pytest.raises(StoreError, match=r"judge.choose.reward: run:reward: .* train reward first"):
        run(tmp_path, choose)
    assert not (tmp_path / "run" / "responses.jsonl").exists()


def test_both_orders_of_a_chosen_pair_are_asked(tmp_path: Path) -> None:
    entry = run(tmp_path, {"n_pairs": 4}, orders="both")
    assert (entry["counts"]["comparisons"], entry["requests"]["sent"]) == (4, 8)


def test_the_plan_counts_what_is_asked(tmp_path: Path) -> None:
    text = dry_run(config(tmp_path, {"n_pairs": 10}, orders="both"))
    assert "judge: only some pairs, chosen by random" in text
    planned = next(line for line in text.splitlines() if line.strip().startswith("judge  "))
    assert " 20 requests " in planned
    assert run(tmp_path, {"n_pairs": 10}, orders="both")["requests"]["sent"] == 20
    assert " 72 requests " in dry_run(config(tmp_path, {"n_pairs": 999}, orders="both"))
    assert not (tmp_path / "run" / "lineups.jsonl.tmp").exists()


@pytest.mark.parametrize("judge", [{"judge": "pointwise"}, {"judge": "listwise"}, {"judge": "tournament"}])
def test_a_judge_that_does_not_look_at_pairs_is_refused(tmp_path: Path, judge: dict[str, Any]) -> None:
    orders = {"orders": "random"} if judge["judge"] == "tournament" else {}
    with pytest.raises(ConfigError, match=r"judge\.choose: chooses pairs"):
        run(tmp_path, {"n_pairs": 3}, **{**judge, **orders})


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "set one of n_pairs and share"),
        ({"n_pairs": 3, "share": 0.5}, "set one of n_pairs and share"),
        ({"n_pairs": 3, "by": "thompson"}, "thompson needs a reward ensemble"),
        ({"n_pairs": 3, "by": "best"}, "by"),
    ],
)
def test_what_is_left_unsaid_is_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ChooseSection(**section)


def test_members_do_not_choose_for_themselves() -> None:
    whole = JudgeSection(judge="cascade", rubric="helpfulness", choose={"n_pairs": 3}, members={"a": {}, "b": {}})
    assert whole.member("a").choose is None
    with pytest.raises(ValueError, match=r"members\.a\.choose"):
        JudgeSection(judge="cascade", rubric="helpfulness", members={"a": {"choose": {"n_pairs": 3}}})


def test_the_command_line_goes_on_with_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import yaml

    path = tmp_path / "p.yaml"
    raw = config(tmp_path, {"n_pairs": 3}).model_dump(mode="json", exclude_unset=True)
    path.write_text(yaml.safe_dump(raw))
    assert cli.main(["run", str(path), "--quiet"]) == 0
    assert cli.main(["run", str(path), "--quiet", "--set", "judge.choose.n_pairs=5"]) == 0
    assert len(judged(tmp_path)) == 5
    capsys.readouterr()
