"""Demonstrations of a skill, and when a reply shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import DataError
from rlaif.training.skills import Demonstration, is_right, load_skill
from rlaif.world.demonstrations import fact_rows
from rlaif.world.oracle import score


def skill(tmp_path: Path, *rows: dict[str, Any], limit: int | None = None) -> list[Demonstration]:
    path = tmp_path / "skill.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_skill(path, tmp_path / "cache", limit)


def test_text_and_conversations_read_alike(tmp_path: Path) -> None:
    (text,) = skill(tmp_path, {"prompt": "Which?", "completion": "This.", "answer": "this", "other": 1})
    turns = [{"role": "user", "content": "Which?"}]
    (chat,) = skill(
        tmp_path,
        {"prompt": turns, "completion": [{"role": "assistant", "content": "This."}], "answer": ["this", "that"]},
    )
    assert text == Demonstration(turns, "This.", ("this",))
    assert chat == Demonstration(turns, "This.", ("this", "that"))


def test_limit_takes_the_first(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "completion": "x"} for i in range(5)]
    assert [d.messages[0]["content"] for d in skill(tmp_path, *rows, limit=2)] == ["0?", "1?"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "?", "completion": " "}, "row 0: prompt or completion is empty"),
        ({"prompt": "?"}, "missing column completion; columns there: prompt"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "completion": "y"}, "prompt ends with an answer"),
        ({"prompt": "?", "completion": [{"role": "assistant", "content": "x"}] * 2}, "completion has 2 turns"),
        ({"prompt": "?", "completion": "x", "answer": ""}, "answer is empty"),
    ],
)
def test_a_fault_names_the_row(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        skill(tmp_path, row)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("It is Paris.", True),
        ("Well, IT IS PARIS. Good day!", True),
        ("It is Parish.", False),
        ("Kit is Paris.", False),
        ("The answer is Paris.", True),
        ("Paris", False),
        ("", False),
    ],
)
def test_a_right_reply_says_an_answer_as_words_of_their_own(reply: str, right: bool) -> None:
    assert is_right(reply, Demonstration([], "It is Paris.", ("It is Paris.", "The answer is Paris."))) is right


@pytest.mark.parametrize(("reply", "right"), [(" It  is\nParis.", True), ("It is Paris. Yes.", False)])
def test_without_answers_a_right_reply_is_the_completion(reply: str, right: bool) -> None:
    assert is_right(reply, Demonstration([], "It is Paris.")) is right


def test_the_worlds_facts_are_right_by_the_oracle_too() -> None:
    for row in fact_rows(0, "dev"):
        completion = row["completion"][0]["content"]
        assert completion in row["answer"]
        assert score(row["prompt"][0]["content"], completion)["benign_correct"] == 1
