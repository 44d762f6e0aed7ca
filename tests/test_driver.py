"""The driver over engines made for the purpose: each shows one thing that a server may do."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rlaif import driver as driver_module
from rlaif.config import Budget, Price
from rlaif.driver import Driver
from rlaif.engines.base import Capabilities
from rlaif.errors import BudgetReached, EngineError, RequestFailed, StoreError, Transient, UserError
from rlaif.records import Message, Reply, Request, Usage
from rlaif.store import Journal, Reasks, canonical_key


class Engine:
    """Answers with the request's own text, after what `behave` does: it may sleep or raise."""

    def __init__(self, behave: Callable[[Request, int], Any] | None = None, *, concurrency: int = 8) -> None:
        self.identity, self.model = "test", "test"
        self.capabilities = Capabilities(concurrency=concurrency)
        self.behave = behave
        self.asked: Counter[str] = Counter()
        self.seeds: list[int] = []
        self.active = self.most_active = 0
        self.life: list[str] = []

    async def start(self) -> None:
        self.life.append("start")

    async def close(self) -> None:
        self.life.append("close")

    def count_tokens(self, messages: list[Message]) -> int | None:
        return None

    async def complete(self, request: Request, seed: int) -> Reply:
        text = str(request.messages[0]["content"])
        self.asked[text] += 1
        self.seeds.append(seed)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            if self.behave is not None:
                pause = self.behave(request, self.asked[text])
                await asyncio.sleep(pause or 0)
        finally:
            self.active -= 1
        return Reply(text=text, usage=Usage(10, 5))


def ask(text: str, **fields: Any) -> Request:
    return Request(role="r", messages=[{"role": "user", "content": text}], **fields)


def echo(*texts: str) -> Generator[list[Request], list[Reply], list[str]]:
    replies = yield [ask(text) for text in texts]
    return [reply.error or reply.text for reply in replies]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.jsonl")
    yield journal
    journal.close()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "_BACKOFF_S", (0.01, 0.05))


def text_of(request: Request) -> str:
    return str(request.messages[0]["content"])


def drive(engine: Engine, journal: Journal, jobs: Any, **arguments: Any) -> list[Any]:
    return list(Driver({"r": engine}, journal, **arguments).run(jobs))


def test_results_come_in_the_order_of_the_jobs(journal: Journal) -> None:
    engine = Engine(lambda request, _: 0.05 if text_of(request) == "0" else 0.001 * (int(text_of(request)) % 7))
    assert drive(engine, journal, (echo(str(n)) for n in range(60))) == [[str(n)] for n in range(60)]
    assert engine.life == ["start", "close"]


def test_a_session_keeps_its_engines_between_runs(journal: Journal) -> None:
    engine = Engine()
    with Driver({"r": engine}, journal, budget=Budget(max_requests=3)).session() as run:
        assert engine.life == [], "not before somebody asks"
        assert list(run([echo("a"), echo("b")])) == [["a"], ["b"]]
        assert list(run([])) == []
        assert list(run([echo("b"), echo("c")])) == [["b"], ["c"]], "b from the journal"
        assert engine.life == ["start"]
        for _ in range(2):  # a session that was stopped stays so
            with pytest.raises(BudgetReached):
                list(run([echo("d")]))
    assert engine.life == ["start", "close"] and engine.asked == {"a": 1, "b": 1, "c": 1}


def test_a_session_goes_on_where_a_run_was_left_early(journal: Journal) -> None:
    engine = Engine(lambda request, _: 0.01)
    with Driver({"r": engine}, journal).session() as run:
        first = run(echo(str(n)) for n in range(30))
        assert next(first) == ["0"]
        first.close()  # type: ignore[attr-defined]
        assert list(run([echo("x"), echo("y")])) == [["x"], ["y"]]
    assert engine.active == 0 and engine.life == ["start", "close"]


