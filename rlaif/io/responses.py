"""The user's rows that already hold responses, in one of four layouts.

`responses` (texts, or objects with `text`), `response_a` and `response_b`, `chosen` and `rejected`, or one `response`
a row, whose rows are put together by prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from rlaif.errors import DataError
from rlaif.io.prompts import (
    ABSENT,
    LAYOUTS,
    STAGE,
    Drop,
    Item,
    OnDrop,
    Seen,
    as_messages,
    column_mapping,
    dropped,
    has_column,
    no_column,
    plain,
    recording_of,
    refuse_surrogates,
    usable_items,
    value_of,
)
from rlaif.io.rows import Located, Readable, located_rows, name_of
from rlaif.records import Dropped, Prompt, Response, make_id

if TYPE_CHECKING:
    from rlaif.recordings import Recording


def read_responses(
    source: Readable, on_drop: OnDrop, columns: Mapping[str, str] | None = None
) -> Iterator[tuple[Prompt, list[Response]]]:
    """The prompts of `source` with their responses, in any of the four layouts; which one, the first row says.

    Streams, except the layout of one `response` a row, whose rows need not be in order. Dropped in addition to what
    `read_prompts` drops: no_response, empty_response, bad_response, duplicate_response (same text, same prompt).
    """
    recording = recording_of(source, columns)
    if recording is not None:
        yield from _recorded(recording, on_drop)
        return
    mapping = column_mapping(source, columns)
    rows = located_rows(source)
    first = next(rows, None)
    if first is None:
        return
    layout = _layout(first, mapping, name_of(source))
    items = usable_items(chain([first], rows), name_of(source), mapping, layout, on_drop)
    pairs = _gathered(items) if layout == ("response",) else _one_row_each(items, on_drop)
    for item, rest in pairs:
        responses = _responses(item, rest, layout, mapping, on_drop)
        if responses:
            yield item.prompt, responses
        else:
            on_drop(dropped(item, "no_response"))


def _recorded(recording: Recording, on_drop: OnDrop) -> Iterator[tuple[Prompt, list[Response]]]:
    for row in recording.dropped:
        on_drop(row)
    for prompt in recording.prompts:
        responses = recording.responses.get(prompt.id)
        if responses:
            yield prompt, responses
        else:
            on_drop(Dropped(stage=STAGE, reason="no_response", id=prompt.id))


def _layout(first: Located, mapping: Mapping[str, str], name: str) -> tuple[str, ...]:
    _, row = first
    mapped = [names for names in LAYOUTS if any(column in mapping for column in names)]
    for names in mapped or LAYOUTS:
        missing = [column for column in names if not has_column(row, mapping.get(column, column))]
        if not missing:
            return names
        if mapped:
            raise DataError(no_column(name, missing[0], mapping, row))
    wanted = "; or ".join(" and ".join(names) for names in LAYOUTS)
    raise DataError(f"{name}: no column with responses ({wanted}); there: {', '.join(row)}")


def _one_row_each(items: Iterator[Item], on_drop: OnDrop) -> Iterator[tuple[Item, list[Item]]]:
    seen = Seen()
    for item in items:
        if seen.is_new(item):
            yield item, [item]
        else:
            on_drop(dropped(item, "duplicate_prompt", f"same as {seen.where(item)}"))


def _gathered(items: Iterator[Item]) -> Iterator[tuple[Item, list[Item]]]:
    seen = Seen()
    groups: dict[str, list[Item]] = {}
    for item in items:
        seen.is_new(item)
        groups.setdefault(item.prompt.id, []).append(item)
    for group in groups.values():
        yield group[0], group


def _responses(
    item: Item, group: list[Item], layout: tuple[str, ...], mapping: Mapping[str, str], on_drop: OnDrop
) -> list[Response]:
    """The responses of one prompt, each text once, in the order of the file."""
    found: dict[str, Response] = {}
    for candidate, source, meta in _candidates(item, group, layout, mapping):
        try:
            response = as_response(candidate, source, meta, item.prompt, sample=len(found))
        except Drop as drop:
            on_drop(dropped(item, drop.reason, drop.detail))
            continue
        same_text = any(other.text.strip() == response.text.strip() for other in found.values())
        if same_text:
            on_drop(Dropped(stage=STAGE, reason="duplicate_response", id=response.id, detail=item.where))
        elif response.id in found:
            raise DataError(f"{item.where}: response id {response.meta.get('id')!r} stands for two texts")
        else:
            found[response.id] = response
    return list(found.values())


def _candidates(
    item: Item, group: list[Item], layout: tuple[str, ...], mapping: Mapping[str, str]
) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """(what stands in the file, its source, its own columns) for every candidate."""
    if layout == ("response",):
        for other in group:
            own = {k: v for k, v in other.prompt.meta.items() if v != item.prompt.meta.get(k)}
            yield value_of(other.row, mapping, "response"), str(value_of(other.row, mapping, "source") or ""), own
    elif layout == ("responses",):
        for value in _listed(value_of(item.row, mapping, "responses")):
            yield value, "", {}
    else:
        for column in layout:
            yield value_of(item.row, mapping, column), column, {}


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # a CSV cell can hold a list only as JSON
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return [ABSENT]
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [ABSENT]


def as_response(value: Any, source: str, meta: dict[str, Any], prompt: Prompt, sample: int) -> Response:
    own_id = None
    if isinstance(value, Mapping) and "text" in value:
        own_id = value.get("id")
        source = str(value.get("source") or source)
        meta = {str(k): plain(v) for k, v in value.items() if k not in ("text", "source")}
        value = value["text"]
    text = _last_turn(value, prompt)
    if not text.strip():
        raise Drop("empty_response", source)
    response = Response(
        # The file's own ids (kept in meta) may be 0, 1, 2 … for every prompt; ours must be unique in the run.
        id=make_id(prompt.id, text if own_id is None else str(own_id)),
        prompt_id=prompt.id,
        text=text,
        source=source,
        sample=sample,
        meta=meta,
    )
    refuse_surrogates(response)
    return response


def _last_turn(value: Any, prompt: Prompt) -> str:
    """The text of a response: a string, or a conversation that ends with the assistant's turn after this prompt."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) or value is ABSENT:
        raise Drop("bad_response", "a response is a text, an object with `text`, or a list of messages")
    *before, last = as_messages(value) or [{"role": "", "content": ""}]
    if last["role"] != "assistant":
        raise Drop("bad_response", "a conversation given as a response ends with the assistant's turn")
    if before and before != prompt.messages:
        raise Drop("bad_response", "the turns before the response are not the prompt's")
    return str(last["content"])
