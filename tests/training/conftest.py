from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_data import build_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def write_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Rows by split → a folder like the one that export writes (JSON lines, one file a split)."""

    def write(name: str = "dataset", **splits: list[dict[str, Any]]) -> Path:
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        for split, rows in splits.items():
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / "data" / f"{split}-00000-of-00001.jsonl").write_text(text, encoding="utf-8")
        return folder

    return write
