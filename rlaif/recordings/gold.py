"""What people say of pairs and responses: one label per rater, put together over rows about the same responses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from rlaif.errors import DataError
from rlaif.io.rows import Located
from rlaif.recordings.config import GoldPart
from rlaif.recordings.expressions import Compiled, Scope, as_key, as_number
from rlaif.recordings.outcomes import verdict_of
from rlaif.records import Gold

Label = str | float | None


class GoldReader:
    """`prompt_of(expressions, key)`: what finds a row's prompt. `ids_of`: the own ids of a prompt's responses."""

    def __init__(
        self,
        prompt_of: Callable[[Any, str], Callable[[Scope, str], str | None]],
        ids_of: Callable[[str], list[str]],
        response_id: Callable[[str, str], str],
    ) -> None:
        self._prompt_of, self._ids_of, self._response_id = prompt_of, ids_of, response_id
        self._found: dict[tuple[str, frozenset[str]], Gold] = {}
        self.counts: Counter[str] = Counter()

    def found(self) -> list[Gold]:
        return list(self._found.values())

    def read(self, part: GoldPart, key: str, rows: Iterable[Located]) -> None:
        from rlaif.recordings.build import Shown

        labels = _Labels(part, key)
        named = Shown(part.responses, f"{key}.responses") if part.responses is not None else None
        slices = {name: Compiled(value, f"{key}.slices.{name}") for name, value in part.slices.items()}
        prompt_of = self._prompt_of(part.prompt, key)
        given = 0
        for at, row in rows:
            prompt_id = prompt_of(row, at)
            if prompt_id is None:
                continue
            ids = named(row, at) if named else self._ids_of(prompt_id)
            self._check(prompt_id, ids, labels.n_responses, at, key)
            values, raters = labels(row, ids, at)
            given += sum(value is not None for value in values)
            gold = Gold(
                prompt_id=prompt_id,
                response_ids=[self._response_id(prompt_id, own) for own in ids],
                labels=values,
                raters=raters,
                slices={name: as_key(said) for name, value in slices.items() if (said := value(row, at)) is not None},
            )
            self._add(gold)
        if not given:
            raise DataError(f"{key}.{labels.kind}: no label in any row")
        self.counts["gold labels"] += given

    def _check(self, prompt_id: str, ids: list[str], wanted: int, at: str, key: str) -> None:
        known = self._ids_of(prompt_id)
        if len(ids) != wanted:
            raise DataError(
                f"{at}: {key}.responses: {len(ids)} ids for prompt {prompt_id!r}, expected {wanted}; name them"
            )
        for own in ids:
            if own not in known:
                there = ", ".join(known) or "none"
                raise DataError(
                    f"{at}: {key}.responses: prompt {prompt_id!r} has no response {own!r}; there: {there}"
                )

    def _add(self, gold: Gold) -> None:
        """Rows about the same responses are put together, in the order of the first."""
        place = (gold.prompt_id, frozenset(gold.response_ids))
        before = self._found.get(place)
        if before is None:
            self._found[place] = gold
            return
        gold = gold if gold.response_ids == before.response_ids else gold.swap()
        raters = [*before.raters, *gold.raters] if before.raters and gold.raters else []
        self._found[place] = msgspec.structs.replace(before, labels=[*before.labels, *gold.labels], raters=raters)


class _Labels:
    """The labels of one row, and whose they are."""

    def __init__(self, part: GoldPart, key: str) -> None:
        self.kind = next(name for name in ("verdict", "winner", "score") if getattr(part, name) not in (None, {}, []))
        said = getattr(part, self.kind)
        self._key, self._map = f"{key}.{self.kind}", part.map
        self._raters = list(said) if isinstance(said, dict) else []
        several = list(said.values()) if isinstance(said, dict) else said if isinstance(said, list) else [said]
        self._labels = [Compiled(expression, self._key) for expression in several]
        self._lists = not isinstance(said, dict | list)
        self._rater = Compiled(part.rater, f"{key}.rater") if part.rater is not None else None
        self.n_responses = 1 if self.kind == "score" else 2

    def __call__(self, row: Scope, ids: list[str], at: str) -> tuple[list[Label], list[str]]:
        values: list[Any] = [label(row, at) for label in self._labels]
        if self._lists and isinstance(values[0], list):  # one expression that gives every rater's label
            values = values[0]
        labels = [self._label(value, ids, at) for value in values]
        if self._rater is None:
            return labels, self._raters
        name = self._rater(row, at)
        if name is None:
            raise DataError(f"{at}: {self._rater.key}: null here")
        return labels, [as_key(name)] * len(labels)

    def _label(self, value: Any, ids: list[str], at: str) -> Label:
        if value is None or value == "":
            return None
        if self.kind == "score":
            return as_number(value, self._key, at)
        return verdict_of(value, self.kind, self._map, ids, f"{at}: {self._key}")