def test_one_slow_request_holds_up_no_other(journal: Journal) -> None:
    """No barrier: one is answered only once all the others have been asked, which a barrier would wait for."""

    class Patient(Engine):
        async def complete(self, request: Request, seed: int) -> Reply:
            reply = await super().complete(request, seed)
            deadline = time.monotonic() + 30
            while text_of(request) == "0" and len(self.asked) < 121 and time.monotonic() < deadline:
                await asyncio.sleep(0.001)
            self.asked_when_answered = len(self.asked) if text_of(request) == "0" else self.asked_when_answered
            return reply

        asked_when_answered = 0

    engine = Patient(concurrency=4)
    assert len(drive(engine, journal, (echo(str(n)) for n in range(121)))) == 121
    assert engine.asked_when_answered == 121


def test_jobs_are_read_no_faster_than_they_are_worked_on(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "_LOOKAHEAD", 10)
    pulled: list[int] = []

    def jobs() -> Iterator[Any]:
        for n in range(50):
            pulled.append(n)
            yield echo(str(n))

    ahead = []
    for out, _ in enumerate(Driver({"r": Engine(concurrency=4)}, journal).run(jobs())):
        ahead.append(len(pulled) - out)
    assert len(ahead) == 50 and max(ahead) <= 10 + 4 + 1


def test_a_job_may_ask_several_times_or_never(journal: Journal) -> None:
    def chain() -> Generator[list[Request], list[Reply], str]:
        text = "a"
        for _ in range(3):
            (reply,) = yield [ask(text)]
            text = reply.text + "b"
        assert (yield []) == []
        return text

    def never() -> Generator[list[Request], list[Reply], str]:
        return "nothing"
        yield []

    engine = Engine()
    assert drive(engine, journal, [chain(), never()]) == ["abbb", "nothing"]
    assert engine.asked == {"a": 1, "ab": 1, "abb": 1}


def test_what_is_in_flight_is_asked_once(journal: Journal) -> None:
    engine = Engine(lambda *_: 0.02, concurrency=16)
    driver = Driver({"r": engine}, journal)
    assert list(driver.run(echo("same", "same", f"own {n}") for n in range(8))) == [
        ["same", "same", f"own {n}"] for n in range(8)
    ]
    assert engine.asked["same"] == 1
    assert driver.stats.sent == 9 and driver.stats.from_journal == 15 and len(journal) == 9


def test_the_journal_answers_without_the_engine(journal: Journal) -> None:
    first = Engine()
    drive(first, journal, (echo(str(n)) for n in range(20)))
    second = Engine()
    driver = Driver({"r": second}, journal)
    assert list(driver.run(echo(str(n)) for n in range(20))) == [[str(n)] for n in range(20)]
    assert second.life == [], "an engine that nobody needs is not even started"
    assert driver.stats.sent == 0 and driver.stats.from_journal == 20


def test_replies_carry_their_keys_and_seeds_come_from_them(journal: Journal) -> None:
    def job() -> Generator[list[Request], list[Reply], list[str]]:
        replies = yield [ask("x"), ask("x", sample=1)]
        return [reply.key for reply in replies]

    engine = Engine()
    keys = [canonical_key(ask("x"), "test"), canonical_key(ask("x", sample=1), "test")]
    assert drive(engine, journal, [job()]) == [keys]
    assert drive(Engine(), journal, [job()]) == [keys]
    assert sorted(engine.seeds) == sorted(int(key[:16], 16) >> 1 for key in keys)


# -- faults ----------------------------------------------------------------------------------------------------------


def test_transient_faults_are_tried_again(journal: Journal) -> None:
    def behave(_: Request, attempt: int) -> None:
        if attempt <= 3:
            raise Transient("dropped", "gone")

    engine = Engine(behave)
    driver = Driver({"r": engine}, journal)
    assert list(driver.run([echo("x")])) == [["x"]]
    assert engine.asked["x"] == 4
    assert (driver.stats.sent, driver.stats.retried, driver.stats.failed) == (4, 3, 0)


