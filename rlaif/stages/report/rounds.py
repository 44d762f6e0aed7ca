"""The table over rounds of a run that goes in rounds, from its rounds.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.stages.report import summary

_LABELS = {"labelled": "prompts with a preference", "consistent": "same winner in both orders"}
_OTHERS = {"oracle_win_rate": "wins, by the oracle", "length.after": "characters"}
_SHARES = ("win_rate.", "oracle_win_rate", *_LABELS)


def context(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the template sees: {"result", "stopped", "links", "rows"}; None where there are no rounds.

    One column a round, since there are more figures than rounds; `rows` are {"title", "cells"}.
    """
    rounds = found.get("rounds") or []
    if not rounds:
        return None
    counts = [
        {"title": name, "cells": [f"{row.get(name) or 0:,}" for row in rounds]} for name in ("prompts", "preferences")
    ]
    return {
        "result": _result(found),
        "stopped": found.get("stopped"),
        "links": [{"round": row.get("round"), "to": f"{row.get('folder')}/report.html"} for row in rounds],
        "rows": [
            *counts,
            *({"title": _title(name), "cells": [_cell(row, name) for row in rounds]} for name in _names(rounds)),
            {"title": "gates", "cells": [_gates(row) for row in rounds]},
        ],
    }


def _names(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the figures that any round has: the labels', win rates, then what was measured of the new policy."""
    there = dict.fromkeys(name for row in rounds for name in row.get("figures") or {})
    judges = [name for name in there if name.startswith("win_rate.") and not name.endswith(".ties")]
    measured = [name for name in there if name.startswith("metrics.") and name.endswith(".after")]
    wanted = [*_LABELS, *judges, "oracle_win_rate", *measured, "length.after"]
    return [name for name in wanted if name in there]


def _title(name: str) -> str:
    if name in _LABELS:
        return _LABELS[name]
    if name in _OTHERS:
        return _OTHERS[name]
    if name.startswith("win_rate."):
        return f"wins, says {name.removeprefix('win_rate.')}"
    return name.removeprefix("metrics.").removesuffix(".after").replace("_", " ")


def _cell(row: Mapping[str, Any], name: str) -> str:
    figure = summary.estimate((row.get("figures") or {}).get(name))
    return summary.interval(figure, share=name.startswith(_SHARES))


def _gates(row: Mapping[str, Any]) -> str:
    gates = row.get("gates") or []
    if row.get("passed"):
        return f"{len(gates)} passed" if gates else "none"
    return "failed: " + (", ".join(str(gate["name"]) for gate in gates if not gate["passed"]) or "audit")


def _result(found: Mapping[str, Any]) -> str:
    """Which policy the run's result is, in words."""
    kept = (found.get("policy") or {}).get("round") or 0
    stopped = found.get("stopped")
    whose = f"the policy of round {kept}" if kept else "the starting policy: no round passed its gates"
    if stopped:
        return f"Round {stopped.get('round')} was stopped: {stopped.get('reason')}. The result is {whose}."
    of = len(found.get("rounds") or [])
    return f"{of} of {found.get('n')} rounds are done. The result is {whose}."
