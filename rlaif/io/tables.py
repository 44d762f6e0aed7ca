"""Files that rlaif writes: whole or not at all, the same records giving the same bytes.

A table is one record per line as JSON (msgspec), in the order given. Whatever is rewritten whole goes through
a temporary file, fsync and `os.replace`, so a kill or a full disk leaves the old file or the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rlaif.errors import StoreError

_Record = TypeVar("_Record", bound=msgspec.Struct)
_ROWS_PER_GROUP = 1000  # Parquet rows held in memory at once


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that becomes `path` when the block ends without an error.

    Errors: StoreError, one line, when the disk or the folder does not allow it; nothing half written is left.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")  # one name: what a killed run left is written over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from None
    finally:
        _remove(temporary)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path`, old files gone, when the block ends without an error.

    Between the removal of the old folder and the renaming there is a moment with neither. Errors: StoreError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
        temporary.mkdir(parents=True)
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> int:
    """Write one JSON object per line; NaN and infinity become null. Returns the number of rows."""
    encoder = msgspec.json.Encoder()
    n = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        for row in rows:
            try:
                file.write(encoder.encode(row) + b"\n")
            except (UnicodeEncodeError, TypeError, OverflowError) as error:
                raise StoreError(f"{path}: row {n + 1} cannot be written as JSON: {error}") from None
            n += 1
    return n


def write_parquet(path: str | Path, rows: Iterable[Mapping[str, Any]], schema: Any = None) -> int:
    """Write rows as Parquet, in groups. Returns the number of rows.

    `schema`: a `pyarrow.Schema`; without it the types come from the first group, and a later row that
    does not fit is an error.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = iter(rows)
    n = 0
    group = list(islice(rows, _ROWS_PER_GROUP))
    with replacing(path) as temporary:
        try:
            schema = schema or pa.Table.from_pylist(group).schema
            with pq.ParquetWriter(temporary, schema) as writer:
                while group:
                    writer.write_table(pa.Table.from_pylist(group, schema=schema))
                    n += len(group)
                    group = list(islice(rows, _ROWS_PER_GROUP))
        except (pa.ArrowException, UnicodeEncodeError) as error:
            where = f"rows {n + 1} to {n + len(group)}"
            raise StoreError(f"{path}: {where} do not fit the columns: {' '.join(str(error).split())}") from None
    return n


def write_table(path: str | Path, records: Iterable[msgspec.Struct]) -> int:
    """Write a table of the run folder. Returns the number of records."""
    return write_jsonl(path, records)


def read_table(path: str | Path, record: type[_Record]) -> Iterator[_Record]:
    """Stream a table of the run folder. Columns that `record` does not have are passed over.

    Errors: StoreError with the line, when there is no such table or a row of it is not a `record`.
    """
    decoder = msgspec.json.Decoder(record)
    try:
        with Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield decoder.decode(line)
                except (msgspec.MsgspecError, ValueError) as error:
                    raise StoreError(f"{path}:{number}: not a {record.__name__}: {error}") from None
    except FileNotFoundError:
        raise StoreError(f"{path}: there is no such table; the stage that writes it has not run") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror or error}") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a folder that went away or turned read-only: the first error is the one to tell
        path.unlink(missing_ok=True)
