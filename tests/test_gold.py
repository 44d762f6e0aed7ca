"""Gold files: labels of pairs and scores of responses, in every layout that people have them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.config import Source
from rlaif.errors import ConfigError, DataError
from rlaif.io.gold import GoldSet, read_gold
from rlaif.records import Dropped, Gold


def write(folder: Path, rows: list[dict[str, Any]]) -> Source:
    path = folder / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Source(path=str(path))


def pair(
    label: Any = None, prompt: str = "Why?", a: str = "Because.", b: str = "No idea.", **more: Any
) -> dict[str, Any]:
    row = {"prompt": prompt, "response_a": a, "response_b": b, **more}
    return row if label is None else {**row, "label": label}


def read(source: Source, **options: Any) -> tuple[GoldSet, list[Dropped]]:
    dropped: list[Dropped] = []
    return read_gold(source, dropped.append, **options), dropped


def texts(found: GoldSet, gold: Gold) -> list[str]:
    return [found.responses[i].text for i in gold.response_ids]


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("a", "first"), ("A", "first"), (1, "first"), ("1", "first"), (1.0, "first"), ("first", "first"),
        ("b", "second"), ("B ", "second"), (2, "second"), ("response_b", "second"),
        ("tie", "tie"), ("Tie", "tie"), (0, "tie"), ("0", "tie"),
    ],
)  # fmt: skip
def test_labels_of_pairs(tmp_path: Path, written: Any, label: str) -> None:
    found, dropped = read(write(tmp_path, [pair(written)]))
    (gold,) = found.gold
    assert gold.labels == [label] and gold.raters == [] and dropped == []
    assert texts(found, gold) == ["Because.", "No idea."]


def test_the_files_own_words(tmp_path: Path) -> None:
    rows = [pair(word, prompt=f"{n}?") for n, word in enumerate(["win", "lose", "draw", "skip", True])]
    words = {"win": "a", "LOSE": "b", "draw": "tie", "skip": "none", "True": "a"}
    found, dropped = read(write(tmp_path, rows), labels=words)
    assert [gold.labels for gold in found.gold] == [["first"], ["second"], ["tie"], ["first"]]
    assert [row.reason for row in dropped] == ["unlabelled"]


def test_a_list_of_raters_and_a_mapping_of_them(tmp_path: Path) -> None:
    rows = [pair(labels=["a", None, "b"]), pair(prompt="Who?", labels={"Ann": 1, "Ben": 0})]
    (one, two), dropped = (lambda x: (x[0].gold, x[1]))(read(write(tmp_path, rows)))
    assert (one.labels, one.raters) == (["first", None, "second"], [])
    assert (two.labels, two.raters) == (["first", "tie"], ["Ann", "Ben"])
    assert dropped == []


def test_columns_of_raters(tmp_path: Path) -> None:
    found, _ = read(write(tmp_path, [pair(ann="A", ben="", cid=0)]), raters=["ann", "ben", "cid"])
    assert found.gold[0].labels == ["first", None, "tie"] and found.gold[0].raters == ["ann", "ben", "cid"]


def test_one_row_a_rater_also_told_the_other_way_round(tmp_path: Path) -> None:
    rows = [pair("a", rater="Ann"), pair("a", a="No idea.", b="Because.", rater="Ben"), pair("tie", rater="Ann")]
    found, _ = read(write(tmp_path, rows))
    (gold,) = found.gold
    assert gold.labels == ["first", "second", "tie"]
    assert gold.raters[:2] == ["Ann", "Ben"] and gold.raters[2].startswith("Ann")


def test_chosen_and_rejected_say_who_won(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "chosen": "Because.", "rejected": "No idea."}]
    found, _ = read(write(tmp_path, rows))
    assert found.gold[0].labels == ["first"] and texts(found, found.gold[0]) == ["Because.", "No idea."]


def test_scores_and_their_raters(tmp_path: Path) -> None:
    rows = [
        {"prompt": "Why?", "response": "Because.", "score": 4},
        {"prompt": "Why?", "response": "No idea.", "score": "1.5"},
    ]
    found, _ = read(write(tmp_path, rows))
    assert [gold.labels for gold in found.gold] == [[4.0], [1.5]]
    rows = [{"prompt": "Why?", "response": "Because.", "scores": [4, None, 5]}]
    assert read(write(tmp_path, rows))[0].gold[0].labels == [4.0, None, 5.0]


def test_other_column_names_and_slices(tmp_path: Path) -> None:
    rows = [{"q": "Why?", "x": "Because.", "y": "No idea.", "pref": "y", "level": {"name": "hard"}, "topic": "t"}]
    columns = {"prompt": "q", "response_a": "x", "response_b": "y", "label": "pref", "domain": "topic"}
    source = write(tmp_path, rows).model_copy(update={"columns": columns})
    found, _ = read(source, labels={"x": "a", "y": "b"}, slices=["domain", "level.name"])
    assert found.gold[0].labels == ["second"]
    assert found.gold[0].slices == {"domain": "t", "level.name": "hard"}
    assert next(iter(found.prompts.values())).domain == "t"


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "gold.csv"
    path.write_text('prompt,response_a,response_b,labels\nWhy?,Because.,No idea.,"[""a"", ""b"", ""a""]"\n')
    assert read(Source(path=str(path)))[0].gold[0].labels == ["first", "second", "first"]


def test_what_cannot_be_used_is_dropped_with_its_reason(tmp_path: Path) -> None:
    rows = [pair("a"), pair("a", prompt=""), pair("a", b=" "), pair("", prompt="x"), pair("a", a="same", b="same")]
    found, dropped = read(write(tmp_path, rows))
    assert len(found.gold) == 1
    assert [row.reason for row in dropped] == ["empty_prompt", "empty_response", "unlabelled", "same_response"]
    assert {row.stage for row in dropped} == {"calibrate"} and all("gold.jsonl:" in row.id for row in dropped)


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([pair("a"), pair("better", prompt="x")], {}, r"gold.jsonl:2: label: 'better' is no label; known: a, b, tie"),
        ([pair(3)], {}, "'3' is no label"),
        ([pair(True)], {}, "'True' is no label"),
        ([pair()], {}, "no column 'label' or 'labels'"),
        ([pair(labels="a")], {}, "labels: expected a list"),
        ([pair(labels="[a")], {}, "labels: not a JSON list"),
        ([{"prompt": "x", "label": "a"}], {}, "no column with responses"),
        ([{"prompt": "x", "response": "y", "score": "good"}], {}, "score: expected a number, got 'good'"),
        ([pair("a")], {"raters": ["ann"]}, "no column 'ann'"),
        ([pair("a")], {"slices": ["topic"]}, "no column 'topic'"),
        ([], {}, "no rows"),
        ([pair("a", id="1"), pair("a", id="1", prompt="Who?")], {}, "came with another prompt before"),
    ],
)  # fmt: skip
def test_faults_name_file_row_and_column(
    tmp_path: Path, rows: list[dict[str, Any]], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        read(write(tmp_path, rows), **options)


def test_an_unknown_column_name_is_a_config_error(tmp_path: Path) -> None:
    source = write(tmp_path, [pair("a")]).model_copy(update={"columns": {"lable": "x"}})
    with pytest.raises(ConfigError, match="unknown name 'lable'"):
        read(source)
