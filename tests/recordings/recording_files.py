"""Writes small recordings as other people might have them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROWS = [  # one row a pair; `swap` says which way round it was shown
    {
        "q": "Why is the sky blue?",
        "id": 1,
        "a": "Light scatters.",
        "b": "The sea.",
        "out": "I pick the first",
        "swap": False,
    },
    {
        "q": "Why is the sky blue?",
        "id": 1,
        "a": "Light scatters.",
        "b": "The sea.",
        "out": "I pick the second",
        "swap": True,
    },
    {"q": "Is 7 prime?", "id": 2, "a": "No.", "b": "Yes.", "out": "first? no: second", "swap": False},
]
PAIRS: dict[str, Any] = {
    "recording": "mine",
    "data": "rows.jsonl",
    "prompts": {"id": "id", "text": "q"},
    "responses": [{"text": "a", "source": "'small'"}, {"text": "b", "source": "'big'"}],
    "replies": {"shown": ["'1'", "'2'"], "swapped": "swap", "text": "out", "model": "'judge-7b'"},
    "parse": {"patterns": {"first": "first", "second": "second"}, "take": "last"},
}


def write(folder: Path, said: Mapping[str, Any], rows: Iterable[Mapping[str, Any]] = ROWS, **files: Any) -> Path:
    """A recording and its files; `rows.jsonl` holds `rows`, `files`: other names (`__` for `.`) → content."""
    put(folder / "rows.jsonl", list(rows))
    for name, content in files.items():
        put(folder / name.replace("__", "."), content)
    path = folder / "recording.yaml"
    path.write_text(yaml.safe_dump(dict(said), sort_keys=False), encoding="utf-8")
    return path


def put(path: Path, content: Any) -> None:
    if ".csv" in path.name:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    elif ".parquet" in path.name:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(content), path)
    else:
        lines = ".jsonl" in path.name
        text = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
