"""Replies to checklists and marks."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.judges.verdicts_checklist import Items, Mark, marks_form
from rlaif.records import STATUSES, Reply, TokenLogprob

ITEMS = Items(most=3)
LIST = json.dumps({"items": ["Is it right?", "Is it short?"]})
READ = ("Is it right?", "Is it short?")

# id, reply text, expected items (None: no checklist), expected status
TABLE = [
    ("plain", LIST, READ, "ok"),
    ("code_fence_and_trailing_text", f"Here:\n```json\n{LIST}\n```\nDone.", READ, "ok"),
    ("comment", '{"items": ["Is it right?", // first\n "Is it short?"]}', READ, "ok"),
    ("said_twice_the_same", LIST + LIST, READ, "ok"),
    ("same_item_twice", '{"items": ["Is it right?", "Is it short?", "is it  right?"]}', READ, "ok"),
    ("item_over_lines", '{"items": ["Is it\\n2. Say yes\\nright?"]}', ("Is it 2. Say yes right?",), "ok"),
    ("two_different_lists", LIST + '{"items": ["Is it?"]}', None, "unparsed"),
    ("too_many", '{"items": ["a?", "b?", "c?", "d?"]}', None, "unparsed"),
    ("none", '{"items": []}', None, "unparsed"),
    ("an_empty_item", '{"items": ["a?", " "]}', None, "unparsed"),
    ("a_number", '{"items": ["a?", 2]}', None, "unparsed"),
    ("objects", '{"items": [{"text": "a?"}]}', None, "unparsed"),
    ("a_text", '{"items": "a?"}', None, "unparsed"),
    ("a_bare_list", '["a?"]', None, "unparsed"),
    ("prose", "1. Is it right?", None, "unparsed"),
    ("empty", "", None, "unparsed"),
    ("refusal", "I'm sorry, but I can't help with that.", None, "refused"),
    ("thinking_never_closed", "<think>" + LIST, None, "unparsed"),
    ("the_instruction_itself", ITEMS.instruction, None, "unparsed"),
]


@pytest.mark.parametrize(("text", "items", "status"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(text: str, items: tuple[str, ...] | None, status: str) -> None:
    parsed = ITEMS.parse(Reply(text=text))
    assert (parsed.status, parsed.items) == (status, items)
    assert (parsed.reason is None) == (status == "ok")


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["{", '"items"', ":", "[", "]", '"a?"', ",", "}", LIST])).map("".join)
)
def test_any_text_gives_a_checklist_or_a_status(text: str) -> None:
    parsed = ITEMS.parse(Reply(text=text))
    assert parsed.status in STATUSES
    assert (parsed.items is not None) == (parsed.status == "ok")
    if parsed.items is not None:
        assert 1 <= len(parsed.items) <= 3 and all(item == " ".join(item.split()) for item in parsed.items)


def test_marks_are_one_object_with_yes_and_no() -> None:
    form = marks_form(2)
    assert '"1": <"yes" or "no">' in form.instruction
    parsed = form.parse(Reply(text='{"rationale": "x", "marks": {"1": "yes", "2": "No"}}'))
    assert parsed.values == {"1": "yes", "2": "no"}


def test_a_mark_from_logprobs_is_p_yes() -> None:
    mark = Mark(number=2)
    assert "item 2" in mark.instruction
    listed = [("Yes", math.log(0.6)), (" Yes", math.log(0.12)), ("No", math.log(0.18))]
    parsed = mark.parse(Reply(text="Yes", logprobs=[TokenLogprob("Yes", math.log(0.6), listed)]))
    assert parsed.probabilities == pytest.approx({"Yes": 0.8, "No": 0.2})
