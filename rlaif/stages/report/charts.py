"""Inline SVG charts: pure functions from numbers to a string, no library.

Every chart is 320 units wide, so that a phone shows it one to one and its text never falls under 11 px; wide
pages set several beside each other. Colours are CSS variables of the page with the Okabe–Ito palette (safe for
the common kinds of colour blindness) as fallback. All text is escaped here: callers may hand in model output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

WIDTH = 320
TEXT = 13  # px; the page never shows a chart at less than 0.85 of its size
BLUE, ORANGE, GREEN, PURPLE, GREY = (
    "var(--blue,#0072b2)",
    "var(--orange,#d55e00)",
    "var(--green,#009e73)",
    "var(--purple,#a7558a)",
    "var(--grey,#767f87)",
)
_INK, _SOFT, _LINE = "var(--ink,#1d2329)", "var(--soft,#59636c)", "var(--line,#d4d9de)"
_LEFT, _RIGHT, _TOP, _PLOT = 46, 12, 24, 150  # margins and plot height of charts with two axes
_CHAR = 6.9  # a rough width of one character at TEXT px, to keep labels inside
_MAX_POINTS = 600  # of one line: more cannot be told apart at this width


@dataclass(frozen=True)
class Dot:
    """One estimate with its interval. `group` picks the colour: 0 grey (before), 1 blue (after, or on its own)."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    group: int = 1


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    text: str
    colour: str = BLUE


@dataclass(frozen=True)
class Line:
    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str = BLUE


