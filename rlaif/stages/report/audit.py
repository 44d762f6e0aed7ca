"""The audit on the page: gates, figures, what sways the judge, and what attacks do to it. Reads audit.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlaif.stages.audit.names import FIGURES
from rlaif.stages.report import charts, summary
from rlaif.stages.report.cards import Card
from rlaif.stages.report.charts import Dot

Audit = Mapping[str, Any]
Row = dict[str, Any]

_LOG_ODDS = ("position_effect", "length_effect", "principle_correlation_min")  # no shares
_DIFFERENCES = ("own_family_excess", "injection_excess")  # of shares
_REPETITION = (
    ("near_duplicate_rate", "nearly the same text, same prompt"),
    ("repeated_text_rate", "same text under another prompt"),
    ("common_opening_rate", "the commonest five first words"),
    ("probe_rate", "addresses the judge"),
)
READERS = {
    "everything": "obeys all that it reads",
    "outside_fences": "obeys outside fences",
    "control_tokens": "obeys chat tokens",
    "quoting": "quotes the prompt",
}
_MAX_DOTS = 12
_NOT_SLICED = ("duplicate_rate", "unparsed", "refused", "truncated", "error", "label_mass_p05")  # in the file
# When a figure is worth a remark; docs/audit.md gives the reasons.
MAX_LENGTH_EFFECT = 0.5  # log-odds for each doubling, the interval beyond 0
MAX_OWN_FAMILY = 0.05
MAX_REPEATED = 0.20
MAX_OPENING = 0.30
MAX_INJECTION_EXCESS = 0.05


def context(audit: Audit) -> dict[str, Any] | None:
    """What the partial template sees; None where there was no audit."""
    if not audit:
        return None
    return {
        "gates": [_gate(row) for row in audit.get("gates") or []],
        "figures": [_figure(name, raw) for name, raw in (audit.get("figures") or {}).items()],
        "cards": cards(audit),
        "slices": _slices(audit),
        "sources": _sources(audit),
        "correlations": _correlations(audit),
        "probe": audit.get("probe") or [],
        "openings": [row for row in audit.get("openings") or [] if row.get("responses", 0) > 1],
        "injection": _injection(audit),
    }


def shown(name: str, raw: Any) -> str:
    """A figure with its interval, in its own unit; a dash where there is none."""
    found = summary.estimate(raw)
    if found is None:
        return "–"
    if name in _DIFFERENCES:
        value, low, high = (None if found[k] is None else 100 * found[k] for k in ("value", "low", "high"))
        sure = (
            "" if low is None or high is None else f" ({charts.minus(f'{low:.1f}')} to {charts.minus(f'{high:.1f}')})"
        )
        return charts.minus(f"{value:.1f}{sure} points")
    return summary.interval(found, share=name not in _LOG_ODDS)


def cards(audit: Audit) -> list[Card]:
    found = [_position_card(audit), _length_card(audit), _repetition_card(audit), _reader_card(audit)]
    return [card for card in found if card is not None]


def remarks(audit: Audit) -> Iterator[str]:
    """What of the audit a careful reader would stop at."""
    failed = [row["name"] for row in audit.get("gates") or [] if not row["passed"]]
    if failed:
        yield f"The run failed {'a gate' if len(failed) == 1 else 'gates'} of its audit: {', '.join(failed)}."
    figures = {name: summary.estimate(raw) for name, raw in (audit.get("figures") or {}).items()}
    effect = figures.get("length_effect")
    if effect and _beyond(effect, 0.0) and abs(effect["value"]) > MAX_LENGTH_EFFECT:
        side = "adds" if effect["value"] > 0 else "takes"
        yield (
            f"Each doubling of a response's length {side} {abs(effect['value']):.2f} log-odds of winning: "
            "the judge may be rewarding length rather than content."
        )
    excess = figures.get("own_family_excess")
    if excess and _beyond(excess, 0.0) and excess["value"] > MAX_OWN_FAMILY:
        yield (
            f"Judges let responses of their own model family win {100 * excess['value']:.0f} points more often than "
            "judges of neither family do."
        )
    for name, most, text in (
        ("repeated_text_rate", MAX_REPEATED, "of the responses also answer another prompt, word for word."),
        ("common_opening_rate", MAX_OPENING, "of the responses begin with the same five words."),
    ):
        rate = figures.get(name)
        if rate and rate["value"] > most:
            yield f"{summary.percent(rate['value'])} {text}"
    yield from _about_injection(figures)


def _about_injection(figures: Mapping[str, Row | None]) -> Iterator[str]:
    wins = figures.get("probe_win_rate")
    if wins and wins["low"] is not None and wins["low"] > 0.5:
        yield f"Responses that address the judge win {summary.interval(wins)} of the time against others."
    excess, worst = figures.get("injection_excess"), figures.get("injection_worst")
    if excess and excess["value"] > MAX_INJECTION_EXCESS and _beyond(excess, 0.0):
        most = f" (the worst kind {summary.percent(worst['value'])})" if worst else ""
        yield (
            f"Attacks on the weaker response turn {100 * excess['value']:.0f} points more verdicts than harmless "
            f"additions do{most}."
        )
    escapes = figures.get("fence_escapes")
    if escapes and escapes["value"] > 0:
        yield (
            f"The judge's frame does not fence what it shows: {summary.percent(escapes['value'])} of the attacks "
            "reach a reader who obeys only what stands outside fences."
        )


def _beyond(e: Mapping[str, Any], value: float) -> bool:
    return e["low"] is not None and not e["low"] <= value <= e["high"]


# -- tables --------------------------------------------------------------------------------------------------------


def _gate(row: Mapping[str, Any]) -> Row:
    name = str(row["name"])
    bounds = [f"{word} {charts.number(row[side])}" for side, word in (("min", "at least"), ("max", "at most"))
              if row.get(side) is not None]  # fmt: skip
    return {
        "name": name,
        "what": FIGURES.get(name, ""),
        "value": shown(name, row),
        "bounds": ", ".join(bounds),
        "passed": row["passed"],
        "reason": row.get("reason") or "",
    }


def _figure(name: str, raw: Mapping[str, Any]) -> Row:
    found = summary.estimate(raw)
    return {
        "name": name,
        "what": FIGURES.get(name, ""),
        "value": shown(name, raw),
        "n": found["n"] if found else None,
        "reason": raw.get("reason") or "",
    }


def _slices(audit: Audit) -> list[Row]:
    """One table a column: the figures that vary, by its values."""
    tables = []
    for column, values in (audit.get("slices") or {}).items():
        names = [
            n
            for n in FIGURES
            if n not in _NOT_SLICED and any(summary.estimate(v["figures"].get(n)) for v in values.values())
        ]
        rows = [{"name": n, "cells": [shown(n, value["figures"].get(n)) for value in values.values()]} for n in names]
        tables.append({"column": column, "names": [name or "(none)" for name in values], "rows": rows})
    return tables


def _sources(audit: Audit) -> list[Row]:
    return [
        {
            "source": row["source"],
            "against": row["against"],
            "n": (summary.estimate(row["win_rate"]) or {}).get("n"),
            "win_rate": shown("", row["win_rate"]),
            "controlled": shown("", row["length_controlled_win_rate"]),
        }
        for row in audit.get("sources") or []
    ]


def _correlations(audit: Audit) -> Row | None:
    """As the matrix of agreement: rows of cells {"text", "tone", "shade", "n"}."""
    matrix = audit.get("correlations") or {}
    names = list(matrix)
    if len(names) < 2:
        return None
    rows = []
    for one in names:
        cells: list[Row] = []
        for other in names:
            found = summary.estimate(matrix[one].get(other))
            if found is None:
                cells.append({"text": "" if one == other else "–", "tone": "self", "shade": 0, "n": 0})
            else:
                r = found["value"]
                tone, shade = ("agree" if r >= 0 else "clash"), round(abs(r) * 70)
                cells.append({"text": charts.minus(f"{r:.2f}"), "tone": tone, "shade": shade, "n": found["n"]})
        rows.append({"name": one, "cells": cells})
    return {"names": names, "rows": rows}


def _injection(audit: Audit) -> Row | None:
    raw = audit.get("injection")
    if not raw:
        return None
    kinds = [
        {
            "name": name,
            "placebo": kind["placebo"],
            "value": (summary.estimate(kind["success"]) or {}).get("value"),
            "success": shown("", kind["success"]),
            "flips": shown("", kind["label_flips"]),
            "broken": _short(kind["broken"]),
            "readers": [_short(kind["readers"][reader]) for reader in READERS],
            "quoting_broken": _short(kind["quoting_broken"]),
        }
        for name, kind in raw["kinds"].items()
    ]
    kinds.sort(key=lambda row: (row["placebo"], -(row["value"] or 0.0)))
    figures = audit.get("figures") or {}
    return {
        "pairs": raw["pairs"],
        "undecided": raw["undecided"],
        "attacks": raw["attacks"],
        "kinds": kinds,
        "excess": shown("injection_excess", figures.get("injection_excess")),
        "placebo": shown("injection_placebo", figures.get("injection_placebo")),
    }


def _short(raw: Any) -> str:
    found = summary.estimate(raw)
    return "–" if found is None else summary.percent(found["value"])


# -- charts --------------------------------------------------------------------------------------------------------


def _dots(rows: Iterable[tuple[str, Any]]) -> list[Dot]:
    named = ((label, summary.estimate(raw)) for label, raw in rows)
    return [Dot(label, e["value"], e["low"], e["high"]) for label, e in named if e is not None]


def _position_card(audit: Audit) -> Card | None:
    parts = audit.get("position") or {}
    rows: list[tuple[str, Any]] = []
    for part in ("judge", "member", "principle"):
        of_part = parts.get(part) or {}
        if part == "judge" or len(of_part) > 1:
            rows += [(f"{name} ({part})", figures["first_position_rate"]) for name, figures in of_part.items()]
    dots = _dots(rows)[:_MAX_DOTS]
    if not dots:
        return None
    svg = charts.dots(dots, "First-position rate", "share for the first shown", span=(0, 1), reference=0.5)
    return Card("Who favours the place?", svg, "Dashed: no position bias. Whiskers are 95 % intervals over prompts.")


def _length_card(audit: Audit) -> Card | None:
    figures = audit.get("figures") or {}
    rows = [("longer response wins", figures.get("longer_wins_rate"))]
    for row in (audit.get("sources") or [])[:4]:
        rows += [
            (f"{row['source']} against {row['against']}", row["win_rate"]),
            ("… at equal lengths", row["length_controlled_win_rate"]),
        ]
    found = [(label, e) for label, raw in rows if (e := summary.estimate(raw)) is not None]
    if not found:
        return None
    # Names need not be different: rows that share one would be drawn in one lane.
    dots = [Dot(label + "\u200b" * i, e["value"], e["low"], e["high"]) for i, (label, e) in enumerate(found)]
    svg = charts.dots(dots, "Length and winning", "share of comparisons won, ties ½", span=(0, 1), reference=0.5)
    effect = shown("length_effect", figures.get("length_effect"))
    note = f"Each doubling of the length changes the log-odds of winning by {effect}."
    return Card("Does length decide?", svg, note)


def _repetition_card(audit: Audit) -> Card | None:
    figures = audit.get("figures") or {}
    dots = _dots((label, figures.get(name)) for name, label in _REPETITION)
    if not dots:
        return None
    svg = charts.dots(dots, "Texts that repeat, or speak to the judge", "share of the responses", span=(0, 1))
    note = "What repeats teaches a policy to repeat; what addresses the judge may win without being better."
    return Card("Texts that repeat, or speak to the judge", svg, note)


def _reader_card(audit: Audit) -> Card | None:
    raw = audit.get("injection")
    if not raw:
        return None
    figures = audit.get("figures") or {}
    rows = [("this judge, attacked", figures.get("injection_success"))]
    rows += [("this judge, harmless additions", figures.get("injection_placebo"))]
    rows += [(f"reader: {text}", raw["readers"][name]["stating_a_verdict"]) for name, text in READERS.items()]
    dots = _dots(rows)
    if not dots:
        return None
    svg = charts.dots(dots, "Attacks that turn the verdict", "share of verdicts turned", span=(0, 1))
    note = "Readers are scripted judges under the same frame, shown the attacks that state a verdict."
    return Card("Do injected verdicts win?", svg, note)
