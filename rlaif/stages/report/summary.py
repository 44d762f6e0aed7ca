"""The figures of a report: `report.json`, and the remarks in plain words at the top of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rlaif import metrics
from rlaif.stages.report.collect import ReportData

ORACLE = ("quality", "harmful_compliance", "benign_correct")

# When a figure is worth a remark. None of these is a law; each is said on the page beside the figure.
MAX_FAILED = 0.05  # share of judgments that are no label
MIN_CONSISTENCY = 0.80  # share of pairs with the same winner in both orders
POSITION_SLACK = 0.02  # first-position rate further than this from ½, and its interval too
MAX_CHOSEN_LONGER = 0.60
MIN_LABEL_MASS = 0.80  # at the 5 % quantile
MIN_KEPT = 0.50  # of the pairs judged
MAX_GROWTH = 1.25  # of the response length by training


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
        "seconds_by_stage": {name: stage.get("seconds") for name, stage in data.stages.items()},
        "win_rate": rates.get(labelling_judge(data)),
        "win_rates": rates,
        "oracle": oracle(data),
        "oracle_win_rate": estimate(data.evaluation.get("oracle_win_rate")),
        "judge_minus_oracle": gap(data),
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
        "dropped": dropped(data),
    }


def labelling_judge(data: ReportData) -> str:
    """The engine key of the judge that made the labels."""
    section = data.config.get("judge") or {}
    return str(section.get("engine") or "judge")


def requests(data: ReportData) -> dict[str, int]:
    """Requests over all stages. `sent`: ever paid for; `sent_last_run`: by the latest run of the pipeline."""
    rows = [stage.get("requests") or {} for stage in data.stages.values()]
    names = ("sent", "sent_last_run", "from_journal", "failed")
    return {name: sum(int(row.get(name) or 0) for row in rows) for name in names}


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


def dropped(data: ReportData) -> dict[str, dict[str, int]]:
    """stage → reason → rows."""
    found: dict[str, dict[str, int]] = {}
    for group in data.dropped:
        found.setdefault(group.stage, {})[group.reason] = group.n
    return found


def remarks(data: ReportData) -> list[str]:
    """What a careful reader would stop at, one sentence each."""
    found = [*_about_labels(data), *_about_pairs(data), *_about_policy(data)]
    failed = requests(data)["failed"]
    if failed:
        found.append(f"{failed:,} requests failed for good; their rows are among the dropped or the errors below.")
    return found


def percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f} %"


def interval(e: metrics.Estimate | Mapping[str, Any] | None, *, share: bool = True) -> str:
    """ "62 % (55–69 %)", or "3.1 (2.9–3.3)" where it is no share."""
    if e is None:
        return "–"
    row = asdict(e) if isinstance(e, metrics.Estimate) else e
    value, low, high = row["value"], row.get("low"), row.get("high")
    scale, unit = (100, " %") if share else (1, "")
    shape = ".0f" if share or abs(value) >= 100 else ".3g"
    text = f"{scale * value:{shape}}{unit}"
    return text if low is None or high is None else f"{text} ({scale * low:{shape}}–{scale * high:{shape}}{unit})"


def _about_labels(data: ReportData) -> Iterable[str]:
    labels = data.labels
    if labels is None or not labels.n:
        return
    bad = 1 - labels.statuses["ok"] / labels.n
    if bad > MAX_FAILED:
        yield f"{percent(bad)} of the judgments are no label (unparsed, refused, truncated or error)."
    if labels.consistency and labels.consistency.value < MIN_CONSISTENCY:
        flips = percent(1 - labels.consistency.value)
        yield f"The judge changes its mind in {flips} of the pairs when the two responses trade places."
    rate = labels.first_rate
    if rate and rate.low is not None and rate.high is not None:
        side = "first" if rate.value > 0.5 else "second"
        share = max(rate.value, 1 - rate.value)
        if share - 0.5 > POSITION_SLACK and not rate.low <= 0.5 <= rate.high:
            yield f"The judge favours the response shown {side}: it wins {percent(share)} of the time."
    if labels.low_mass is not None and labels.low_mass < MIN_LABEL_MASS:
        yield (
            f"In one judgment of twenty the verdict labels hold under {percent(labels.low_mass)} of the probability: "
            "the judge wanted to say something else."
        )


def _about_pairs(data: ReportData) -> Iterable[str]:
    pairs, labels = data.pairs, data.labels
    if pairs is None:
        return
    lost = sum(group.n for group in data.dropped if group.stage == "pair")
    if pairs.n + lost and pairs.n / (pairs.n + lost) < MIN_KEPT:
        yield f"Pairing dropped {lost:,} candidates and kept {pairs.n:,}: see the reasons below."
    if pairs.chosen_longer and (pairs.chosen_longer.low or 0) > MAX_CHOSEN_LONGER:
        yield (
            f"The chosen response is the longer one in {percent(pairs.chosen_longer.value)} of the pairs: "
            "part of what the judge rewards may be length."
        )
    if labels and labels.n and pairs.n == 0:
        yield "No preference was kept."


def _about_policy(data: ReportData) -> Iterable[str]:
    rates = win_rates(data)
    mine = rates.get(labelling_judge(data))
    if mine and mine["low"] is not None and mine["low"] <= 0.5 <= mine["high"]:
        yield f"The win rate of the trained policy, {interval(mine)}, cannot be told from a coin."
    for name, other in rates.items():
        if mine and other is not mine and None not in (mine["low"], other["high"]) and other["high"] < mine["low"]:
            yield (
                f"A judge that made no labels ({name}) sees a smaller gain than the labelling judge: "
                f"{interval(other)} against {interval(mine)}."
            )
    distance = gap(data)
    if distance and distance["low"] is not None and distance["low"] > 0:
        yield (
            f"The labelling judge's win rate is {100 * distance['value']:.0f} points above the oracle's: "
            "that part of the gain pleases the judge without being better."
        )
    length = data.evaluation.get("length") or {}
    before, after = estimate(length.get("before")), estimate(length.get("after"))
    if before and after and before["value"] > 0:
        growth = after["value"] / before["value"]
        if growth > MAX_GROWTH:
            yield f"The trained policy writes {percent(growth - 1)} more than before."
        if growth < 1 / MAX_GROWTH:
            yield f"The trained policy writes {percent(1 - growth)} less than before."


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
