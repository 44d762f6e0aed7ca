"""The table over rounds in the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.config import ReportSection
from rlaif.stages.report import build, rounds


def estimate(value: float, half: float = 0.05) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": 100}


def of_round(number: int, **more: Any) -> dict[str, Any]:
    figures = {
        "labelled": estimate(0.9),
        "win_rate.judge": estimate(0.6),
        "metrics.harmful_compliance.before": estimate(0.4),
        "metrics.harmful_compliance.after": estimate(0.25),
        "length.after": estimate(61.0, 4.0),
        "judges.judge.order_consistency": estimate(0.97),
    }
    gates = [{"name": "labelled", "min": 0.2, "max": None, "value": 0.9, "passed": True, "reason": None}]
    row = {"round": number, "folder": f"rounds/{number}", "prompts": 1200, "preferences": 90, "passed": True}
    return {**row, "figures": figures, "gates": gates, **more}


FAILED = {"name": "win_rate.<b>", "min": 0.5, "max": None, "value": 0.4, "passed": False, "reason": "below min 0.5"}


def test_a_column_for_each_round_and_a_row_for_each_figure_of_the_new_policy() -> None:
    found = rounds.context({"n": 3, "policy": {"round": 2}, "stopped": None, "rounds": [of_round(1), of_round(2)]})
    assert found is not None
    assert found["links"][1] == {"round": 2, "to": "rounds/2/report.html"}
    assert {row["title"]: row["cells"][0] for row in found["rows"]} == {
        "prompts": "1,200",
        "preferences": "90",
        "prompts with a preference": "90\u00a0% (85–95\u00a0%)",
        "wins, says judge": "60\u00a0% (55–65\u00a0%)",
        "harmful compliance": "0.250 (0.200–0.300)",
        "characters": "61.0 (57.0–65.0)",
        "gates": "1 passed",
    }
    assert found["result"] == "2 of 3 rounds are done. The result is the policy of round 2."


@pytest.mark.parametrize(
    ("kept", "words"), [(1, "the policy of round 1."), (0, "the starting policy: no round passed its gates.")]
)
def test_what_stopped_it_is_said(kept: int, words: str) -> None:
    stopped = {"round": kept + 1, "reason": "gate failed: labelled 0.1 is below min 0.2"}
    row = of_round(kept + 1, passed=False, gates=[FAILED])
    found = rounds.context({"n": 3, "policy": {"round": kept}, "stopped": stopped, "rounds": [row]})
    assert found is not None
    reason = f"Round {kept + 1} was stopped: gate failed: labelled 0.1 is below min 0.2. The result is {words}"
    assert found["result"] == reason
    assert found["rows"][-1]["cells"] == ["failed: win_rate.<b>"]


def test_a_figure_that_a_round_lacks_is_a_dash() -> None:
    bare = of_round(2, figures={"labelled": {"value": None, "reason": "no prompts"}})
    found = rounds.context({"n": 2, "policy": {"round": 2}, "rounds": [of_round(1), bare]})
    assert found is not None
    assert [row["cells"][1] for row in found["rows"][2:-1]] == ["–"] * 4
    assert rounds.context({}) is None


def test_the_page_shows_it_and_escapes_it(tmp_path: Path) -> None:
    told = {"n": 1, "policy": {"round": 0}, "stopped": {"round": 1, "reason": "<script>"}}
    row = of_round(1, passed=False, gates=[FAILED])
    (tmp_path / "rounds.json").write_text(json.dumps({**told, "rounds": [row]}))
    figures = build(tmp_path, ReportSection())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<a href="rounds/1/report.html">round 1</a>' in page and "failed: win_rate.&lt;b&gt;" in page
    assert "<script>" not in page and '<a href="#rounds">' in page
    assert figures["rounds"]["rounds"][0]["round"] == 1
