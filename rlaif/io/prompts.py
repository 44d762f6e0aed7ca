"""The user's rows as prompts. A prompt is a text or a list of messages; every other column travels in `meta`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from rlaif.config import Source
from rlaif.errors import ConfigError, DataError
from rlaif.io.rows import Located, Readable, Row, located_rows, name_of
from rlaif.records import Dropped, Message, Prompt, make_id

if TYPE_CHECKING:
    from rlaif.recordings import Recording

OnDrop = Callable[[Dropped], None]

STAGE = "prompts"  # the stage that dropped rows are filed under
LAYOUTS: tuple[tuple[str, ...], ...] = (
    ("responses",),
    ("response_a", "response_b"),
    ("chosen", "rejected"),
    ("response",),
)
COLUMNS = ("prompt", "id", "reference", "domain", "source", *chain(*LAYOUTS))
ROLES = ("system", "user", "assistant")
_MAX_INT = 2**63  # larger integers do not survive JSON readers


class Drop(Exception):
    """This row cannot be used; the run goes on without it."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Item(NamedTuple):
    where: str
    row: Row
    prompt: Prompt


def read_prompts(source: Readable, on_drop: OnDrop, columns: Mapping[str, str] | None = None) -> Iterator[Prompt]:
    """The prompts of `source`, each once.

    `columns`: our name → the column's name; a dotted path reaches into nested ones.
    A prompt without an id gets one made of its messages. Dropped, with a reason: empty_prompt, not_user_turn,
    unknown_role, bad_message, lone_surrogate, duplicate_prompt (same id, same text).
    A recording (.yaml) gives its own. Errors: DataError (a file, line or column is wrong; one id for two texts),
    ConfigError (a name in `columns`).
    """
    recording = recording_of(source, columns)
    if recording is not None:
        for row in recording.dropped:
            on_drop(row)
        yield from recording.prompts
        return
    seen = Seen()
    for item in usable_items(located_rows(source), name_of(source), column_mapping(source, columns), (), on_drop):
        if seen.is_new(item):
            yield item.prompt
        else:
            on_drop(dropped(item, "duplicate_prompt", f"same as {seen.where(item)}"))


def recording_of(source: Readable, columns: Mapping[str, str] | None = None) -> Recording | None:
    """Other people's judgments, where `source` names a recording. Errors: ConfigError, DataError."""
    from rlaif import recordings

    path = source.path if isinstance(source, Source) else source
    if not isinstance(path, str | Path) or not recordings.is_recording(path):
        return None
    if columns or (isinstance(source, Source) and source.columns):
        raise ConfigError(f"{path}: columns: a recording says itself what its fields mean")
    if isinstance(source, Source) and source.skip:
        raise ConfigError(f"{path}: skip: {source.skip}: a recording is read from its beginning; only limit: cuts it")
    return recordings.load(path, source.params if isinstance(source, Source) else None)


def column_mapping(source: Readable, columns: Mapping[str, str] | None) -> dict[str, str]:
    mapping = {**(source.columns if isinstance(source, Source) else {}), **(columns or {})}
    for name in mapping:
        if name not in COLUMNS:
            raise ConfigError(f"columns: unknown name {name!r}{_hint(name, COLUMNS)}; known: {', '.join(COLUMNS)}")
    return mapping


def usable_items(
    rows: Iterable[Located], name: str, mapping: Mapping[str, str], layout: tuple[str, ...], on_drop: OnDrop
) -> Iterator[Item]:
    """Rows that hold a usable prompt; `layout`: the columns that hold responses, which are not part of `meta`."""
    used = {mapping.get(column, column) for column in ("prompt", "id", "reference", "domain", *layout)}
    for number, (where, row) in enumerate(rows):
        if number == 0:
            _check_columns(row, mapping, name, layout)
        try:
            yield Item(where, row, _prompt(row, mapping, used, layout))
        except Drop as drop:
            on_drop(Dropped(stage=STAGE, reason=drop.reason, id=where, detail=drop.detail))


def _check_columns(row: Row, mapping: Mapping[str, str], name: str, layout: tuple[str, ...]) -> None:
    for ours in dict.fromkeys(["prompt", *mapping]):
        implied = ours == "prompt" and ours not in mapping and "chosen" in layout  # TRL's implicit prompt
        if not has_column(row, mapping.get(ours, ours)) and not implied:
            raise DataError(no_column(name, ours, mapping, row))


