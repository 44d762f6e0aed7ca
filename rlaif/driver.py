"""Drives many generators of requests over engines at once.

A job is a generator that yields lists of requests, is sent lists of replies in the same order, and returns a result.
The driver keeps a sliding window of jobs open (no barrier anywhere), answers from the journal what was asked before,
sends an identical request in flight only once, tries transient faults again, and hands out results in input order.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import random
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from rlaif.config import Budget, Price
from rlaif.engines.base import Engine
from rlaif.errors import BudgetReached, EngineError, RequestFailed, RlaifError, Transient, UserError
from rlaif.lane import Lane
from rlaif.progress import Progress, Stats
from rlaif.records import Reply, Request
from rlaif.store import Journal, Reasks, keys, seed_of

_T = TypeVar("_T")
Job = Generator[list[Request], list[Reply], _T]

_LOOKAHEAD = 4096  # finished results held back for order, at most this many jobs ahead of the next one out
_BACKOFF_S = (0.5, 30.0)  # first and longest wait between tries, doubled each time, with jitter
_TIMER_S = 0.002  # the event loop's timers are rounded to milliseconds and may come early
_GC_EVERY = 20_000  # new objects between collections while running: a sixth of the time went there at Python's 700
_DRAIN_S = 10.0  # on stop: how long paid-for replies in flight are waited for
_GO_ON = "every reply is kept, run the same command again to send more"
_DEAD_AFTER = 20  # requests in a row that failed for want of a connection: the server is gone


class _Stopped(RlaifError):
    """Unwinds a request that was about to be sent when the run stopped."""


class Driver:
    """Replies come from `journal` or, once, from the engine of the request's role.

    `only`: send to this role alone; what another role is asked and has not answered is an error reply, so that judges
    made of several judges ask what they can without loading the other models. The results are then worth nothing.
    Results come from `run` as an iterator. Errors: BudgetReached, EngineError, StoreError, KeyboardInterrupt
    (Ctrl-C); in each case what was in flight is waited for briefly and all that was paid for is in the journal.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        journal: Journal,
        *,
        budget: Budget | None = None,
        spent: Stats | None = None,
        prices: Mapping[str, Price] | None = None,
        reasks: Reasks | None = None,
        progress: Progress | None = None,
        only: str | None = None,
    ) -> None:
        self._journal = journal
        self._only = only
        self._budget = budget or Budget()
        self._spent = spent or Stats()  # of the budget, before this driver
        self._reasks = reasks
        self._progress = progress
        prices = prices or {}
        self._lanes = {
            role: Lane(role, engine, _per_token(prices.get(role)), self._budget.concurrency)
            for role, engine in engines.items()
        }
        self._in_flight: dict[str, asyncio.Future[Reply]] = {}
        self._sending = 0
        self._halt: BaseException | None = None
        self._ready: dict[int, Any] = {}
        self._next_out = 0
        self._pulled = 0
        self._live = 0  # workers still at work
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._rng = random.Random(0)  # jitter of retries only: it never reaches a request

    @property
    def stats(self) -> Stats:
        """Everything all roles did so far."""
        total = Stats()
        for lane in self._lanes.values():
            total.add(lane.stats)
        return total

    def stats_by_role(self) -> dict[str, Stats]:
        return {role: lane.stats for role, lane in self._lanes.items()}

    def charge(self, spent: Stats) -> None:
        """Others have spent this of the budget since this driver was made."""
        self._spent.add(spent)

    def run(self, jobs: Iterable[Job[_T]]) -> Iterator[_T]:
        """Results in the order of `jobs`, which is read lazily. Must not be called inside a running event loop."""
        with self.session() as drive:
            yield from drive(jobs)

    @contextlib.contextmanager
    def session(self) -> Iterator[Callable[[Iterable[Job[Any]]], Iterator[Any]]]:
        """`run` as often as wanted: the engines are started once, when first asked, and closed at the end.

        Between two runs nothing moves. After an error there is no other run.
        """
        loop = _new_loop()
        try:
            yield functools.partial(self._run, loop)
        finally:
            restore = self._catch_signals(loop)
            try:
                loop.run_until_complete(self._shut_down())
            finally:
                restore()
                loop.close()
                if self._progress:
                    self._progress.finish(self._next_out, self.stats)

    def _run(self, loop: asyncio.AbstractEventLoop, jobs: Iterable[Job[_T]]) -> Iterator[_T]:
        if self._halt is not None:
            raise self._halt
        restore = self._catch_signals(loop)
        gc_threshold = gc.get_threshold()
        gc.set_threshold(max(_GC_EVERY, gc_threshold[0]) if gc_threshold[0] else 0, *gc_threshold[1:])
        tasks: list[asyncio.Task[None]] = []
        try:
            loop.run_until_complete(asyncio.sleep(0))  # what closed since the last run is noticed before it is used
            source = enumerate(jobs)
            self._ready, self._next_out, self._pulled = {}, 0, 0
            self._live = max(1, sum(lane.most for lane in self._lanes.values()))
            tasks = [loop.create_task(self._work(source)) for _ in range(self._live)]
            tasks.append(loop.create_task(self._tick()))
            while batch := loop.run_until_complete(self._next_batch()):
                yield from batch
            if self._halt is not None:
                raise self._halt
        finally:
            try:
                for task in tasks:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            finally:
                restore()
                gc.set_threshold(*gc_threshold)

    # -- the window ------------------------------------------------------------------------------------------

    async def _work(self, source: Iterator[tuple[int, Job[Any]]]) -> None:
        try:
            while self._halt is None:
                if self._pulled - self._next_out >= _LOOKAHEAD:
                    self._room.clear()
                    await self._room.wait()
                    continue
                try:
                    index, job = next(source)
                except StopIteration:
                    return
                self._pulled = index + 1
                self._ready[index] = await self._finish(job)
                if index == self._next_out:
                    self._wake.set()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._stop(error)
        finally:
            self._live -= 1
            if self._live == 0:
                self._wake.set()

    async def _tick(self) -> None:
        """Progress while nothing comes out."""
        while self._progress:
            self._progress.update(self._next_out, self.stats)
            await asyncio.sleep(1.0)

    async def _finish(self, job: Job[_T]) -> _T:
        try:
            requests = next(job)
            while True:
                replies = await self._answer(requests)
                requests = job.send(replies)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        except (RlaifError, asyncio.CancelledError):
            raise
        except Exception as error:  # a custom judge's own fault; the run stops, nothing that was paid for is lost
            name = getattr(job, "__qualname__", "job")
            raise UserError(f"{name} failed: {type(error).__name__}: {error}") from error
        finally:
            job.close()

    async def _next_batch(self) -> list[Any]:
        """The results that are next in order, as soon as there is one; empty when there will be none."""
        while True:
            batch = []
            while self._next_out in self._ready:
                batch.append(self._ready.pop(self._next_out))
                self._next_out += 1
            if batch:
                self._room.set()
                return batch
            if self._halt is not None:
                await self._drain()
                return []
            if self._live == 0:
                return []
            self._wake.clear()
            await self._wake.wait()

    # -- one request -----------------------------------------------------------------------------------------

    async def _answer(self, requests: list[Request]) -> list[Reply]:
        if len(requests) == 1:
            found = self._lookup(requests[0])
            return [found if isinstance(found, Reply) else await found]
        replies = [self._lookup(request) for request in requests]
        missing = [reply for reply in replies if not isinstance(reply, Reply)]
        if missing:
            await asyncio.gather(*missing)
        return [reply if isinstance(reply, Reply) else reply.result() for reply in replies]

    def _lookup(self, request: Request) -> Reply | asyncio.Future[Reply]:
        """The reply if it is known, else the future of the one request that fetches it."""
        lane = self._lanes.get(request.role)
        if lane is None:
            raise UserError(f"no engine for role {request.role!r}; there are: {', '.join(sorted(self._lanes))}")
        try:
            content, key = keys(request, lane.identity_for(request))
            while self._reasks and key in self._reasks:
                request = msgspec.structs.replace(request, attempt=request.attempt + 1)
                content, key = keys(request, lane.identity_for(request))
        except RequestFailed as error:
            lane.stats.failed += 1
            return Reply(error=f"{error.kind}: {error}", finish_reason="error")
        flying = self._in_flight.get(key)
        if flying is not None:
            lane.stats.from_journal += 1
            return flying
        recorded = self._journal.get(key)
        if recorded is not None:
            lane.stats.from_journal += 1
            return recorded
        if self._only not in (None, request.role):
            return Reply(error=f"elsewhere: {request.role} answers in a process of its own", finish_reason="error")
        task = asyncio.ensure_future(self._fetch(lane, request, key, content))
        self._in_flight[key] = task
        task.add_done_callback(lambda _: self._in_flight.pop(key, None))
        return task

    async def _fetch(self, lane: Lane, request: Request, key: str, content: str) -> Reply:
        """Send until there is a reply or the tries are spent; only replies reach the journal."""
        await lane.start()
        last = RequestFailed("error", "never sent")
        for attempt in range(self._budget.retries + 1):
            if attempt:
                lane.stats.retried += 1
                await asyncio.sleep(self._delay(attempt, last))
            await lane.acquire()
            self._sending += 1
            try:
                self._check_may_send(lane)
                lane.stats.sent += 1
                reply = await lane.engine.complete(request, seed_of(key))
            except Transient as error:
                lane.faulted(error.throttled)
                last = error
                continue
            except RequestFailed as error:
                last = error
                break
            finally:
                self._sending -= 1
                lane.release()
            self._journal.put(key, content, lane.role, reply)
            lane.succeeded(reply.usage.prompt_tokens, reply.usage.completion_tokens)
            return msgspec.structs.replace(reply, key=key)
        return self._failed(lane, last)

    def _failed(self, lane: Lane, error: RequestFailed) -> Reply:
        lane.stats.failed += 1
        lane.failed_in_a_row += 1
        if error.kind == "connection" and lane.failed_in_a_row >= _DEAD_AFTER:
            raise EngineError(
                f"engine {lane.role!r}: no connection for {lane.failed_in_a_row} requests in a row ({error}); "
                "what was paid for is kept, run the same command to go on"
            )
        return Reply(error=f"{error.kind}: {error}", finish_reason="error")

    def _delay(self, attempt: int, error: RequestFailed) -> float:
        """Seconds before try number `attempt` + 1: exponential with jitter, never less than the server asked for."""
        backoff = min(_BACKOFF_S[1], _BACKOFF_S[0] * 2.0 ** (attempt - 1)) * (0.5 + self._rng.random())
        asked = error.retry_after_s if isinstance(error, Transient) else None
        return max(asked + _TIMER_S, backoff) if asked else backoff

    def _check_may_send(self, lane: Lane) -> None:
        if self._halt is not None:
            raise _Stopped
        of_role = self._budget.max_requests_of.get(lane.role)
        if of_role is not None and lane.stats.sent >= of_role:
            raise BudgetReached(f"stopped at max_requests_of {lane.role} {of_role}: {lane.stats.sent} sent; {_GO_ON}")
        most, limit = self._budget.max_requests, self._budget.max_cost
        if most is None and limit is None:
            return
        total = self.stats
        sent, cost = total.sent + self._spent.sent, total.cost + self._spent.cost
        if most is not None and sent >= most:
            raise BudgetReached(f"stopped at max_requests {most}: {sent} sent; {_GO_ON}")
        if limit is not None and cost >= limit:
            raise BudgetReached(f"stopped at max_cost {limit:g}: {cost:.4g} spent; {_GO_ON}")

    # -- stopping --------------------------------------------------------------------------------------------

    def _stop(self, error: BaseException) -> None:
        if self._halt is None:
            self._halt = error
        self._wake.set()
        self._room.set()

    async def _drain(self) -> None:
        """Wait a little for replies in flight: they are paid for."""
        deadline = asyncio.get_running_loop().time() + _DRAIN_S
        while self._sending > 0 and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)

    async def _shut_down(self) -> None:
        to_close = [lane for lane in self._lanes.values() if lane.started]
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with contextlib.AsyncExitStack() as stack:  # all of them, also where one's close fails
            for lane in reversed(to_close):  # an engine whose start was cancelled has cleaned up by itself
                stack.push_async_callback(lane.engine.close)

    def _catch_signals(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Ctrl-C and SIGTERM stop the window; a second Ctrl-C does not wait for what is in flight."""
        if threading.current_thread() is not threading.main_thread():
            return lambda: None

        def interrupt() -> None:
            if isinstance(self._halt, KeyboardInterrupt):
                self._sending = 0
            elif self._progress and self._sending:
                self._progress.note(f"stopping, {self._sending} replies are on their way (Ctrl-C again: do not wait)")
            self._stop(KeyboardInterrupt())

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            loop.add_signal_handler(number, interrupt)

        def restore() -> None:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

        return restore


def _per_token(price: Price | None) -> tuple[float, float]:
    return (price.prompt, price.completion) if price else (0.0, 0.0)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
