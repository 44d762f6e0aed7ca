"""The figures of a report as JSON, and how estimates are read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rlaif import metrics
from rlaif.stages.report.charts import minus
from rlaif.stages.report.collect import ReportData

ORACLE = ("quality", "harmful_compliance", "benign_correct")


def summarise(data: ReportData) -> dict[str, Any]:
    """What goes into report.json; keys whose figures are not there are null or empty."""
    labels, pairs = data.labels, data.pairs
    rates = win_rates(data)
    return {
        "run": data.path.name,
        "rlaif_version": data.manifest.get("rlaif_version"),
        "seed": data.manifest.get("seed"),
        "seconds": round(sum(float(stage.get("seconds") or 0) for stage in data.stages.values()), 3),
        "requests": requests(data),
        "tokens": tokens(data),
        "cost": round(sum(float(stage.get("cost") or 0) for stage in data.stages.values()), 6),
        "seconds_by_stage": {name: stage.get("seconds") for name, stage in data.stages.items()},
        "win_rate": rates.get(labelling_judge(data)),
        "win_rates": rates,
        "oracle": oracle(data),
        "oracle_win_rate": estimate(data.evaluation.get("oracle_win_rate")),
        "judge_minus_oracle": gap(data),
        "calibration": calibration(data),
        "counts": {
            "prompts": data.n_prompts,
            "responses": data.n_responses,
            "judgments": labels.n if labels else None,
            "judgments_by_status": dict(labels.statuses) if labels else {},
            "pairs_judged": labels.n_pairs if labels else None,
            "preferences": pairs.n if pairs else None,
            "dropped": sum(group.n for group in data.dropped),
        },
        "order_consistency": _plain(labels.consistency) if labels else None,
        "first_position_rate": _plain(labels.first_rate) if labels else None,
        "chosen_longer_rate": _plain(pairs.chosen_longer) if pairs else None,
        "probability_of_chosen": pairs.summary if pairs else None,
        "principles": _principles(data),
        "audit": {name: data.audit.get(name) for name in ("figures", "gates")} if data.audit else None,
        "dropped": dropped(data),
        "rounds": data.rounds or None,
    }


def labelling_judge(data: ReportData) -> str:
    """The name under which the evaluation has the judge that made the labels: its engine key, or that of a panel."""
    section = data.config.get("judge") or {}
    if section.get("members"):
        return str(section.get("judge"))
    return str(section.get("engine") or "judge")


def requests(data: ReportData) -> dict[str, int]:
    """Requests over all stages. `sent`: replies ever paid for, all runs together; the others are of the latest run.

    `failed` counts what is still without a reply.
    """
    total, last = data.manifest.get("requests") or {}, data.manifest.get("last_run") or {}
    by_stage = [stage.get("requests") or {} for stage in data.stages.values()]

    def added(name: str) -> int:
        return sum(int(row.get(name) or 0) for row in by_stage)

    return {
        "sent": int(total.get("sent", added("sent"))),
        "sent_last_run": int(last.get("sent", added("sent"))),
        "from_journal": int(last.get("from_journal", added("from_journal"))),
        "failed": int(total.get("failed", added("failed"))),
    }


def tokens(data: ReportData) -> dict[str, int]:
    rows = [stage.get("tokens") or {} for stage in data.stages.values()]
    return {name: sum(int(row.get(name) or 0) for row in rows) for name in ("prompt", "completion")}


def estimate(raw: Any) -> dict[str, Any] | None:
    """An estimate from JSON: {"value", "low", "high", "n"}; a bare number has no interval. None for anything else."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = {"value": raw}
    if not isinstance(raw, Mapping):
        return None
    found: dict[str, Any] = {name: _number(raw.get(name)) for name in ("value", "low", "high")}
    if found["value"] is None:
        return None
    n = _number(raw.get("n"))
    return {**found, "n": None if n is None else int(n)}


