"""The shipped whole loop, much smaller: every policy stands in the report with every figure that it should have.

Slow: loads three models, trains four and samples from four, half a minute of one core. All in this process, so that
the libraries are imported once; what is learned in four steps is nothing, and nothing is asserted of it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif import config, pipeline
from rlaif.paths import shipped

pytestmark = pytest.mark.integration


def test_every_policy_with_every_figure(tmp_path: Path) -> None:
    smaller = [f"run={tmp_path / 'run'}", "prompts.limit=24", "evaluate.prompts.limit=12", "export.test_fraction=0"]
    smaller += ["evaluate.skills.facts.limit=8", "train.ppo.args.max_steps=4", "train.grpo.args.max_steps=4"]
    smaller += [f"train.{name}.args.per_device_train_batch_size=4" for name in ("ppo", "grpo")]
    smaller += [f"train.{name}.args.steps_per_generation=2" for name in ("ppo", "grpo")]
    smaller += [f"train.{name}.args.max_steps=4" for name in ("sft", "reward", "dpo")]
    loop = config.load(shipped("pipelines/whole-loop.yaml"), smaller)
    pipeline.run(loop, quiet=True, in_process=True)
    run = tmp_path / "run"
    found = json.loads((run / "report.json").read_text())["policies"]
    assert [row["policy"] for row in found] == ["before", "after", *loop.evaluate.policies]  # type: ignore[union-attr]
    for row in found:
        start = row["policy"] == "before"
        assert row["reward"]["reward"]["score"]["mean"]["n"] == 12
        assert (row["win_rate"].keys() == {"judge", "second_judge"}) is not start
        assert row["metrics"]["quality"]["mean"]["n"] == 12
        assert row["skills"]["facts"]["accuracy"]["mean"]["n"] == row["skills"]["facts"]["n"] == 8
        kl = row["kl"]["per_response"]["value"]
        assert kl == 0.0 if start else kl != 0.0
        assert row["kl"]["as_written"] == 1.0, "the tiny tokenizer cuts a text as it was written"
    page = (run / "report.html").read_text()
    assert "Every policy, side by side" in page and "KL, nats a response" in page
