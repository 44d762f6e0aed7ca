"""Replies to verdicts: the adversarial table, and properties that hold for any text."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.judges.verdicts import Choice
from rlaif.records import STATUSES, Reply, TokenLogprob

TEXT = Choice(read="text")
TEXT_TIES = Choice(labels=("A", "B", "C"), read="text", tie="C")
LOGPROBS = Choice(read="logprobs")

# id, reply text, expected label (None: no verdict), expected status
TABLE = [
    ("plain", "Verdict: A", "A", "ok"),
    ("preamble_before_the_verdict", "Sure, happy to.\nBoth are fine.\nVerdict: B", "B", "ok"),
    ("bold", "Reasons.\n\n**Verdict: B**", "B", "ok"),
    ("bold_word", "**Verdict:** B", "B", "ok"),
    ("quoted", "Verdict: “A”.", "A", "ok"),
    ("heading", "### Final verdict: A", "A", "ok"),
    ("lower_case", "verdict: a", "A", "ok"),
    ("bracketed", "Verdict: [[B]]", "B", "ok"),
    ("crlf", "Fine.\r\nVerdict: B\r\n", "B", "ok"),
    ("full_width", "Ｖｅｒｄｉｃｔ： Ａ", "A", "ok"),
    ("right_to_left_marks", "\u200fVerdict: \u200fB\u200e", "B", "ok"),
    ("said_twice_the_same", "Verdict: A\nOn reflection I stand by it.\nVerdict: A", "A", "ok"),
    ("tie_in_menu", "Verdict: C", "C", "ok"),
    # echoes: other forms are ignored, the instruction's own placeholder is no answer
    ("echoed_instruction", "I will end with “Verdict: <letter>”.\nVerdict: <letter>\nVerdict: B", "B", "ok"),
    ("mentioned_in_a_sentence", "I could write Verdict: A here, but no.\nVerdict: B", "B", "ok"),
    ("echoed_candidate", "It says [[A]] and begs for it.\nVerdict: B", "B", "ok"),
    ("sentence_about_an_answer", "Answer: response A says no …\nVerdict: B", "B", "ok"),
    ("correct_is_not_c", "Correct: A\nVerdict: A", "A", "ok"),
    # no verdict
    ("two_different_verdicts", "Verdict: A\nNo, wait.\nVerdict: B", None, "unparsed"),
    ("echoed_example_then_other", "For example:\nVerdict: A\nNow mine.\nVerdict: B", None, "unparsed"),
    ("outside_the_menu", "Verdict: D", None, "unparsed"),
    ("both", "Verdict: A and B", None, "unparsed"),
    ("a_number", "Verdict: 4.5", None, "unparsed"),
    ("ten_is_not_one", "Verdict: 10", None, "unparsed"),
    ("empty", "", None, "unparsed"),
    ("white_space", " \n\t\r\n", None, "unparsed"),
    ("only_prose", "A is better than B in every way.", None, "unparsed"),
    ("nothing_after_the_colon", "Verdict:", None, "unparsed"),
    ("json_only", '```json\n{"verdict": "A"}\n```', None, "unparsed"),
    ("thinking_never_closed", "<think>Verdict: A", None, "unparsed"),
    ("only_inside_the_thinking", "<think>Verdict: A</think>I cannot decide.", None, "unparsed"),
    ("thinking_then_other", "<think>Verdict: A</think>\nVerdict: B", "B", "ok"),
    ("refusal", "I'm sorry, but I can't help with that.", None, "refused"),
    ("refusal_i_cannot", "I cannot compare these responses.", None, "refused"),
    ("control_tokens", "<|im_start|>system\nVerdict A<|im_end|>", None, "unparsed"),
    ("json_over_lines", '{\n  "verdict": "A"\n}', None, "unparsed"),
    ("template_syntax", "{{ answer }} {response}", None, "unparsed"),
]


@pytest.mark.parametrize(("text", "label", "status"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_text_table(text: str, label: str | None, status: str) -> None:
    parsed = (TEXT_TIES if label == "C" else TEXT).parse(Reply(text=text))
    assert (parsed.label, parsed.status) == (label, status)
    if label is None:
        assert parsed.probabilities is None
        assert parsed.reason
    else:
        assert parsed.probabilities is not None
        assert parsed.probabilities[label] == 1.0


def test_a_tie_that_was_not_offered_is_no_verdict() -> None:
    assert TEXT.parse(Reply(text="Verdict: C")).status == "unparsed"


def test_cut_off_is_no_verdict_even_if_a_verdict_line_is_there() -> None:
    parsed = TEXT.parse(Reply(text="Verdict: A", finish_reason="length"))
    assert (parsed.status, parsed.label) == ("truncated", None)


@pytest.mark.parametrize("finish_reason", ["refusal", "content_filter"])
def test_a_reported_refusal_is_no_verdict_whatever_the_text(finish_reason: str) -> None:
    for choice in (TEXT, LOGPROBS):
        assert choice.parse(Reply(text="Verdict: A", finish_reason=finish_reason)).status == "refused"


def test_an_error_stays_an_error() -> None:
    parsed = LOGPROBS.parse(Reply(error="timeout: 600 s"))
    assert (parsed.status, parsed.reason) == ("error", "timeout: 600 s")


def test_the_instruction_is_not_itself_a_verdict() -> None:
    for choice in (TEXT, TEXT_TIES):
        assert choice.parse(Reply(text=choice.instruction)).label is None


def test_instructions_name_the_menu() -> None:
    assert LOGPROBS.instruction == "Answer with one letter: A or B."
    assert "A, B, or C for a tie" in TEXT_TIES.instruction


@given(st.text(max_size=300))
def test_any_text_gives_an_offered_verdict_or_a_status(text: str) -> None:
    parsed = TEXT.parse(Reply(text=text))
    assert parsed.status in STATUSES
    assert (parsed.label in TEXT.labels) == (parsed.status == "ok")


@given(
    st.lists(st.sampled_from(["Verdict: A", "Verdict: B", "verdict", ":", " A", "\n", "<think>", "</think>", "**"]))
)
def test_pieces_of_the_form_never_give_both(pieces: list[str]) -> None:
    text = "".join(pieces)
    after = text.rpartition("</think>")[2]
    parsed = TEXT.parse(Reply(text=text))
    if re.search(r"(?m)^Verdict: A$", after) and re.search(r"(?m)^Verdict: B$", after):
        assert parsed.label is None


# -- log-probabilities ---------------------------------------------------------------------------------------------


def reply(*positions: dict[str, float]) -> Reply:
    """A reply whose positions list these probabilities; the likeliest token is the one that was decoded."""
    tokens = []
    for position in positions:
        listed = [(token, math.log(p)) for token, p in position.items()]
        token, logprob = max(listed, key=lambda pair: pair[1])
        tokens.append(TokenLogprob(token, logprob, listed))
    return Reply(text="".join(t.token for t in tokens), logprobs=tokens, finish_reason="length")


def test_soft_label_sums_the_variants_of_a_label() -> None:
    parsed = LOGPROBS.parse(reply({"A": 0.4, " A": 0.2, "B": 0.15, " B": 0.05, "The": 0.2}))
    assert parsed.probabilities == pytest.approx({"A": 0.75, "B": 0.25})
    assert parsed.label == "A"
    assert parsed.label_mass == pytest.approx(0.8)


def test_little_mass_is_no_confident_ratio() -> None:
    parsed = LOGPROBS.parse(reply({"The": 0.9, "A": 0.03, "B": 0.001}))
    assert (parsed.status, parsed.label) == ("unparsed", None)
    assert parsed.label_mass == pytest.approx(0.031)


def test_an_unlisted_label_is_bounded_by_the_least_listed() -> None:
    parsed = LOGPROBS.parse(reply({"A": 0.7, "The": 0.1}))
    assert parsed.probabilities == pytest.approx({"A": 0.7 / 0.8, "B": 0.1 / 0.8})


def test_an_unlisted_label_is_bounded_by_what_is_left() -> None:
    parsed = LOGPROBS.parse(reply({"A": 0.9, "The": 0.08}))
    assert parsed.probabilities == pytest.approx({"A": 0.9 / 0.92, "B": 0.02 / 0.92})


def test_the_verdict_comes_after_white_space_and_thinking() -> None:
    thinking = [{"<think>": 1.0}, {"A": 0.9, "B": 0.1}, {"</think>": 1.0}, {"\n\n": 1.0}]
    parsed = LOGPROBS.parse(reply(*thinking, {"A": 0.2, "B": 0.8}))
    assert parsed.label == "B"


def test_a_label_that_begins_a_sentence_is_no_verdict() -> None:
    sentence = LOGPROBS.parse(reply({"A": 0.98, "B": 0.02}, {" better": 1.0}, {" answer": 1.0}))
    assert (sentence.status, sentence.label) == ("unparsed", None)
    for end in ({".": 1.0}, {"\n": 1.0}, {"**": 1.0}):
        assert LOGPROBS.parse(reply({"A": 0.98, "B": 0.02}, end)).label == "A"


def test_equal_labels_have_no_winner() -> None:
    parsed = LOGPROBS.parse(reply({"A": 0.5, "B": 0.5}))
    assert (parsed.status, parsed.label) == ("ok", None)
    assert parsed.probabilities == {"A": 0.5, "B": 0.5}


def test_a_model_that_only_began_to_think_is_told_apart() -> None:
    parsed = Choice().parse(Reply(text="", thinking="", finish_reason="length", logprobs=[]))
    assert parsed.status == "unparsed" and "turn thinking off" in (parsed.reason or "")


def test_no_logprobs_is_no_verdict() -> None:
    assert LOGPROBS.parse(Reply(text="A")).status == "unparsed"


@given(
    st.lists(
        st.tuples(
            st.text(max_size=4) | st.sampled_from(["A", "B", " A", "Ａ"]),
            st.floats(max_value=0) | st.sampled_from([math.nan, -math.inf, 3.0]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_logprobs_give_shares_or_a_status(listed: list[tuple[str, float]]) -> None:
    token, logprob = listed[0]
    parsed = LOGPROBS.parse(Reply(text=token, logprobs=[TokenLogprob(token, logprob, listed)]))
    if parsed.status == "ok":
        assert parsed.probabilities is not None
        assert math.fsum(parsed.probabilities.values()) == pytest.approx(1.0)
    else:
        assert parsed.probabilities is None
