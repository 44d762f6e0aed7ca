"""Progress for people: one line that rewrites itself on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import msgspec


class Stats(msgspec.Struct):
    """What one role's engine did. Tokens are those of sent requests, as the engine counted them."""

    sent: int = 0
    from_journal: int = 0
    failed: int = 0
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def add(self, other: Stats) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Progress:
    """Shows how far a stage is: rows, rate, ETA, tokens, journal hits, failures."""

    def __init__(self, label: str, total: int | None, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.label, self.total, self.quiet = label, total, quiet
        self._stream = stream or sys.stderr
        self._tty = self._stream.isatty()
        self._every_s = 0.2 if self._tty else 15.0
        self._start = time.monotonic()
        self._last = self._start
        self.rows = 0

    def update(self, rows: int, stats: Stats) -> None:
        """Tell the state; prints only when it is time."""
        self.rows = rows
        now = time.monotonic()
        if not self.quiet and now - self._last >= self._every_s:
            self._last = now
            self._print(self._line(stats, now), final=False)

    def finish(self, rows: int, stats: Stats) -> None:
        self.rows = rows
        if not self.quiet:
            self._print(self._line(stats, time.monotonic()), final=True)

    def note(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            self._print(f"{self.label}: {text}", final=True)

    def _line(self, stats: Stats, now: float) -> str:
        elapsed = max(now - self._start, 1e-9)
        rate = self.rows / elapsed
        of_total = f"/{self.total:,}" if self.total is not None else ""
        parts = [f"{self.label}: {self.rows:,}{of_total} rows", f"{rate:,.1f}/s"]
        if self.total and rate and self.rows < self.total:
            parts.append(f"ETA {_duration((self.total - self.rows) / rate)}")
        parts.append(f"{stats.sent:,} sent, {stats.from_journal:,} from journal")
        tokens = stats.prompt_tokens + stats.completion_tokens
        if tokens:
            parts.append(f"{tokens:,} tokens")
        if stats.retried:
            parts.append(f"{stats.retried:,} retried")
        if stats.failed:
            parts.append(f"{stats.failed:,} failed")
        if stats.cost:
            parts.append(f"cost {stats.cost:.4g}")
        return " · ".join(parts)

    def _print(self, line: str, *, final: bool) -> None:
        if self._tty:
            self._stream.write(f"\r\x1b[K{line}" + ("\n" if final else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
