"""Bounds on figures: which of them a run does not keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from rlaif.config import Gate
from rlaif.errors import ConfigError
from rlaif.metrics import Estimate
from rlaif.stages.audit.material import Found, Missing
from rlaif.stages.audit.names import FIGURES


def check_names(gates: Iterable[str]) -> None:
    """Errors: ConfigError for a gate on no figure, with the known ones."""
    for name in gates:
        if name not in FIGURES:
            close = get_close_matches(name, FIGURES, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"audit.gates: no figure {name!r}; {hint}known: {', '.join(FIGURES)}")


def judged(gates: Mapping[str, Gate], figures: Mapping[str, Found]) -> list[dict[str, Any]]:
    """One row a gate: name, min, max, value, low, high, passed, and a reason where it failed or there is no value."""
    return [_row(name, gate, figures.get(name, Missing("not measured"))) for name, gate in gates.items()]


def _row(name: str, gate: Gate, found: Found) -> dict[str, Any]:
    value = found.value if isinstance(found, Estimate) else None
    row: dict[str, Any] = {"name": name, "min": gate.min, "max": gate.max, "value": value, "low": None, "high": None}
    row |= {"passed": True, "reason": None}
    if isinstance(found, Missing):
        return row | {"passed": gate.missing == "pass", "reason": f"could not be computed: {found.reason}"}
    row |= {"low": found.low, "high": found.high}
    if gate.min is not None and found.value < gate.min:
        return row | {"passed": False, "reason": f"below min {gate.min:g}"}
    if gate.max is not None and found.value > gate.max:
        return row | {"passed": False, "reason": f"above max {gate.max:g}"}
    return row


def failure(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The failed gates in one line; None where all passed."""
    failed = [row for row in rows if not row["passed"]]
    parts = []
    for row in failed:
        if row["value"] is None:
            bounds = ", ".join(f"{side} {row[side]:g}" for side in ("min", "max") if row[side] is not None)
            parts.append(f"{row['name']} ({bounds}) {row['reason']} (missing: pass would let it through)")
        else:
            sure = "" if row["low"] is None else f" ({row['low']:.3g} to {row['high']:.3g})"
            parts.append(f"{row['name']} {row['value']:.4g}{sure} is {row['reason']}")
    if not parts:
        return None
    return ("gate failed: " if len(parts) == 1 else f"{len(parts)} gates failed: ") + "; ".join(parts)
