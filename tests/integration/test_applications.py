"""pipelines/content_safety.yaml, shrunken: prompts, scores, heads, PPO under a floor, evaluation, report.

Slow: three models are trained and four are loaded, each in a process of its own, about a minute of one core. What the
whole pipelines reach is measured by benchmarks/applications.py; nothing can be said of so small a run.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from run_helpers import manifest, succeed, wait_until_gone

from rlaif.io import read_table
from rlaif.records import Judgment, Response

pytestmark = pytest.mark.integration

STAGES = ["prompts", "generate", "judge", "pair", "export", "sft", "reward", "ppo", "evaluate", "report"]
PRINCIPLES = {"helpful", "harmless", "honest", "concise", "polite"}
SMALLER = (
    "train.sft.args.max_steps=4",
    "train.reward.args.max_steps=12",
    "train.ppo.args.per_device_train_batch_size=10",
    "train.ppo.args.steps_per_generation=2",
    "train.ppo.args.num_train_epochs=1",
    "evaluate.prompts.limit=20",
    "evaluate.n=1",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("application")
    sets = [part for value in SMALLER for part in ("--set", value)]
    outcome = succeed("run", "content_safety", "--limit", 40, *sets, "--quiet", cwd=folder, timeout_s=500)
    assert outcome.out.splitlines()[-1] == "report: runs/content-safety/report.html"
    wait_until_gone(folder, 10)
    return folder / "runs" / "content-safety"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_every_stage_is_finished(run: Path) -> None:
    stages = manifest(run)["stages"]
    assert {name: stage["status"] for name, stage in stages.items()} == dict.fromkeys(STAGES, "finished")


def test_every_response_has_a_score_under_every_principle(run: Path) -> None:
    responses = {row.id for row in read_table(run / "responses.jsonl", Response)}
    judgments = list(read_table(run / "judgments.jsonl", Judgment))
    assert {(row.kind, row.status) for row in judgments} == {("pointwise", "ok")}
    asked = Counter((row.response_ids[0], row.principle) for row in judgments)
    assert asked == dict.fromkeys(((response, name) for response in responses for name in PRINCIPLES), 1)


def test_the_scores_are_the_heads_and_the_floor_is_one_of_them(run: Path) -> None:
    import datasets

    train = datasets.load_dataset(str(run / "dataset-scores"))["train"]
    assert set(train[0]["scores"]) == PRINCIPLES
    assert all(1 <= score <= 5 for row in train for score in row["scores"].values())
    reward = read(run / "models" / "reward" / "reward.json")
    assert set(reward["heads"]) == PRINCIPLES and reward["kind"] == "scores"
    ppo = read(run / "models" / "ppo" / "training.json")
    rollout = ppo["history"][0]
    assert {f"rewards/reward/{name}" for name in PRINCIPLES} | {"rewards/reward/below_floor"} <= rollout.keys()
    assert ppo["rollouts"] == 2  # 40 prompts, 20 completions a rollout
    assert (run / "models" / "ppo" / "critic" / "config.json").is_file()


def test_judges_score_both_policies_and_the_oracle_stands_beside_them(run: Path) -> None:
    found = read(run / "evaluation" / "evaluation.json")
    assert found["n"] == 20 and found["prompts_also_trained_on"] == 0
    assert found["win_rate"].keys() == {"judge", "second_judge"}
    judgments = list(read_table(run / "evaluation" / "judgments.jsonl", Judgment))
    assert {row.kind for row in judgments} == {"pointwise"}
    assert len(judgments) == 2 * 2 * 20 * len(PRINCIPLES)  # judges, policies, prompts
    for name in ("quality", "harmful_compliance", "benign_correct"):
        assert 0 <= found["metrics"][name]["before"]["value"] <= 1
    oracle = read(run / "report.json")["oracle"]
    assert oracle["after"]["quality"]["value"] == found["metrics"]["quality"]["after"]["value"]