def number(value: float, digits: int = 3) -> str:
    """A number for people: thousands set apart, no needless zeros."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) < 10 ** -(digits + 1):
        text = f"{value:.1e}"
    else:
        text = f"{value:.{digits}g}"
    return minus(text)


def minus(text: str) -> str:
    """A leading hyphen as a minus sign."""
    return "−" + text[1:] if text.startswith("-") else text


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers between `low` and `high`, `about` many."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def bars(rows: Sequence[Bar], title: str) -> str:
    """Horizontal bars, each with its name and its value written above it; no axis is needed."""
    top = max((row.value for row in rows), default=0) or 1
    parts = []
    for index, row in enumerate(rows):
        y = index * 40
        width = max(row.value / top * WIDTH, 1.5 if row.value else 0)
        parts += [
            _text(0, y + 14, _clip(row.label, WIDTH - 20 - len(row.text) * _CHAR)),
            _text(WIDTH, y + 14, row.text, anchor="end", colour=_SOFT),
            f'<rect x="0" y="{y + 20}" width="{WIDTH}" height="10" rx="2" fill="{_LINE}" opacity=".45"/>',
            f'<rect x="0" y="{y + 20}" width="{width:.1f}" height="10" rx="2" fill="{row.colour}"/>',
        ]
    return _svg(parts, len(rows) * 40, title)


def dots(
    rows: Sequence[Dot],
    title: str,
    x_label: str,
    *,
    span: tuple[float, float] | None = None,
    reference: float | None = None,
    join: str = " → ",
) -> str:
    """Dots with whiskers; rows that share a label stand together, their values written side by side.

    `reference`: a value marked by a dashed line. `join` stands between two values; the arrow says before and after.
    """
    lanes: dict[str, list[Dot]] = {}
    for row in rows:
        lanes.setdefault(row.label, []).append(row)
    scale = _Scale(*(span or _span_of(rows, reference)), 8, WIDTH - 8)
    parts: list[str] = []
    y = 0.0
    for label, lane in lanes.items():
        shown = join.join(f"{row.value:.2f}" if span == (0, 1) else number(row.value) for row in lane)
        parts.append(_text(0, y + 14, _clip(label, WIDTH - 24 - len(shown) * _CHAR)))
        parts.append(_text(WIDTH, y + 14, shown, anchor="end", weight=600))
        bottom = y + 21 + 14 * len(lane)
        if reference is not None:  # not one long line: it would run through the names
            x = scale(reference)
            parts.append(f'<path d="M{x:.1f} {y + 20}V{bottom + 3}" stroke="{_SOFT}" stroke-dasharray="3 3"/>')
        for offset, row in enumerate(lane):
            parts += _whisker(row, scale, y + 28 + 14 * offset)
        y = bottom + 10
    return _svg([*parts, *_x_axis(scale, y, x_label)], y + 42, title)


def histogram(
    series: Sequence[tuple[str, NDArray[np.int_], str]],
    edges: Sequence[float],
    title: str,
    x_label: str,
    y_label: str,
    *,
    mark: tuple[float, str] | None = None,
) -> str:
    """Counts per bin. One series is filled; two are drawn as filled and outlined steps over each other.

    `series`: (name, counts of shape (len(edges) − 1,), colour). `mark`: a value and its name, a dashed line.
    """
    top = max((int(counts.max()) for _, counts, _ in series if counts.size), default=0) or 1
    x = _Scale(edges[0], edges[-1], _LEFT, WIDTH - _RIGHT)
    y = _Scale(0, top * 1.08, _TOP + _PLOT, _TOP)
    parts = _y_axis(y, y_label)
    for index, (_, counts, colour) in enumerate(series):
        parts.append(_steps(counts, edges, x, y, colour, filled=index == 0))
    if mark:
        at = x(mark[0])
        anchor = "end" if at > WIDTH * 0.6 else "start"
        parts.append(f'<path d="M{at:.1f} {_TOP}V{_TOP + _PLOT}" stroke="{_INK}" stroke-dasharray="3 3"/>')
        parts.append(_text(at + (-5 if anchor == "end" else 5), _TOP + 12, mark[1], anchor=anchor, halo=True))
    bottom = _TOP + _PLOT
    parts += _x_axis(x, bottom, x_label)
    names = [(name, colour) for name, _, colour in series if name]
    parts += _legend(names, bottom + 62)
    return _svg(parts, bottom + (70 + 20 * (len(names) - 1) if names else 44), title)


def lines(series: Sequence[Line], title: str, x_label: str, y_label: str, *, zero: bool = False) -> str:
    """Curves with their last value written at the end. `zero`: the y axis includes 0."""
    kept = [line for line in (_finite(line) for line in series) if line.x]
    if not kept:
        return ""
    lows, highs = [min(line.y) for line in kept], [max(line.y) for line in kept]
    low, high = min(lows), max(highs)
    if zero:
        low, high = min(low, 0), max(high, 0)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
    end = 52  # room for the last value
    x = _Scale(min(line.x[0] for line in kept), max(line.x[-1] for line in kept), _LEFT, WIDTH - end)
    y = _Scale(low if zero and low == 0 else low - pad, high + pad, _TOP + _PLOT, _TOP)
    parts, taken = _y_axis(y, y_label), list[float]()
    for line in kept:
        path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in zip(line.x, line.y, strict=True))
        parts.append(
            f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="2" stroke-linejoin="round"/>'
        )
        at_x, at_y = x(line.x[-1]), y(line.y[-1])
        parts.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="3" fill="{line.colour}"/>')
        while any(abs(at_y - other) < TEXT for other in taken):  # two last values that would overprint
            at_y += TEXT / 2
        taken.append(at_y)
        parts.append(_text(at_x + 7, at_y + 4, number(line.y[-1]), colour=line.colour, weight=600))
    bottom = _TOP + _PLOT
    parts += _x_axis(x, bottom, x_label, end=WIDTH - end)
    names = [(line.label, line.colour) for line in kept if line.label and len(kept) > 1]
    parts += _legend(names, bottom + 62)
    return _svg(parts, bottom + (70 + 20 * (len(names) - 1) if names else 44), title)


def density(counts: NDArray[np.int_], title: str, x_label: str, y_label: str) -> str:
    """A square map of the unit square. `counts[i, j]`: how many have x in bin i and y in bin j; log shading."""
    bins = counts.shape[0]
    size = 240
    x = _Scale(0, 1, _LEFT + 20, _LEFT + 20 + size)
    y = _Scale(0, 1, _TOP + size, _TOP)
    top = math.log1p(int(counts.max())) or 1.0
    side = size / bins
    parts = [
        f'<rect x="{x.start}" y="{_TOP}" width="{size}" height="{size}" fill="none" stroke="{_LINE}"/>',
        f'<path d="M{x(0.5):.1f} {y(0):.1f}V{y(1):.1f}M{x(0):.1f} {y(0.5):.1f}H{x(1):.1f}" stroke="{_LINE}"/>',
    ]
    for i, j in zip(*np.nonzero(counts), strict=True):
        shade = 0.12 + 0.88 * math.log1p(int(counts[i, j])) / top
        parts.append(
            f'<rect x="{x.start + i * side:.1f}" y="{_TOP + size - (j + 1) * side:.1f}" width="{side:.1f}" '
            f'height="{side:.1f}" fill="{BLUE}" opacity="{shade:.2f}"/>'
        )
    parts.append(f'<path d="M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}" stroke="{_INK}" stroke-dasharray="3 3"/>')
    parts += _y_axis(y, y_label, about=4, grid=False, left=x.start)
    parts += _x_axis(x, _TOP + size, x_label, about=4, end=x.end)
    return _svg(parts, _TOP + size + 44, title)


def reliability(series: Sequence[tuple[str, Sequence[Mapping[str, float]], str]], title: str) -> str:
    """How sure a judge is against how often it is right, from ½ to 1; on the diagonal it can be taken at its word.

    `series`: (name, bins as {"predicted", "observed", "n"}, colour). A dot's area is its share of the pairs.
    """
    size = 220
    bins = [row for _, rows, _ in series for row in rows]
    low = min([0.5, *(row["observed"] for row in bins)])
    x = _Scale(0.5, 1, _LEFT + 20, _LEFT + 20 + size)
    y = _Scale(low - 0.03 if low < 0.5 else 0.5, 1, _TOP + size, _TOP)
    parts = _y_axis(y, "share that was right", left=x.start)
    parts.append(
        f'<path d="M{x(0.5):.1f} {y(0.5):.1f}L{x(1):.1f} {y(1):.1f}" stroke="{_INK}" stroke-dasharray="3 3"/>'
    )
    for _, rows, colour in series:
        total = sum(row["n"] for row in rows) or 1
        path = "L".join(f"{x(row['predicted']):.1f} {y(row['observed']):.1f}" for row in rows)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>' if rows else "")
        for row in rows:
            radius = 2.5 + 9 * math.sqrt(row["n"] / total)
            parts.append(
                f'<circle cx="{x(row["predicted"]):.1f}" cy="{y(row["observed"]):.1f}" r="{radius:.1f}" '
                f'fill="{colour}" fill-opacity=".55" stroke="{colour}"/>'
            )
    bottom = _TOP + size
    parts += _x_axis(x, bottom, "how sure the judge is", end=x.end)
    names = [(name, colour) for name, _, colour in series if name]
    return _svg([*parts, *_legend(names, bottom + 62)], bottom + 70 + 20 * max(0, len(names) - 1), title)


class _Scale:
    """A linear map from data to units of the drawing; a single point lands in the middle."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.end) / 2
        share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)


