"""Rows out of whatever holds them: files, Hugging Face datasets, data frames, iterables.

Everything streams, except a `.json` array. Every row carries where it came from, so that an error can say it.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from rlaif.config import Source
from rlaif.errors import DataError
from rlaif.paths import resolve

Row = dict[str, Any]
Located = tuple[str, Row]  # ("prompts.jsonl:12", {...})
Readable = Source | str | Path | Iterable[Mapping[str, Any]] | Any  # Any: a DataFrame or a datasets.Dataset

_PARQUET_BATCH = 256  # rows; a row may hold megabytes
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def read_rows(source: Readable) -> Iterator[Row]:
    """Every row of `source` as a dict.

    `source`: a `config.Source`, a path (.jsonl, .ndjson, .json, .csv, .parquet, the text formats also as .gz), a
    folder (saved by `datasets.save_to_disk`, or of data files), a hub id `org/name`, a DataFrame, a
    `datasets.Dataset`, or an iterable of mappings. NaN in JSON and in a DataFrame is null.
    Errors: DataError that names the file and the line or row.
    """
    for _, row in located_rows(source):
        yield row


def located_rows(source: Readable) -> Iterator[Located]:
    """Like `read_rows`, each row with where it stands."""
    if isinstance(source, Source):
        end = None if source.limit is None else source.skip + source.limit
        return islice(_open_named(source), source.skip, end)
    if isinstance(source, str | Path):
        return _open_named(Source(path=str(source)))
    return _in_memory(source)


def name_of(source: Readable) -> str:
    """What an error calls the whole of `source`."""
    if isinstance(source, Source):
        return source.path
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def _open_named(source: Source) -> Iterator[Located]:
    path = resolve(source.path, Path())  # relative to the working folder, and named in errors as the user named it
    if path.is_dir():
        return _hugging_face(source, path)
    if path.exists():
        return _guarded(path, _format_of(path)(path))
    if _HUB_ID.fullmatch(source.path) and not _suffix(path):
        return _hugging_face(source, None)
    raise DataError(f"{source.path}: no such file or folder, and not a hub id (org/name)")


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in _FORMATS if name.endswith(suffix)), "")


def _format_of(path: Path) -> Callable[[Path], Iterator[Located]]:
    suffix = _suffix(path)
    if not suffix:
        raise DataError(f"{path}: cannot tell the format; known: {', '.join(_FORMATS)} (text formats also .gz)")
    return _FORMATS[suffix]


def _guarded(path: Path, rows: Iterator[Located]) -> Iterator[Located]:
    try:
        yield from rows
    except (OSError, EOFError) as error:  # EOFError: a .gz that ends too early
        raise DataError(f"{path}: cannot read: {getattr(error, 'strerror', None) or error}") from None


def _binary(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _text_lines(path: Path) -> Iterator[str]:
    """Lines with their ends. Errors: DataError with the line that is not UTF-8."""
    with _binary(path) as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                bad = line[error.start]
                raise DataError(f"{path}:{number}: not UTF-8 (byte 0x{bad:02x} at byte {error.start + 1})") from None
            yield text.removeprefix("\ufeff") if number == 1 else text


def _json_lines(path: Path) -> Iterator[Located]:
    for number, line in enumerate(_text_lines(path), start=1):
        if line.strip():
            where = f"{path}:{number}"
            yield where, _as_row(_parse_json(line, where), where)


def _json_file(path: Path) -> Iterator[Located]:
    """An array of objects; many files named .json hold JSON lines, and they are read as such."""
    with _binary(path) as file:
        opening = file.read(4096).decode("utf-8", "replace").lstrip("\ufeff \t\r\n")[:1]
    if opening != "[":
        yield from _json_lines(path)
        return
    for number, value in enumerate(_parse_json("".join(_text_lines(path)), str(path)), start=1):
        where = f"{path} row {number}"
        yield where, _as_row(value, where)


def read_document(path: Path) -> Any:
    """A whole .json file (also .gz), whatever it holds. Errors: DataError."""
    try:
        return _parse_json("".join(_text_lines(path)), str(path))
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot read: {getattr(error, 'strerror', None) or error}") from None


def _parse_json(text: str, where: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        pass  # NaN and lone surrogates, which many writers emit, are read below; the rest fails again
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise DataError(f"{where}: not JSON: {error.msg} at {at}") from None
    except RecursionError:
        raise DataError(f"{where}: not JSON that can be read: nested too deep") from None


def _as_row(value: Any, where: str) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object with columns, got {type(value).__name__}")
    return value


def _csv_file(path: Path) -> Iterator[Located]:
    csv.field_size_limit(sys.maxsize)  # the default refuses a cell over 128 kB
    reader = csv.reader(_text_lines(path), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path}:1: two columns are called {twice!r}")
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} cells under a header of {len(header)}")
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not CSV: {error}") from None


def _parquet_file(path: Path) -> Iterator[Located]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except pa.ArrowException as error:
        raise DataError(f"{path}: not Parquet: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: a text after row {number} is not UTF-8") from None


_FORMATS: dict[str, Callable[[Path], Iterator[Located]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_file,
    ".csv": _csv_file,
    ".parquet": _parquet_file,
}


def _hugging_face(source: Source, folder: Path | None) -> Iterator[Located]:
    """A folder saved by `save_to_disk`, a folder of data files, or a hub id."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when the library is imported
    try:
        import datasets
    except ImportError:
        raise DataError(f"{source.path}: reading it needs the datasets library: pip install 'rlaif[train]'") from None
    try:
        if folder and any((folder / name).exists() for name in ("state.json", "dataset_dict.json")):
            loaded = datasets.load_from_disk(str(folder))
        else:
            # With a limit the rest of a hub dataset need not be downloaded.
            streaming = folder is None and source.limit is not None
            name = str(folder or source.path)
            loaded = datasets.load_dataset(name, source.config_name, split=source.split, streaming=streaming)
    except Exception as error:  # the library raises its own, huggingface_hub's, HTTP's and pyarrow's errors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{source.path}: cannot load as a dataset: {reason[0]}") from None
    if isinstance(loaded, dict):
        if source.split not in loaded:
            raise DataError(f"{source.path}: no split {source.split!r}; there: {', '.join(loaded)}")
        loaded = loaded[source.split]
    return _numbered(loaded, source.path)


def _in_memory(source: Any) -> Iterator[Located]:
    if hasattr(source, "itertuples"):  # a pandas DataFrame
        return _numbered(_frame_rows(source), "DataFrame")
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        splits = f" of splits {', '.join(map(str, source))}: pass one of them" if isinstance(source, Mapping) else ""
        raise DataError(
            f"expected a path, a DataFrame, a Dataset or rows as mappings, got {type(source).__name__}{splits}"
        )
    return _numbered(source, type(source).__name__)


def _numbered(rows: Iterable[Any], name: str) -> Iterator[Located]:
    for number, row in enumerate(rows, start=1):
        where = f"{name} row {number}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where}: expected a mapping of columns, got {type(row).__name__}")
        yield where, dict(row)


def _frame_rows(frame: Any) -> Iterator[Row]:
    columns = [str(column) for column in frame.columns]
    for values in frame.itertuples(index=False, name=None):
        yield {column: _cell(value) for column, value in zip(columns, values, strict=True)}


def _cell(value: Any) -> Any:
    """NaN, NaT and NA, which stand for a missing cell, as null."""
    if value is None or isinstance(value, str | list | dict):
        return value
    try:
        return None if value != value else value
    except (TypeError, ValueError):  # pandas.NA has no truth value; an array has many
        return None if type(value).__name__ == "NAType" else value