def test_tries_end_and_the_fault_is_recorded_nowhere(journal: Journal) -> None:
    def behave(request: Request, _: int) -> None:
        if text_of(request) == "bad":
            raise Transient("timeout", "no reply within 1 s")

    engine = Engine(behave)
    budget = Budget(retries=2)
    assert drive(engine, journal, [echo("bad", "good")], budget=budget) == [["timeout: no reply within 1 s", "good"]]
    assert engine.asked["bad"] == 3 and len(journal) == 1
    assert drive(Engine(), journal, [echo("bad", "good")]) == [["bad", "good"]], "a later run asks again"


def test_a_request_that_can_never_work_is_sent_once(journal: Journal) -> None:
    def behave(_: Request, __: int) -> None:
        raise RequestFailed("prompt_too_long", "9 > 8")

    engine = Engine(behave)
    assert drive(engine, journal, [echo("x")]) == [["prompt_too_long: 9 > 8"]]
    assert engine.asked["x"] == 1


def test_text_that_is_not_unicode_is_a_failed_request(journal: Journal) -> None:
    engine = Engine()
    ((result,),) = drive(engine, journal, [echo("\udc80")])
    assert result.startswith("lone_surrogate: ") and not engine.asked


def test_retry_after_is_honoured(journal: Journal) -> None:
    times: list[float] = []

    def behave(_: Request, attempt: int) -> None:
        times.append(time.monotonic())
        if attempt == 1:
            raise Transient("throttled", "slow down", retry_after_s=0.4, throttled=True)

    assert drive(Engine(behave), journal, [echo("x")]) == [["x"]]
    assert times[1] - times[0] >= 0.4


def test_waits_double_up_to_a_limit(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "_BACKOFF_S", (0.5, 30.0))
    driver = Driver({"r": Engine()}, journal)
    fault = Transient("dropped", "gone")
    for attempt, middle in enumerate([0.5, 1, 2, 4, 8, 16, 30, 30], start=1):
        waits = [driver._delay(attempt, fault) for _ in range(50)]
        assert 0.5 * middle <= min(waits) and max(waits) <= 1.5 * middle
        assert len(set(waits)) > 40, "clients that failed together do not come back together"
    assert driver._delay(1, Transient("throttled", "", retry_after_s=90)) >= 90


def test_a_throttling_server_gets_fewer_requests_at_once(journal: Journal) -> None:
    """It serves four at once and refuses the rest; the limit goes down, and everything is answered."""
    engine = Engine(concurrency=32)

    def behave(_: Request, __: int) -> float:
        if engine.active > 4:
            raise Transient("throttled", "slow down", throttled=True)
        return 0.005

    engine.behave = behave
    driver = Driver({"r": engine}, journal, budget=Budget(retries=1000))
    assert list(driver.run(echo(str(n)) for n in range(100))) == [[str(n)] for n in range(100)]
    assert driver._lanes["r"]._limit < 32


@pytest.mark.parametrize("fault", [Transient("server", "500"), RequestFailed("bad", "400")])
def test_other_faults_do_not_lower_the_limit(journal: Journal, fault: RequestFailed) -> None:
    def behave(_: Request, attempt: int) -> None:
        if attempt == 1:
            raise fault

    driver = Driver({"r": Engine(behave)}, journal)
    list(driver.run(echo(str(n)) for n in range(20)))
    assert driver._lanes["r"]._limit == 8


def test_concurrency_is_what_the_config_says(journal: Journal) -> None:
    engine = Engine(lambda *_: 0.005, concurrency=8)
    drive(engine, journal, (echo(str(n)) for n in range(40)), budget=Budget(concurrency=3))
    assert engine.most_active == 3


def test_concurrency_is_used_by_few_jobs_of_many_requests_too(journal: Journal) -> None:
    engine = Engine(lambda *_: 0.005, concurrency=8)
    drive(engine, journal, [echo(*(f"{job} {n}" for n in range(30))) for job in range(2)])
    assert engine.most_active == 8


