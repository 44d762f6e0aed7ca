"""Expressions in a recording: JMESPath, with a few functions that foreign files turn out to need.

    items(object) → [{key, value}]          get(object, key)              json(text) → value
    split(text, separator) → list           replace(text, regex, by)      match(text, regex) → group 1, or the match
    lower(text)  strip(text)                if(condition, then, else)

A string that is exactly a column's name means that column, whatever characters it holds; anything else in the file
that is no string (a number, true, null) means itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from rlaif.errors import ConfigError, DataError

Expression = str | int | float | bool | None
Scope = Mapping[str, Any]


class Compiled:
    """One expression, ready to be evaluated on many rows. `key`: what errors call it."""

    def __init__(self, expression: Expression, key: str) -> None:
        self.expression, self.key = expression, key
        self._constant = not isinstance(expression, str)
        self._tree: Any = None
        self._fault: str | None = None
        if isinstance(expression, str):
            self._tree, self._fault = _parsed(expression)

    def __call__(self, row: Scope, where: str) -> Any:
        """The value in `row`. Errors: ConfigError, DataError with `where` (file and row)."""
        if self._constant:
            return self.expression
        if self.expression in row:
            return row[str(self.expression)]
        if self._tree is None:
            raise ConfigError(f"{self.key}: {self.expression!r} is no column and no JMESPath: {self._fault}")
        try:
            return self._tree.search(row, options=_options())
        except Exception as error:  # jmespath raises ValueError, TypeError and its own
            reason = " ".join(str(error).split())
            raise DataError(f"{where}: {self.key}: {self.expression!r}: {reason}") from None


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> tuple[Any, str | None]:
    import jmespath

    try:
        return jmespath.compile(expression), None
    except Exception as error:  # its parser raises ValueErrors of its own, and some of Python's
        return None, " ".join(str(error).split())


@lru_cache(maxsize=1)
def _options() -> Any:
    import jmespath
    from jmespath import functions

    signature = functions.signature

    class Extra(functions.Functions):  # type: ignore[misc]
        """JMESPath finds the methods by their names: `_func_NAME`."""

        @signature({"types": ["object", "null"]})  # type: ignore[untyped-decorator]
        def _func_items(self, value: dict[str, Any] | None) -> list[dict[str, Any]]:
            return [{"key": name, "value": inner} for name, inner in (value or {}).items()]

        @signature({"types": ["object", "null"]}, {"types": []})  # type: ignore[untyped-decorator]
        def _func_get(self, value: dict[str, Any] | None, key: Any) -> Any:
            return (value or {}).get(as_key(key))

        @signature({"types": ["string", "null"]})  # type: ignore[untyped-decorator]
        def _func_json(self, text: str | None) -> Any:
            return None if not text else json.loads(text)

        @signature({"types": ["string", "null"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_split(self, text: str | None, separator: str) -> list[str]:
            return [] if text is None else text.split(separator)

        @signature({"types": ["string", "null"]}, {"types": ["string"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_replace(self, text: str | None, regex: str, by: str) -> str | None:
            return None if text is None else re.sub(regex, by, text)

        @signature({"types": ["string", "null"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_match(self, text: str | None, regex: str) -> str | None:
            found = None if text is None else re.search(regex, text)
            return None if found is None else (found[1] if found.re.groups else found[0])

        @signature({"types": ["string", "null"]})  # type: ignore[untyped-decorator]
        def _func_lower(self, text: str | None) -> str | None:
            return None if text is None else text.lower()

        @signature({"types": ["string", "null"]})  # type: ignore[untyped-decorator]
        def _func_strip(self, text: str | None) -> str | None:
            return None if text is None else text.strip()

        @signature({"types": []}, {"types": []}, {"types": []})  # type: ignore[untyped-decorator]
        def _func_if(self, condition: Any, then: Any, otherwise: Any) -> Any:
            return then if truthy(condition) else otherwise

    return jmespath.Options(custom_functions=Extra())


def truthy(value: Any) -> bool:
    """As JMESPath has it: false, null and what is empty are not; 0 is."""
    return not (value is None or value is False or value == "" or value == [] or value == {})


def as_key(value: Any) -> str:
    """One spelling for a key whatever type it has in the file: 1, 1.0 and "1" are one."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


class Key:
    """An id: one expression, or several joined by "/". Null in any part is null."""

    def __init__(self, expressions: Expression | Sequence[Expression], key: str) -> None:
        listed = list(expressions) if isinstance(expressions, list | tuple) else [expressions]
        if not listed:
            raise ConfigError(f"{key}: an empty list")
        self.key = key
        self._parts = [Compiled(item, key) for item in listed]  # type: ignore[arg-type]

    def __call__(self, row: Scope, where: str) -> str | None:
        values = [part(row, where) for part in self._parts]
        return None if any(value is None or value == "" for value in values) else "/".join(map(as_key, values))


class Text:
    """A text: one expression, or several as paragraphs, empty ones left out. Null only if all are."""

    def __init__(self, expressions: Expression | Sequence[Expression], key: str) -> None:
        self._several = isinstance(expressions, list | tuple)
        self.key = key
        listed = list(expressions) if isinstance(expressions, list | tuple) else [expressions]
        self._parts = [Compiled(item, key) for item in listed]  # type: ignore[arg-type]

    def __call__(self, row: Scope, where: str) -> Any:
        """A text, or whatever else one expression gives: messages, say."""
        values = [part(row, where) for part in self._parts]
        if not self._several:
            return values[0]
        given = [as_key(value) for value in values if value is not None]
        return "\n\n".join(value for value in given if value.strip()) if given else None


def as_number(value: Any, key: str, where: str) -> float | None:
    """A number, or a text that is one. Errors: DataError."""
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or number != number or number in (float("inf"), float("-inf")):
        raise DataError(f"{where}: {key}: expected a number, got {str(value)[:60]!r}")
    return number
