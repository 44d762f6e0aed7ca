"""Recorded judgments of real models, which lie beside the repository and are no part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(name: str) -> Path:
    """The folder or file `name` of the shared data; the test is skipped where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"needs recorded judgments that are not in the repository: ../shared/data/{name}")
    return path