def no_column(name: str, ours: str, mapping: Mapping[str, str], row: Row) -> str:
    theirs = mapping.get(ours, ours)
    role = f" (for {ours})" if theirs != ours else ""
    advice = "" if ours in mapping else f"; name it with columns: {{{ours}: …}}"
    return f"{name}: no column {theirs!r}{role}{_hint(theirs, row)}; there: {', '.join(map(str, row))}{advice}"


def _hint(name: str, known: Iterable[Any]) -> str:
    close = get_close_matches(name, [str(other) for other in known], n=1)
    return f", did you mean {close[0]!r}?" if close else ""


ABSENT: Any = object()


def _get(row: Row, path: str) -> Any:
    """The value at `path`: a column of that very name, else a dotted path into mappings and lists."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return ABSENT
    return value


def has_column(row: Row, path: str) -> bool:
    return _get(row, path) is not ABSENT


def value_of(row: Row, mapping: Mapping[str, str], ours: str) -> Any:
    value = _get(row, mapping.get(ours, ours))
    return None if value is ABSENT else value


def _prompt(row: Row, mapping: Mapping[str, str], used: set[str], layout: tuple[str, ...]) -> Prompt:
    value = value_of(row, mapping, "prompt")
    if value is None and "chosen" in layout:
        chosen = value_of(row, mapping, "chosen")
        value = list(chosen)[:-1] if isinstance(chosen, list | tuple) else None
    messages = as_messages(value)
    if not messages or not messages[-1]["content"].strip():
        raise Drop("empty_prompt")
    if messages[-1]["role"] != "user":
        raise Drop("not_user_turn", f"the last turn is the {messages[-1]['role']}'s")
    given = value_of(row, mapping, "id")
    prompt = Prompt(
        id=messages_id(messages) if given is None or given == "" else str(given),
        messages=messages,
        reference=_text(value_of(row, mapping, "reference")),
        domain=_text(value_of(row, mapping, "domain")),
        meta={str(name): plain(value) for name, value in row.items() if name not in used},
    )
    refuse_surrogates(prompt)
    return prompt


def messages_id(messages: list[Message]) -> str:
    """The id of a prompt that came without one: the same conversation has the same id in every file."""
    return make_id(*chain.from_iterable((message["role"], message["content"]) for message in messages))


def as_messages(value: Any) -> list[Message]:
    if value is None:
        return []
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if hasattr(value, "tolist"):  # a DataFrame read from Parquet holds arrays
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise Drop("bad_message", f"a prompt is a text or a list of messages, not {type(value).__name__}")
    return [_message(part) for part in value]


def _message(part: Any) -> Message:
    if not isinstance(part, Mapping) or not {"role", "content"} <= part.keys():
        shown = ", ".join(map(repr, part)) if isinstance(part, Mapping) else type(part).__name__
        raise Drop("bad_message", f"a message has role and content, got {shown}")
    role, content = part["role"], part["content"]
    if role not in ROLES:
        raise Drop("unknown_role", f"{str(role)[:40]!r} is none of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise Drop("bad_message", f"the content of a message is a text, got {type(content).__name__}")
    return {"role": role, "content": content}


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(plain(value)).decode()


def plain(value: Any) -> Any:
    """`value` as JSON holds it: numpy as Python, NaN as null, dates and huge integers as text."""
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -_MAX_INT <= value < _MAX_INT else str(value)
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return plain(value.tolist())
    return msgspec.to_builtins(value, enc_hook=str)


def refuse_surrogates(record: msgspec.Struct) -> None:
    try:
        msgspec.json.encode(record)
    except UnicodeEncodeError:
        raise Drop("lone_surrogate", "a text holds half of a character") from None


def dropped(item: Item, reason: str, detail: str = "") -> Dropped:
    return Dropped(
        stage=STAGE, reason=reason, id=item.prompt.id, detail="; ".join(filter(None, [item.where, detail]))
    )


class Seen:
    """Which prompt ids came, with what text."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, str]] = {}  # id → (hash of the messages, where)

    def is_new(self, item: Item) -> bool:
        """False for a row that repeats one. Errors: DataError when one id stands for two texts."""
        digest = messages_id(item.prompt.messages)
        known, where = self._first.setdefault(item.prompt.id, (digest, item.where))
        if known != digest:
            raise DataError(f"{item.where}: id {item.prompt.id!r} came with another prompt before, at {where}")
        return where == item.where

    def where(self, item: Item) -> str:
        return self._first[item.prompt.id][1]
