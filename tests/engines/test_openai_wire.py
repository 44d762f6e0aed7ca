"""The chat-completions format, as tables: bodies out, replies and errors in, no server."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import pytest

from rlaif.engines import openai_errors as errors
from rlaif.engines import openai_wire as wire
from rlaif.errors import EngineError, RequestFailed, Transient
from rlaif.records import Request, TokenLogprob, Usage

USER = {"role": "user", "content": "Which is better?"}
PART = {"type": "text"}
SYSTEM = {"role": "system", "content": "You judge."}


def body_of(request: dict[str, Any] | None = None, **dialect: Any) -> dict[str, Any]:
    asked = Request(**({"role": "judge", "messages": [USER]} | (request or {})))
    return wire.build_body(asked, 7, wire.Dialect(model="m", **dialect))


def reply_of(choice: dict[str, Any], **rest: Any) -> Any:
    payload = {"choices": [choice], "model": "served", "usage": {"prompt_tokens": 3, "completion_tokens": 2}} | rest
    return wire.read_reply(json.dumps(payload).encode(), "m", logprobs=True)


def text_choice(content: Any, **rest: Any) -> dict[str, Any]:
    return {"message": {"content": content}, "finish_reason": "stop"} | rest


# ---------------------------------------------------------------- bodies


def test_a_plain_body_always_says_how_to_sample() -> None:
    assert body_of() == {
        "model": "m", "messages": [USER], "max_tokens": 512, "temperature": 1.0, "top_p": 1.0, "seed": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("request_fields", "dialect", "expected"),
    [
        ({"temperature": 0.0}, {}, {"seed": None, "temperature": 0.0}),
        ({}, {"send_seed": False}, {"seed": None}),
        ({"stop": ["\n"]}, {}, {"stop": ["\n"]}),
        ({"labels": ["A", "B"]}, {}, {"logprobs": True, "top_logprobs": 20}),
        ({"labels": ["A", "B"], "top_logprobs": 20}, {"top_logprobs_max": 5}, {"logprobs": True, "top_logprobs": 5}),
        ({"top_logprobs": 3}, {}, {"logprobs": True, "top_logprobs": 3}),
        ({"labels": ["A", "B"], "top_logprobs": 9}, {"logprobs": False}, {"logprobs": None, "top_logprobs": None}),
        ({}, {"max_tokens_field": "max_completion_tokens"}, {"max_tokens": None, "max_completion_tokens": 512}),
        ({}, {"omit": ("temperature", "top_p")}, {"temperature": None, "top_p": None}),
        ({"extra": {"chat_template_kwargs": {"x": 1}}}, {}, {"chat_template_kwargs": {"x": 1}}),
        ({"extra": {"top_k": 3}}, {"extra_body": {"top_k": 9, "min_p": 0.1}}, {"top_k": 3, "min_p": 0.1}),
        ({"json_schema": {"type": "object"}}, {"json_schema": False}, {"response_format": None}),
        (
            {"json_schema": {"type": "object"}},
            {},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "reply", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
    ],
)
def test_what_goes_into_the_body(
    request_fields: dict[str, Any], dialect: dict[str, Any], expected: dict[str, Any]
) -> None:
    body = body_of(request_fields, **dialect)
    assert {key: body.get(key) for key in expected} == expected


# ---------------------------------------------------------------- replies


@pytest.mark.parametrize(
    ("message", "text", "thinking"),
    [
        ({"content": "A", "reasoning_content": "hm"}, "A", "hm"),
        ({"content": "A", "reasoning": "hm"}, "A", "hm"),
        ({"content": "A", "reasoning_content": None, "reasoning": ""}, "A", None),
        ({"content": None, "reasoning_content": "cut off while"}, "", "cut off while"),
        ({"content": None}, "", None),
        (
            {"content": [{"type": "thinking", "thinking": [PART | {"text": "hm"}]}, PART | {"text": "A"}]},
            "A",
            "hm",
        ),
    ],
)  # fmt: skip
def test_where_servers_put_the_thinking(message: dict[str, Any], text: str, thinking: str | None) -> None:
    reply = reply_of({"message": message, "finish_reason": "stop"})
    assert (reply.text, reply.thinking) == (text, thinking)


@pytest.mark.parametrize(
    ("said", "expected"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "refusal"), (None, "stop"), ("eos", "stop"),
     ("max_tokens", "length"), ("tool_calls", "tool_calls")],
)  # fmt: skip
def test_finish_reasons(said: str | None, expected: str) -> None:
    assert reply_of(text_choice("A", finish_reason=said)).finish_reason == expected


def test_the_refusal_field_is_a_refusal() -> None:
    reply = reply_of({"message": {"content": None, "refusal": "I can't."}, "finish_reason": "stop"})
    assert (reply.finish_reason, reply.text) == ("refusal", "I can't.")


def test_usage_and_model() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}
    reply = reply_of(text_choice("A"), usage=usage)
    assert (reply.usage, reply.model) == (Usage(10, 4, 8), "served")
    bare = reply_of(text_choice("A"), usage=None, model=None)
    assert (bare.usage, bare.model) == (Usage(), "m")
    assert reply_of(text_choice("A"), usage={"prompt_tokens": 1, "prompt_tokens_details": None}).usage == Usage(1)


def token(text: str, logprob: float = -0.5, top: list[tuple[str, float]] | None = None) -> dict[str, Any]:
    listed = [{"token": t, "logprob": p, "bytes": None} for t, p in top or []]
    return {"token": text, "logprob": logprob, "bytes": None, "top_logprobs": listed}


def logprobs_of(content: str, tokens: list[dict[str, Any]]) -> list[TokenLogprob] | None:
    reply = reply_of(text_choice(content, logprobs={"content": tokens}))
    return reply.logprobs  # type: ignore[no-any-return]


def test_logprobs() -> None:
    found = logprobs_of("A", [token("A", -0.1, [("A", -0.1), (" A", -3.0), ("B", -2.5)])])
    assert found == [TokenLogprob("A", -0.1, [("A", -0.1), (" A", -3.0), ("B", -2.5)])]


@pytest.mark.parametrize("logprobs", [None, {"content": None}, {}])
def test_no_logprobs_in_the_reply(logprobs: Any) -> None:
    assert reply_of(text_choice("A", logprobs=logprobs)).logprobs is None


def test_logprobs_are_not_decoded_unless_wanted() -> None:
    payload = json.dumps({"choices": [text_choice("A", logprobs={"content": "not even a list"})]}).encode()
    assert wire.read_reply(payload, "m", logprobs=False).text == "A"
    with pytest.raises(Transient):
        wire.read_reply(payload, "m", logprobs=True)


@pytest.mark.parametrize(
    ("content", "tokens", "kept"),
    [
        ("<think>B?</think>A", ["<think>", "B", "?", "</think>", "A"], ["A"]),
        ("<think>B?</think>A", ["<thi", "nk>B?</th", "ink>", "A", "<|im_end|>"], ["A", "<|im_end|>"]),
        ("<think>B or A", ["<think>", "B", " or", " A"], []),
    ],
)
def test_tokens_of_the_thinking_are_left_out(content: str, tokens: list[str], kept: list[str]) -> None:
    found = logprobs_of(content, [token(t) for t in tokens])
    assert [t.token for t in found or []] == kept


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        (["B", "!", "</think>", "\n\n", "A"], ["\n\n", "A"]),  # the server lists everything
        (["A"], ["A"]),  # the server lists only the content
        (["B", "!"], []),  # only the thinking: nothing that could be taken for the verdict
    ],
)
def test_tokens_where_the_thinking_is_a_field(tokens: list[str], kept: list[str]) -> None:
    message = {"content": "A", "reasoning_content": "B!"}
    reply = reply_of({"message": message, "logprobs": {"content": [token(t) for t in tokens]}})
    assert [t.token for t in reply.logprobs] == kept


def test_python_servers_write_minus_infinity_and_lone_surrogates() -> None:
    payload = (
        b'{"choices": [{"message": {"content": "A \\ud83d"}, "finish_reason": "stop", "logprobs": {"content": '
        b'[{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -Infinity}]}]}}]}'
    )
    reply = wire.read_reply(payload, "m", logprobs=True)
    assert reply.text == "A \ufffd"
    assert reply.logprobs == [TokenLogprob("A", -0.1, [("B", -9999.0)])]


@pytest.mark.parametrize(
    "payload",
    [b"", b'{"choices": [{"mess', b"<html>busy</html>", b"[]", b'{"choices": []}', b'{"choices": null}', b"\xff\xfe",
     b'{"error": {"message": "upstream is gone"}}', b'{"choices": [{"message": {"content": 5}}]}'],
)  # fmt: skip
def test_what_is_no_completion_is_worth_another_try(payload: bytes) -> None:
    with pytest.raises(Transient) as caught:
        wire.read_reply(payload, "m", logprobs=True)
    assert caught.value.kind == "malformed"


def test_a_reply_that_the_server_broke_off_is_no_reply() -> None:
    with pytest.raises(Transient, match="abort"):
        reply_of(text_choice("half a sen", finish_reason="abort"))


# ---------------------------------------------------------------- errors

VLLM_LONG = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4488 in the"
SGLANG_LONG = "The input (5123 tokens) is longer than the model's context length (4096 tokens)."
LLAMA_LONG = "the request exceeds the available context size. try increasing the context size"


@pytest.mark.parametrize(
    ("status", "message", "kind", "transient", "throttled"),
    [
        (429, "slow down", "throttled", True, True),
        (529, "overloaded", "throttled", True, True),
        (500, "oops", "server", True, False),
        (503, "loading", "server", True, False),
        (408, "too slow", "server", True, False),
        (400, VLLM_LONG, "prompt_too_long", False, False),
        (400, SGLANG_LONG, "prompt_too_long", False, False),
        (400, LLAMA_LONG, "prompt_too_long", False, False),
        (400, "prompt is too long: 9 tokens > 8 maximum", "prompt_too_long", False, False),
        (413, "", "prompt_too_long", False, False),
        (400, "temperature must be at most 2", "bad_request", False, False),
        (422, "field required", "bad_request", False, False),
    ],
)
def test_what_a_status_means(status: int, message: str, kind: str, transient: bool, throttled: bool) -> None:
    error = errors.read_error(status, json.dumps({"error": {"message": message, "code": status}}).encode(), ())
    found = errors.to_exception(error, "http://h/v1", {})
    assert isinstance(found, RequestFailed)
    assert (found.kind, isinstance(found, Transient)) == (kind, transient)
    assert getattr(found, "throttled", False) is throttled
    assert str(status) in str(found) and "\n" not in str(found)


@pytest.mark.parametrize("status", [301, 307, 402])
def test_a_status_that_no_request_gets_past(status: int) -> None:
    assert isinstance(errors.to_exception(errors.ServerError(status), "http://h/v1", {}), EngineError)


def test_a_spent_quota_is_not_worth_another_try() -> None:
    body = b'{"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}'
    assert isinstance(errors.to_exception(errors.read_error(429, body, ()), "h", {}), EngineError)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b'{"error": {"message": "openai"}}', "openai"),
        (b'{"object": "error", "message": "old vllm", "code": 400}', "old vllm"),
        (b'{"detail": "fastapi"}', "fastapi"),
        (b'{"error": "ollama"}', "ollama"),
        (b"plain text", "plain text"),
        (b"", ""),
    ],
)
def test_the_servers_own_words(payload: bytes, message: str) -> None:
    assert errors.read_error(400, payload, ()).message == message


def test_secrets_are_redacted_before_anything_is_cut() -> None:
    key = "abcdefgh-0123456789"
    said = errors.read_error(400, f"key {key} and sk-proj-abcdefghijkl and Bearer {key}x".encode(), (key,)).message
    assert said == "key *** and *** and Bearer ***"
    assert key[:8] not in str(errors.to_exception(errors.ServerError(400, "y" * 235 + said), "h", {}))


@pytest.mark.parametrize(
    ("status", "message", "refused"),
    [
        (400, "System role not supported", True),
        (500, "Jinja Exception: System role not supported", True),
        (400, "This model does not support system messages", True),
        (400, "system prompt isn't supported", True),
        (500, "the file system is full", False),
        (400, "temperature is not supported", False),
        (401, "System role not supported", False),
    ],
)
def test_recognising_a_template_without_a_system_role(status: int, message: str, refused: bool) -> None:
    assert errors.refuses_system(errors.ServerError(status, message)) is refused


@pytest.mark.parametrize(
    ("headers", "expected"),
    [({}, None), ({"Retry-After": "3"}, 3.0), ({"Retry-After": "0.5"}, 0.5), ({"Retry-After": "-2"}, 0.0),
     ({"Retry-After": "soon"}, None), ({"Retry-After": "nan"}, None), ({"Retry-After": "inf"}, None),
     ({"retry-after-ms": "250"}, 0.25), ({"retry-after-ms": "250", "Retry-After": "9"}, 0.25)],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert errors.retry_after_s(headers) == expected


def test_retry_after_as_a_date() -> None:
    seconds = errors.retry_after_s({"Retry-After": formatdate(time.time() + 30, usegmt=True)})
    assert seconds is not None and 27 < seconds <= 30
    assert errors.retry_after_s({"Retry-After": formatdate(time.time() - 30, usegmt=True)}) == 0.0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens", "code": "unsupported_parameter"},
         "max_tokens"),
        ({"message": "Unsupported value: 'temperature'", "param": "temperature", "code": "unsupported_value"},
         "temperature"),
        ({"message": "temperature must be at most 2", "param": "temperature"}, None),
        ({"message": "Unsupported parameter", "param": "not_ours", "code": "unsupported_parameter"}, None),
    ],
)  # fmt: skip
def test_fields_that_a_server_will_not_have(body: dict[str, Any], field: str | None) -> None:
    error = errors.read_error(400, json.dumps({"error": body}).encode(), ())
    assert errors.refused_field(error, {"max_tokens": 1, "temperature": 0}) == field