def _svg(parts: Sequence[str], height: float, title: str) -> str:
    name = escape(title)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" role="img" '
        f'aria-label="{name}" font-size="{TEXT}" xmlns="http://www.w3.org/2000/svg"><title>{name}</title>'
        + "".join(parts)
        + "</svg>"
    )


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    colour: str = _INK,
    weight: int = 400,
    halo: bool = False,
) -> str:
    extra = f' font-weight="{weight}"' if weight != 400 else ""
    if halo:
        extra += ' paint-order="stroke" stroke="var(--card,#fff)" stroke-width="4" stroke-linejoin="round"'
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{extra}>{escape(text)}</text>'


def _clip(text: str, room: float) -> str:
    fits = max(int(room / _CHAR), 6)
    return text if len(text) <= fits else text[: fits - 1] + "…"


def _x_axis(scale: _Scale, y: float, label: str, *, about: int = 5, end: float | None = None) -> list[str]:
    right = scale.end if end is None else end
    parts = [f'<path d="M{scale.start:.1f} {y:.1f}H{right:.1f}" stroke="{_SOFT}"/>']
    for value in ticks(scale.low, scale.high, about):
        x = scale(value)
        text = number(value)
        # the outermost numbers stay inside the drawing
        anchor = "end" if x + len(text) * _CHAR / 2 > WIDTH else "start" if x < len(text) * _CHAR / 2 else "middle"
        parts.append(f'<path d="M{x:.1f} {y:.1f}v4" stroke="{_SOFT}"/>')
        at = WIDTH if anchor == "end" else 0 if anchor == "start" else x
        parts.append(_text(at, y + 18, text, anchor=anchor, colour=_SOFT))
    middle = (scale.start + right) / 2
    half = len(label) * _CHAR / 2
    middle = min(max(middle, half), max(WIDTH - half, WIDTH / 2))
    return [*parts, _text(middle, y + 37, label, anchor="middle", colour=_SOFT)]


