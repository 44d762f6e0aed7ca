"""A stage is up to date exactly as long as nothing that it depends on has changed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif.config import Pipeline
from rlaif.fingerprint import fingerprint
from rlaif.store import RunFolder

CODE = "Judge = select = metric = None\n"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_own_code.py").write_text(CODE)
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "my_own_code", raising=False)  # of the test before, from its own folder
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a?"}\n')
    (tmp_path / "mine.jinja").write_text("{{ conversation }}")
    engine = {"engine": "scripted", "default": "A"}
    return {
        "run": "run",
        "engines": {"policy": engine, "judge": engine},
        "prompts": {"path": "prompts.jsonl"},
        "generate": {"samplers": [{"engine": "policy"}]},
        "judge": {"judge": "my_own_code:Judge", "frame": "mine.jinja"},
        "pair": {"select": "my_own_code:select"},
        "export": {},
        "evaluate": {"prompts": {"path": "prompts.jsonl"}, "after": "policy", "metrics": ["my_own_code:metric"]},
        "report": {},
    }


STAGES = ("prompts", "generate", "judge", "pair", "export", "evaluate")


def marks(config: dict[str, Any]) -> dict[str, str]:
    pipeline = Pipeline.model_validate(config)
    return {stage: fingerprint(pipeline, RunFolder("run"), stage) for stage in STAGES}


def changed(config: dict[str, Any], before: dict[str, str]) -> set[str]:
    return {stage for stage, mark in marks(config).items() if mark != before[stage]}


def test_it_is_the_same_every_time(config: dict[str, Any]) -> None:
    assert marks(config) == marks(config)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("prompts.jsonl", {"prompts", "evaluate"}),
        ("mine.jinja", {"judge", "pair", "evaluate"}),
        ("my_own_code.py", {"judge", "pair", "evaluate"}),
    ],
)
def test_files_that_a_stage_reads(config: dict[str, Any], name: str, stages: set[str]) -> None:
    before = marks(config)
    path = Path(name)
    path.write_text(path.read_text() + "\n")
    assert changed(config, before) == stages


@pytest.mark.parametrize("name", ["prompts", "responses", "judgments", "preferences"])
def test_tables_that_a_stage_reads(config: dict[str, Any], name: str) -> None:
    before = marks(config)
    Path("run").mkdir()
    (Path("run") / f"{name}.jsonl").write_text("{}\n")
    readers = {
        "prompts": {"generate", "judge", "export", "evaluate"},
        "responses": {"judge", "pair", "export"},
        "judgments": {"pair", "export"},
        "preferences": {"export"},
    }
    assert changed(config, before) == readers[name]


def test_the_report_is_always_made(config: dict[str, Any]) -> None:
    pipeline = Pipeline.model_validate(config)
    folder = RunFolder("run")
    assert fingerprint(pipeline, folder, "report") != fingerprint(pipeline, folder, "report")


def test_what_the_members_of_a_panel_and_their_gold_depend_on(config: dict[str, Any]) -> None:
    Path("gold.json").write_text('{"one": {"n": 2, "correct": 1}}')
    Path("other.jinja").write_text("{{ conversation }}")
    members = {"one": {"judge": "my_own_code:Judge", "frame": "mine.jinja"}, "two": {"frame": "other.jinja"}}
    config["judge"] = {"judge": "panel", "members": members}
    config["pair"] = {"panel_gold": "gold.json"}
    for name, stages in {
        "gold.json": {"pair"},
        "other.jinja": {"judge", "pair", "evaluate"},
        "my_own_code.py": {"judge", "evaluate"},
    }.items():
        before = marks(config)
        Path(name).write_text(Path(name).read_text() + "\n")
        assert changed(config, before) == stages, name


def test_a_starting_model_counts_by_its_content_wherever_it_lies(config: dict[str, Any]) -> None:
    for name, weights in (("here", b"1"), ("there", b"1"), ("other", b"2")):
        Path(name).mkdir()
        (Path(name) / "config.json").write_text("{}")
        (Path(name) / "model.safetensors").write_bytes(weights)

    def mark(model: str) -> str:
        pipeline = Pipeline.model_validate({**config, "train": {"dpo": {"model": model}}})
        return fingerprint(pipeline, RunFolder("run"), "dpo")

    assert mark("here") == mark("there") != mark("other")
    assert mark("owner/name") != mark("owner/other"), "a hub id counts by its name"
