"""What people say of a panel's members: how often each was right, or who won the pairs of this run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rlaif.errors import ConfigError, DataError
from rlaif.paths import resolve
from rlaif.records import FIRST, SECOND, Gold
from rlaif.stages.pairing.votes import Ids, ids_of

_CONTRACT = 'expected {"members": {NAME: {"n": pairs, "correct": of them}}}, or Gold records in a .jsonl'


class GoldLabels(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two. `counts`: member → (correct, n). `winners`: (prompt id, its two response ids, sorted) → 1 where
    the first of them is better, −1 where the second is; pairs on which people tie are left out."""

    path: str
    counts: Mapping[str, tuple[float, int]] | None = None
    winners: Mapping[tuple[str, Ids], int] = {}


def load_gold(path: str) -> GoldLabels:
    """`pair.panel_gold`: a calibration file (.json) or Gold records (.jsonl). Errors: ConfigError, DataError."""
    file = resolve(path, Path())
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"pair.panel_gold: {path}: cannot read: {error.strerror}") from None
    if file.suffix != ".jsonl":
        return GoldLabels(path=path, counts=_counts(text, path))
    try:
        records = msgspec.json.Decoder(Gold).decode_lines(text)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as error:
        raise DataError(f"pair.panel_gold: {path}: {error}; each line is a Gold record") from None
    return GoldLabels(path=path, winners=winners_of(records))


def winners_of(records: Iterable[Gold]) -> dict[tuple[str, Ids], int]:
    """The winner by most raters of each pair that has one; several records of one pair are put together."""
    votes: dict[tuple[str, Ids], Counter[str]] = {}
    for gold in records:
        if len(gold.response_ids) == 2:
            ids = ids_of(*gold.response_ids)
            told = gold if tuple(gold.response_ids) == ids else gold.swap()
            said = (label for label in told.labels if isinstance(label, str))
            votes.setdefault((gold.prompt_id, ids), Counter()).update(said)
    winners = {}
    for pair, counted in votes.items():
        first, second = counted[FIRST], counted[SECOND]
        if max(first, second) > counted.total() - max(first, second):
            winners[pair] = 1 if first > second else -1
    return winners


def _counts(text: bytes, path: str) -> dict[str, tuple[float, int]]:
    try:
        found: Any = msgspec.json.decode(text)
        members = found.get("members", found)
        counts = {str(name): (float(row["correct"]), int(row["n"])) for name, row in members.items()}
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"pair.panel_gold: {path}: {_CONTRACT}") from None
    for name, (correct, n) in counts.items():
        if not 0 <= correct <= n:
            raise DataError(f"pair.panel_gold: {path}: member {name!r}: {correct:g} correct of {n}")
    return counts
