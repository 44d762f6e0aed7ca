"""One engine's lane: how many requests are in flight, when the next may go, and what it has done.

Concurrency adapts as congestion control does: a throttled request (429) lowers the limit, other faults only pause
its growth, replies raise it again up to what the engine wants. Journal hits never come here.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from rlaif.engines.base import Engine
from rlaif.progress import Stats
from rlaif.records import Request

_SHRINK = 0.7
_SHRINK_EVERY_S = 1.0  # one burst of 429 is one signal
_PAUSE_S = 5.0


class Lane:
    """The driver's view of one role."""

    def __init__(self, role: str, engine: Engine, price: tuple[float, float], concurrency: int | None) -> None:
        self.role = role
        self.engine = engine
        self.identity = engine.identity
        self.stats = Stats()
        self.failed_in_a_row = 0
        self._price = price
        self.most = concurrency or engine.capabilities.concurrency
        self._limit = float(self.most)
        self._active = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._shrunk_at = self._paused_until = 0.0
        self._started: asyncio.Task[None] | None = None

    def identity_for(self, request: Request) -> str:
        """What the request's key has of the engine."""
        if not self.engine.capabilities.by_subject:
            return self.identity
        return "\0".join((self.identity, *request.subject))

    async def start(self) -> None:
        """Start the engine, once; every caller waits for the same start."""
        if self._started is None:
            self._started = asyncio.ensure_future(self.engine.start())
        if not self._started.done():
            await asyncio.shield(self._started)
        else:
            self._started.result()

    @property
    def started(self) -> bool:
        """Whether the engine's start has come to an end, so that there is something to close."""
        return self._started is not None and self._started.done()

    async def acquire(self) -> None:
        """Wait for a place in flight, first come first served."""
        if self._active < int(self._limit) and not self._waiting:
            self._active += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release()
            raise

    def release(self) -> None:
        self._active -= 1
        while self._waiting and self._active < int(self._limit):
            place = self._waiting.popleft()
            if not place.done():
                self._active += 1
                place.set_result(None)

    def succeeded(self, prompt_tokens: int, completion_tokens: int) -> None:
        self.failed_in_a_row = 0
        stats = self.stats
        stats.prompt_tokens += prompt_tokens
        stats.completion_tokens += completion_tokens
        stats.cost += (prompt_tokens * self._price[0] + completion_tokens * self._price[1]) / 1e6
        if self._limit < self.most and time.monotonic() >= self._paused_until:
            self._limit = min(self.most, self._limit + 1 / self._limit)

    def faulted(self, throttled: bool) -> None:
        now = time.monotonic()
        if throttled and now - self._shrunk_at >= _SHRINK_EVERY_S:
            self._shrunk_at = now
            self._limit = max(1.0, self._limit * _SHRINK)
        self._paused_until = now + _PAUSE_S
