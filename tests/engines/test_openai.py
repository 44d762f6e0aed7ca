"""The openai engine over real HTTP against the stub server: every fault a server can have."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from stub_server import StubHandle, stub

from rlaif.engines import base
from rlaif.engines.openai import OpenAIEngine
from rlaif.engines.openai_pool import pick
from rlaif.errors import ConfigError, EngineError, RequestFailed, Transient
from rlaif.records import Reply, Request

T = TypeVar("T")
KEY = "sk-test-0123456789abcdef"
JUDGE_PROMPT = "Response A:\n```\n{}\n```\nResponse B:\n```\n{}\n```\nAnswer with one letter: A or B."


def ask(text: str = "hello", **fields: Any) -> Request:
    return Request(**({"role": "policy", "messages": [{"role": "user", "content": text}]} | fields))


def verdict(first: str, second: str, **fields: Any) -> Request:
    return ask(JUDGE_PROMPT.format(first, second), labels=["A", "B"], max_tokens=1, temperature=0.0, **fields)


def using(engine: OpenAIEngine, work: Callable[[OpenAIEngine], Awaitable[T]]) -> T:
    async def main() -> T:
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(main())


def one(url: str, request: Request | None = None, **options: Any) -> Reply:
    engine = OpenAIEngine("stub", url, **options)
    return using(engine, lambda e: e.complete(request or ask(), 1))


def fails(kind: type[Exception], url: str, request: Request | None = None, **options: Any) -> Any:
    with pytest.raises(kind) as caught:
        one(url, request, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---------------------------------------------------------------- replies


def test_a_generated_text(server: StubHandle) -> None:
    reply = one(server.url, ask("Say something.", max_tokens=200))
    assert reply.text and reply.finish_reason == "stop" and reply.model == "stub" and reply.logprobs is None
    assert reply.usage.completion_tokens == len(reply.text.split())
    assert reply == one(server.url, ask("Say something.", max_tokens=200))


def test_the_seed_decides_the_sample(server: StubHandle) -> None:
    engine = OpenAIEngine("stub", server.url)

    async def work(e: OpenAIEngine) -> list[Reply]:
        return [await e.complete(ask(), seed) for seed in (1, 2, 1)]

    first, second, again = using(engine, work)
    assert first.text == again.text != second.text


def test_a_reply_cut_off_by_the_limit_says_so(server: StubHandle) -> None:
    reply = one(server.url, ask(max_tokens=2))
    assert (reply.finish_reason, len(reply.text.split())) == ("length", 2)


def test_verdict_logprobs_mirror_when_the_order_is_swapped(server: StubHandle) -> None:
    server.set(position_bonus=0)
    tops = []
    for request in (verdict("one", "another"), verdict("another", "one")):
        reply = one(server.url, request)
        assert reply.logprobs is not None and len(reply.logprobs) == 1
        tops.append(dict(reply.logprobs[0].top))
    assert tops[0]["A"] == tops[1]["B"] and tops[0]["B"] == tops[1]["A"] and tops[0]["A"] != tops[0]["B"]
    assert len(tops[0]) == 20


def test_without_logprobs_none_are_asked_for(server: StubHandle) -> None:
    assert one(server.url, verdict("x", "y"), logprobs=False).logprobs is None
    assert "logprobs" not in server.stats()["last"]["body"]
    assert OpenAIEngine("m", logprobs=False).capabilities.logprobs is False


@pytest.mark.parametrize("how", ["field", "content"])
def test_thinking_is_no_part_of_the_text(server: StubHandle, how: str) -> None:
    server.set(thinking=how)
    reply = one(server.url, verdict("x", "y"))
    assert reply.text in ("A", "B") and reply.thinking == "Let me think. Verdict: B"


def test_thinking_that_never_ends_leaves_no_text(server: StubHandle) -> None:
    server.set(thinking="unclosed")
    reply = one(server.url)
    assert reply.text == "" and reply.thinking is not None and reply.thinking.startswith("Let me think about")


def test_a_reply_of_a_megabyte(server: StubHandle) -> None:
    server.set(pad=1_000_000)
    assert len(one(server.url).text) > 1_000_000


def test_a_prompt_of_two_megabytes(server: StubHandle) -> None:
    assert one(server.url, ask("x" * 2_000_000)).finish_reason in ("stop", "length")
    assert len(server.stats()["last"]["body"]["messages"][0]["content"]) == 2_000_000


def test_a_refusal_is_a_reply(server: StubHandle) -> None:
    server.set(rate_refusal=1)
    assert one(server.url).finish_reason == "refusal"
    server.set(status=400, error='{"error": {"code": "content_filter", "message": "The prompt was filtered"}}')
    assert one(server.url).finish_reason == "refusal"


def test_text_is_sent_and_received_as_utf8(server: StubHandle) -> None:
    server.set(reply=json.dumps({"choices": [{"message": {"content": "日本 \u202e é 😀"}}]}))
    assert one(server.url, ask("ß 漢字 😀 \u0000")).text == "日本 \u202e é 😀"
    assert server.stats()["last"]["body"]["messages"][0]["content"] == "ß 漢字 😀 \u0000"


# ---------------------------------------------------------------- faults that pass


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("500", "server"), ("drop", "dropped"), ("half", "dropped"), ("half_json", "malformed"), ("empty", "malformed")],
)
def test_faults_worth_another_try(server: StubHandle, fault: str, kind: str) -> None:
    server.set(**{f"rate_{fault}": 1})
    error = fails(Transient, server.url)
    assert (error.kind, error.throttled) == (kind, False)
    assert str(error).startswith(server.url)


def test_throttling_says_how_long_to_wait(server: StubHandle) -> None:
    server.set(rate_429=1, retry_after="7")
    error = fails(Transient, server.url)
    assert (error.kind, error.throttled, error.retry_after_s) == ("throttled", True, 7.0)
    server.set(retry_after_ms="120")
    assert fails(Transient, server.url).retry_after_s == 0.12


def test_a_server_that_never_answers(server: StubHandle) -> None:
    server.set(hang="hello")
    assert fails(Transient, server.url, timeout_s=0.2).kind == "timeout"


def test_the_next_try_can_work(server: StubHandle) -> None:
    server.set(rate_500=0.5)

    async def work(engine: OpenAIEngine) -> int:
        for tries in range(30):
            try:
                await engine.complete(ask("try me"), 1)
                return tries
            except Transient:
                continue
        return -1

    tries = using(OpenAIEngine("stub", server.url), work)
    assert 0 <= tries < 30 and server.stats()["requests"] == tries + 1


def test_a_server_that_dies_on_the_way() -> None:
    with stub() as running:
        engine = OpenAIEngine("stub", running.url)

        async def work(e: OpenAIEngine) -> str:
            await e.complete(ask(), 1)
            running.process.kill()
            running.process.wait()
            kinds = set()
            for _ in range(3):
                with pytest.raises(Transient) as caught:
                    await e.complete(ask(), 1)
                kinds.add(caught.value.kind)
                assert str(running.port) in str(caught.value)
            return caught.value.kind

        assert using(engine, work) == "connection"


@pytest.mark.parametrize(
    ("scheme", "kind", "words"), [("http", "malformed", "not HTTP"), ("https", "connection", "TLS")]
)
def test_a_server_that_speaks_something_else(scheme: str, kind: str, words: str) -> None:
    async def main() -> Transient:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"220 mail.example ESMTP\r\n\r\n")
            await writer.drain()
            writer.close()

        listener = await asyncio.start_server(babble, "127.0.0.1", 0)
        engine = OpenAIEngine("m", f"{scheme}://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1")
        await engine.start()
        with pytest.raises(Transient) as caught:
            await engine.complete(ask(), 1)
        await engine.close()
        listener.close()
        return caught.value

    error = asyncio.run(main())
    assert error.kind == kind and words in str(error)


# ---------------------------------------------------------------- faults of one request


def test_a_prompt_that_is_too_long(server: StubHandle) -> None:
    server.set(context_tokens=50)
    error = fails(RequestFailed, server.url, ask("word " * 100, max_tokens=10))
    assert error.kind == "prompt_too_long" and not isinstance(error, Transient)
    assert "maximum context length is 50" in str(error)


def test_a_bad_request_carries_the_servers_words_shortened(server: StubHandle) -> None:
    server.set(status=422, error=json.dumps({"detail": "min_p must be\n in [0, 1] " + "blah " * 200}))
    error = fails(RequestFailed, server.url)
    assert error.kind == "bad_request" and "min_p must be in [0, 1]" in str(error) and len(str(error)) < 400


def test_extra_cannot_change_whose_reply_it_is(server: StubHandle) -> None:
    assert "stream" in str(fails(ConfigError, server.url, ask(extra={"stream": True})))
    with pytest.raises(ConfigError, match="extra_body: n cannot be set"):
        OpenAIEngine("m", extra_body={"n": 4})


# ---------------------------------------------------------------- faults of the whole engine


def test_a_wrong_key(server: StubHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    server.set(api_key="the right one")
    monkeypatch.setenv("MY_KEY", KEY)
    message = str(fails(EngineError, server.url, api_key_env="MY_KEY"))
    assert "$MY_KEY" in message and "401" in message and KEY not in message
    assert "api_key_env" in str(fails(EngineError, server.url))


def test_the_right_key(server: StubHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    server.set(api_key=KEY)
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    engine = OpenAIEngine("stub", server.url, api_key_env="MY_KEY")
    assert using(engine, lambda e: e.complete(ask(), 1)).text
    assert KEY not in engine.identity


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schlüssel"])
def test_no_usable_key_in_the_environment(
    server: StubHandle, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    message = str(fails(EngineError, server.url, api_key_env="MY_KEY"))
    assert "MY_KEY" in message and (value is None or not value.strip() or value not in message)


@pytest.mark.parametrize("header", ["Authorization", "api-key", "X-Api-Key", "X-Auth-Token", "Cookie"])
def test_a_secret_in_the_config_is_refused(header: str) -> None:
    with pytest.raises(ConfigError, match=f"headers.{header}: .*headers_env") as refused:
        OpenAIEngine("m", "http://h:1/v1", headers={header: "sk-do-not-show"})
    assert "sk-do-not-show" not in str(refused.value)


def test_further_secret_headers(server: StubHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATE", "gate-secret-value")
    one(server.url, headers_env={"X-Gate": "GATE"}, headers={"X-Team": "red"})
    sent = server.stats()["last"]["headers"]
    assert (sent["x-gate"], sent["x-team"]) == ("gate-secret-value", "red")
    server.set(status=400, error="we do not know gate-secret-value here")
    assert "gate-secret-value" not in str(fails(RequestFailed, server.url, headers_env={"X-Gate": "GATE"}))


def test_an_unknown_model_lists_those_that_are_served(server: StubHandle) -> None:
    server.set(models="small,large")
    message = str(fails(EngineError, server.url))
    assert "'stub'" in message and "it serves: large, small" in message


def test_a_wrong_path(server: StubHandle) -> None:
    server.set(status=404, error='{"detail": "Not Found"}')
    assert "404" in str(fails(EngineError, server.url))


def test_a_server_that_is_down() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    message = str(fails(EngineError, url))
    assert message == f"server down: {url} (Connection refused)"


def test_a_host_that_does_not_exist() -> None:
    assert "server down: http://no-such-host.invalid/v1" in str(fails(EngineError, "http://no-such-host.invalid/v1"))


def test_a_field_that_the_server_will_not_have(server: StubHandle) -> None:
    said = {"message": "Unsupported parameter: 'max_tokens'", "param": "max_tokens", "code": "unsupported_parameter"}
    server.set(status=400, error=json.dumps({"error": said}))
    assert "max_tokens_field" in str(fails(EngineError, server.url))


def test_log_probs_that_the_server_refuses(server: StubHandle) -> None:
    server.set(logprobs=False)
    message = str(fails(EngineError, server.url, verdict("x", "y")))
    assert "logprobs: false" in message and "read: text" in message
    server.set(logprobs=True, top_logprobs_max=5)
    assert "top_logprobs_max (now 20)" in str(fails(EngineError, server.url, verdict("x", "y")))
    assert one(server.url, verdict("x", "y"), top_logprobs_max=5).logprobs is not None


def test_redirects_are_not_followed(server: StubHandle) -> None:
    server.set(status=307, location="http://127.0.0.1:1/elsewhere")
    assert "redirect" in str(fails(EngineError, server.url))


# ---------------------------------------------------------------- a server without a system role

SYSTEM = [{"role": "system", "content": "You judge."}, {"role": "user", "content": "Go."}]


def test_a_refused_system_message_goes_into_the_user_turn(server: StubHandle) -> None:
    server.set(system_role=False)

    async def work(engine: OpenAIEngine) -> list[int]:
        counts = []
        for n in range(3):
            await engine.complete(ask(messages=SYSTEM, sample=n), n)
            counts.append(server.stats()["requests"])
        return counts

    assert using(OpenAIEngine("stub", server.url), work) == [2, 3, 4], "only the first is asked twice"
    assert server.stats()["last"]["body"]["messages"] == [{"role": "user", "content": "You judge.\n\nGo."}]


def test_system_role_false_never_sends_one(server: StubHandle) -> None:
    one(server.url, ask(messages=SYSTEM), system_role=False)
    assert [m["role"] for m in server.stats()["last"]["body"]["messages"]] == ["user"]


def test_a_system_message_is_sent_where_it_is_taken(server: StubHandle) -> None:
    one(server.url, ask(messages=SYSTEM))
    assert server.stats()["last"]["body"]["messages"] == SYSTEM


# ---------------------------------------------------------------- several endpoints


def test_a_pool_shares_the_work(server: StubHandle) -> None:
    server.set(latency_ms=20)
    with stub() as second:
        second.set(latency_ms=20)

        async def work(engine: OpenAIEngine) -> list[Reply]:
            return await asyncio.gather(*(engine.complete(ask(str(n)), n) for n in range(40)))

        assert len(using(OpenAIEngine("stub", [server.url, second.url]), work)) == 40
        assert {server.stats()["requests"], second.stats()["requests"]} == {20}


def test_an_endpoint_that_fails_rests(server: StubHandle) -> None:
    with stub() as bad:
        bad.set(rate_500=1)

        async def work(engine: OpenAIEngine) -> int:
            failed = 0
            for n in range(20):
                try:
                    await engine.complete(ask(str(n)), n)
                except Transient:
                    failed += 1
            return failed

        assert using(OpenAIEngine("stub", [bad.url, server.url]), work) == 1
        assert (bad.stats()["requests"], server.stats()["requests"]) == (1, 19)


def test_a_pool_starts_with_one_endpoint_down(server: StubHandle) -> None:
    down = f"http://127.0.0.1:{free_port()}/v1"
    assert one([down, server.url]).text  # type: ignore[arg-type]


def test_a_pool_that_is_all_resting_still_asks(server: StubHandle) -> None:
    engine = OpenAIEngine("stub", [server.url, f"http://127.0.0.1:{free_port()}/v1"])
    for endpoint in engine.endpoints:
        endpoint.failed(None)
    assert pick(engine.endpoints) is engine.endpoints[0]
    engine.endpoints[0].failed(30.0)
    assert pick(engine.endpoints) is engine.endpoints[1]


# ---------------------------------------------------------------- identity and configuration


def identity(*args: Any, **options: Any) -> str:
    return OpenAIEngine(*args, **options).identity


def test_identity_holds_what_can_change_a_reply() -> None:
    plain = identity("m", "http://h:1/v1")
    assert plain == "http://h:1/v1|m|"
    changed = [
        identity("other", "http://h:1/v1"),
        identity("m", "http://h:2/v1"),
        identity("m", "http://h:1/v1", revision="r2"),
        identity("m", "http://h:1/v1", extra_body={"top_k": 1}),
        identity("m", "http://h:1/v1", extra_body={"top_k": 2}),
        identity("m", "http://h:1/v1", omit=["temperature"]),
        identity("m", "http://h:1/v1", system_role=False),
        identity("m", "http://h:1/v1", json_schema=False),
    ]
    assert len({plain, *changed}) == 9


def test_identity_leaves_out_what_cannot() -> None:
    same = {
        identity("m", "http://h:1/v1"),
        identity("m", "http://h:1"),
        identity("m", "http://h:1/v1/"),
        identity("m", "http://h:1/v1/chat/completions"),
        identity("m", "http://h:1/v1?api-version=3"),
        identity("m", "http://h:1/v1", concurrency=5, timeout_s=3, api_key_env="K", headers={"X-Team": "a"}),
    }
    assert len(same) == 1
    assert identity("m", ["http://a/v1", "http://b/v1"]) == identity("m", ["http://b/v1", "http://a/v1"])
    assert identity("m", "http://a/v1", name="farm") == identity("m", ["http://b/v1", "http://c/v1"], name="farm")


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://h/v1", "", "http://", "http://me:secret@h/v1", "ftp://me:secret@h"]
)
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        OpenAIEngine("m", url)
    assert "base_url" in str(caught.value) and "secret" not in str(caught.value)


def test_query_strings_travel_but_are_not_shown(server: StubHandle) -> None:
    server.set(rate_500=1)
    assert "hush" not in str(fails(Transient, f"{server.url}?api-version=hush"))
    server.set(rate_500=0)
    assert one(f"{server.url}?api-version=hush").text


@pytest.mark.parametrize(
    "name", ["key", "api-key", "API_KEY", "apikey", "access_token", "Secret", "sig", "X-Amz-Signature", "password"]
)
@pytest.mark.parametrize("url", ["http://h:1/v1", "h:1"], ids=["a URL", "none"])
def test_a_secret_in_the_query_is_refused(url: str, name: str) -> None:
    for written in (name, name.replace("e", "%65")):
        with pytest.raises(ConfigError, match=rf"\?{name}=: .*api_key_env.*headers_env") as refused:
            OpenAIEngine("m", ["http://other/v1", f"{url}?api-version=1&{written}=sk-do-not-show"])
        assert "sk-do-not-show" not in str(refused.value) and "\n" not in str(refused.value)


def test_other_parameters_are_allowed() -> None:
    engine = OpenAIEngine("m", "http://h:1/v1?api-version=2024-10-21&design=a&region=eu")
    assert engine.endpoints[0].chat_url.endswith("?api-version=2024-10-21&design=a&region=eu")


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ConfigError, match="base_urls"):
        base.load({"engine": "openai", "model": "m", "base_urls": "x"}, "engines.judge")


def test_it_is_an_engine() -> None:
    engine = base.load({"engine": "openai", "model": "m", "concurrency": 9, "context_tokens": 4096})
    assert isinstance(engine, base.Engine)
    assert (engine.capabilities.concurrency, engine.capabilities.context_tokens) == (9, 4096)
    assert engine.count_tokens([{"role": "user", "content": "x"}]) is None


def test_an_engine_can_be_started_again(server: StubHandle) -> None:
    engine = OpenAIEngine("stub", server.url)
    first = using(engine, lambda e: e.complete(ask(), 1))
    assert using(engine, lambda e: e.complete(ask(), 1)) == first


def test_connections_are_kept(server: StubHandle) -> None:
    server.set(latency_ms=5)

    async def work(engine: OpenAIEngine) -> float:
        started = time.monotonic()
        for wave in range(3):
            await asyncio.gather(*(engine.complete(ask(f"{wave} {n}"), n) for n in range(8)))
        assert engine._session is not None and engine._session.connector is not None
        pool = engine._session.connector._conns  # type: ignore[attr-defined]
        assert sum(len(kept) for kept in pool.values()) == 8, "24 requests, 8 at a time, 8 connections"
        return time.monotonic() - started

    assert using(OpenAIEngine("stub", server.url), work) < 5
