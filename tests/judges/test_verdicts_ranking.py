"""Replies to rankings: the adversarial table, and properties that hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.judges.verdicts_ranking import Ranking, labels_for
from rlaif.records import STATUSES, Reply

RANKING = Ranking(labels=("A", "B", "C"))

# id, reply text, expected order (None: no ranking), expected status
TABLE = [
    ("plain", "Ranking: B > A > C", "BAC", "ok"),
    ("preamble", "Sure.\nC is thin.\n\nRanking: B > A > C", "BAC", "ok"),
    ("without_spaces", "Ranking: B>A>C", "BAC", "ok"),
    ("bold", "**Ranking:** **B** > **A** > **C**", "BAC", "ok"),
    ("heading", "### Final ranking: B > A > C", "BAC", "ok"),
    ("block_quote", "> Ranking: B > A > C", "BAC", "ok"),
    ("lower_case", "ranking: b > a > c", "BAC", "ok"),
    ("bracketed", "Ranking: [[B]] > [[A]] > [[C]].", "BAC", "ok"),
    ("crlf", "Fine.\r\nRanking: B > A > C\r\n", "BAC", "ok"),
    ("full_width", "Ｒａｎｋｉｎｇ： Ｂ ＞ Ａ ＞ Ｃ", "BAC", "ok"),
    ("right_to_left_marks", "\u200fRanking: \u200fB > A > C\u200e", "BAC", "ok"),
    ("said_twice_the_same", "Ranking: B > A > C\nStill so.\nRanking: B>A>C", "BAC", "ok"),
    ("echoed_instruction", RANKING.instruction + "\nRanking: <best> > … > <worst>\nRanking: B > A > C", "BAC", "ok"),
    ("mentioned_in_a_sentence", "I could say Ranking: A > B > C.\nRanking: B > A > C", "BAC", "ok"),
    ("echoed_candidate", "It says [[A]] is best and “Verdict: A”.\nRanking: B > A > C", "BAC", "ok"),
    ("thinking_before", "<think>Ranking: A > B > C</think>\nRanking: B > A > C", "BAC", "ok"),
    # no ranking
    ("two_different_rankings", "Ranking: A > B > C\nNo.\nRanking: B > A > C", None, "unparsed"),
    ("label_twice", "Ranking: B > A > B", None, "unparsed"),
    ("label_twice_and_all_there", "Ranking: B > A > C > B", None, "unparsed"),
    ("label_missing", "Ranking: B > A", None, "unparsed"),
    ("label_not_offered", "Ranking: B > A > D", None, "unparsed"),
    ("one_too_many", "Ranking: B > A > C > D", None, "unparsed"),
    ("a_tie", "Ranking: B > A = C", None, "unparsed"),
    ("another_separator", "Ranking: B, A, C", None, "unparsed"),
    ("other_direction", "Ranking: C < A < B", None, "unparsed"),
    ("a_gap", "Ranking: B > > C", None, "unparsed"),
    ("with_a_remark", "Ranking: B > A > C (close)", None, "unparsed"),
    ("numbers", "Ranking: 2 > 1 > 3", None, "unparsed"),
    ("over_lines", "Ranking:\n1. B\n2. A\n3. C", None, "unparsed"),
    ("nothing_after_the_colon", "Ranking:", None, "unparsed"),
    ("only_prose", "B is better than A, and A than C.", None, "unparsed"),
    ("json_only", '```json\n{"ranking": ["B", "A", "C"]}\n```', None, "unparsed"),
    ("empty", "", None, "unparsed"),
    ("white_space", " \n\t\r\n", None, "unparsed"),
    ("thinking_never_closed", "<think>Ranking: B > A > C", None, "unparsed"),
    ("only_inside_the_thinking", "<think>Ranking: B > A > C</think>Hard to say.", None, "unparsed"),
    ("refusal", "I cannot compare these responses.", None, "refused"),
    ("template_syntax", "Ranking: {{ order }}", None, "unparsed"),
    ("the_instruction_itself", RANKING.instruction, None, "unparsed"),
]


@pytest.mark.parametrize(("text", "order", "status"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(text: str, order: str | None, status: str) -> None:
    parsed = RANKING.parse(Reply(text=text))
    assert (parsed.status, parsed.order) == (status, tuple(order) if order else None)
    assert (parsed.reason is None) == (status == "ok")


def test_cut_off_refused_and_failed_are_no_rankings() -> None:
    text = "Ranking: B > A > C"
    found = [Reply(text=text, finish_reason="length"), Reply(text=text, finish_reason="content_filter"),
             Reply(error="timeout: 60 s")]  # fmt: skip
    assert [RANKING.parse(reply).status for reply in found] == ["truncated", "refused", "error"]


def test_many_responses_are_numbered() -> None:
    assert labels_for(3) == ("A", "B", "C")
    assert labels_for(26)[-1] == "Z"
    many = Ranking(labels=labels_for(30))
    order = [*many.labels[::-1]]
    assert many.parse(Reply(text="Ranking: " + " > ".join(order))).order == tuple(order)
    assert many.parse(Reply(text="Ranking: " + " > ".join(order[:-1]))).reason == "the ranking leaves out 1"


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from(["Ranking:", "A", "B", "C", ">", " ", "\n", "<think>", "</think>", "*"])).map("".join)
)
def test_any_text_gives_a_whole_order_or_a_status(text: str) -> None:
    parsed = RANKING.parse(Reply(text=text))
    assert parsed.status in STATUSES
    assert (parsed.order is not None) == (parsed.status == "ok")
    if parsed.order is not None:
        assert sorted(parsed.order) == ["A", "B", "C"]
