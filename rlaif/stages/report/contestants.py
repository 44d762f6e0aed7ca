"""Every policy of an evaluation side by side: what was found of each, and what a careful reader would stop at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.stages.report import charts, summary
from rlaif.stages.report.cards import Card
from rlaif.stages.report.charts import Dot
from rlaif.stages.report.collect import ReportData
from rlaif.stages.report.summary import estimate, interval, percent

START, MAIN = "before", "after"
QUALITY = "quality"
_AS_WRITTEN = 0.98  # share of responses; below it the page says so
_EVEN = 0.5  # a win rate with its interval above it is a gain


class Row(NamedTuple):
    """One policy. `own`: its `contestants` of evaluation.json; `match`: its own with the start, if it is not that."""

    name: str
    label: str
    own: Mapping[str, Any]
    match: Mapping[str, Any] | None


def rows(data: ReportData) -> list[Row]:
    """The starting policy first; [] in a run folder without such figures."""
    found = data.evaluation.get("contestants") or {}
    matches = {match["policy"]: match for match in data.evaluation.get("matches") or [] if match["baseline"] == START}
    matches[MAIN] = data.evaluation
    return [Row(name, _label(data, name), own, matches.get(name)) for name, own in found.items()]


def _label(data: ReportData, name: str) -> str:
    """A policy as the page calls it: the start and the main one by their engine or trainer."""
    section = data.config.get("evaluate") or {}
    if name == START:
        return f"{section.get('before') or 'policy'} (start)"
    return str(section.get("after") or name) if name == MAIN else name


def at(raw: Any, *path: str) -> Any:
    """What lies there in nested objects; None where something on the way does not."""
    for key in path:
        raw = raw.get(key) if isinstance(raw, Mapping) else None
    return raw


def metric(data: ReportData, row: Row, name: str) -> dict[str, Any]:
    """Mean of a metric, and by how much it is above the start's; the start's mean is that of the main match."""
    if row.match is None:
        return {"mean": estimate(at(data.evaluation, "metrics", name, "before")), "difference": None}
    of = at(row.match, "metrics", name)
    return {"mean": estimate(at(of, "after")), "difference": estimate(at(of, "difference"))}


def figures(data: ReportData) -> list[dict[str, Any]]:
    """For report.json."""
    return [
        {
            "policy": row.name,
            "win_rate": {name: estimate(raw) for name, raw in (at(row.match, "win_rate") or {}).items()},
            "oracle_win_rate": estimate(at(row.match, "oracle_win_rate")),
            "metrics": {name: metric(data, row, name) for name in data.evaluation.get("metrics") or {}},
            **{name: row.own.get(name) for name in ("reward", "kl", "length", "finished", "distinct", "skills")},
        }
        for row in rows(data)
    ]


def card(data: ReportData, found: Sequence[Row]) -> Card | None:
    """Who prefers which policy to the start, only where there are several."""
    labelling = summary.labelling_judge(data)
    others = [name for name in summary.win_rates(data) if name != labelling]
    dots = []
    for row in found:
        rates = [(name, estimate(at(row.match, "win_rate", name))) for name in (labelling, *others)]
        rates.append(("the oracle", estimate(at(row.match, "oracle_win_rate"))))
        dots += [Dot(row.label, e["value"], e["low"], e["high"], int(name == labelling)) for name, e in rates if e]
    if len({dot.label for dot in dots}) < 2:
        return None
    title, unit = "Every policy against the start", "share of comparisons won, ties ½"
    svg = charts.dots(dots, title, unit, span=(0, 1), reference=0.5, join=" · ")
    others += ["the oracle"] if data.evaluation.get("oracle_win_rate") else []
    grey = f" Grey: {', then '.join(others)}." if others else ""
    return Card(title, svg, f"Blue: {labelling}, which labelled.{grey}")


def notes(found: Sequence[Row]) -> Iterator[str]:
    """Why figures are missing, each reason once, and what they are of where that is not the usual."""
    reasons: dict[str, list[str]] = {}
    for row in found:
        missing = {"KL": at(row.own, "kl", "reason")}
        missing |= {f"log-probs on {name}": at(of, "reason") for name, of in (row.own.get("skills") or {}).items()}
        for what, reason in missing.items():
            if reason:
                reasons.setdefault(f"{what}: {reason}", []).append(row.label)
    for reason, labels in reasons.items():
        yield f"{', '.join(labels)}: no {reason}."
    for row in found:
        share = at(row.own, "kl", "as_written")
        if share is not None and share < _AS_WRITTEN:
            yield (
                f"{row.label}: {percent(share)} of its responses, encoded again for the KL, have as many tokens as "
                "it wrote; of the others the KL is of other tokens."
            )
    temperature = next((t for row in found if (t := at(row.own, "kl", "temperature"))), 1.0)
    if temperature != 1.0:
        yield f"KL is between the distributions at temperature {temperature:g}, from which the responses were drawn."


def remarks(data: ReportData) -> Iterator[str]:
    """Policies that please the judge that labelled and not everyone else, and skills that were lost."""
    labelling = summary.labelling_judge(data)
    for row in rows(data):
        mine = estimate(at(row.match, "win_rate", labelling))
        unmoved = list(_unmoved(data, row, labelling))
        if mine and mine["low"] is not None and mine["low"] > _EVEN and unmoved:
            yield (
                f"{row.label}: the labelling judge prefers it to the start, {interval(mine)}, which "
                f"{', '.join(unmoved)} {'does' if len(unmoved) == 1 else 'do'} not confirm."
            )
        yield from _forgotten(row)


def _unmoved(data: ReportData, row: Row, labelling: str) -> Iterator[str]:
    """Whose figure cannot be told from none, with what it is: other judges, the oracle, quality, reward models."""
    rates = {name: raw for name, raw in (at(row.match, "win_rate") or {}).items() if name != labelling}
    for name, raw in {**rates, "the oracle": at(row.match, "oracle_win_rate")}.items():
        rate = estimate(raw)
        if rate and rate["low"] is not None and rate["low"] <= _EVEN:
            yield f"{name} ({interval(rate)})"
    gains = {QUALITY: metric(data, row, QUALITY)["difference"]} if row.match else {}
    gains |= {name: at(of, "score", "difference") for name, of in (row.own.get("reward") or {}).items()}
    for name, raw in gains.items():
        gain = estimate(raw)
        if gain and gain["low"] is not None and gain["low"] <= 0:
            yield f"{name} ({charts.minus(format(gain['value'], '+.2f'))})"


def _forgotten(row: Row) -> Iterator[str]:
    for name, of in (row.own.get("skills") or {}).items():
        now, lost = estimate(at(of, "accuracy", "mean")), estimate(at(of, "accuracy", "difference"))
        if now and lost and lost["high"] is not None and lost["high"] < 0:
            yield (
                f"{row.label} has forgotten some of “{name}”: it gets {percent(now['value'])} right, "
                f"{100 * -lost['value']:.0f} points less than the start."
            )
