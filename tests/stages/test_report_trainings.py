"""What the report says of every training, and of what a guard saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_run import make_run

from rlaif.config import ReportSection
from rlaif.stages.report import build, collect, trainings


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", n_prompts=8)


def sections(run: Path) -> dict[str, Any]:
    return {section["name"]: section for section in trainings.sections(collect(run))}


def test_every_training_has_its_own_curves(run: Path) -> None:
    found = sections(run)
    assert list(found) == ["dpo", "ppo"]
    titles = {name: [card.title for card in section["cards"]] for name, section in found.items()}
    assert titles["dpo"] == ["Loss", "Reward accuracy", "Reward margin"]
    assert titles["ppo"] == ["Reward", "KL from the start", "Ended by themselves"]  # its loss says nothing
    assert found["dpo"]["guard"] is None


def test_a_reward_that_is_one_half_by_construction_has_no_curve(run: Path) -> None:
    path = run / "models" / "ppo" / "training.json"
    record = json.loads(path.read_text())
    for at, row in enumerate(record["history"]):
        row["reward"] = 0.5 + at % 2 * 1e-8
    path.write_text(json.dumps(record))
    assert [card.title for card in sections(run)["ppo"]["cards"]] == ["KL from the start", "Ended by themselves"]


def test_what_a_guard_decided_in_words(run: Path) -> None:
    guard = sections(run)["ppo"]["guard"]
    assert guard["text"][0].startswith("Stopped at step 64 of 240: refusal_rate is 0.16, above 0.1 (max_rise")
    assert "Written are the weights of step 24 (the highest win_rate within the limits, 0.572)." in guard["text"][0]
    assert "of 120 responses to 20 held-out prompts" in guard["text"][1]
    assert [card.title for card in guard["cards"]] == [
        "Second judge's win rate against √KL", "Reward against √KL", "What it writes",
    ]  # fmt: skip
    rows = {row["name"]: row for row in guard["rows"]}
    refusals, domain = rows["refusals"], rows["refusals (how-to)"]
    assert refusals["limit"] == "at most 0.1 above the start" and refusals["broken"]
    assert domain["limit"] == "at most 0.15" and domain["broken"]
    assert refusals["values"] == pytest.approx([0.0, 0.06, 0.16])
    assert rows["length, tokens"]["limit"] == "at most 2 × the start" and not rows["length, tokens"]["broken"]


def test_a_judge_that_labelled_is_named(run: Path) -> None:
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["config"]["judge"] = {**manifest["config"].get("judge", {}), "engine": "second_judge"}
    path.write_text(json.dumps(manifest))
    assert "second_judge labelled the data too" in " ".join(sections(run)["ppo"]["guard"]["text"])


def test_the_page_and_the_json_have_it(run: Path) -> None:
    figures = build(run, ReportSection())
    assert figures["trainings"]["ppo"]["guard"]["kept_step"] == 24
    assert figures["trainings"]["dpo"] == {"steps": 60, "guard": None}
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "What the guard of ppo decided" in page and "Training: ppo" in page
    assert "<script>alert" not in page


def test_the_axis_is_the_root_of_kl(run: Path) -> None:
    """Nine probes, KL 0.4 · k²: √KL goes to √25.6 = 5.06, where KL itself would go to 25.6."""
    svg = sections(run)["ppo"]["guard"]["cards"][0].svg
    assert "√KL from the start, √nats per response" in svg
    assert ">4<" in svg and ">20<" not in svg
