"""calibration.json for a terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlaif.errors import StoreError

Json = dict[str, Any]
_FIGURES = (
    ("accuracy", "accuracy"),
    ("one order", "accuracy_one_order"),
    ("both orders", "accuracy_both_orders"),
    ("κ", "kappa"),
    ("α", "alpha"),
    ("consistency", "order_consistency"),
    ("first shown", "first_position_rate"),
    ("ECE", "ece"),
    ("Brier", "brier"),
    ("AUROC", "auroc"),
)


def load(run: Path) -> Json:
    """Errors: StoreError."""
    path = run / "calibration" / "calibration.json"
    try:
        found: Json = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot read: {error}") from None
    return found


def table(run: Path) -> str:
    """What a person wants to know first: the judges side by side, maps, the choice, and what changed."""
    found = load(run)
    gold, people = found["gold"], found["people"]
    labels = ", ".join(f"{n} {name}" for name, n in gold["labels"].items())
    lines = [
        f"gold: {gold['pairs']:,} pairs ({labels}), {gold['scored']:,} scored responses, "
        f"{gold['prompts']:,} prompts, {gold['raters']} raters"
    ]
    if people["pairs_with_several"]:
        lines.append(f"people among themselves: α {shown(people['alpha'])}, same label {shown(people['agreement'])}")
    if gold["pairs"]:
        lines += ["", *_grid(_judges(found)), "", *_grid(_comparison(found))]
    lines += _scores(found)
    lines += [line for name, judge in found["judges"].items() for line in _map(name, judge)]
    lines += _cascade(run)
    lines += _rounds(found["round"])
    if gold["pairs"]:
        choice = found["choice"]
        chosen = f"{choice['judge']} ({choice['policy']})" if choice["judge"] else "none"
        lines += ["", f"choose {chosen}: {choice['reason']}"]
    return "\n".join(lines)


def shown(e: Json | None) -> str:
    """.87 [.83, .91]"""
    if e is None:
        return "–"
    if e.get("low") is None:
        return _short(e["value"])
    return f"{_short(e['value'])} [{_short(e['low'])}, {_short(e['high'])}]"


def _short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


def _judges(found: Json) -> list[list[str]]:
    """A row for each figure and a column for each judge: names may be long, and figures are many."""
    judges = found["judges"]
    rows = [["", *judges]]
    rows.append(["pairs judged", *(f"{judge['n']:,}" for judge in judges.values())])
    rows.append(["unusable", *(f"{judge['unusable']:,}" for judge in judges.values())])
    rows += [[name, *(shown(judge[key]) for judge in judges.values())] for name, key in _FIGURES]
    for column in next(iter(judges.values()))["slices"]:
        values = list(dict.fromkeys(value for judge in judges.values() for value in judge["slices"][column]))
        for value in values:
            cells = (judge["slices"][column].get(value, {}).get("accuracy") for judge in judges.values())
            rows.append([f"accuracy, {value}", *map(shown, cells)])
    return rows


def _comparison(found: Json) -> list[list[str]]:
    priced = any(row["per_label"]["money"] is not None for row in found["comparison"])
    head = [
        "judge",
        "kind",
        "orders",
        "accuracy",
        "against the best",
        "labels",
        "right of them",
        "calls each",
        "tokens each",
    ]
    rows = [head + (["cost each"] if priced else [])]
    for row in found["comparison"]:
        each = row["per_label"]
        cells = [row["judge"], row["kind"], row["policy"], shown(row["accuracy"]), shown(row["to_best"])]
        cells += [f"{row['labels']:,}", shown(row["right_labels"]), f"{each['calls']:.3g}", f"{each['tokens']:.4g}"]
        rows.append(cells + ([f"{each['money']:.3g}" if each["money"] is not None else "–"] if priced else []))
    return rows


def _scores(found: Json) -> list[str]:
    lines = []
    for name, judge in found["judges"].items():
        if judge["scores"]:
            s = judge["scores"]
            lines.append(f"{name}: scores of {s['n']:,}: Spearman {shown(s['spearman'])}, α {shown(s['alpha'])}")
    return ["", *lines] if lines else []


def _map(name: str, judge: Json) -> list[str]:
    test = judge["map_test"]
    if test is None or "after" not in test:
        return [f"{name}: no map: {test['reason']}"] if test and test["kind"] != "none" else []
    before, after = test["before"], test["after"]
    gain = test["difference"]["brier"]
    worse = " (worse: do not use it)" if gain and gain["low"] is not None and gain["low"] > 0 else ""
    return [
        "",
        f"{name}: {test['kind']} map of {test['n_fit']:,} pairs, tested on {test['n_test']:,} others{worse}",
        "  " + ", ".join(f"{key} {shown(before[key])} → {shown(after[key])}" for key in ("brier", "ece", "log_loss")),
    ]


def _cascade(run: Path) -> list[str]:
    path = run / "calibration" / "cascade.json"
    if not path.exists():
        return []
    plan = json.loads(path.read_text(encoding="utf-8"))
    lines = ["", f"cascade {' → '.join(plan['members'])}: agreement {plan['agreement']:g} at {plan['confidence']:g}"]
    for name, found in plan["slices"].items():
        at = ", ".join(f"{member} {level:g}" for member, level in found["thresholds"].items() if level is not None)
        if found["promised"]:
            said = f"promised with thresholds {at}; {found['answered']} of {found['n']} gold pairs answered"
        else:
            said = f"no promise: {found['reason']}"
        lines.append(f"  {name}: {said}")
    return lines


def _rounds(round_: Json) -> list[str]:
    lines = [f"round {round_['number']}"]
    for name, change in round_["judges"].items():
        changed = ", ".join(change["changed"]) or "nothing"
        lines.append(
            f"  {name}: since round {round_['before']} changed: {changed}; accuracy {_signed(change['difference'])} "
            f"on {change['pairs']:,} pairs, {len(change['fixed'])} fixed, {len(change['new'])} newly wrong"
        )
    return ["", *lines]


def _signed(e: Json | None) -> str:
    return "–" if e is None else ("+" if e["value"] >= 0 else "") + shown(e)


def _grid(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