# -- the end of a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [EngineError("server down: http://x"), EngineError("the server refuses the key")])
def test_an_engine_that_cannot_serve_stops_the_run(journal: Journal, fault: EngineError) -> None:
    def behave(request: Request, _: int) -> float:
        if text_of(request) == "7":
            raise fault
        return 0.01

    engine = Engine(behave)
    with pytest.raises(EngineError, match=str(fault)):
        drive(engine, journal, (echo(str(n)) for n in range(1000)))
    assert sum(engine.asked.values()) < 50 and engine.life == ["start", "close"]
    assert len(journal) == sum(engine.asked.values()) - 1, "what was in flight is in the journal"


def test_an_engine_that_does_not_start(journal: Journal) -> None:
    class Broken(Engine):
        async def start(self) -> None:
            raise EngineError("environment variable KEY is not set")

    engine = Broken()
    with pytest.raises(EngineError, match="KEY is not set"):
        drive(engine, journal, (echo(str(n)) for n in range(100)))
    assert not engine.asked


def test_a_server_that_went_away_ends_the_run(journal: Journal) -> None:
    def behave(request: Request, _: int) -> None:
        if int(text_of(request)) >= 10:
            raise Transient("connection", "cannot connect: Connection refused")

    engine = Engine(behave)
    with pytest.raises(EngineError, match="no connection for 20 requests in a row"):
        drive(engine, journal, (echo(str(n)) for n in range(5000)), budget=Budget(retries=1))
    assert len(journal) == 10


@pytest.mark.parametrize("most", [0, 1, 7, 30])
def test_a_budget_of_requests_is_never_passed(journal: Journal, most: int) -> None:
    engine = Engine(lambda *_: 0.002)
    out: list[Any] = []
    with pytest.raises(BudgetReached, match="max_requests"):
        for result in Driver({"r": engine}, journal, budget=Budget(max_requests=most)).run(
            echo(f"{n} a", f"{n} b") for n in range(40)
        ):
            out.append(result)
    assert sum(engine.asked.values()) == len(journal) == most
    assert out == [[f"{n} a", f"{n} b"] for n in range(len(out))]


def test_a_budget_that_is_just_enough(journal: Journal) -> None:
    engine = Engine()
    assert len(drive(engine, journal, (echo(str(n)) for n in range(10)), budget=Budget(max_requests=10))) == 10
    assert len(drive(engine, journal, (echo(str(n)) for n in range(10)), budget=Budget(max_requests=0))) == 10


def test_a_budget_of_money(journal: Journal) -> None:
    """A request costs 10 · 1 + 5 · 2 = 20 millionths; what is in flight when the limit is met is still paid."""
    engine = Engine(lambda *_: 0.001, concurrency=2)
    with pytest.raises(BudgetReached, match="max_cost"):
        drive(
            engine,
            journal,
            (echo(str(n)) for n in range(1000)),
            budget=Budget(max_cost=0.0004),
            prices={"r": Price(prompt=1, completion=2)},
        )
    assert 20 <= len(journal) <= 22


def test_tries_count_against_the_budget(journal: Journal) -> None:
    def behave(_: Request, __: int) -> None:
        raise Transient("server", "500")

    engine = Engine(behave)
    with pytest.raises(BudgetReached):
        drive(engine, journal, (echo(str(n)) for n in range(10)), budget=Budget(max_requests=5, retries=50))
    assert sum(engine.asked.values()) == 5


