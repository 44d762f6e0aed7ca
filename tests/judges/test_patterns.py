"""Verdicts and scores in other people's words."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_play import ONE, TWO, built, play, task
from pydantic import ValidationError

from rlaif.config.parsing import ParseSection
from rlaif.errors import ConfigError
from rlaif.judges.patterns import pattern_choice, pattern_form
from rlaif.records import STATUSES, Reply

AB: dict[str, Any] = {"first": r"Output \(a\)", "second": r"Output \(b\)"}
RESPONSES = {"first": r"\bA\b", "second": r"\bB\b", "tie": r"\btie\b"}
NUMBERS = r"(-?\d+(?:\.\d+)?)[ /](-?\d+(?:\.\d+)?)"


def verdict(text: str, finish: str = "stop", **section: Any) -> tuple[str, str | None]:
    """(status, label); the reason has to be there where it is not ok."""
    parsed = pattern_choice(ParseSection.model_validate(section)).parse(Reply(text=text, finish_reason=finish))
    assert (parsed.reason is None) == (parsed.status == "ok")
    return parsed.status, parsed.label


@pytest.mark.parametrize(
    ("take", "text", "expected"),
    [
        ("strict", "B it is.", "B"),
        ("strict", "A, or rather B.", None),
        ("strict", "A. A! A?", "A"),
        ("strict", "Neither.", None),
        ("strict", "", None),
        ("first", "B is good, A is bad.", "A"),  # the first pattern that matches, wherever it does
        ("first", "B, then a tie.", "B"),
        ("earliest", "B is good, A is bad.", "B"),
        ("last", "A is good, B is bad, so A.", "A"),
        ("last", "A or B: a tie", "C"),
        ("last", "no idea", None),
        ("strict", "<think>A? No.</think> B", "B"),
        ("strict", "<think>A", None),
    ],
)
def test_which_of_several_verdicts(take: str, text: str, expected: str | None) -> None:
    status, label = verdict(text, patterns=RESPONSES, take=take)
    assert (status, label) == (("ok", expected) if expected else ("unparsed", None))


def test_two_patterns_that_end_at_one_place_are_no_verdict() -> None:
    patterns = {"first": "wins", "second": "B wins"}
    assert verdict("B wins", patterns=patterns, take="last") == ("unparsed", None)
    assert verdict("B wins", patterns=patterns, take="earliest") == ("ok", "B")


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        ("all", "1\n\nI like 2", None),
        ("first", "\n 1 \nI like 2", "A"),
        ("last", "1\nI like 2\n 2 \n\n", "B"),
        ("last", "", None),
    ],
)
def test_which_lines_are_read(line: str, text: str, expected: str | None) -> None:
    assert verdict(text, patterns={"first": "^1$", "second": "^2$"}, line=line)[1] == expected


def test_flags_and_ties_and_what_is_cut_off() -> None:
    assert verdict("OUTPUT (A)", patterns=AB)[1] is None
    assert verdict("OUTPUT (A)", patterns=AB, flags=["ignorecase"])[1] == "A"
    assert (
        verdict("x\nOutput (a)\ny", patterns={"first": r"^Output \(a\)$", "second": "b"}, flags=["multiline"])[1]
        == "A"
    )
    assert pattern_choice(ParseSection(patterns=AB)).labels == ("A", "B")  # type: ignore[arg-type]
    assert verdict("Output (a) is", "length", patterns=AB) == ("truncated", None)
    assert verdict("Output (a) is", "length", patterns=AB, truncated="read") == ("ok", "A")
    assert verdict("Output (a)", "refusal", patterns=AB) == ("refused", None)
    assert verdict("I'm sorry, I can't judge that.", patterns=AB) == ("refused", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("9 6", "A"), ("7.5/8", "B"), ("8 8.0", "C"), ("-1 -1", "C"), ("no numbers", None), ("9 6\n5 6", None)],
)
def test_two_scores_in_one_text_are_compared(text: str, expected: str | None) -> None:
    assert verdict(text, compare=NUMBERS)[1] == expected
    assert verdict(f"{text}\nso 1 2", compare=NUMBERS, line="first")[1] == (expected if "\n" not in text else "A")


@pytest.mark.parametrize(
    ("section", "text", "values"),
    [
        ({"score": r"Score: (\S+)"}, "Score: 8", {"score": 8.0}),
        ({"score": r"Score: (\S+)"}, "Score: 8 … Score: 9", None),
        ({"score": r"Score: (\S+)", "take": "first"}, "Score: 8 … Score: 9", {"score": 8.0}),
        ({"score": r"Score: (\S+)", "take": "last"}, "Score: 8 … Score: 9.5", {"score": 9.5}),
        ({"score": r"Score: (\S+)"}, "Score: high", None),
        ({"score": r"Score: (\S+)"}, "Score: inf", None),
        ({"scores": {"a": r"a=(\d+)", "b": r"b=(\d+)"}}, "a=1", {"a": 1.0, "b": None}),
        ({"scores": {"a": r"a=(\d+)", "b": r"b=(\d+)"}}, "c=1", None),
    ],
)
def test_scores(section: dict[str, Any], text: str, values: dict[str, float | None] | None) -> None:
    parsed = pattern_form(ParseSection.model_validate(section)).parse(Reply(text=text))
    assert (parsed.status, parsed.values) == (("ok", values) if values else ("unparsed", {}))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "give one of patterns, compare, score, scores; got none"),
        ({"patterns": AB, "score": "(a)"}, "got patterns, score"),
        ({"patterns": {"first": "[", "second": "b"}}, r"patterns.first: '\[' is no regular expression: unterminated"),
        ({"compare": r"(\d+)"}, r"compare: .* has 1 groups, expected 2"),
        ({"scores": {"x": r"\d+"}}, r"scores.x: .* has 0 groups, expected 1"),
        ({"patterns": {"first": r"(\w+\s*)+$", "second": "b"}}, "repeats a repetition"),
        ({"patterns": {"first": r"(?:a|b*)*c", "second": "b"}}, "repeats a repetition"),
    ],
)
def test_sections_that_cannot_be_used(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ParseSection.model_validate(section)


def test_a_repetition_that_cannot_go_back_may_be_repeated() -> None:
    """Whether it is accepted and quick: the same without `++` would take longer than the universe is old."""
    started = time.perf_counter()
    assert verdict("a" * 3000 + "!", patterns={"first": r"^(?:a++)*$", "second": r"^(?>a+)*b"})[0] == "unparsed"
    assert time.perf_counter() - started < 5


def test_a_text_that_is_too_long_is_not_read() -> None:
    parsed = pattern_choice(ParseSection.model_validate({"patterns": AB, "max_chars": 20})).parse(
        Reply(text="x" * 21)
    )
    assert (parsed.status, parsed.reason) == ("unparsed", "21 characters, above parse.max_chars 20")


@settings(max_examples=300, deadline=None)
@given(
    text=st.text()
    | st.lists(st.sampled_from(["A", "B", "tie", "</think>", "<think>", "\n", " 9 6 ", "Score: 1e999"])).map("".join),
    take=st.sampled_from(["first", "earliest", "last", "strict"]),
    line=st.sampled_from(["all", "first", "last"]),
    finish=st.sampled_from(["stop", "length", "refusal", ""]),
)
def test_any_text_gives_an_offered_verdict_or_a_status(text: str, take: Any, line: Any, finish: str) -> None:
    reply = Reply(text=text, finish_reason=finish)
    for section in ({"patterns": RESPONSES}, {"compare": NUMBERS}):
        parsed = pattern_choice(ParseSection.model_validate({**section, "take": take, "line": line})).parse(reply)
        assert parsed.status in STATUSES and (parsed.label in ("A", "B", "C")) == (parsed.status == "ok")
    form = pattern_form(ParseSection.model_validate({"score": r"Score: (\S+)", "take": take, "line": line})).parse(
        reply
    )
    assert (form.status == "ok") == bool(form.values)


# -- in a judge's section --------------------------------------------------------------------------------------------


def test_a_pairwise_judge_reads_by_the_sections_patterns() -> None:
    parse = {
        "patterns": {"first": r"\[\[A\]\]", "second": r"\[\[B\]\]", "tie": r"\[\[C\]\]"},
        "instruction": "Say [[A]].",
    }
    judge = built(rubric="helpfulness", parse=parse, logprobs=True)
    rounds, judgments = play(judge, task(ONE, TWO), lambda request: Reply(text="[[C]] I think"))
    assert [judgment.verdict for judgment in judgments] == ["tie", "tie"]
    assert "Say [[A]]." in rounds[0][0].messages[-1]["content"] and rounds[0][0].labels == []


def test_a_pointwise_judge_reads_any_number_of_any_criterion() -> None:
    parse = {"scores": {"wit": r"wit ([\d.]+)", "depth": r"depth ([\d.]+)"}}
    judge = built(judge="pointwise", rubric="helpfulness", parse=parse, logprobs=True, json_schema=True)
    rounds, (judgment,) = play(judge, task(ONE), lambda request: Reply(text="wit 7.5, none deep"))
    assert judgment.scores == {"wit": 7.5, "depth": None} and judgment.distributions is None
    assert judgment.meta == {"not_judged": {"depth": "no pattern matches"}}
    assert rounds[0][0].json_schema is None and len(rounds[0]) == 1
    several = built(judge="pointwise", rubric="helpfulness", parse=parse, samples=2, temperature=1)
    texts = iter(["wit 7.5, depth 1", "wit 8, depth 1"] * 2)
    _, (drawn,) = play(several, task(ONE), lambda request: Reply(text=next(texts)))
    assert drawn.scores == {"wit": 7.75, "depth": 1.0}
    assert drawn.distributions == {"wit": {"7.5": 0.5, "8": 0.5}, "depth": {"1": 1.0}}


@pytest.mark.parametrize(
    ("judge", "parse", "message"),
    [
        ("pairwise", {"score": "(a)"}, "judge.parse: a judge of pairs reads `patterns` or `compare`, not scores"),
        ("pointwise", {"patterns": AB}, "judge.parse: a judge that scores reads `score` or `scores`, not patterns"),
    ],
)
def test_what_a_judge_cannot_read_is_refused(judge: str, parse: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(judge=judge, rubric="helpfulness", parse=parse)


def test_one_order_as_given() -> None:
    judge = built(rubric="helpfulness", orders="given")
    rounds, (judgment,) = play(judge, task(TWO, ONE), lambda request: Reply(text="Verdict: A"))
    assert [request.subject for request in rounds[0]] == [("p", "r2", "r1")]
    assert (judgment.verdict, judgment.meta["orders"]) == ("first", "given")