def _y_axis(scale: _Scale, label: str, *, about: int = 4, grid: bool = True, left: float = _LEFT) -> list[str]:
    parts = [_text(0, 12, label, colour=_SOFT)]
    for value in ticks(scale.low, scale.high, about):
        y = scale(value)
        if grid:
            parts.append(f'<path d="M{left} {y:.1f}H{WIDTH - _RIGHT}" stroke="{_LINE}"/>')
        parts.append(_text(left - 6, y + 4, _short(value), anchor="end", colour=_SOFT))
    return parts


def _short(value: float) -> str:
    """A tick of the y axis in at most six characters."""
    if abs(value) >= 10_000:
        return minus(f"{value / 1000:g}k" if abs(value) < 1e6 else f"{value / 1e6:g}M")
    return minus(f"{value:.0e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:,g}")


def _legend(names: Sequence[tuple[str, str]], y: float) -> list[str]:
    parts = []
    for index, (name, colour) in enumerate(names):
        line = y + 20 * index
        parts.append(f'<rect x="0" y="{line - 10:.1f}" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(_text(17, line, _clip(name, WIDTH - 17)))
    return parts


def _whisker(row: Dot, scale: _Scale, y: float) -> list[str]:
    colour = GREY if row.group == 0 else BLUE
    x = scale(row.value)
    parts = []
    if row.low is not None and row.high is not None:
        a, b = scale(row.low), scale(row.high)
        parts.append(
            f'<path d="M{a:.1f} {y:.1f}H{b:.1f}M{a:.1f} {y - 4:.1f}v8M{b:.1f} {y - 4:.1f}v8" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
    parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}" stroke="var(--card,#fff)"/>')
    return parts


def _span_of(rows: Sequence[Dot], reference: float | None) -> tuple[float, float]:
    values = [v for row in rows for v in (row.value, row.low, row.high) if v is not None and math.isfinite(v)]
    values += [reference] if reference is not None else []
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
    return (0.0 if 0 <= low <= 0.3 * high else low - pad), high + pad


def _steps(
    counts: NDArray[np.int_], edges: Sequence[float], x: _Scale, y: _Scale, colour: str, *, filled: bool
) -> str:
    path = f"M{x(edges[0]):.1f} {y(0):.1f}"
    for index, count in enumerate(counts):
        path += f"V{y(float(count)):.1f}H{x(edges[index + 1]):.1f}"
    path += f"V{y(0):.1f}"
    if filled:
        return f'<path d="{path}Z" fill="{colour}" opacity=".8"/>'
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>'


def _finite(line: Line) -> Line:
    pairs = [(a, b) for a, b in zip(line.x, line.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    step = max(1, math.ceil(len(pairs) / _MAX_POINTS))
    kept = pairs[::step]
    if pairs and kept[-1] != pairs[-1]:
        kept.append(pairs[-1])
    return Line(line.label, [a for a, _ in kept], [b for _, b in kept], line.colour)
