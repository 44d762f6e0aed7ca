"""The tables of every policy side by side: a row a policy; in a cell a mean, and under it how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rlaif.stages.report import charts, contestants, summary
from rlaif.stages.report.collect import ReportData
from rlaif.stages.report.contestants import QUALITY, Row, at
from rlaif.stages.report.summary import estimate, percent


class Cell(NamedTuple):
    value: str = "–"
    more: str = ""  # in small letters under it


Column = tuple[str, Callable[[Row], Cell]]


def section(data: ReportData) -> dict[str, Any] | None:
    """What the partial template sees; None where nothing was measured of single policies."""
    found = contestants.rows(data)
    if not found:
        return None
    card = contestants.card(data, found)
    return {
        "main": _table(_main_columns(data, found), found),
        "more": _table(_more_columns(data, found), found),
        "cards": [card] if card else [],
        "notes": list(contestants.notes(found)),
    }


def _table(columns: Sequence[Column], found: Sequence[Row]) -> dict[str, Any]:
    """Columns in which no policy has anything are left out."""
    cells = [(title, [cell(row) for row in found]) for title, cell in columns]
    kept = [(title, of) for title, of in cells if any(cell != Cell() for cell in of)]
    return {
        "titles": [title for title, _ in kept],
        "rows": [{"label": row.label, "cells": [of[i] for _, of in kept]} for i, row in enumerate(found)],
    }


def _main_columns(data: ReportData, found: Sequence[Row]) -> list[Column]:
    labelling = summary.labelling_judge(data)
    columns: list[Column] = [(f"{name}: score", _own("reward", name, "score")) for name in _names(found, "reward")]
    for judge in summary.win_rates(data):
        what = "labelled" if judge == labelling else "did not label"
        columns.append((f"{judge} ({what}): win rate", _rate("win_rate", judge)))
    columns.append(("oracle: win rate", _rate("oracle_win_rate")))
    columns += [_measured(data, name) for name in _first(data)]
    columns += [("KL, nats a response", _kl), ("words", _own("length", "words", digits=1))]
    for name in _names(found, "skills"):
        answered = any(at(row.own, "skills", name, "accuracy") for row in found)
        columns.append((f"{name}: right", _own("skills", name, "accuracy")) if answered else _nats(name))
    return columns


def _more_columns(data: ReportData, found: Sequence[Row]) -> list[Column]:
    there = data.evaluation.get("metrics") or {}
    rest = [name for name in summary.ORACLE if name in there and name not in _first(data)]
    columns: list[Column] = [_measured(data, name) for name in rest]
    columns += [("tokens", _own("length", "tokens", digits=1)), ("came to an end", _own("finished"))]
    columns += [(f"distinct {n}-grams", _number("distinct", n)) for n in ("1", "2")]
    columns.append(("KL, nats a token", _alone("kl", "per_token", digits=3)))
    columns.append(("KL by k3, nats a response", _alone("kl", "k3_per_response")))
    columns += [_nats(name) for name in _names(found, "skills")]
    for name in _names(found, "reward"):
        heads = dict.fromkeys(head for row in found for head in at(row.own, "reward", name, "heads") or {})
        columns += [(f"{name}, {head}: own unit", _own("reward", name, "heads", head)) for head in heads]
    return columns


def _first(data: ReportData) -> list[str]:
    """The metric that stands in the main table."""
    names = list(data.evaluation.get("metrics") or {})
    return [QUALITY] if QUALITY in names else names[:1]


def _names(found: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(name for row in found for name in row.own.get(key) or {}))


# -- cells ---------------------------------------------------------------------------------------------------------


def _own(*path: str, digits: int = 2) -> Callable[[Row], Cell]:
    return lambda row: _side(at(row.own, *path), digits)


def _nats(skill: str) -> Column:
    return f"{skill}: nats a token", _own("skills", skill, "nll")


def _measured(data: ReportData, name: str) -> Column:
    return name.replace("_", " "), lambda row: _side(contestants.metric(data, row, name))


def _side(raw: Any, digits: int = 2) -> Cell:
    """A mean, and by how much it is above the start's."""
    mean, difference = estimate(at(raw, "mean")), estimate(at(raw, "difference"))
    if mean is None:
        return Cell()
    more = f"{_text(difference['value'], digits, '+')} {_span(difference, digits)}" if difference else ""
    return Cell(_text(mean["value"], digits), more.strip())


def _rate(*path: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        found = estimate(at(row.match, *path))
        if found is None:
            return Cell()
        known = found["low"] is not None and found["high"] is not None
        return Cell(percent(found["value"]), f"{100 * found['low']:.0f}–{percent(found['high'])}" if known else "")

    return cell


def _alone(*path: str, digits: int = 2) -> Callable[[Row], Cell]:
    """An estimate, and its own interval."""

    def cell(row: Row) -> Cell:
        found = estimate(at(row.own, *path))
        return Cell() if found is None else Cell(_text(found["value"], digits), _span(found, digits))

    return cell


def _kl(row: Row) -> Cell:
    bound = at(row.own, "kl", "upper_bound")
    return _alone("kl", "per_response")(row) if bound is None else Cell(f"≤ {bound:.2f}", "a bound")


def _number(*path: str) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        value = at(row.own, *path)
        return Cell() if value is None else Cell(f"{value:.2f}")

    return cell


def _span(found: dict[str, Any], digits: int) -> str:
    if found["low"] is None or found["high"] is None:
        return ""
    return f"[{_text(found['low'], digits)}, {_text(found['high'], digits)}]"


def _text(x: float, digits: int, sign: str = "") -> str:
    return charts.minus(f"{x:{sign}.{digits}f}")
