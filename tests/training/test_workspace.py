from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif.errors import StoreError
from rlaif.training.workspace import Workspace

PLAN = {"seed": 1}


def checkpoint(workspace: Workspace, step: int, state: str = '{"global_step": 1}') -> Path:
    folder = workspace.checkpoints / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "trainer_state.json").write_text(state)
    return folder


def test_publish_is_all_that_is_left(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "policy")
    assert workspace.begin(PLAN) is None
    workspace.model.mkdir()
    (workspace.model / "config.json").write_text("{}")
    workspace.publish({"steps": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    assert json.loads((tmp_path / "policy" / "training.json").read_text()) == {"steps": 3}


def test_publish_replaces_the_older_model_whole(tmp_path: Path) -> None:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "old.safetensors").write_text("")
    workspace = Workspace(tmp_path / "policy")
    workspace.model.mkdir()
    workspace.publish({})
    assert [path.name for path in (tmp_path / "policy").iterdir()] == ["training.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_goes_on_from_the_newest_whole_checkpoint(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "policy")
    workspace.begin(PLAN)
    checkpoint(workspace, 9)
    newest = checkpoint(workspace, 10)
    checkpoint(workspace, 11, state='{"torn')
    (workspace.checkpoints / "checkpoint-12").mkdir()
    assert Workspace(tmp_path / "policy").begin(PLAN) == newest


def test_another_plan_starts_afresh(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "policy")
    workspace.begin(PLAN)
    checkpoint(workspace, 9)
    again = Workspace(tmp_path / "policy")
    assert again.begin({"seed": 2}) is None
    assert list(again.checkpoints.iterdir()) == []


def test_abandon_keeps_checkpoints_only(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "policy")
    workspace.begin(PLAN)
    workspace.model.mkdir()
    kept = checkpoint(workspace, 4)
    workspace.abandon()
    assert kept.exists() and not workspace.model.exists() and not workspace.cache.exists()


def test_abandon_without_checkpoints_leaves_nothing(tmp_path: Path) -> None:
    Workspace(tmp_path / "policy").abandon()
    assert list(tmp_path.iterdir()) == []


def test_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write a model here"):
        Workspace(tmp_path / "file" / "policy")


def test_another_plan_says_what_differs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workspace = Workspace(tmp_path / "policy")
    workspace.begin({"seed": 1, "model": "a"})
    checkpoint(workspace, 9)
    Workspace(tmp_path / "policy").begin({"seed": 2, "model": "a"})
    assert "starts afresh" in caplog.text and "differs in seed;" in caplog.text
