"""Replies to scores: the adversarial table, and properties that hold for any text."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlaif.judges.verdicts_scores import Field, Form, Rating
from rlaif.records import STATUSES, Reply, TokenLogprob

RATING = Rating(steps=(1, 2, 3, 4, 5))
FORM = Form(fields=(Field("works", (1, 2, 3, 4, 5)), Field("clear", (1, 2, 3, 4, 5))))
YES_NO = Form(key="marks", fields=(Field("1", ("yes", "no")),))
BOTH = {"works": 4, "clear": 2}


def said(works: object = 4, clear: object = 2, **more: object) -> str:
    return json.dumps({"rationale": "It would.", "scores": {"works": works, "clear": clear}, **more})


def raw(works: str) -> str:
    """A value that json would not write."""
    return said().replace('"works": 4', f'"works": {works}')


# id, reply text, expected values (None: no judgment at all), expected status
TABLE = [
    ("plain", said(), BOTH, "ok"),
    ("preamble", "Sure, here is my rating:\n" + said(), BOTH, "ok"),
    ("code_fence", f"```json\n{said()}\n```", BOTH, "ok"),
    ("code_fence_and_trailing_text", f"```json\n{said()}\n```\nI hope {{this}} helps.", BOTH, "ok"),
    ("comment_after_a_value", raw("4 // not 5\n"), BOTH, "ok"),
    ("comment_that_eats_the_rest", raw("4, // not 5"), None, "unparsed"),
    ("line_comment", '{"rationale": "x", // why\n"scores": {"works": 4, "clear": 2}} // done', BOTH, "ok"),
    ("block_comment", '{/* mine */ "scores": {"works": 4 /* of 5 */, "clear": 2}}', BOTH, "ok"),
    ("comment_marks_in_a_text", '{"rationale": "http://x.y // z", "scores": {"works": 4, "clear": 2}}', BOTH, "ok"),
    ("line_break_in_a_text", '{"rationale": "one\ntwo", "scores": {"works": 4, "clear": 2}}', BOTH, "ok"),
    ("number_as_text", said("4", "2"), BOTH, "ok"),
    ("full_width_digit", said("４", 2), BOTH, "ok"),
    ("right_to_left_mark", said("\u200f4\u200e", 2), BOTH, "ok"),
    ("crlf", said().replace(" ", "\r\n"), BOTH, "ok"),
    ("whole_number_written_as_4.0", raw("4.0"), BOTH, "ok"),
    ("said_twice_the_same", said() + "\nAgain:\n" + said(), BOTH, "ok"),
    ("same_criterion_twice_the_same", raw('4, "works": 4'), BOTH, "ok"),
    ("unknown_criterion", said().replace('"clear"', '"style": 1, "clear"'), BOTH, "ok"),
    ("object_of_another_form_before", '{"works": 1, "clear": 1} ' + said(), BOTH, "ok"),
    ("echoed_example", FORM.instruction + "\n" + said(), BOTH, "ok"),
    ("thinking_before", "<think>" + said(1, 1) + "</think>" + said(), BOTH, "ok"),
    ("verdict_line_of_another_judge", "Verdict: A\n" + said() + "\n[[B]]", BOTH, "ok"),
    # one criterion is not judged, the other is
    ("between_two_steps", raw("4.5"), {"works": None, "clear": 2}, "ok"),
    ("ten_on_a_scale_to_five", said(10), {"works": None, "clear": 2}, "ok"),
    ("ten_as_text", said("10"), {"works": None, "clear": 2}, "ok"),
    ("zero_on_a_scale_from_one", said(0), {"works": None, "clear": 2}, "ok"),
    ("four_of_five", said("4/5"), {"works": None, "clear": 2}, "ok"),
    ("null", said(None), {"works": None, "clear": 2}, "ok"),
    ("a_word", said("good"), {"works": None, "clear": 2}, "ok"),
    ("true_is_not_one", said(True), {"works": None, "clear": 2}, "ok"),
    ("a_list", said([4]), {"works": None, "clear": 2}, "ok"),
    ("not_a_number", raw("NaN"), {"works": None, "clear": 2}, "ok"),
    ("infinity", raw("-Infinity"), {"works": None, "clear": 2}, "ok"),
    ("enormous", raw("1" + "0" * 400), {"works": None, "clear": 2}, "ok"),
    ("missing_criterion", '{"scores": {"clear": 2}}', {"works": None, "clear": 2}, "ok"),
    ("same_criterion_twice_differently", raw('4, "works": 5'), {"works": None, "clear": 2}, "ok"),
    ("criterion_in_other_case", said().replace('"works"', '"Works"'), {"works": None, "clear": 2}, "ok"),
    # no judgment
    ("two_different_objects", said() + said(5), None, "unparsed"),
    ("no_criterion_read", said(10, None), None, "unparsed"),
    ("scores_at_the_top", '{"works": 4, "clear": 2}', None, "unparsed"),
    ("scores_as_a_list", '{"scores": [4, 2]}', None, "unparsed"),
    ("empty_object", "{}", None, "unparsed"),
    ("empty", "", None, "unparsed"),
    ("white_space", " \n\t\r\n", None, "unparsed"),
    ("only_prose", "works: 4, clear: 2", None, "unparsed"),
    ("cut_in_the_middle", said()[:-4], None, "unparsed"),
    ("more_digits_than_python_reads", raw("9" * 5000), None, "unparsed"),
    ("deeper_than_python_reads", '{"a":' * 20_000, None, "unparsed"),
    ("thinking_never_closed", "<think>" + said(), None, "unparsed"),
    ("only_inside_the_thinking", f"<think>{said()}</think>I cannot decide.", None, "unparsed"),
    ("refusal", "I'm sorry, but I can't help with that.", None, "refused"),
    ("control_tokens", "<|im_start|>assistant\n4<|im_end|>", None, "unparsed"),
    ("template_syntax", "{{ answer }} {response}", None, "unparsed"),
    ("the_instruction_itself", FORM.instruction, None, "unparsed"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "values", "status"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(text: str, values: dict[str, int | None] | None, status: str) -> None:
    parsed = FORM.parse(Reply(text=text))
    assert parsed.status == status
    assert parsed.values == (values or {})
    assert set(parsed.unread) == {name for name, value in (values or {}).items() if value is None}
    assert (parsed.reason is None) == (status == "ok")


def test_what_was_not_judged_says_why() -> None:
    assert FORM.parse(Reply(text=raw("4.5"))).unread == {"works": "4.5 was not offered"}
    assert FORM.parse(Reply(text=said(None))).unread == {"works": "null"}
    assert FORM.parse(Reply(text='{"scores": {"clear": 2}}')).unread == {"works": "missing"}
    assert FORM.parse(Reply(text=raw('4, "works": 5'))).unread == {"works": "given twice: 4, 5"}


def test_cut_off_is_no_judgment_even_if_the_object_is_whole() -> None:
    assert FORM.parse(Reply(text=said(), finish_reason="length")).status == "truncated"


def test_the_scale_decides_what_one_and_ten_are() -> None:
    wide = Form(fields=(Field("works", tuple(range(1, 11))),))
    assert [wide.parse(Reply(text=said(step))).values for step in (1, 10, "10")] == [
        {"works": 1}, {"works": 10}, {"works": 10},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "mark"), [("yes", "yes"), ("No", "no"), (" YES ", "yes"), (True, None), (1, None), ("maybe", None)]
)
def test_words_are_read_without_case_and_nothing_else_is_one(value: object, mark: str | None) -> None:
    parsed = YES_NO.parse(Reply(text=json.dumps({"marks": {"1": value}})))
    assert parsed.values == ({"1": mark} if mark else {})


def test_the_schema_offers_what_the_instruction_does() -> None:
    scores = FORM.schema["properties"]["scores"]
    assert scores["required"] == ["works", "clear"]
    assert scores["properties"]["works"] == {"type": ["integer", "null"], "enum": [1, 2, 3, 4, 5, None]}
    assert not FORM.schema["additionalProperties"] and not scores["additionalProperties"]
    assert '"works": <whole number from 1 to 5>' in FORM.instruction


PIECES = ["{", "}", '"', '"scores"', ":", '"works"', '"clear"', "4", "4.5", "10", ",", "null", "\n", "//", "/*", "*/",
          "[", "]", "```", "<think>", "</think>", said(), said(5)]  # fmt: skip


@given(st.text(max_size=300) | st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@example('{"' * 3000)
def test_any_text_gives_offered_steps_or_a_status(text: str) -> None:
    parsed = FORM.parse(Reply(text=text))
    assert parsed.status in STATUSES
    judged = [value for value in parsed.values.values() if value is not None]
    assert bool(judged) == (parsed.status == "ok")
    assert all(value in (1, 2, 3, 4, 5) for value in judged)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_value_is_a_step_or_none(value: object) -> None:
    parsed = FORM.parse(Reply(text=said(value)))
    assert parsed.status == "ok" and parsed.values["clear"] == 2
    assert parsed.values["works"] in (None, 1, 2, 3, 4, 5)


# -- log-probabilities ---------------------------------------------------------------------------------------------


def reply(*positions: dict[str, float]) -> Reply:
    """A reply whose positions list these probabilities; the likeliest token is the one that was decoded."""
    tokens = []
    for position in positions:
        listed = [(token, math.log(p)) for token, p in position.items()]
        token, logprob = max(listed, key=lambda pair: pair[1])
        tokens.append(TokenLogprob(token, logprob, listed))
    return Reply(text="".join(t.token for t in tokens), logprobs=tokens)


# id, positions, expected score (None: no judgment)
LOGPROB_TABLE = [
    ("expected_value", [{"4": 0.6, "5": 0.2, "3": 0.1, "2": 0.06, "1": 0.04}], 2.4 + 1 + 0.3 + 0.12 + 0.04),
    ("certain", [{"5": 1.0}], 5.0),
    ("token_variants", [{"4": 0.3, " 4": 0.3, "５": 0.2, " 5": 0.2}], 4 * 0.6 + 5 * 0.4),
    ("white_space_first", [{"\n": 1.0}, {"2": 1.0}], 2.0),
    ("a_full_stop_after_it", [{"4": 1.0}, {".": 1.0}], 4.0),
    ("of_five_in_words", [{"4": 1.0}, {"\n": 1.0}], 4.0),
    ("between_two_steps", [{"4": 1.0}, {".": 1.0}, {"5": 1.0}], None),
    ("ten_begins_with_one", [{"1": 1.0}, {"0": 1.0}], None),
    ("ten_as_one_token", [{"10": 0.9, "1": 0.1}], None),
    ("a_fraction", [{"4": 1.0}, {"/": 1.0}, {"5": 1.0}], None),
    ("a_sentence", [{"I": 0.9, "4": 0.1}], None),
    ("a_list_number", [{"1": 1.0}, {".": 1.0}, {" The": 1.0}], 1.0),  # only what follows tells it from a rating
    ("outside_the_scale", [{"7": 0.8, "5": 0.2}], None),
]


@pytest.mark.parametrize(("positions", "score"), [row[1:] for row in LOGPROB_TABLE],
                         ids=[row[0] for row in LOGPROB_TABLE])  # fmt: skip
def test_logprob_table(positions: list[dict[str, float]], score: float | None) -> None:
    parsed = RATING.parse(reply(*positions))
    assert parsed.status == ("ok" if score is not None else "unparsed")
    assert parsed.score == (None if score is None else pytest.approx(score, abs=1e-9))
    if score is not None:
        assert parsed.distribution is not None
        assert math.fsum(parsed.distribution.values()) == pytest.approx(1)
        assert math.fsum(int(step) * p for step, p in parsed.distribution.items()) == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize(
    ("given_reply", "status"),
    [(Reply(error="timeout: 60 s"), "error"), (Reply(text="4", finish_reason="refusal"), "refused"),
     (Reply(text="4"), "unparsed")],
    ids=["error", "refused", "no_logprobs"],
)  # fmt: skip
def test_a_failure_is_no_rating(given_reply: Reply, status: str) -> None:
    parsed = RATING.parse(given_reply)
    assert (parsed.status, parsed.score, parsed.distribution) == (status, None, None)
    assert parsed.reason


@given(
    st.lists(
        st.tuples(
            st.text(max_size=4) | st.sampled_from(["1", "5", " 4", "１", "10"]),
            st.floats(max_value=0) | st.sampled_from([math.nan, -math.inf, 3.0]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_logprobs_give_a_score_on_the_scale_or_a_status(listed: list[tuple[str, float]]) -> None:
    token, logprob = listed[0]
    parsed = RATING.parse(Reply(text=token, logprobs=[TokenLogprob(token, logprob, listed)]))
    assert (parsed.score is not None) == (parsed.status == "ok")
    if parsed.score is not None:
        assert 1 <= parsed.score <= 5
