"""Fixtures that several rooms of the tests share. Helpers to start runs are in run_helpers.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """A folder of larger public data sets that a developer may have; tests that want one are skipped without it."""
    folder = Path(os.environ.get("RLAIF_TEST_DATA", ""))
    if not os.environ.get("RLAIF_TEST_DATA") or not folder.is_dir():
        pytest.skip("RLAIF_TEST_DATA names no folder of test data")
    return folder
