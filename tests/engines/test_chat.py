"""Folding of system messages and splitting of thinking, the same for every engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlaif.engines.chat import fold_system, split_thinking

SYSTEM = {"role": "system", "content": "You judge."}
USER = {"role": "user", "content": "Which is better?"}


@pytest.mark.parametrize(
    ("messages", "folded"),
    [
        ([USER], [USER]),
        ([SYSTEM, USER], [{"role": "user", "content": "You judge.\n\nWhich is better?"}]),
        ([SYSTEM], [{"role": "user", "content": "You judge."}]),
        (
            [SYSTEM, USER, {"role": "assistant", "content": "A"}, USER],
            [
                {"role": "user", "content": "You judge.\n\nWhich is better?"},
                {"role": "assistant", "content": "A"},
                USER,
            ],
        ),
        (
            [SYSTEM, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            [{"role": "user", "content": [{"type": "text", "text": "You judge."}, {"type": "text", "text": "Hi"}]}],
        ),
    ],
)
def test_folding_the_system_message(messages: list[Any], folded: list[Any]) -> None:
    before = json.dumps(messages)
    assert fold_system(messages) == folded
    assert json.dumps(messages) == before, "the request itself must stay as it is: it is in the journal's key"


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("answer", False, (None, "answer")),
        ("<think>\nhm\n</think>\n\nanswer", False, ("hm", "answer")),
        ("  <think>hm</think>answer", False, ("hm", "answer")),
        ("hm\n</think>\nanswer", True, ("hm", "answer")),
        ("hm</think>answer", False, (None, "hm</think>answer")),
        ("never closed", True, ("never closed", "")),
        ("<think>never closed", False, ("never closed", "")),
        ("the tag <think> in the middle", False, (None, "the tag <think> in the middle")),
        ("<think></think>answer", False, ("", "answer")),
        ("<think>hm</think>\n    indented", False, ("hm", "    indented")),
        ("A", None, (None, "A")),
        ("", None, (None, "")),
        (" \n<think>\nhm\n</think>A", None, ("hm", "A")),
        ("<think>never closed. Verdict: A", None, ("never closed. Verdict: A", "")),
        ("opened by the template</think>\nB", None, ("opened by the template", "B")),
        ("Use the <think> tag.", None, (None, "Use the <think> tag.")),
        ("Write <think>x</think> first.", None, (None, "Write <think>x</think> first.")),
        ("<think>a</think>b</think>c", None, ("a", "b</think>c")),
    ],
)
def test_thinking_is_split_off(text: str, opened: bool | None, expected: tuple[str | None, str]) -> None:
    assert split_thinking(text, opened) == expected
