"""Policies side by side on the page: cells and remarks by hand, missing figures, hostile names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_run import HOSTILE, estimate, evaluation, make_run

from rlaif.config import ReportSection
from rlaif.stages.report import build, contestants, contestants_table
from rlaif.stages.report.collect import ReportData


def data(**changes: Any) -> ReportData:
    config = {"judge": {"engine": "judge"}, "evaluate": {"before": "tiny", "after": "dpo"}}
    return ReportData(Path("run"), manifest={"config": config}, evaluation=evaluation() | changes)


def table(name: str, of: ReportData | None = None) -> dict[str, dict[str, contestants_table.Cell]]:
    """Policy → column → cell."""
    found = contestants_table.section(of or data())
    assert found is not None
    titles = found[name]["titles"]
    return {row["label"]: dict(zip(titles, row["cells"], strict=True)) for row in found[name]["rows"]}


def test_a_row_a_policy_with_everything_beside_its_interval() -> None:
    found = table("main")
    assert list(found) == ["tiny (start)", "dpo", "sft", "best_of_8"]
    assert list(found["dpo"]) == [
        "ours: score", "judge (labelled): win rate", "second (did not label): win rate", "oracle: win rate",
        "quality", "KL, nats a response", "words", f"{HOSTILE}: right",
    ]  # fmt: skip
    start, dpo = found["tiny (start)"], found["dpo"]
    assert dpo["ours: score"] == ("0.40", "+0.04 [−0.76, 0.84]")
    assert dpo["judge (labelled): win rate"] == ("74\u00a0%", "69–79\u00a0%")
    assert dpo["quality"] == ("0.52", "+0.07 [0.04, 0.10]") and start["quality"] == ("0.45", "")
    assert dpo["KL, nats a response"] == ("2.00", "[1.70, 2.30]")
    assert start["judge (labelled): win rate"] == ("–", ""), "it does not meet itself"
    assert found["best_of_8"]["KL, nats a response"] == ("≤ 1.20", "a bound")
    assert found["sft"]["quality"] == ("–", ""), "that match has no metrics here"


def test_more_has_the_rest() -> None:
    assert list(table("more")["sft"]) == [
        "harmful compliance", "benign correct", "tokens", "came to an end", "distinct 1-grams", "distinct 2-grams",
        "KL, nats a token", "KL by k3, nats a response", f"{HOSTILE}: nats a token", "ours, helpful: own unit",
        f"ours, {HOSTILE}: own unit",
    ]  # fmt: skip


def test_columns_without_anything_are_left_out() -> None:
    bare = {
        name: {"n": 2, "length": {"words": {"mean": estimate(3.0), "difference": None}}}
        for name in ("before", "after")
    }
    found = table("main", data(contestants=bare, metrics={}, oracle_win_rate=None, matches=[]))
    assert list(found["dpo"]) == ["judge (labelled): win rate", "second (did not label): win rate", "words"]


def test_a_run_folder_from_before_has_no_such_table() -> None:
    assert contestants_table.section(data(contestants={})) is None and contestants.figures(data(contestants={})) == []


def test_reasons_are_said_once() -> None:
    assert list(contestants.notes(contestants.rows(data()))) == [
        "best_of_8: no KL: chosen among several samples.",
        *(
            f"{name}: 50\u00a0% of its responses, encoded again for the KL, have as many tokens as it wrote; of the "
            "others the KL is of other tokens."
            for name in ("tiny (start)", "dpo", "sft")
        ),
        "KL is between the distributions at temperature 0.7, from which the responses were drawn.",
    ]


def test_a_gain_that_only_the_labelling_judge_sees_is_a_remark() -> None:
    rates = {"judge": estimate(0.7), "second": estimate(0.52)}
    calm = {**evaluation()["contestants"]["sft"], "skills": {}}  # reward score: +0.04 [−0.76, 0.84]
    match = {**evaluation()["matches"][0], "win_rate": rates, "oracle_win_rate": estimate(0.56, 0.03)}
    (said,) = contestants.remarks(data(contestants={"sft": calm}, matches=[match]))
    assert said == (
        "sft: the labelling judge prefers it to the start, 70\u00a0% (65–75\u00a0%), which second "
        "(52\u00a0% (47–57\u00a0%)), ours (+0.04) do not confirm."
    )
    unsure = {**match, "win_rate": {"judge": estimate(0.52), "second": estimate(0.52)}}
    assert not list(contestants.remarks(data(contestants={"sft": calm}, matches=[unsure])))


def test_a_lost_skill_is_a_remark() -> None:
    said = [line for line in contestants.remarks(data()) if "forgotten" in line]
    assert said == [f"dpo has forgotten some of “{HOSTILE}”: it gets 60\u00a0% right, 30 points less than the start."]


def test_report_json_has_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", n_prompts=4)
    build(run, ReportSection(examples=0))
    found = {row["policy"]: row for row in json.loads((run / "report.json").read_text())["policies"]}
    assert list(found) == ["before", "after", "sft", "best_of_8"]
    assert found["after"]["win_rate"]["judge"]["value"] == 0.74 and found["before"]["win_rate"] == {}
    assert found["after"]["metrics"]["quality"]["difference"]["value"] == pytest.approx(0.07)
    assert found["best_of_8"]["kl"]["upper_bound"] == 1.204
