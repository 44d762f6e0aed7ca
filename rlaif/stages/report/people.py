"""What `rlaif calibrate` found, for the page: judges against people, their maps, the choice, the rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif.stages.report import charts, summary
from rlaif.stages.report.cards import Card
from rlaif.stages.report.charts import Dot
from rlaif.stages.report.collect import ReportData

_FIGURES = {
    "accuracy": "accuracy",
    "accuracy_one_order": "one order",
    "accuracy_both_orders": "both orders right",
    "kappa": "κ",
    "alpha": "α",
    "order_consistency": "same winner in both orders",
    "brier": "Brier",
    "ece": "ECE",
    "auroc": "AUROC",
}
_MAX_MAPS = 4  # reliability diagrams


def cards(data: ReportData) -> list[Card]:
    judges = data.calibration.get("judges") or {}
    found = [
        _accuracy(data, judges),
        *(_reliability(name, judge) for name, judge in list(judges.items())[:_MAX_MAPS]),
    ]
    return [card for card in found if card is not None]


def _accuracy(data: ReportData, judges: Mapping[str, Any]) -> Card | None:
    """Every judge over all of gold, and over its slices where there is one judge."""
    rows = [_dot(name, judge.get("accuracy")) for name, judge in judges.items()]
    if len(judges) == 1:
        slices = next(iter(judges.values())).get("slices") or {}
        rows += [_dot(value, row.get("accuracy"), 0) for of in slices.values() for value, row in of.items()]
    raters = (data.calibration.get("people") or {}).get("raters") or {}
    rows += [_dot(f"{name} (a person)", row.get("agreement"), 0) for name, row in raters.items()]
    dots = [dot for dot in rows if dot is not None]
    if not dots:
        return None
    svg = charts.dots(dots, "Accuracy against people", "share of pairs, ties ½", span=(0, 1), reference=0.5)
    note = "How often a judge names the response that most people prefer. Dashed: a coin."
    note += " Grey, with a name: one person against the others." if raters else ""
    return Card("How often judge and people agree", svg, note)


def _dot(label: str, raw: Any, group: int = 1) -> Dot | None:
    e = summary.estimate(raw)
    return None if e is None else Dot(label, e["value"], e["low"], e["high"], group)


def _reliability(name: str, judge: Mapping[str, Any]) -> Card | None:
    test = judge.get("map_test") or {}
    bins = test.get("reliability")
    if not bins:
        return None
    series = [
        ("as the judge says", bins["before"], charts.GREY),
        (f"after the {test['kind']} map", bins["after"], charts.BLUE),
    ]
    svg = charts.reliability(series, f"Reliability of {name}")
    brier = [charts.number(test[side]["brier"]["value"]) for side in ("before", "after")]
    note = (
        f"{test['n_test']:,} pairs that the map was not fitted on. Below the diagonal the judge is surer than it is "
        f"right. Brier score {brier[0]} → {brier[1]}, less is better."
    )
    return Card(f"Can {name} be taken at its word?", svg, note)


def section(data: ReportData) -> dict[str, Any] | None:
    """Texts and tables; None where nothing was calibrated."""
    found = data.calibration
    if not found:
        return None
    gold = found.get("gold") or {}
    people = found.get("people") or {}
    lead = f"{gold.get('pairs', 0):,} pairs of {gold.get('prompts', 0):,} prompts that people labelled."
    alpha = summary.estimate(people.get("alpha"))
    if alpha:
        lead += f" Among themselves people agree with α {summary.interval(alpha, share=False)}."
    judges = found.get("judges") or {}
    comparison = found.get("comparison") or []
    return {
        "lead": lead,
        "judges": list(judges),
        "figures": [
            {"name": name, "cells": [summary.estimate(judge.get(key)) for judge in judges.values()]}
            for key, name in _FIGURES.items()
        ],
        "comparison": comparison,
        "priced": any((row.get("per_label") or {}).get("money") for row in comparison),
        "choice": _choice(found.get("choice") or {}) if gold.get("pairs") else None,
        "rounds": _rounds(found.get("round") or {}),
    }


def _choice(choice: Mapping[str, Any]) -> dict[str, str]:
    chosen = f"{choice['judge']} ({choice['policy']})" if choice.get("judge") else "none of them"
    reason = str(choice.get("reason") or "")
    return {"title": f"Choose {chosen}", "reason": reason[:1].upper() + reason[1:] + "."}


def _rounds(round_: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {', '.join(change['changed']) or 'nothing'} changed since round {round_['before']}; accuracy "
        f"{summary.interval(change['difference'], share=False)} on {change['pairs']:,} pairs, "
        f"{len(change['fixed']):,} disagreements gone, {len(change['new']):,} new."
        for name, change in (round_.get("judges") or {}).items()
    ]
