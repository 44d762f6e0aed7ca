"""Micro-batches: one worker thread that serves whatever requests are waiting, with no barrier across a job."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rlaif.errors import EngineError

J = TypeVar("J")
_SETTLE_S = 0.002  # wait while more requests keep coming in this often …
_SETTLE_LIMIT_S = 0.03  # … but no longer than this


class MicroBatcher(Generic[J]):
    """`plan` cuts the waiting jobs into batches, `run` answers one batch; both run in the worker thread.

    `run` returns one result per job, in order; an exception among them, or raised, is what the caller of
    `submit` gets. Jobs that come in while a batch runs wait for the next plan, so nothing waits for a straggler
    of an earlier one.
    """

    def __init__(self, plan: Callable[[list[J]], list[list[J]]], run: Callable[[list[J]], list[Any]]) -> None:
        self._plan, self._run = plan, run
        self._waiting: queue.SimpleQueue[tuple[J, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = False

    async def submit(self, job: J) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._work, name="rlaif-model", daemon=True)
            self._thread.start()
        self._waiting.put((job, future))
        return await future

    async def close(self) -> None:
        """Ends the thread once its current batch is done; whoever still waits gets an EngineError."""
        self._stopping = True
        self._waiting.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _work(self) -> None:
        while not self._stopping:
            taken = self._take()
            futures = {id(job): future for job, future in taken}
            for batch in self._batches([job for job, _ in taken]):
                live = [job for job in batch if not futures[id(job)].cancelled()]
                if live:
                    _resolve([futures[id(job)] for job in live], self._answers(live))

    def _batches(self, jobs: list[J]) -> list[list[J]]:
        return [jobs] if self._stopping else self._plan(jobs)

    def _answers(self, batch: list[J]) -> list[Any]:
        if self._stopping:
            return [EngineError("the engine was closed")] * len(batch)
        try:
            return self._run(batch)
        except Exception as error:  # handed to every caller of this batch, who records it
            return [error] * len(batch)

    def _take(self) -> list[tuple[J, asyncio.Future[Any]]]:
        """Everything that is waiting, after a short pause while a burst is still arriving."""
        taken = [self._waiting.get()]
        deadline = time.monotonic() + _SETTLE_LIMIT_S
        while taken[-1] is not None:
            try:
                taken.append(self._waiting.get(timeout=_SETTLE_S if time.monotonic() < deadline else 0))
            except queue.Empty:
                break
        return [item for item in taken if item is not None]


def _resolve(futures: list[asyncio.Future[Any]], answers: list[Any]) -> None:
    """Hand a batch's answers to the event loops that wait for them, one wake-up per loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for future, answer in zip(futures, answers, strict=True):
        by_loop.setdefault(future.get_loop(), []).append((future, answer))
    for loop, pairs in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_all, pairs)


def _set_all(pairs: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, answer in pairs:
        if future.cancelled():
            continue
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)
