"""What people say, from the user's own file: labels of pairs, or scores of responses, by one rater or by several.

A row holds `prompt` and either a pair (`response_a` and `response_b`, or `chosen` and `rejected`, where the label is
understood) or one `response`. The label stands in `label` (or `score`), several raters' in `labels` (`scores`), a
list or a mapping from rater to label, or in columns of their own. Rows of the same pair are put together: one row a
rater, whose name may stand in `rater`, is a layout too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from rlaif.config import Source
from rlaif.errors import ConfigError, DataError
from rlaif.io.prompts import (
    COLUMNS,
    Drop,
    Item,
    OnDrop,
    Seen,
    has_column,
    no_column,
    plain,
    recording_of,
    usable_items,
    value_of,
)
from rlaif.io.responses import as_response
from rlaif.io.rows import Located, located_rows
from rlaif.records import FIRST, SECOND, TIE, Dropped, Gold, Prompt, Response

if TYPE_CHECKING:
    from rlaif.recordings import Recording

STAGE = "calibrate"  # the stage that dropped rows are filed under
PAIRS = (("response_a", "response_b"), ("chosen", "rejected"))
OWN_COLUMNS = ("label", "labels", "score", "scores", "rater")
# words for a label, folded; the config's `labels` goes before it
_WORDS = {
    **dict.fromkeys(("a", "1", "first", "response_a"), FIRST),
    **dict.fromkeys(("b", "2", "second", "response_b"), SECOND),
    **dict.fromkeys(("tie", "0"), TIE),
}
_OURS = {"a": FIRST, "b": SECOND, "tie": TIE, "none": None}

Label = str | float | None


class GoldSet(msgspec.Struct, frozen=True, kw_only=True):
    """Gold with the texts that it is about. `prompts` and `responses` are each there once, by id."""

    prompts: dict[str, Prompt]
    responses: dict[str, Response]
    gold: list[Gold]


def read_gold(
    source: Source,
    on_drop: OnDrop,
    *,
    labels: Mapping[str, str] | None = None,
    raters: Sequence[str] = (),
    slices: Sequence[str] = (),
) -> GoldSet:
    """Gold of a data file, in the order of the file.

    `labels`: the file's word → a | b | tie | none, before the built-in ones (a, A, 1, first, …). `raters`: columns of
    one rater each. `slices`: columns that end in `Gold.slices`. Dropped with a reason: what `read_prompts` drops,
    empty_response, bad_response, same_response (both texts are equal), unlabelled.
    Errors: DataError (a column, or a label that is none, with file and row), ConfigError (an unknown name).
    """
    recording = recording_of(source)
    if recording is not None:
        if labels or raters:
            raise ConfigError(f"{source.path}: labels, raters: a recording says itself what its fields mean")
        return _recorded(recording, source, slices, on_drop)
    reader = _Reader(source, labels or {}, raters, slices)
    for item in reader.items(on_drop):
        try:
            reader.add(item)
        except Drop as drop:
            on_drop(Dropped(stage=STAGE, reason=drop.reason, id=item.where, detail=drop.detail))
    return reader.found()


def _recorded(recording: Recording, source: Source, slices: Sequence[str], on_drop: OnDrop) -> GoldSet:
    """What people say in a recording. `source.limit`: so many pairs or responses. Errors: ConfigError, DataError."""
    prompts = {prompt.id: prompt for prompt in recording.prompts}
    responses = {row.id: row for rows in recording.responses.values() for row in rows}
    kept = []
    for gold in recording.gold:
        if gold.prompt_id not in prompts or not responses.keys() >= set(gold.response_ids):
            on_drop(Dropped(stage=STAGE, reason="no_response", id=gold.prompt_id))
        elif len({responses[i].text for i in gold.response_ids}) < len(gold.response_ids):
            on_drop(Dropped(stage=STAGE, reason="same_response", id=gold.prompt_id))
        elif all(label is None for label in gold.labels):
            on_drop(Dropped(stage=STAGE, reason="unlabelled", id=gold.prompt_id))
        else:
            kept.append(gold)
    if not recording.gold:
        raise ConfigError(f"{source.path}: gold: this recording says nothing of what people prefer")
    known = {name for gold in recording.gold for name in gold.slices} | {"domain"}
    for name in slices:
        if name not in known:
            raise ConfigError(
                f"calibrate.slices: {source.path} has no slice {name!r}; there: {', '.join(sorted(known))}"
            )
    return GoldSet(prompts=prompts, responses=responses, gold=kept[: source.limit])


class _Votes(msgspec.Struct):
    """One pair or response with the labels that rows gave it so far, by rater."""

    prompt_id: str
    response_ids: list[str]
    slices: dict[str, str]
    labels: dict[str, Label] = {}
    named: bool = True  # every rater has a name


class _Reader:
    def __init__(
        self, source: Source, labels: Mapping[str, str], raters: Sequence[str], slices: Sequence[str]
    ) -> None:
        self.source, self.raters, self.slices = source, raters, slices
        self.words: dict[str, str | None] = {**_WORDS}
        self.words |= {_folded(word): _OURS[ours] for word, ours in labels.items()}
        self.mapping = _mapping(source)
        self.layout: tuple[str, ...] = ()
        self.prompts: dict[str, Prompt] = {}
        self.responses: dict[str, Response] = {}
        self.votes: dict[tuple[str, ...], _Votes] = {}
        self.seen = Seen()

    def items(self, on_drop: OnDrop) -> Iterator[Item]:
        rows = located_rows(self.source)
        first = next(rows, None)
        if first is None:
            raise DataError(f"{self.source.path}: no rows")
        self._find_layout(first)
        ours = {name: column for name, column in self.mapping.items() if name not in OWN_COLUMNS}

        def refile(row: Dropped) -> None:
            on_drop(msgspec.structs.replace(row, stage=STAGE))

        return usable_items(chain([first], rows), self.source.path, ours, self.layout, refile)

    def _find_layout(self, first: Located) -> None:
        """Which columns hold what, from the first row; all that is asked for must be there."""
        row = first[1]
        self.layout = next((pair for pair in PAIRS if all(self._has(row, name) for name in pair)), ("response",))
        if not all(self._has(row, name) for name in self.layout):
            wanted = "response_a and response_b; chosen and rejected; or response"
            raise DataError(f"{self.source.path}: no column with responses ({wanted}); there: {', '.join(row)}")
        for column in (*self.raters, *self.slices):
            if not self._has(row, column):
                raise DataError(no_column(self.source.path, column, {column: column}, row))
        kinds = ("label", "labels") if len(self.layout) == 2 else ("score", "scores")
        self.columns = [*self.raters] or [name for name in kinds if self._has(row, name)]
        if not self.columns and self.layout != ("chosen", "rejected"):
            raise DataError(
                f"{self.source.path}: no column {kinds[0]!r} or {kinds[1]!r} with what people say; "
                f"name it with columns: {{{kinds[0]}: …}} or list raters' columns under calibrate.raters; "
                f"there: {', '.join(row)}"
            )

    def _has(self, row: Mapping[str, Any], name: str) -> bool:
        return has_column(dict(row), self.mapping.get(name, name))

    def add(self, item: Item) -> None:
        """One row's labels to those of its pair or response. Errors: Drop, DataError."""
        self.seen.is_new(item)
        responses = [
            as_response(value_of(item.row, self.mapping, name), name, {}, item.prompt, 0) for name in self.layout
        ]
        if len({response.text for response in responses}) < len(responses):
            raise Drop("same_response", item.where)
        labels, named = self._labels(item)
        if all(label is None for label in labels.values()):
            raise Drop("unlabelled", item.where)
        self.prompts.setdefault(item.prompt.id, item.prompt)
        for response in responses:
            self.responses.setdefault(response.id, response)
        ids = [response.id for response in responses]
        key = (item.prompt.id, *sorted(ids))
        votes = self.votes.setdefault(key, _Votes(item.prompt.id, ids, self._slices(item)))
        if votes.response_ids != ids:  # the same pair, told from the other side
            labels = {rater: {FIRST: SECOND, SECOND: FIRST}.get(str(x), x) for rater, x in labels.items()}
        votes.named = votes.named and named
        for rater, label in labels.items():
            votes.labels[rater if rater not in votes.labels else f"{rater} ({len(votes.labels) + 1})"] = label

    def _labels(self, item: Item) -> tuple[dict[str, Label], bool]:
        """Rater → label, and whether raters have names."""
        if not self.columns:
            return {"": FIRST}, False
        if self.raters:
            return {
                name: self._label(value_of(item.row, self.mapping, name), item, name) for name in self.raters
            }, True
        name = self.columns[0]
        value = value_of(item.row, self.mapping, name)
        rater = value_of(item.row, self.mapping, "rater")
        if name in ("label", "score"):
            return {str(rater or ""): self._label(value, item, name)}, rater is not None
        if isinstance(value, str) and value.lstrip().startswith(("[", "{")):  # a CSV cell
            try:
                value = msgspec.json.decode(value)
            except msgspec.DecodeError:
                raise DataError(f"{item.where}: {name}: not a JSON list: {value[:40]!r}") from None
        value = plain(value)
        if isinstance(value, dict):
            return {str(who): self._label(label, item, name) for who, label in value.items()}, True
        if isinstance(value, list):
            return {str(n): self._label(label, item, name) for n, label in enumerate(value, 1)}, False
        raise DataError(f"{item.where}: {name}: expected a list, or a mapping from rater to label, got {value!r:.60}")

    def _label(self, value: Any, item: Item, name: str) -> Label:
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            return None
        word = _folded(value)
        if len(self.layout) == 2:
            if word in self.words:
                return self.words[word]
            known = ", ".join(dict.fromkeys(["a", "b", "tie", "A", "B", "1", "2", "0", *self.words]))
            raise DataError(
                f"{item.where}: {name}: {str(value)[:40]!r} is no label; known: {known}; "
                "map others with calibrate.labels: {their word: a | b | tie | none}"
            )
        try:
            number = float(word)
        except ValueError:
            number = math.nan
        if isinstance(value, bool) or not math.isfinite(number):
            raise DataError(f"{item.where}: {name}: expected a number, got {str(value)[:40]!r}")
        return number

    def _slices(self, item: Item) -> dict[str, str]:
        values = {name: value_of(item.row, self.mapping, name) for name in self.slices}
        return {name: str(value) for name, value in values.items() if value not in (None, "")}

    def found(self) -> GoldSet:
        gold = [
            Gold(
                prompt_id=votes.prompt_id,
                response_ids=votes.response_ids,
                labels=list(votes.labels.values()),
                raters=list(votes.labels) if votes.named else [],
                slices=votes.slices,
            )
            for votes in self.votes.values()
        ]
        return GoldSet(prompts=self.prompts, responses=self.responses, gold=gold)


def _mapping(source: Source) -> dict[str, str]:
    known = [name for name in (*COLUMNS, *OWN_COLUMNS) if name != "responses"]
    for name in source.columns:
        if name not in known:
            raise ConfigError(f"gold: columns: unknown name {name!r}; known: {', '.join(known)}")
    return dict(source.columns)


def _folded(value: Any) -> str:
    """A label as text: 1.0 is 1, case and outer white space do not count."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip().casefold()
