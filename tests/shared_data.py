"""Recorded judgments of real models, which lie beside the repository and are no part of it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("RLAIF_TEST_DATA") or ROOT.parent / "shared" / "data")


def shared(name: str) -> Path:
    """The folder or file `name` of the shared data; the test is skipped where it is absent."""
    path = DATA / name
    if not path.exists():
        pytest.skip(
            f"needs recorded judgments that are not in the repository: {name}, in ../shared/data or the "
            "folder that RLAIF_TEST_DATA names"
        )
    return path


def recording(name: str) -> Path:
    """A recording that ships with rlaif, where the data that it maps is there."""
    shared(name.partition("_")[0])
    return ROOT / "pipelines" / "recordings" / f"{name}.yaml"


def benchmark(name: str) -> ModuleType:
    """benchmarks/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
