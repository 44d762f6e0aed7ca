"""Fixtures that several rooms of the tests share. Helpers to start runs are in run_helpers.py."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from stub_server import StubHandle, stub


@pytest.fixture(scope="session")
def _stub_process() -> Iterator[StubHandle]:
    with stub() as handle:
        yield handle


@pytest.fixture
def server(_stub_process: StubHandle) -> StubHandle:
    """The stub server, with its defaults and zeroed counters."""
    _stub_process.reset()
    return _stub_process


@pytest.fixture(autouse=True)
def signals_as_a_shell_gives_them() -> None:
    """Children inherit what an earlier test, or a library in this process, did to SIGINT: each test starts afresh."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
