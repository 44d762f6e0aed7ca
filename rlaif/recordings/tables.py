"""The rows of a recording's tables: read, spread out, joined, filtered. Every row keeps where it stands."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.config import Source
from rlaif.errors import ConfigError, DataError
from rlaif.io.prompts import plain
from rlaif.io.rows import Located, Row, located_rows, read_document
from rlaif.paths import resolve
from rlaif.recordings.config import Join, Table
from rlaif.recordings.expressions import Compiled, Key, truthy

OWN = ("_each", "_index", "_row", "_file")  # what is added to a row
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


class _Joined(NamedTuple):
    name: str
    join: Join
    by_key: dict[str, Row]
    here: Key

    def into(self, row: Row, at: str) -> bool:
        """Put the fitting row under its name; False where this row is to be dropped for want of one."""
        said = self.here(row, at)
        found = None if said is None else self.by_key.get(said)
        if found is None and self.join.unmatched == "error":
            raise DataError(f"{at}: {self.here.key}: no row there with {said!r}; unmatched: keep or drop")
        row[self.name] = found
        return found is not None or self.join.unmatched != "drop"


class Tables:
    """`root`: the folder that paths start from. Joined tables are read once and held in memory."""

    def __init__(self, root: Path, name: str) -> None:
        self._root, self._name = root, name
        self._indexes: dict[str, dict[str, Row]] = {}

    def files(self, table: Table) -> list[Path]:
        """The files and folders behind `table` and what it joins; hub datasets are none. Errors: ConfigError."""
        found = [path for name in table.paths for path in self._found(name)]
        return found + [path for join in table.join.values() for path in self.files(join)]

    def _found(self, name: str) -> list[Path]:
        path = resolve(name, self._root)
        if path.exists():
            return [path]
        if glob.has_magic(str(path)):
            matching = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207 - also of absolute paths
            if matching:
                return matching
        elif _HUB_ID.fullmatch(name) and not Path(name).suffix:
            return []
        raise ConfigError(f"{self._name}: {path}: no such file")

    def rows(self, table: Table, key: str) -> Iterator[Located]:
        """(where, row), in the order of the files. `key`: what errors call the table."""
        each = Compiled(table.each, f"{self._name}: {key}.each") if table.each else None
        where = Compiled(table.where, f"{self._name}: {key}.where") if table.where else None
        let = {name: Compiled(value, f"{self._name}: {key}.let.{name}") for name, value in table.let.items()}
        joins = [self._joined(name, join, f"{key}.join.{name}") for name, join in table.join.items()]
        # Most rows of a set with many judges are filtered away: what looks at no join need not wait for it.
        early = where is not None and not any(name in str(table.where) for name in (*table.join, *let, "@"))
        row: Row = {}
        kept = False
        for at, row in self._spread(table, each, key):
            if early and not truthy(where(row, at)):  # type: ignore[misc]
                continue
            if not all(joined.into(row, at) for joined in joins):
                continue
            for name, expression in let.items():
                row[name] = expression(row, at)
            if early or where is None or truthy(where(row, at)):
                kept = True
                yield at, row
        if row and not kept:
            why = f" where {table.where}" if where else ", of those that match the joins"
            raise DataError(f"{self._name}: {key}: no row{why}; columns: {columns_of(row)}")

    def _spread(self, table: Table, each: Compiled | None, key: str) -> Iterator[Located]:
        for number, (at, file, raw) in enumerate(self._read(table, key), start=1):
            row = {str(name): plain(value) for name, value in raw.items()}
            taken = next((name for name in (*OWN, *table.join, *table.let) if name in row), None)
            if taken is not None:
                raise DataError(f"{at}: {key}: the file has a column {taken!r} of its own; call yours otherwise")
            row |= {"_row": number, "_file": file}
            if each is None:
                yield at, row
                continue
            items = each(row, at)
            if items is not None and not isinstance(items, list):
                raise DataError(f"{at}: {each.key}: expected a list, got {type(items).__name__}")
            for index, item in enumerate(items or []):
                yield f"{at}[{index}]", {**row, "_each": item, "_index": index}

    def _read(self, table: Table, key: str) -> Iterator[tuple[str, str, Row]]:
        """(where, the file's name, row) of what the files hold."""
        for name in table.paths:
            paths = self._found(name)
            if not paths:
                source = Source(path=name, split=table.split, config_name=table.config_name)
                yield from ((at, name, row) for at, row in located_rows(source))
            for path in paths:
                if table.rows is None:
                    source = Source(path=str(path), split=table.split, config_name=table.config_name)
                    yield from ((at, path.name, row) for at, row in located_rows(source))
                else:
                    yield from self._document_rows(path, table.rows, key)

    def _document_rows(self, path: Path, rows: str, key: str) -> Iterator[tuple[str, str, Row]]:
        if ".json" not in path.suffixes:
            raise ConfigError(f"{self._name}: {key}.rows: only a .json document has a list of rows in it, not {path}")
        find = Compiled(rows, f"{self._name}: {key}.rows")
        found = find(read_document(path), str(path))
        if not isinstance(found, list):
            raise DataError(f"{path}: {key}.rows: {rows!r} finds no list, but {type(found).__name__}")
        for number, row in enumerate(found, start=1):
            if not isinstance(row, dict):
                raise DataError(f"{path} row {number}: expected an object with columns, got {type(row).__name__}")
            yield f"{path} row {number}", path.name, row

    def _joined(self, name: str, join: Join, key: str) -> _Joined:
        return _Joined(name, join, self._index(join, key), Key(join.here, f"{self._name}: {key}.here"))

    def _index(self, join: Join, key: str) -> dict[str, Row]:
        there = Key(join.there, f"{self._name}: {key}.there")
        if key not in self._indexes:
            index: dict[str, Row] = {}
            for at, row in self.rows(join, key):
                value = there(row, at)
                if value is None:
                    raise DataError(f"{at}: {key}.there: {join.there!r} is null here; columns: {columns_of(row)}")
                if value in index:
                    raise DataError(f"{at}: {key}.there: {value!r} stands for two rows; where: can leave one out")
                index[value] = row
            self._indexes[key] = index
        return self._indexes[key]


def columns_of(row: dict[str, Any]) -> str:
    """The names that an expression may begin with, for an error."""
    return ", ".join(name for name in row if name not in ("_row", "_file"))