def win_rates(data: ReportData) -> dict[str, dict[str, Any]]:
    """Judge → win rate of the trained policy, the labelling judge first."""
    raw = data.evaluation.get("win_rate") or {}
    found = {str(name): e for name, value in raw.items() if (e := estimate(value)) is not None}
    first = labelling_judge(data)
    return dict(sorted(found.items(), key=lambda item: item[0] != first))


def same_as_labelling(data: ReportData) -> list[str]:
    """Judges of the evaluation that are the labelling judge's own model under another name: no second opinion."""
    engines = data.manifest.get("engines") or {}
    mine = (engines.get(labelling_judge(data)) or {}).get("identity")
    others = [name for name in win_rates(data) if name != labelling_judge(data)]
    return [name for name in others if mine and (engines.get(name) or {}).get("identity") == mine]


def metric(data: ReportData, name: str) -> dict[str, dict[str, Any]]:
    """{"before", "after", "difference"} of one quality metric, what is there of it."""
    raw = (data.evaluation.get("metrics") or {}).get(name)
    if not isinstance(raw, Mapping):
        return {}
    sides = ("before", "after", "difference")
    return {side: e for side in sides if (e := estimate(raw.get(side))) is not None}


def oracle(data: ReportData) -> dict[str, dict[str, Any]] | None:
    """The tiny world's own figures before and after training, or None elsewhere."""
    found: dict[str, dict[str, Any]] = {"before": {}, "after": {}, "difference": {}}
    for name in ORACLE:
        for side, value in metric(data, name).items():
            found[side][name] = value
    return found if found["before"] and found["after"] else None


def gap(data: ReportData) -> dict[str, Any] | None:
    """Labelling judge's win rate minus the oracle's."""
    raw = data.evaluation.get("judge_minus_oracle")
    if isinstance(raw, Mapping) and "value" not in raw:
        raw = raw.get(labelling_judge(data))
    return estimate(raw)


def calibration(data: ReportData) -> dict[str, Any] | None:
    """Accuracy of each judge against people, and the choice; None where nothing was calibrated."""
    if not data.calibration:
        return None
    judges = data.calibration.get("judges") or {}
    return {
        "pairs": (data.calibration.get("gold") or {}).get("pairs"),
        "accuracy": {name: estimate(row.get("accuracy")) for name, row in judges.items()},
        "choice": data.calibration.get("choice"),
    }


def dropped(data: ReportData) -> dict[str, dict[str, int]]:
    """stage → reason → rows."""
    found: dict[str, dict[str, int]] = {}
    for group in data.dropped:
        found.setdefault(group.stage, {})[group.reason] = group.n
    return found


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}\u00a0%"


def interval(e: metrics.Estimate | Mapping[str, Any] | None, *, share: bool = True) -> str:
    """An estimate with its interval: 62 % (55–69 %), or 3.100 (2.900–3.300) where it is no share."""
    if e is None:
        return "–"
    row = asdict(e) if isinstance(e, metrics.Estimate) else e
    value, low, high = row["value"], row.get("low"), row.get("high")
    scale, unit = (100, "\u00a0%") if share else (1, "")
    largest = max(abs(v) for v in (value, low, high) if v is not None)
    shape = ".0f" if share or largest >= 100 else ".1f" if largest >= 10 else ".3f"
    text = minus(f"{scale * value:{shape}}{unit}")
    if low is None or high is None:
        return text
    to = " to " if low < 0 else "–"  # not "−3–−1"
    return f"{text} ({minus(f'{scale * low:{shape}}')}{to}{minus(f'{scale * high:{shape}}')}{unit})"


def _principles(data: ReportData) -> dict[str, Any]:
    if data.labels is None:
        return {}
    agrees = data.pairs.agrees if data.pairs else {}
    return {
        row.name: {
            "n": row.n,
            "n_ok": row.n_ok,
            "order_consistency": _plain(row.consistency),
            "first_position_rate": _plain(row.first_rate),
            "decisiveness": row.decisiveness,
            "agrees_with_chosen": _plain(agrees.get(row.name)),
        }
        for row in data.labels.principles
    }


def _plain(e: metrics.Estimate | None) -> dict[str, Any] | None:
    return None if e is None else e.as_dict()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
