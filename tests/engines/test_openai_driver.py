"""The openai engine under the driver: what a run over a faulty server leaves in the journal."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from stub_server import StubHandle, stub

from rlaif import driver as driver_module
from rlaif.config import Budget
from rlaif.driver import Driver
from rlaif.engines.openai import OpenAIEngine
from rlaif.engines.replay import ReplayEngine
from rlaif.errors import EngineError
from rlaif.records import Reply, Request
from rlaif.store import Journal

N = 150


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "_BACKOFF_S", (0.005, 0.02))


def job(n: int) -> Generator[list[Request], list[Reply], Reply]:
    (reply,) = yield [Request(role="policy", messages=[{"role": "user", "content": f"question {n}"}])]
    return reply


def run(engine: object, path: Path, n: int = N, retries: int = 20) -> list[Reply]:
    journal = Journal(path)
    driver = Driver({"policy": engine}, journal, budget=Budget(retries=retries))  # type: ignore[dict-item]
    try:
        return list(driver.run(job(i) for i in range(n)))
    finally:
        journal.close()


def texts(replies: list[Reply]) -> list[str]:
    return [reply.text for reply in replies]


def test_faults_change_nothing_but_the_time(server: StubHandle, tmp_path: Path) -> None:
    engine = OpenAIEngine("stub", server.url, name="stub")
    clean = run(engine, tmp_path / "clean.jsonl")
    server.reset()
    server.set(rate_429=0.05, rate_500=0.05, rate_drop=0.05, rate_half=0.05, rate_half_json=0.05, rate_empty=0.05)
    faulty = run(engine, tmp_path / "faulty.jsonl")
    assert faulty == clean and len({reply.text for reply in clean}) == N
    assert server.stats()["requests"] > N, "some were asked again"
    assert len((tmp_path / "faulty.jsonl").read_bytes().splitlines()) == N

    server.clear()
    assert run(engine, tmp_path / "faulty.jsonl") == clean
    assert server.stats()["requests"] == 0, "what is in the journal is not asked again"
    assert texts(run(ReplayEngine(str(tmp_path / "faulty.jsonl")), tmp_path / "replayed.jsonl")) == texts(clean)


def test_what_always_fails_is_recorded_and_the_rest_goes_on(server: StubHandle, tmp_path: Path) -> None:
    server.set(always_fail="question 7")
    replies = run(OpenAIEngine("stub", server.url), tmp_path / "j.jsonl", n=20, retries=2)
    failed = [n for n, reply in enumerate(replies) if reply.error]
    assert failed == [7] and "always fails" in (replies[7].error or "")
    assert server.stats()["requests"] == 19 + 3


def test_a_pool_survives_the_death_of_a_server(server: StubHandle, tmp_path: Path) -> None:
    server.set(latency_ms=5)
    with stub() as doomed:
        doomed.set(latency_ms=5)
        engine = OpenAIEngine("stub", [server.url, doomed.url], name="pool", concurrency=8)
        journal = Journal(tmp_path / "j.jsonl")
        replies = []
        for n, reply in enumerate(Driver({"policy": engine}, journal).run(job(i) for i in range(N))):
            replies.append(reply)
            if n == 40:
                doomed.process.kill()
                doomed.process.wait()
        journal.close()
    assert not [reply.error for reply in replies if reply.error]
    assert texts(replies) == texts(run(OpenAIEngine("stub", server.url, name="pool"), tmp_path / "k.jsonl"))


def test_a_server_that_is_gone_stops_the_run(tmp_path: Path) -> None:
    with stub() as doomed:
        doomed.set(latency_ms=2)
        engine = OpenAIEngine("stub", doomed.url, concurrency=8)
        journal = Journal(tmp_path / "j.jsonl")
        results = Driver({"policy": engine}, journal, budget=Budget(retries=1)).run(job(i) for i in range(N))
        got = [next(results)]
        doomed.process.kill()
        doomed.process.wait()
        with pytest.raises(EngineError, match=r"no connection|server down"):
            got.extend(results)
        assert len(journal) >= sum(reply.error is None for reply in got)
        journal.close()
