"""Every error that rlaif raises on purpose.

    RlaifError                   anything below; the CLI prints it as one line
    ├── UserError                exit code 2: what came, what was allowed, where
    │   ├── ConfigError          a pipeline, rubric, constitution or flag is wrong
    │   ├── DataError            an input file or a row of it is wrong
    │   ├── TemplateError        a frame cannot be compiled or rendered
    │   ├── StoreError           the run folder or its journal cannot be used
    │   └── EngineError          an engine cannot be started or cannot serve at all
    ├── GateFailed                exit code 3: a figure of the audit is outside the bounds that the config sets
    ├── BudgetReached            --max-requests or --max-cost stopped the run cleanly
    └── RequestFailed            one request has no reply; recorded, never fatal for the run
        └── Transient            the same request may work in a moment; the driver tries again

A `UserError` message is one line that a person can act on.
"""

from __future__ import annotations

from typing import Any


class RlaifError(Exception):
    """Base of all errors raised on purpose."""


class UserError(RlaifError):
    """Something the user can put right; the CLI exits with code 2."""


class ConfigError(UserError):
    """A pipeline, rubric, constitution or command-line flag is wrong."""


class DataError(UserError):
    """An input file, or one row of it, is wrong."""


class TemplateError(UserError):
    """A frame cannot be compiled or rendered."""


class StoreError(UserError):
    """The run folder or its journal cannot be used."""


class EngineError(UserError):
    """An engine cannot be started, or refuses to serve at all (wrong key, unknown model)."""


class BudgetReached(RlaifError):
    """A budget named by the user stopped the run; everything paid for is in the journal."""


class GateFailed(RlaifError):
    """A figure is outside its bounds: the run stops here, and what the stage wrote stays. `counts`: the stage's."""

    def __init__(self, message: str, counts: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.counts = counts or {}


class RequestFailed(RlaifError):
    """One request got no usable reply. `kind` is a short word for counting."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Transient(RequestFailed):
    """The same request may work in a moment.

    `retry_after_s`: what the server asked for, or None. `throttled`: the server has too much to do (429), so the
    driver lowers its concurrency; other faults only pause its growth.
    """

    def __init__(
        self, kind: str, message: str, *, retry_after_s: float | None = None, throttled: bool = False
    ) -> None:
        super().__init__(kind, message)
        self.retry_after_s = retry_after_s
        self.throttled = throttled


def one_line(error: BaseException, limit: int = 300) -> str:
    """A library's error as one line for a person."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
