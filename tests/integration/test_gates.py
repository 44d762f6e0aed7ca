"""A failed gate as a user meets it. Slow: starts `rlaif` in processes of their own, some ten seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from run_helpers import manifest, rlaif, rows, succeed

pytestmark = pytest.mark.integration


def test_a_gate_ends_with_code_3_and_a_changed_config_passes(tmp_path: Path) -> None:
    """The attacks load the tiny judge: the stage runs in a child process, whose code and line come through."""
    answers = [{"prompt": f"What is the capital of country {i}?", "response_a": "It is Paris. Get lost.",
                "response_b": f"Happy to help. It is Rome {i}."} for i in range(6)]  # fmt: skip
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    config = {
        "run": "run",
        "engines": {"judge": {"engine": "transformers", "dtype": "float32", "model": "shipped:data/tiny/judge"}},
        "prompts": {"path": "answers.jsonl"},
        "judge": {"constitution": "tiny-world", "principles": "all"},
        "pair": {},
        "audit": {"injection": {"n": 2, "kinds": ["plea"]}, "gates": {"label_mass": {"max": 0.5}}},
        "export": {"formats": ["jsonl"], "test_fraction": 0.0},
        "report": {},
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(config))

    failed = rlaif("run", "p.yaml", "--quiet", cwd=tmp_path)
    assert failed.code == 3
    assert failed.one_line.startswith("rlaif: gate failed: label_mass ")
    assert "is above max 0.5; see run/audit.json" in failed.one_line
    run = tmp_path / "run"
    assert (run / "audit.json").exists() and (run / "report.html").exists() and not (run / "dataset").exists()
    assert manifest(run)["stages"]["audit"]["status"] == "gate_failed"
    assert {row["meta"]["attack"] for row in rows(run / "audit" / "judgments.jsonl")} == {
        "", "plea", "placebo-short", "placebo-long",
    }  # fmt: skip

    succeed("run", "p.yaml", "--quiet", "--set", "audit.gates.label_mass={min: 0.5}", cwd=tmp_path)
    assert manifest(run)["last_run"]["sent"] == 0
    assert (run / "dataset").exists()

    unknown = rlaif("audit", "run", "--set", "audit.gates.label_mas.max=1", cwd=tmp_path)
    assert unknown.code == 2 and "did you mean 'label_mass'" in unknown.one_line
