"""The order of rounds, what a gate does, and which policy the run has in the end. No model is trained: a function
that writes what a round would leave stands for the run of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rounds_config import changed, config

from rlaif.config import Pipeline
from rlaif.errors import BudgetReached, ConfigError, GateFailed
from rlaif.io import write_table
from rlaif.records import Preference, Prompt
from rlaif.rounds import course
from rlaif.store import RunFolder

Written = Callable[[Pipeline, Mapping[str, Any]], Mapping[str, Any]]


def rounds_of(run: Path, gates: Mapping[str, Any] | None = None, n: int = 3) -> Pipeline:
    return config(changed(run=str(run), rounds={"n": n, "gates": dict(gates or {})}))


def writing(shares: list[int], asked: list[tuple[str, int]]) -> Written:
    """Round k leaves ten prompts, of which shares[k − 1] gave a preference, and a model that says which it is."""

    def run_round(mine: Pipeline, spent: Mapping[str, Any]) -> Mapping[str, Any]:
        folder = Path(mine.run)
        asked.append((folder.name, int(spent["sent"])))
        prompts = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Q{i}?"}]) for i in range(10)]
        preferences = [
            Preference(
                id=f"l{i}",
                prompt_id=f"p{i}",
                chosen_id="a",
                rejected_id="b",
                probability=1.0,
                judge_margin=0.5,
                judgment_ids=[],
            )
            for i in range(shares[int(folder.name) - 1])
        ]
        write_table(folder / "prompts.jsonl", prompts)
        write_table(folder / "preferences.jsonl", preferences)
        model = folder / "models" / "dpo" / "adapter"
        model.mkdir(parents=True, exist_ok=True)
        (model / "weights").write_text(f"of round {folder.name}")
        return {"sent": spent["sent"] + 100}

    return run_round


def result_of(run: Path) -> str | None:
    weights = run / "models" / "dpo" / "adapter" / "weights"
    return weights.read_text() if weights.exists() else None


def told(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "rounds.json").read_text(encoding="utf-8"))
    return found


def test_each_round_hands_on_what_was_spent_and_the_last_policy_is_the_runs(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []
    counts = course.run(rounds_of(tmp_path), RunFolder(tmp_path), writing([9, 8, 7], asked), {"sent": 5})
    assert asked == [("1", 5), ("2", 105), ("3", 205)]
    assert counts == {"rounds": 3, "prompts": 30, "preferences": 24, "gates_failed": 0}
    assert result_of(tmp_path) == "of round 3"
    found = told(tmp_path)
    assert found["policy"] == {"round": 3, "model": "models/dpo"} and found["stopped"] is None
    assert [(row["folder"], row["preferences"], row["passed"]) for row in found["rounds"]] == [
        ("rounds/1", 9, True), ("rounds/2", 8, True), ("rounds/3", 7, True),
    ]  # fmt: skip
    assert found["rounds"][1]["figures"]["labelled"]["value"] == 0.8


def test_a_failed_gate_ends_the_rounds_and_the_policy_before_it_stays(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []
    mine = rounds_of(tmp_path, {"labelled": {"min": 0.5}, "preferences": {"min": 1}})
    with pytest.raises(GateFailed) as caught:
        course.run(mine, RunFolder(tmp_path), writing([9, 4, 7], asked), {"sent": 0})
    assert str(caught.value).startswith("round 2: gate failed: labelled 0.4 (")
    assert str(caught.value).endswith("is below min 0.5; the policy of round 1 stays")
    assert caught.value.counts == {"rounds": 2, "prompts": 20, "preferences": 13, "gates_failed": 1}
    assert [number for number, _ in asked] == ["1", "2"], "round 3 is not begun"
    assert result_of(tmp_path) == "of round 1"
    found = told(tmp_path)
    assert found["policy"]["round"] == 1 and found["stopped"]["round"] == 2
    assert [row["passed"] for row in found["rounds"]] == [True, False]


def test_wider_gates_go_on_and_narrower_ones_go_back(tmp_path: Path) -> None:
    write = writing([9, 4, 7], [])
    course.run(rounds_of(tmp_path), RunFolder(tmp_path), write, {"sent": 0})
    assert result_of(tmp_path) == "of round 3"
    for least, kept, stays in ((0.95, None, "the starting policy stays"), (0.5, "of round 1", "of round 1 stays")):
        with pytest.raises(GateFailed, match=stays):
            mine = rounds_of(tmp_path, {"labelled": {"min": least}})
            course.run(mine, RunFolder(tmp_path), write, {"sent": 0})
        assert result_of(tmp_path) == kept
    assert not [path.name for path in (tmp_path / "models").iterdir() if path.name.startswith(".")]


def test_a_gate_of_a_rounds_own_audit_ends_the_rounds_too(tmp_path: Path) -> None:
    write = writing([9, 9, 9], [])

    def run_round(mine: Pipeline, spent: Mapping[str, Any]) -> Mapping[str, Any]:
        if mine.run.endswith("2"):
            raise GateFailed("gate failed: tie_rate")
        return write(mine, spent)

    with pytest.raises(
        GateFailed, match=r"round 2: a gate of its audit failed; see .*rounds/2/audit.json; the policy"
    ):
        course.run(rounds_of(tmp_path), RunFolder(tmp_path), run_round, {"sent": 0})
    assert result_of(tmp_path) == "of round 1" and told(tmp_path)["stopped"]["round"] == 2


def test_an_interrupted_look_at_finished_rounds_changes_nothing(tmp_path: Path) -> None:
    write = writing([9, 8, 7], [])
    course.run(rounds_of(tmp_path), RunFolder(tmp_path), write, {"sent": 0})
    before = (tmp_path / "rounds.json").read_bytes()

    def run_round(mine: Pipeline, spent: Mapping[str, Any]) -> Mapping[str, Any]:
        if mine.run.endswith("2"):
            raise KeyboardInterrupt
        return spent  # up to date

    with pytest.raises(KeyboardInterrupt):
        course.run(rounds_of(tmp_path), RunFolder(tmp_path), run_round, {"sent": 0})
    assert result_of(tmp_path) == "of round 3" and (tmp_path / "rounds.json").read_bytes() == before
    course.run(rounds_of(tmp_path, n=2), RunFolder(tmp_path), lambda mine, spent: spent, {"sent": 0})
    assert result_of(tmp_path) == "of round 2" and len(told(tmp_path)["rounds"]) == 2


def test_an_evaluation_of_another_policy_goes_with_it(tmp_path: Path) -> None:
    write = writing([9, 4, 7], [])
    course.run(rounds_of(tmp_path), RunFolder(tmp_path), write, {"sent": 0})
    evaluation = tmp_path / "evaluation" / "evaluation.json"
    evaluation.parent.mkdir()
    evaluation.write_text("{}")
    course.run(rounds_of(tmp_path), RunFolder(tmp_path), lambda mine, spent: spent, {"sent": 0})
    assert evaluation.exists()
    with pytest.raises(GateFailed):
        course.run(rounds_of(tmp_path, {"labelled": {"min": 0.5}}), RunFolder(tmp_path), write, {"sent": 0})
    assert not evaluation.exists()


def test_a_budget_is_no_gate(tmp_path: Path) -> None:
    write = writing([9, 9, 9], [])

    def run_round(mine: Pipeline, spent: Mapping[str, Any]) -> Mapping[str, Any]:
        if mine.run.endswith("2"):
            raise BudgetReached("stopped")
        return write(mine, spent)

    with pytest.raises(BudgetReached):
        course.run(rounds_of(tmp_path), RunFolder(tmp_path), run_round, {"sent": 0})
    assert told(tmp_path)["stopped"] is None and len(told(tmp_path)["rounds"]) == 1
    assert result_of(tmp_path) == "of round 1"


def test_the_runs_policy_takes_no_room_and_outlives_its_round(tmp_path: Path) -> None:
    course.run(rounds_of(tmp_path, n=1), RunFolder(tmp_path), writing([9], []), {"sent": 0})
    mine = tmp_path / "models" / "dpo" / "adapter" / "weights"
    of_round = tmp_path / "rounds" / "1" / "models" / "dpo" / "adapter" / "weights"
    assert mine.stat().st_ino == of_round.stat().st_ino and not mine.is_symlink()
    of_round.unlink()
    assert mine.read_text() == "of round 1"


def test_prompts_that_do_not_suffice_are_refused_before_anything_is_paid(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"prompt": f"Question {i}?"}) + "\n" for i in range(50))
    (tmp_path / "p.jsonl").write_text(rows)
    source = {"path": str(tmp_path / "p.jsonl"), "skip": 10}
    enough = changed(prompts=source, rounds={"n": 4, "prompts_per_round": 10})
    course.check_share(config(enough))
    short = {**enough, "rounds": {"n": 5, "prompts_per_round": 10}}
    with pytest.raises(
        ConfigError, match=r"rounds.prompts_per_round: 5 rounds of 10 take 50 rows, and .* has 40 after"
    ):
        course.check_share(config(short))
    cut = {**enough, "prompts": {**source, "limit": 30}}
    with pytest.raises(ConfigError, match=r"take 40 rows, and .* has 30 after"):
        course.check_share(config(cut))
