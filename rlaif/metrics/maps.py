"""Maps from a judge's P(a better) to one that holds among people.

Which response is called a is chance, so a map treats both alike: f(1 − p) = 1 − f(p), hence f(½) = ½, and it never
falls. So it changes how sure a label is, never which response it names: a judge that is wrong more often than right
gets ½ for everything, it is not turned round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import msgspec
import numpy as np

from rlaif.metrics.rates import Column, Floats, _floats, _kept

Kind = Literal["none", "temperature", "isotonic"]
_LEAST = 1e-6  # p is kept this far from 0 and 1 before its logit is taken: a verdict from text is exactly 0 or 1
_TEMPERATURES = (0.02, 1e4)


class Map(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fitted map; `n`: the pairs it was fitted on. As JSON it is its fields.

    temperature: f(p) = σ(logit(p) / `temperature`) (Guo et al. 2017, section 4.2).
    isotonic: the upper half, through the points (`x`, `y`) from (½, ½) up to x = 1, straight between them.
    """

    kind: Kind = "none"
    n: int = 0
    temperature: float = 1.0
    x: list[float] = []
    y: list[float] = []

    def __post_init__(self) -> None:
        if not (0 < self.temperature < math.inf):
            raise ValueError(f"temperature: a positive number, got {self.temperature}")
        if self.kind == "isotonic":
            rising = all(a <= b for v in (self.x, self.y) for a, b in pairwise(v))
            if len(self.x) != len(self.y) or len(self.x) < 2 or not rising:
                raise ValueError("isotonic: x and y are lists of one length of at least 2 that never fall")
            if (self.x[0], self.y[0]) != (0.5, 0.5) or self.x[-1] > 1 or self.y[-1] > 1:
                raise ValueError("isotonic: the points go from (½, ½) to at most (1, 1)")

    def __call__(self, probabilities: Column) -> Floats:
        """(N,) mapped probabilities; NaN stays NaN. f(1 − p) is 1 − f(p) to the last bit of 1 − p."""
        p = _floats(probabilities)
        if self.kind == "none":
            return p
        upper = np.maximum(p, 1 - p)
        if self.kind == "temperature":
            upper = np.clip(upper, 0.5, 1 - _LEAST)
            mapped = 1 / (1 + ((1 - upper) / upper) ** (1 / self.temperature))
        else:
            mapped = np.interp(upper, self.x, self.y)
        mapped = np.where(np.isnan(p), np.nan, mapped)
        return np.where(p < 0.5, 1 - mapped, np.where(p == 0.5, 0.5, mapped))


class SlicedMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A map for each slice that had enough pairs, and one of all pairs for the rest. `by`: what the slices are of."""

    overall: Map
    by: str | None = None
    slices: dict[str, Map] = {}

    def of(self, slice_: str | None) -> Map:
        return self.overall if slice_ is None else self.slices.get(slice_, self.overall)

    def __call__(self, probabilities: Column, slices: Sequence[str | None] | None = None) -> Floats:
        """(N,) mapped probabilities; `slices`: of each row, None or an unknown one for the overall map."""
        if slices is None or not self.slices:
            return self.overall(probabilities)
        p = _floats(probabilities)
        which = np.asarray([name if name in self.slices else None for name in slices], dtype=object)
        mapped = self.overall(p)
        for name, own in self.slices.items():
            inside = which == name
            mapped[inside] = own(p[inside])
        return mapped


def fit(kind: Kind, probabilities: Column, truths: Column) -> Map:
    """The map of that kind. truths: 1 where a is better, 0 where b is; rows without either are left out.

    Errors: ValueError where no row is left.
    """
    p, y = _kept(probabilities, _floats(truths))
    if p.size == 0:
        raise ValueError("a map needs pairs with a probability and a winner")
    if not np.isin(y, (0.0, 1.0)).all():
        raise ValueError("truths of a map are 0 or 1")
    if kind == "temperature":
        return Map(kind=kind, n=p.size, temperature=_fit_temperature(p, y))
    return _fit_isotonic(p, y) if kind == "isotonic" else Map(kind="none", n=p.size)


def fit_slices(
    kind: Kind,
    probabilities: Column,
    truths: Column,
    slices: Sequence[str | None] | None = None,
    *,
    by: str | None = None,
    min_slice: int = 100,
) -> SlicedMap:
    """One map over all rows, and one for each slice with at least `min_slice` usable ones; the others fall back."""
    p, y = _floats(probabilities), _floats(truths)
    overall = fit(kind, p, y)
    own = {}
    if kind != "none":
        for name in sorted({name for name in slices or () if name is not None}):
            inside = np.asarray([other == name for other in slices or ()])
            if (~(np.isnan(p) | np.isnan(y)) & inside).sum() >= min_slice:
                own[name] = fit(kind, p[inside], y[inside])
    return SlicedMap(overall=overall, by=by, slices=own)


def from_json(raw: Mapping[str, Any]) -> SlicedMap:
    """Errors: ValueError, one line, for anything that is no map."""
    return msgspec.convert(raw, SlicedMap)  # its ValidationError is a ValueError


def _fit_temperature(p: Floats, y: Floats) -> float:
    """The temperature with the least log loss, convex in 1/T; a judge no better than chance ends at the bound.

    n pairs are fitted to (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and 0 (Platt 1999, section 2.2): a judge that
    was right 20 times of 20 is not certain.
    """
    from scipy.optimize import minimize_scalar

    clipped = np.clip(p, _LEAST, 1 - _LEAST)
    lead = np.where(y == 1, 1.0, -1.0) * (np.log(clipped) - np.log1p(-clipped))  # towards the better response

    share = 1 / (p.size + 2)

    def loss(log_inverse: float) -> float:
        scaled = lead * math.exp(log_inverse)
        return float(((1 - share) * np.logaddexp(0.0, -scaled) + share * np.logaddexp(0.0, scaled)).mean())

    least, most = (-math.log(t) for t in reversed(_TEMPERATURES))
    found = minimize_scalar(loss, bounds=(least, most), method="bounded", options={"xatol": 1e-9})
    return float(math.exp(-found.x))


def _fit_isotonic(p: Floats, y: Floats) -> Map:
    """Least squares among rising functions, on every pair told from both sides, which makes it symmetric (Zadrozny &
    Elkan 2002). No certainty from a finite sample: after n pairs, at most (n + 1) / (n + 2) (rule of succession).
    """
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(np.concatenate([p, 1 - p]), np.concatenate([y, 1 - y]))
    xs = np.unique(np.maximum(p, 1 - p))
    xs = xs[xs > 0.5]
    ceiling = (p.size + 1) / (p.size + 2)
    ys = np.clip(model.predict(xs), 0.5, ceiling) if xs.size else np.zeros(0)
    points = [(0.5, 0.5), *zip(xs.tolist(), ys.tolist(), strict=True)]
    if points[-1][0] < 1.0:
        points.append((1.0, points[-1][1]))
    points = _without_middles(points)
    return Map(kind="isotonic", n=p.size, x=[x for x, _ in points], y=[y for _, y in points])


def _without_middles(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points between two of the same height add nothing."""
    return [
        point
        for i, point in enumerate(points)
        if i in (0, len(points) - 1) or not points[i - 1][1] == point[1] == points[i + 1][1]
    ]
