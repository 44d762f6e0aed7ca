"""The charts of the page: what each is called, what it shows, and one sentence on how to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlaif.records import STATUSES
from rlaif.stages.report import charts, summary
from rlaif.stages.report.charts import Bar, Dot
from rlaif.stages.report.collect import Pairs, ReportData
from rlaif.stages.report.labels import BINS, Labels

_MAX_BARS = 12
_UNIT = np.linspace(0, 1, BINS + 1).tolist()
_UPPER = np.linspace(0.5, 1, BINS + 1).tolist()
_SIDES = "Grey: before training. Blue: after."
_WIN_LABEL = "share of comparisons won, ties ½"

# metric of evaluation.json → how a person reads it
_NAMES = {
    "quality": "Quality ↑",
    "harmful_compliance": "Harmful compliance ↓",
    "benign_correct": "Benign correctness ↑",
}


@dataclass(frozen=True)
class Card:
    """One chart with its title and one sentence on how to read it."""

    title: str
    svg: str
    note: str = ""


def _dot(label: str, e: Mapping[str, Any], group: int = 1) -> Dot:
    return Dot(label, e["value"], e.get("low"), e.get("high"), group)


def headline(data: ReportData) -> list[Card]:
    cards = []
    labelling = summary.labelling_judge(data)
    rows = []
    for name, e in summary.win_rates(data).items():
        role = "labelled the data" if name == labelling else "did not label"
        role = "the same model" if name in summary.same_as_labelling(data) else role
        rows.append(_dot(f"{name} ({role})", e))
    truth = summary.estimate(data.evaluation.get("oracle_win_rate"))
    if truth:
        rows.append(_dot("oracle", truth))
    if rows:
        svg = charts.dots(rows, "Win rate of the trained policy", _WIN_LABEL, span=(0, 1), reference=0.5)
        note = "The trained policy against the one it started from, on held-out prompts. Dashed: no difference."
        cards.append(Card("Who prefers the trained policy", svg, note))
    dots = _before_after(data, summary.ORACLE)
    if dots and summary.oracle(data):
        svg = charts.dots(dots, "The oracle, before and after training", "score or share of responses", span=(0, 1))
        note = f"{_SIDES} ↑ more is better, ↓ less is. The oracle reads the text and never labels anything."
        cards.append(Card("What the oracle finds", svg, note))
    return cards


def label_cards(data: ReportData) -> list[Card]:
    """Whether the labels can be trusted."""
    labels = data.labels
    if labels is None or not labels.n:
        return []
    found = [
        _status_card(labels),
        _order_card(data, labels),
        _sureness_card(labels),
        _map_card(labels),
        _mass_card(labels),
    ]
    return [card for card in found if card is not None]


def _status_card(labels: Labels) -> Card:
    rows = []
    for status in STATUSES:
        n = labels.statuses[status]
        colour = charts.BLUE if status == "ok" else charts.ORANGE
        rows.append(Bar(status, n, f"{n:,} · {summary.percent(n / labels.n, 1)}", colour))
    note = "Only “ok” has a verdict. The others are counted, kept, and never become a label."
    return Card("What became of each judgment", charts.bars(rows, "Judgments by status"), note)


def _order_card(data: ReportData, labels: Labels) -> Card | None:
    named = [
        ("Same winner in both orders", labels.consistency),
        ("Winner is the response shown first", labels.first_rate),
        ("Kept pairs on which the orders agree", data.pairs.consistent if data.pairs else None),
    ]
    rows = [_dot(name, e.as_dict()) for name, e in named if e is not None]
    if not rows:
        return None
    svg = charts.dots(rows, "Order consistency and first-position rate", "share", span=(0, 1), reference=0.5)
    note = "A judge without position bias has its first-position rate on the dashed line, and consistency near 1."
    return Card("Does the order shown matter?", svg, note)


def _sureness_card(labels: Labels) -> Card | None:
    if labels.p_first is None:
        return None
    label = "P(the response shown first is better)"
    series = [("", labels.p_first, charts.BLUE)]
    svg = charts.histogram(series, _UNIT, label, label, "judgments", mark=(0.5, "no preference"))
    return Card("How sure single judgments are", svg, "Symmetric around ½ when the position has no pull.")


def _mass_card(labels: Labels) -> Card | None:
    if labels.label_mass is None:
        return None
    series = [("", labels.label_mass, charts.BLUE)]
    svg = charts.histogram(series, _UNIT, "Label mass", "probability held by the verdict labels", "judgments")
    note = "Near 1 the judge answered in the form it was asked for; far below, its ratio of labels means little."
    return Card("Did the judge answer the question?", svg, note)


def _map_card(labels: Labels) -> Card | None:
    if labels.order_map is None:
        return None
    svg = charts.density(
        labels.order_map, "Probability in both orders", "P(A better), A shown first", "P(A better), A shown second"
    )
    note = "On the diagonal the order does not matter, top left and bottom right it decides. Darker: more judgments."
    return Card("The same pair, both ways round", svg, note)


def criterion_cards(data: ReportData) -> list[Card]:
    cards = []
    for row in data.labels.criteria if data.labels else []:
        if row.summary is None or len(row.edges) < 2:
            continue
        svg = charts.histogram(
            [("", row.counts, charts.BLUE)], row.edges, f"Scores: {row.name}", "score", "judgments"
        )
        note = f"Mean {charts.number(row.summary['mean'])} over {row.summary['n']:,}; {row.n_null:,} not judged."
        cards.append(Card(f"Scores: {row.name}", svg, note))
    return cards


def pair_cards(data: ReportData) -> list[Card]:
    """From judgments to pairs: what was kept, how sure it is, and whether length decided."""
    pairs = data.pairs
    if pairs is None:
        return []
    lost = [group for group in data.dropped if group.stage == "pair"]
    total = pairs.n + sum(group.n for group in lost) or 1
    rows = [Bar("kept", pairs.n, f"{pairs.n:,} · {summary.percent(pairs.n / total)}")]
    for group in lost[:_MAX_BARS]:
        text = f"{group.n:,} · {summary.percent(group.n / total)}"
        rows.append(Bar(f"dropped: {group.reason}", group.n, text, charts.ORANGE))
    not_selected = (data.stages.get("pair", {}).get("counts") or {}).get("not_selected")
    if not_selected:
        rows.append(Bar("judged, not selected", not_selected, f"{not_selected:,}", charts.GREY))
    note = f"{pairs.n:,} preferences over {pairs.n_prompts:,} prompts."
    found = [Card("Kept and dropped", charts.bars(rows, "Pairs kept and dropped by reason"), note)]
    if pairs.n and pairs.summary and pairs.margin:
        mean = pairs.summary["mean"]
        svg = charts.histogram(
            [("", pairs.probability, charts.BLUE)],
            _UPPER,
            "Probability of the chosen response",
            "P(chosen is better), orders averaged",
            "pairs",
            mark=(mean, f"mean {mean:.2f}"),
        )
        margin = f"Margin in the judge's own unit: median {charts.number(pairs.margin['median'])}."
        found.append(
            Card("How sure the kept labels are", svg, f"Near ½ a label is little more than a guess. {margin}")
        )
    length = _length_card(pairs)
    return [*found, length] if length else found


def _length_card(pairs: Pairs) -> Card | None:
    if not (pairs.chosen_length and pairs.rejected_length and pairs.chosen_longer):
        return None
    series = [
        (f"chosen, mean {pairs.chosen_length['mean']:.0f}", pairs.chosen_lengths, charts.BLUE),
        (f"rejected, mean {pairs.rejected_length['mean']:.0f}", pairs.rejected_lengths, charts.ORANGE),
    ]
    svg = charts.histogram(series, pairs.length_edges, "Length of chosen and rejected", "characters", "responses")
    note = f"The chosen response is the longer one in {summary.interval(pairs.chosen_longer)} of the pairs."
    return Card("Is longer better?", svg, note)


def _before_after(data: ReportData, names: Iterable[str]) -> list[Dot]:
    dots = []
    for name in names:
        sides = summary.metric(data, name)
        for group, side in enumerate(("before", "after")):
            if side in sides:
                dots.append(_dot(_NAMES.get(name, name.replace("_", " ")), sides[side], group))
    return dots


def policy_cards(data: ReportData) -> list[Card]:
    """The starting policy and the trained one: length, and win rate and quality by domain."""
    found = [_length_before_after(data), _domain_wins(data), _domain_quality(data)]
    return [card for card in found if card is not None]


def _length_before_after(data: ReportData) -> Card | None:
    length = data.evaluation.get("length") or {}
    sides = [summary.estimate(length.get(side)) for side in ("before", "after")]
    rows = [_dot("Response length", e, group) for group, e in enumerate(sides) if e is not None]
    if not rows:
        return None
    top = max(row.high or row.value for row in rows)
    unit = f"mean length, {length.get('unit', 'characters')}"
    svg = charts.dots(rows, "Response length before and after", unit, span=(0, top * 1.1))
    note = f"{_SIDES} A policy that only got longer has often learned length, not quality."
    return Card("How long responses are", svg, note)


def _domain_wins(data: ReportData) -> Card | None:
    labelling = summary.labelling_judge(data)
    rows, others = [], dict[str, None]()
    for domain, figures in (data.evaluation.get("by_domain") or {}).items():
        for name, raw in (figures.get("win_rate") or {}).items():
            if (e := summary.estimate(raw)) is not None:
                rows.append(_dot(domain, e, int(name == labelling)))
                others |= {} if name == labelling else {name: None}
    if not rows:
        return None
    rows.sort(key=lambda row: -row.group)  # the labelling judge first, in every domain
    svg = charts.dots(rows, "Win rate by domain", _WIN_LABEL, span=(0, 1), reference=0.5, join=" · ")
    grey = f" Grey: {', '.join(others)}." if others else ""
    return Card("Win rate by domain", svg, f"Blue: {labelling}, the labelling judge.{grey} Dashed: no difference.")


def _domain_quality(data: ReportData) -> Card | None:
    rows = []
    for domain, figures in (data.evaluation.get("by_domain") or {}).items():
        sides = (figures.get("metrics") or {}).get("quality") or {}
        for group, side in enumerate(("before", "after")):
            if (e := summary.estimate(sides.get(side))) is not None:
                rows.append(_dot(domain, e, group))
    if not rows:
        return None
    span = (0.0, 1.0) if _in_unit(rows) else None
    return Card("Quality by domain", charts.dots(rows, "Quality by domain", "quality", span=span), _SIDES)


def _in_unit(rows: Sequence[Dot]) -> bool:
    return bool(rows) and all(0 <= row.value <= 1 for row in rows)
