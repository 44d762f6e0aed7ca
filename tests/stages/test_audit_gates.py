"""Gates: which figures pass, what a failure says, and what a failed gate does to a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif import pipeline
from rlaif.checks import check
from rlaif.config import AuditSection, Gate, Pipeline, validate
from rlaif.errors import ConfigError, GateFailed
from rlaif.metrics import Estimate
from rlaif.stages.audit.gates import failure, judged
from rlaif.stages.audit.material import Missing
from rlaif.store import RunFolder

FIGURES = {"tie_rate": Estimate(0.25, 0.2, 0.3, 40), "length_effect": Missing("equal lengths")}


@pytest.mark.parametrize(
    ("gate", "passed"),
    [
        ({"max": 0.25}, True),
        ({"min": 0.25}, True),
        ({"max": 0.2499}, False),
        ({"min": 0.2501}, False),
        ({"min": 0.2, "max": 0.3}, True),
        ({"min": 0.26, "max": 0.3}, False),
    ],
)
def test_the_value_is_compared_bounds_included(gate: dict[str, float], passed: bool) -> None:
    (row,) = judged({"tie_rate": Gate(**gate)}, FIGURES)  # type: ignore[arg-type]
    assert row["passed"] is passed
    assert (failure([row]) is None) is passed


def test_what_could_not_be_computed_fails_unless_the_config_says_otherwise() -> None:
    strict, lenient, unknown = judged(
        {"length_effect": Gate(max=1), "injection_worst": Gate(max=1)}, FIGURES
    ) + judged({"length_effect": Gate(max=1, missing="pass")}, FIGURES)  # fmt: skip
    assert [strict["passed"], lenient["passed"], unknown["passed"]] == [False, False, True]
    assert strict["reason"] == "could not be computed: equal lengths"
    assert lenient["reason"] == "could not be computed: not measured"


def test_the_line_names_figure_value_interval_and_bound() -> None:
    rows = judged({"tie_rate": Gate(max=0.1), "length_effect": Gate(min=-1, max=1)}, FIGURES)
    assert failure(rows) == (
        "2 gates failed: tie_rate 0.25 (0.2 to 0.3) is above max 0.1; length_effect (min -1, max 1) could not be "
        "computed: equal lengths (missing: pass would let it through)"
    )


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"tie_rate": {}}, "a gate needs min, max or both"),
        ({"tie_rate": {"min": 0.5, "max": 0.4}}, "min 0.5 is above max 0.4"),
        ({"tie_rate": {"most": 0.4}}, "audit.gates.tie_rate.most|most: unknown key"),
        ({"tie_rate": {"max": 0.4, "missing": "perhaps"}}, "'fail' or 'pass'"),
    ],
)
def test_a_wrong_gate_is_one_line(gates: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(AuditSection, {"gates": gates}, "test")


def config(tmp_path: Path, **audit: Any) -> Pipeline:
    """Eight prompts, two answers each, a judge that always names the first, and a later stage."""
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": f"Q{i}?", "responses": [f"a{i}", f"the b{i}"]}) + "\n" for i in range(8))
    )
    raw = {
        "run": str(tmp_path / "run"),
        "engines": {"judge": {"engine": "scripted", "default": "Verdict: A"}},
        "prompts": {"path": str(data)},
        "judge": {"rubric": "helpfulness", "orders": "random"},
        "pair": {},
        "audit": audit,
        "export": {"test_fraction": 0.0, "formats": ["jsonl"]},
        "report": {},
    }
    return validate(Pipeline, raw, "test")


def test_a_failed_gate_stops_before_the_later_stages_and_leaves_the_audit_and_a_report(tmp_path: Path) -> None:
    gates = {"first_position_rate": {"max": 0.6}, "order_consistency": {"min": 0.8, "missing": "pass"}}
    with pytest.raises(
        GateFailed, match=r"^gate failed: first_position_rate 1 \(0\.\d+ to 1\) is above max 0\.6; see "
    ):
        pipeline.run(config(tmp_path, gates=gates), quiet=True)
    run = tmp_path / "run"
    stages = json.loads((run / "manifest.json").read_text())["stages"]
    assert stages["audit"]["status"] == "gate_failed" and stages["audit"]["fingerprint"] is None
    assert stages["audit"]["counts"]["gates_failed"] == 1
    assert "export" not in stages and not (run / "dataset").exists()
    rows = {row["name"]: row["passed"] for row in json.loads((run / "audit.json").read_text())["gates"]}
    assert rows == {"first_position_rate": False, "order_consistency": True}
    assert "The run failed a gate of its audit: first_position_rate." in (run / "report.html").read_text()

    manifest = pipeline.run(config(tmp_path, gates={"first_position_rate": {"max": 1}}), quiet=True)
    assert manifest["stages"]["audit"]["status"] == "finished" and (run / "dataset").exists()
    assert manifest["last_run"]["sent"] == 0


def test_an_audit_is_up_to_date_until_its_section_or_the_labels_change(tmp_path: Path) -> None:
    said: list[str] = []
    pipeline.run(config(tmp_path), quiet=True)
    pipeline.run(config(tmp_path), quiet=True, say=said.append)
    assert "audit: up to date" in said
    said.clear()
    pipeline.run(config(tmp_path, near_duplicate=0.5), quiet=True, say=said.append)
    assert "audit: up to date" not in said and "judge: up to date" in said


def test_an_unknown_gate_is_refused_before_anything_runs(tmp_path: Path) -> None:
    unknown = config(tmp_path, gates={"first_place_rate": {"max": 0.6}})
    with pytest.raises(
        ConfigError, match=r"no figure 'first_place_rate'; did you mean 'first_position_rate'\? known: "
    ):
        check(unknown, RunFolder(unknown.run), ["prompts", "judge", "audit"])
