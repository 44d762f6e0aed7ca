"""What rubrics and constitutions say about weighing judgments: weights, scales, and what is a failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from rlaif.errors import ConfigError
from rlaif.rubric import Constitution, Criterion, Principle, Rubric


class Standards:
    """Looks up a principle or criterion by its id and the `rubric` (id@version) that a judgment names.

    Weights: `overrides` (of `pair.principle_weights`) before the standard's own, before `weights`, before 1. A
    standard of another version still applies, so that weights can be changed after judging at no cost.
    """

    def __init__(
        self,
        standards: Sequence[Rubric | Constitution] = (),
        weights: Mapping[str, float] | None = None,
        overrides: Mapping[str, float] | None = None,
    ) -> None:
        self._items = {standard.id: _items(standard) for standard in standards}
        self._weights = dict(weights or {})
        self._overrides = dict(overrides or {})

    def find(self, ref: str, name: str | None) -> Criterion | Principle | None:
        """What `name` is in the standard that `ref` names, else in any that has it."""
        if name is None:
            return None
        own = self._items.get(ref.partition("@")[0])
        for items in [own] if own is not None else self._items.values():
            if name in items:
                return items[name]
        return None

    def criterion(self, ref: str, name: str) -> Criterion | None:
        found = self.find(ref, name)
        return found if isinstance(found, Criterion) else None

    def weight(self, ref: str, name: str | None) -> float:
        if name is None:
            return 1.0
        if name in self._overrides:
            return self._overrides[name]
        found = self.find(ref, name)
        return found.weight if found is not None else self._weights.get(name, 1.0)

    def check(self, seen: Iterable[str | None]) -> None:
        """Errors: ConfigError for an override of what neither a standard nor a judgment (`seen`) names."""
        named = {name for name in seen if name is not None} | set(self._weights)
        known = sorted(named.union(*self._items.values()))
        for name, weight in self._overrides.items():
            if known and name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f", did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
                raise ConfigError(f"pair.principle_weights: no principle {name!r}{hint}")
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"pair.principle_weights.{name}: a weight is 0 or more, got {weight}")


def _items(standard: Rubric | Constitution) -> dict[str, Criterion | Principle]:
    items: Sequence[Criterion | Principle]
    items = standard.criteria if isinstance(standard, Rubric) else standard.principles
    return {item.id: item for item in items}
