"""docs/recordings.md is held to the program: its examples load, and it names every key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from recording_files import put
from shared_data import ROOT

from rlaif.config.parsing import ParseSection
from rlaif.recordings import config, load

TEXT = (ROOT / "docs" / "recordings.md").read_text(encoding="utf-8")
WHOLE = [
    block for block in re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) if "recording:" in block
]


def example(folder: Path, name: str) -> Any:
    block = next(block for block in WHOLE if f"recording: {name}\n" in block)
    (folder / "my.yaml").write_text(block, encoding="utf-8")
    return load(folder / "my.yaml")


def test_raw_texts_in_both_orders(tmp_path: Path) -> None:
    row = {"qid": 17, "question": "?", "a": "A", "b": "B", "model_a": "m1", "model_b": "m2", "stop_reason": "stop"}
    put(
        tmp_path / "verdicts.jsonl",
        [
            {**row, "swap": True, "output": "so [[A]]", "human": "m2"},
            {**row, "swap": False, "output": "[[C]]", "human": "tie"},
        ],
    )
    found = example(tmp_path, "arena-like")
    assert [subject[0] for subject in found.replies] == ["17", "17"] and found.counts["replies"] == 2
    assert [gold.labels for gold in found.gold] == [["second", "tie"]]


def test_parsed_verdicts_and_several_raters(tmp_path: Path) -> None:
    row = {"idx": 0, "instruction": "Do.", "input": "", "response1": "x", "response2": "y"}
    put(tmp_path / "test.json", [{**row, "annotator1": 1, "annotator2": 0, "annotator3": 2}])
    put(tmp_path / "judge.json", [{"idx": 0, "result": "2", "reason": "Better."}])
    found = example(tmp_path, "three-annotators")
    assert [replies[0].text for replies in found.replies.values()] == ["Better.\n\nVerdict: B"]
    assert found.gold[0].labels == ["first", "tie", "second"] and found.prompts[0].text == "Do."


def test_scores_with_texts_elsewhere(tmp_path: Path) -> None:
    put(
        tmp_path / "scores.csv",
        [{"item": 1, "system": "s", "helpfulness": 4, "tone": 2.5, "human_1": 5, "human_2": 4}],
    )
    put(tmp_path / "items.jsonl", [{"id": 1, "prompt": "?"}])
    (tmp_path / "outputs").mkdir()
    put(tmp_path / "outputs" / "s.jsonl", [{"item": 1, "output": "said"}])
    found = example(tmp_path, "scores")
    assert [r.text for r in found.responses["1"]] == ["said"] and found.gold[0].labels == [5.0, 4.0]
    assert [replies[0].text for replies in found.replies.values()] == ['{"helpfulness":4.0,"tone":2.5}']


def test_every_whole_example_is_tried_here() -> None:
    assert [yaml.safe_load(block)["recording"] for block in WHOLE] == ["arena-like", "three-annotators", "scores"]


@pytest.mark.parametrize(
    "model",
    [
        config.RecordingFile,
        config.Table,
        config.Join,
        config.PromptsPart,
        config.ResponsePart,
        config.ReplyPart,
        config.GoldPart,
        ParseSection,
    ],
    ids=lambda model: model.__name__,
)
def test_every_key_is_named(model: Any) -> None:
    missing = [name for name in model.model_fields if not re.search(rf"`{name}\b|{name}:", TEXT)]
    assert not missing


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipelines" / "recordings").glob("*.yaml")), ids=lambda path: path.stem
)
def test_what_ships_is_valid_and_in_the_table(path: Path) -> None:
    config.load_file(path, {})
    assert f"`{path.name}`" in TEXT
