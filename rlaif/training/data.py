"""What trainers read: the splits of an exported dataset, or of any folder, file or hub id with the same columns."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.errors import DataError, one_line
from rlaif.paths import resolve

_EXTRA_COLUMNS = ("tools", "chat_template_kwargs")  # TRL reads them when a dataset has them
Row = Mapping[str, Any]


class Splits(NamedTuple):
    """The rows to train on, those to measure at the end, and what the record is to say about them."""

    train: Any  # datasets.Dataset
    test: Any | None
    facts: dict[str, Any] = {}


def located(value: str) -> str:
    """A path from a config (`shipped:…` too) as one from the working folder; what is not there stays: a hub id."""
    path = resolve(value, Path())
    return str(path) if path.exists() or value.startswith("shipped:") else value


def is_there(source: Path | str) -> bool:
    """Whether a dataset is a file or folder here, or could be a hub id."""
    return Path(located(str(source))).exists() or re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)) is not None


def load_splits(
    source: Path | str, columns: Sequence[str] | Callable[[list[str]], Sequence[str]], cache: Path
) -> Splits:
    """The train split and, where there is one, the test split, reduced to what the trainer reads.

    source: an exported dataset folder, a JSONL or Parquet file, or a hub id. columns: those to keep, or a function
    that picks them from the ones that are there. Other columns are left out, since TRL gives some names a meaning
    (`margin`, `images`). `cache` holds what `datasets` writes, not the user's own cache.
    Errors: DataError that names what is missing and what is there.
    """
    import datasets

    datasets.utils.logging.disable_progress_bar()
    found = _read(source, cache)
    if "train" not in found:
        raise DataError(f"{source}: no split 'train'; there: {', '.join(found)}")
    train = reduced(found["train"], columns, f"{source} (train)")
    test = reduced(found["test"], columns, f"{source} (test)") if "test" in found else None
    if not len(train):
        raise DataError(f"{source}: the train split is empty: there is nothing to train on")
    return Splits(train, test if test is not None and len(test) else None)


def _read(source: Path | str, cache: Path) -> Any:
    import datasets

    path = Path(source)
    if not is_there(source):
        raise DataError(f"{source}: no such dataset folder or file")
    try:
        if path.is_file():
            kind = {".parquet": "parquet", ".csv": "csv"}.get(path.suffix, "json")
            return datasets.load_dataset(kind, data_files=str(path), cache_dir=str(cache))
        return datasets.load_dataset(str(source), cache_dir=str(cache))
    except StopIteration:  # how it says that a file is empty
        raise DataError(f"{source}: a split has no rows") from None
    except Exception as error:  # the library raises a dozen kinds, from pyarrow's to its own
        raise DataError(f"{source}: cannot load this dataset: {one_line(error)}") from error


def reduced(split: Any, columns: Sequence[str] | Callable[[list[str]], Sequence[str]], where: str) -> Any:
    """The split with these columns, and those that TRL reads beside any. Errors: DataError for a missing one."""
    there = list(split.column_names)
    wanted = list(columns(there) if callable(columns) else columns)
    missing = [name for name in wanted if name not in there]
    if missing:
        raise DataError(f"{where}: missing column {', '.join(missing)}; columns there: {', '.join(there) or 'none'}")
    return split.select_columns(wanted + [name for name in _EXTRA_COLUMNS if name in there])


def check_rows(splits: Splits, fault: Callable[[Row], str | None], where: Path | str) -> None:
    """`fault` says in a few words what is wrong with a row, or None. Errors: DataError for the first fault."""
    for name, split in (("train", splits.train), ("test", splits.test)):
        for number, row in enumerate(split if split is not None else ()):
            found = fault(row)
            if found:
                raise DataError(f"{where} ({name}): row {number}: {found}")


def pair_fault(row: Row) -> str | None:
    """Of a preference: two responses that differ."""
    if not row["chosen"] or not row["rejected"]:
        return "chosen or rejected is empty"
    return "chosen and rejected are the same" if row["chosen"] == row["rejected"] else None


def probability_fault(row: Row) -> str | None:
    p = row["probability"]
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        return f"probability must be a number in [0, 1], got {p!r}"
    return None


def dataset_sha256(split: Any) -> str:
    """Of the rows as JSON, so the same rows have the same hash in Parquet and JSONL."""
    digest = hashlib.sha256()
    for row in split:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()
