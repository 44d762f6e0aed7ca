"""`rlaif train reward` and `rlaif.train_reward` on a file of rows and on rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif import cli
from rlaif.config import Pipeline
from rlaif.errors import UserError
from rlaif.stages.kinds import KINDS
from rlaif.stages.table import stage
from rlaif.training.reward_data import NEEDED

START = "shipped:data/tiny/policy"


def rows(n: int = 4) -> list[dict[str, Any]]:
    return [{"prompt": f"Is it {i}? ", "chosen": "It is a cat.", "rejected": "No."} for i in range(n)]


def config(**reward: Any) -> Pipeline:
    return Pipeline.model_validate({"run": "runs/x", "train": {"reward": {"model": START, **reward}}})


@pytest.mark.parametrize(
    ("kind", "folder"), [("pair", "dataset"), ("scores", "dataset-scores"), ("ranking", "dataset-ranking")]
)
def test_each_kind_trains_on_its_own_export(kind: str, folder: str) -> None:
    assert Path("runs/x") / folder in list(stage("reward").files(config(kind=kind)))


@pytest.mark.parametrize("kind", list(NEEDED))
def test_the_exports_have_the_columns_that_it_reads(kind: str) -> None:
    assert set(NEEDED[kind]) <= set(KINDS[kind].columns([]))


def test_other_human_labels_train_again() -> None:
    assert Path("people.jsonl") in list(stage("reward").files(config(human="people.jsonl")))


@pytest.mark.integration  # trains, in a process of its own
def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = tmp_path / "pairs.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    command = ["train", "reward", str(data), "--run", str(run), "--model", START]
    assert cli.main([*command, "--set", "train.reward.args.max_steps=1"]) == 0
    assert json.loads((run / "models" / "reward" / "reward.json").read_text())["heads"] == ["reward"]
    counts = json.loads((run / "manifest.json").read_text())["stages"]["reward"]["counts"]
    assert counts == {"rows": 4, "steps": 1, "members": 1}


@pytest.mark.integration  # trains
def test_function(tmp_path: Path) -> None:
    ranked = [
        {"prompt": f"Is it {i}? ", "responses": ["It is a cat.", "No.", "It is."], "ranking": [2, 0, 1]}
        for i in range(4)
    ]
    out = tmp_path / "reward"
    result = rlaif.train_reward(ranked, model=START, out=out, kind="ranking", args={"max_steps": 1})
    assert result["n_train"] == 4 and (out / "model.safetensors").is_file()
    with pytest.raises(UserError, match="missing column chosen, rejected"):
        rlaif.train_reward(ranked, model=START, out=tmp_path / "other", args={"max_steps": 1})
