"""Fixtures that several rooms of the tests share. Helpers to start runs are in run_helpers.py."""

from __future__ import annotations

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