def test_a_journal_that_cannot_be_written_stops_the_run(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.store.os.write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    engine = Engine(lambda *_: 0.001)
    with pytest.raises(StoreError, match="No space left"):
        drive(engine, journal, (echo(str(n)) for n in range(1000)))
    assert sum(engine.asked.values()) <= 8


def failing_judge(text: str) -> Generator[list[Request], list[Reply], str]:
    replies = yield [ask(text)]
    return replies[7].text


def test_a_fault_in_a_job_of_the_users_own_is_one_line(journal: Journal) -> None:
    engine = Engine(lambda *_: 0.01)
    with pytest.raises(UserError, match="failing_judge failed: IndexError: list index out of range") as caught:
        drive(engine, journal, (failing_judge(str(n)) for n in range(100)))
    assert isinstance(caught.value.__cause__, IndexError), "the traceback is kept for RLAIF_TRACEBACK"
    assert len(journal) == sum(engine.asked.values())


@pytest.mark.parametrize("yielded", ["text", [1], None, [None], ask("not in a list")])
def test_a_job_that_yields_no_requests_is_one_line(journal: Journal, yielded: Any) -> None:
    def job() -> Generator[Any, Any, None]:
        yield yielded

    with pytest.raises(UserError, match="job failed"):
        drive(Engine(), journal, [job()])


def test_a_source_of_jobs_that_fails(journal: Journal) -> None:
    def jobs() -> Iterator[Any]:
        yield echo("x")
        raise StoreError("responses.jsonl:2: not a Response")

    with pytest.raises(StoreError, match="not a Response"):
        drive(Engine(), journal, jobs())


def test_an_unknown_role_names_those_that_are_there(journal: Journal) -> None:
    def job() -> Generator[list[Request], list[Reply], None]:
        yield [Request(role="other", messages=[])]

    with pytest.raises(UserError, match="no engine for role 'other'; there are: r"):
        drive(Engine(), journal, [job()])


def test_whoever_stops_reading_stops_the_driver(journal: Journal) -> None:
    engine = Engine(lambda *_: 0.001)
    results = Driver({"r": engine}, journal).run(echo(str(n)) for n in range(10_000))
    assert next(results) == ["0"]
    results.close()  # type: ignore[attr-defined]
    assert engine.life == ["start", "close"] and sum(engine.asked.values()) < 5000


def test_it_runs_in_a_thread_beside_a_running_loop(journal: Journal) -> None:
    """As the Python API does in Jupyter."""

    async def notebook() -> list[Any]:
        return await asyncio.to_thread(drive, Engine(), journal, (echo(str(n)) for n in range(5)))

    assert asyncio.run(notebook()) == [[str(n)] for n in range(5)]
    assert threading.active_count() < 20


# -- asked again -----------------------------------------------------------------------------------------------------


def test_a_deliberate_reask_has_a_key_of_its_own(journal: Journal, tmp_path: Path) -> None:
    drive(Engine(), journal, [echo("x", "y")])
    reasks = Reasks(tmp_path / "reasks.txt")
    reasks.add([canonical_key(ask("x"), "test")])
    engine = Engine()
    assert drive(engine, journal, [echo("x", "y")], reasks=reasks) == [["x", "y"]]
    assert engine.asked == {"x": 1} and len(journal) == 3
    reasks.add([canonical_key(ask("x", attempt=1), "test")])
    third = Engine()
    drive(third, journal, [echo("x", "y")], reasks=reasks)
    assert third.asked == {"x": 1}
    drive(third, journal, [echo("x", "y")], reasks=reasks)
    assert third.asked == {"x": 1}, "and it is recorded like any other"


def test_every_engine_is_closed_though_one_cannot_be(journal: Journal) -> None:
    class Stuck(Engine):
        async def close(self) -> None:
            raise EngineError("cannot stop")

    last = Engine()

    def other() -> Generator[list[Request], list[Reply], list[str]]:
        (reply,) = yield [Request(role="last", messages=[{"role": "user", "content": "y"}])]
        return [reply.text]

    with pytest.raises(EngineError, match="cannot stop"):
        list(Driver({"r": Stuck(), "last": last}, journal).run([echo("x"), other()]))
    assert last.life == ["start", "close"]


def test_only_one_role_is_sent_to_and_the_others_answer_from_the_journal(journal: Journal) -> None:
    engines = {"r": Engine(), "other": Engine()}

    def both() -> Generator[list[Request], list[Reply], list[str]]:
        replies = yield [ask("one"), msgspec.structs.replace(ask("two"), role="other")]
        return [reply.error or reply.text for reply in replies]

    assert list(Driver(engines, journal, only="other").run([both()])) == [
        ["elsewhere: r answers in a process of its own", "two"]
    ]
    assert (engines["r"].life, engines["other"].life) == ([], ["start", "close"])
    assert list(Driver(engines, journal, only="r").run([both()])) == [["one", "two"]]
    assert engines["other"].asked == {"two": 1}
