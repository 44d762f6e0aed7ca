"""What rubrics and constitutions say about weighing judgments: weights, scales, and what is a failure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges import find_standard
from rlaif.judges.pointwise import scale_of
from rlaif.rubric import Constitution, Criterion, Principle, Rubric, Scale


class Standards:
    """Looks up a principle or criterion by its id and the `rubric` (id@version) that a judgment names.

    A standard of another version still applies, so that weights can be changed after judging at no cost. `scales`:
    standard id → the scale of criteria that name none, and of principles.
    """

    def __init__(
        self, standards: Sequence[Rubric | Constitution] = (), scales: Mapping[str, Scale] | None = None
    ) -> None:
        self._items = {standard.id: _items(standard) for standard in standards}
        self._scales = dict(scales or {})
        self._weights: dict[str, float] = {}
        self._overrides: dict[str, float] = {}

    @classmethod
    def of(cls, section: JudgeSection | None) -> Standards:
        """Those that a `judge:` section and its members judge by. Errors: ConfigError."""
        standards, scales = [], {}
        for leaf in section.leaves if section else ():
            standard = find_standard(leaf)
            if standard is not None:
                standards.append(standard)
                if leaf.judge == "pointwise":
                    scales[standard.id] = scale_of(leaf, "judge")
        return cls(standards, scales)

    def weighed(self, weights: Mapping[str, float], overrides: Mapping[str, float]) -> Standards:
        """The same with weights: `overrides` go before the standards' own, those before `weights`, those before 1."""
        found = Standards(scales=self._scales)
        found._items, found._weights, found._overrides = self._items, dict(weights), dict(overrides)
        return found

    def weight(self, ref: str, name: str | None) -> float:
        if name is None:
            return 1.0
        if name in self._overrides:
            return self._overrides[name]
        found = self._find(ref, name)
        return found.weight if found is not None else self._weights.get(name, 1.0)

    def scale(self, ref: str, name: str) -> Scale | None:
        """None where nobody says."""
        found = self._find(ref, name)
        own = found.scale if isinstance(found, Criterion) else None
        return own or (self._scales.get(_id(ref)) if found is not None else None)

    def passing(self, ref: str, name: str) -> float | None:
        """The least score that passes, of a hard criterion. Errors: ConfigError where it has no scale."""
        found = self._find(ref, name)
        if not isinstance(found, Criterion) or not found.hard:
            return None
        if found.pass_at is not None:
            return found.pass_at
        scale = self.scale(ref, name)
        if scale is None:
            raise ConfigError(f"criterion {name!r} of {ref} is hard and was scored: it needs a scale, or pass_at")
        return (scale.min + scale.max) / 2

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

    def _find(self, ref: str, name: str) -> Criterion | Principle | None:
        """What `name` is in the standard that `ref` names; where that is not there, in any that has it."""
        own = self._items.get(_id(ref))
        candidates = [own] if own is not None else self._items.values()
        return next((items[name] for items in candidates if name in items), None)


def _id(ref: str) -> str:
    return ref.partition("@")[0]


def _items(standard: Rubric | Constitution) -> dict[str, Criterion | Principle]:
    items: Sequence[Criterion | Principle]
    items = standard.criteria if isinstance(standard, Rubric) else standard.principles
    return {item.id: item for item in items}
