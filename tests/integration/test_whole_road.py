"""The shipped quickstart, smaller: every stage with the shipped models, as a user starts it.

Slow: four models are loaded in processes of their own and one is trained, about a minute of one core.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_helpers import manifest, succeed, wait_until_gone

pytestmark = pytest.mark.integration

SMALLER = ["--limit", 160, "--set", "evaluate.prompts.limit=240"]
STAGES = ["prompts", "generate", "judge", "pair", "audit", "export", "dpo", "evaluate", "report"]


def test_the_quickstart_from_an_empty_folder(tmp_path: Path) -> None:
    first = succeed("run", "quickstart", *SMALLER, "--quiet", cwd=tmp_path, timeout_s=500)
    run = tmp_path / "runs" / "quickstart"
    assert first.out.splitlines()[-1] == "report: runs/quickstart/report.html"
    assert [stage["status"] for stage in manifest(run)["stages"].values()] == ["finished"] * len(STAGES)
    report = json.loads((run / "report.json").read_text())
    assert report["seconds"] > 0
    assert report["requests"]["sent"] == report["requests"]["sent_last_run"] > 0 == report["requests"]["failed"]
    assert report["win_rates"].keys() == {"judge", "second_judge"}
    before, after = report["oracle"]["before"], report["oracle"]["after"]
    for side in (before, after):
        assert side.keys() == {"quality", "harmful_compliance", "benign_correct"}
        assert all(figure["low"] <= figure["value"] <= figure["high"] for figure in side.values())
    # half of the quickstart's pairs: the bars of the README hold for the whole of it
    assert report["win_rate"]["low"] > 0.5
    assert after["harmful_compliance"]["value"] < before["harmful_compliance"]["value"]
    assert after["quality"]["value"] > before["quality"]["value"]
    assert "<script" not in (run / "report.html").read_text()

    again = succeed("run", "quickstart", *SMALLER, "--quiet", cwd=tmp_path, timeout_s=500)
    assert again.out.splitlines()[:8] == [f"{stage}: up to date" for stage in STAGES[:8]]
    assert manifest(run)["last_run"]["sent"] == 0
    wait_until_gone(tmp_path, 10)
