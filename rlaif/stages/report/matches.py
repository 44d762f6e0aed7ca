"""What an evaluation says beside its main comparison: principles, other matches, reward models on pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlaif.stages.report.summary import estimate

Evaluation = Mapping[str, Any]  # evaluation.json


def principles(evaluation: Evaluation) -> dict[str, Any] | None:
    """Win rates under each principle alone, a column a judge; None where no judge names principles."""
    raw = {name: of for name, of in (evaluation.get("by_principle") or {}).items() if of}
    names = list(dict.fromkeys(name for of in raw.values() for name in of))
    if not names:
        return None
    rows = [{"name": name, "cells": [estimate(of.get(name)) for of in raw.values()]} for name in names]
    return {"judges": list(raw), "rows": rows}


def matches(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a match and judge."""
    rows = []
    for match in evaluation.get("matches") or []:
        for judge, raw in (match.get("win_rate") or {}).items():
            more = (match.get("judges") or {}).get(judge) or {}
            rows.append(
                {
                    "policy": match["policy"],
                    "baseline": match["baseline"],
                    "judge": judge,
                    "win_rate": estimate(raw),
                    "ties": (raw or {}).get("ties"),
                    "controlled": more.get("length_controlled_win_rate"),
                    "oracle": estimate(match.get("oracle_win_rate")),
                }
            )
    return rows


def reward_models(evaluation: Evaluation) -> list[dict[str, Any]]:
    """One row a reward model and pair set."""
    rows = []
    for model, sets in (evaluation.get("reward_models") or {}).items():
        for name, raw in sets.items():
            rows.append(
                {
                    "model": model,
                    "pairs": name,
                    "n": raw["n"],
                    "accuracy": estimate(raw.get("accuracy")),
                    "by_length": [estimate(e) for e in (raw.get("by_length") or {}).values()],
                    "by_domain": [(domain, estimate(e)) for domain, e in (raw.get("by_domain") or {}).items()],
                }
            )
    return rows
