"""The scripted engine: replies as a pure function of the request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.engines.base import Engine, load
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import ConfigError, RequestFailed, Transient
from rlaif.records import Reply, Request

LABELS = {"A": -0.1, "B": -2.3}


def ask(text: str = "hello", **fields: Any) -> Request:
    return Request(**({"role": "judge", "messages": [{"role": "user", "content": text}]} | fields))


def reply(engine: ScriptedEngine, request: Request | None = None) -> Reply:
    return asyncio.run(engine.complete(request or ask(), seed=0))


def echo(request: Request) -> str:
    """Named by import path in a test below."""
    return str(request.messages[-1]["content"]).upper()


def test_the_first_rule_that_matches_answers() -> None:
    engine = ScriptedEngine([{"match": "cap.*France", "reply": "Paris"}, {"match": "cap", "reply": "?"}], "dunno")
    texts = [reply(engine, ask(text)).text for text in ("capital\nof France", "capital of Spain", "hi")]
    assert texts == ["Paris", "?", "dunno"]
    assert isinstance(engine, Engine)


def test_only_the_last_message_is_matched() -> None:
    messages = [{"role": "system", "content": "capital"}, {"role": "user", "content": "hi"}]
    assert reply(ScriptedEngine({"capital": "no"}, "yes"), ask(messages=messages)).text == "yes"


def test_several_replies_are_taken_by_sample_whatever_came_before() -> None:
    engine = ScriptedEngine(["one", "two", "three"])
    assert [reply(engine, ask(sample=n)).text for n in (2, 0, 3, 1, 2)] == ["three", "one", "one", "two", "three"]


def test_rules_from_yaml_and_json(tmp_path: Path) -> None:
    rules = [{"match": "x", "logprobs": LABELS}, {"reply": "no"}]
    (tmp_path / "s.json").write_text(json.dumps(rules))
    (tmp_path / "s.yaml").write_text("- {match: x, logprobs: {A: -0.1, B: -2.3}}\n- reply: no thanks\n")
    (tmp_path / "m.yaml").write_text("x: A\ny: B\n")
    engines = [ScriptedEngine(str(tmp_path / name)) for name in ("s.json", "s.yaml", "m.yaml")]
    assert [reply(engine, ask("x")).text for engine in engines] == ["A", "A", "A"]
    assert reply(engines[1], ask("z")).text == "no thanks"


def test_logprobs_only_when_asked_for() -> None:
    engine = ScriptedEngine([{"logprobs": {"B": -2.3, "A": -0.1}}])
    found = reply(engine, ask(labels=["A", "B"]))
    assert found.text == "A" and found.logprobs is not None
    assert (found.logprobs[0].token, found.logprobs[0].logprob) == ("A", -0.1)
    assert found.logprobs[0].top == [("A", -0.1), ("B", -2.3)]
    assert reply(engine).logprobs is None
    assert engine.capabilities.logprobs is True
    assert ScriptedEngine(default="A").capabilities.logprobs is False
    assert ScriptedEngine(default="A", logprobs=True).capabilities.logprobs is True


def test_logprobs_stand_at_the_last_label_of_a_longer_reply() -> None:
    engine = ScriptedEngine([{"reply": "A is short. Verdict: B", "logprobs": LABELS}])
    found = reply(engine, ask(top_logprobs=2)).logprobs
    assert found is not None
    assert [t.token for t in found] == ["A", " is", " short.", " Verdict:", " B"]
    assert found[-1].top == [("A", -0.1), ("B", -2.3)] and found[-1].logprob == -2.3
    assert found[0].top == [("A", 0.0)]


@pytest.mark.parametrize(
    ("kind", "transient", "throttled"),
    [("timeout", True, False), ("throttled", True, True), ("prompt_too_long", False, False)],
)
def test_scripted_failures(kind: str, transient: bool, throttled: bool) -> None:
    with pytest.raises(RequestFailed) as caught:
        reply(ScriptedEngine([{"match": "hello", "fail": kind}], "ok"))
    assert caught.value.kind == kind and isinstance(caught.value, Transient) is transient
    assert getattr(caught.value, "throttled", False) is throttled


def test_finish_reason_and_thinking() -> None:
    found = reply(ScriptedEngine([{"reply": "cut", "thinking": "hm", "finish_reason": "length"}]))
    assert (found.text, found.thinking, found.finish_reason, found.model) == ("cut", "hm", "length", "scripted")


def test_without_a_default_what_matches_nothing_fails() -> None:
    with pytest.raises(RequestFailed) as caught:
        reply(ScriptedEngine({"x": "y"}))
    assert caught.value.kind == "not_scripted"


def test_a_function_instead_of_rules() -> None:
    assert reply(ScriptedEngine(function=echo)).text == "HELLO"
    assert reply(ScriptedEngine(function=lambda request: Reply(text="r", finish_reason="length"))).text == "r"
    engine = load({"engine": "scripted", "function": "operator:attrgetter", "model": "m"})
    assert engine.model == "m"


def test_identity_follows_the_script() -> None:
    engines = [
        ScriptedEngine(["a"]),
        ScriptedEngine(["b"]),
        ScriptedEngine(["a"], default="c"),
        ScriptedEngine(["a"], model="m"),
        ScriptedEngine([{"match": "x", "reply": ["a"]}]),
        ScriptedEngine(function=echo),
    ]
    assert len({engine.identity for engine in engines}) == len(engines)
    assert ScriptedEngine(["a"]).identity == ScriptedEngine(["a"], concurrency=1).identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give replies"),
        ({"default": "x", "function": echo}, "give replies"),
        ({"replies": [{"match": "(", "reply": "x"}]}, r"'\(' is not a regular expression"),
        ({"replies": [{"match": "x"}]}, "needs reply, logprobs or fail"),
        ({"replies": [{"reply": []}]}, "empty list"),
        ({"replies": [{"reply": "x", "when": "y"}]}, "unknown field `when`"),
        ({"replies": [{"reply": 3}]}, "Expected `str"),
        ({"replies": "no/such/file.yaml"}, "no/such/file.yaml: cannot read"),
        ({"function": "no_such_module:f"}, "no_such_module"),
    ],
)
def test_scripts_that_are_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScriptedEngine(**options)
