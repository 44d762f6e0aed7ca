"""ReportData as the HTML page: what each chart is called, how it is to be read, and which tables stand beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlaif.records import STATUSES
from rlaif.stages.report import charts, summary
from rlaif.stages.report.charts import Bar, Dot, Line
from rlaif.stages.report.collect import Example, ReportData
from rlaif.stages.report.labels import BINS, p_first, standard_of
from rlaif.templates import render_page

TEMPLATE = Path(__file__).with_name("page.html.jinja")
MAX_SHOWN = 20_000  # characters of one text on the page; the run folder has the rest
_MAX_BARS = 12
_UNIT = np.linspace(0, 1, BINS + 1).tolist()
_WIN_LABEL = "share of comparisons won, ties ½"

# metric of evaluation.json → how a person reads it
_NAMES = {
    "quality": "Quality (0–1, higher is better)",
    "harmful_compliance": "Harmful requests complied with (lower is better)",
    "benign_correct": "Harmless questions answered correctly (higher is better)",
}
_CURVES = (
    ("Loss", "loss", ("loss", "eval_loss"), True),
    ("Reward accuracy", "share of pairs", ("rewards/accuracies", "eval_rewards/accuracies"), False),
    ("Reward margin", "chosen − rejected", ("rewards/margins", "eval_rewards/margins"), True),
    ("Learning rate", "learning rate", ("learning_rate",), True),
)


@dataclass(frozen=True)
class Card:
    """One chart with its title and one sentence on how to read it."""

    title: str
    svg: str
    note: str = ""


def render(data: ReportData, title: str | None = None) -> str:
    """The whole page, everything inline."""
    return render_page(TEMPLATE, context(data, title))


def context(data: ReportData, title: str | None = None) -> dict[str, Any]:
    """What the template sees. Text is plain here; the template escapes it."""
    return {
        "title": title or f"{data.path.name}: labels and policy",
        "data": data,
        "facts": _facts(data),
        "tiles": _tiles(data),
        "remarks": summary.remarks(data),
        "headline": _headline(data),
        "gap_sentence": _gap_sentence(data),
        "label_cards": _label_cards(data),
        "principles": _principle_rows(data),
        "matrix": _matrix(data),
        "criteria": _criterion_cards(data),
        "pair_cards": _pair_cards(data),
        "training_cards": _training_cards(data),
        "policy_cards": _policy_cards(data),
        "policy_examples": _policy_examples(data),
        "examples": [_example(example) for example in data.examples],
        "cost_cards": _cost_cards(data),
        "cost_rows": _cost_rows(data),
        "engines": _engines(data),
        "templates": _templates(data),
        "config_text": yaml.safe_dump(data.config, sort_keys=False, allow_unicode=True) if data.config else "",
        "percent": summary.percent,
        "interval": summary.interval,
        "number": charts.number,
        "cut": cut,
    }


def cut(text: str, room: int = MAX_SHOWN) -> str:
    """`text`, or its beginning and how much is missing."""
    if len(text) <= room:
        return text
    return f"{text[:room]}\n… and {len(text) - room:,} more characters"


def _facts(data: ReportData) -> list[str]:
    """The line under the title."""
    facts = []
    if data.labels:
        facts += [f"judge {name}" for name in data.labels.models if name]
        facts += [f"standard {name}" for name in data.labels.rubrics if name]
    if data.manifest.get("seed") is not None:
        facts.append(f"seed {data.manifest['seed']}")
    if data.manifest.get("rlaif_version"):
        facts.append(f"rlaif {data.manifest['rlaif_version']}")
    return facts


def _tiles(data: ReportData) -> list[dict[str, str]]:
    """The big numbers: {"value", "name", "more"}."""
    tiles = []

    def add(value: str, name: str, more: str = "") -> None:
        tiles.append({"value": value, "name": name, "more": more})

    if data.n_prompts is not None:
        add(f"{data.n_prompts:,}", "prompts")
    if data.n_responses is not None:
        each = f"{data.n_responses / data.n_prompts:.1f} per prompt" if data.n_prompts else ""
        add(f"{data.n_responses:,}", "responses", each)
    if data.labels is not None:
        bad = data.labels.n - data.labels.statuses["ok"]
        add(f"{data.labels.n:,}", "judgments", "all of them usable" if not bad else f"{bad:,} of them no label")
    if data.pairs is not None:
        judged = data.labels.n_pairs if data.labels else 0
        add(f"{data.pairs.n:,}", "preferences kept", f"{judged:,} pairs judged" if judged else "")
    if data.labels is not None and data.labels.consistency:
        add(summary.percent(data.labels.consistency.value), "same winner in both orders")
    rates = summary.win_rates(data)
    mine = rates.get(summary.labelling_judge(data))
    if mine:
        add(summary.percent(mine["value"]), "win rate after training", "says the labelling judge")
    return tiles


def _estimate_dot(label: str, e: Mapping[str, Any], group: int = 1) -> Dot:
    return Dot(label, e["value"], e.get("low"), e.get("high"), e.get("n"), group)


def _headline(data: ReportData) -> list[Card]:
    cards = []
    labelling = summary.labelling_judge(data)
    rows = []
    for name, e in summary.win_rates(data).items():
        role = "labelled the data" if name == labelling else "did not label"
        rows.append(_estimate_dot(f"{name} ({role})", e))
    truth = summary.estimate(data.evaluation.get("oracle_win_rate"))
    if truth:
        rows.append(_estimate_dot("oracle", truth))
    if rows:
        svg = charts.dots(rows, "Win rate of the trained policy", _WIN_LABEL, span=(0, 1), reference=0.5)
        note = "The trained policy against the one it started from, on prompts it was not trained on. Dashed: no difference."
        cards.append(Card("Who prefers the trained policy", svg, note))
    dots = _before_after(data, summary.ORACLE)
    if dots and summary.oracle(data):
        svg = charts.dots(dots, "The oracle, before and after training", "score or share of responses", span=(0, 1))
        note = "Grey: before training. Blue: after. The oracle reads the text only and never labels anything."
        cards.append(Card("What the oracle finds", svg, note))
    return cards


def _gap_sentence(data: ReportData) -> str:
    """Judge minus oracle, in a sentence that needs no statistics."""
    gap = summary.gap(data)
    if gap is None:
        return ""
    points = f"{abs(100 * gap['value']):.0f} points"
    known = gap["low"] is not None and gap["high"] is not None
    sure = known and not gap["low"] <= 0 <= gap["high"]
    between = f" (95 % interval {100 * gap['low']:+.0f} to {100 * gap['high']:+.0f})" if known else ""
    if known and not sure:
        return (
            f"The judge and the oracle differ by {points}{between}, which chance alone can explain: "
            "there is no sign that the policy learned to please the judge instead of getting better."
        )
    if gap["value"] > 0:
        return (
            f"The judge sees {points} more of a win{between} than the oracle. That part of the gain pleases the judge "
            "without being better: reward hacking, made visible."
        )
    return f"The judge sees {points} less of a win{between} than the oracle: it undersells the gain."


def _label_cards(data: ReportData) -> list[Card]:
    labels = data.labels
    if labels is None or not labels.n:
        return []
    cards = []
    colours = {"ok": charts.BLUE}
    rows = [
        Bar(s, labels.statuses[s], f"{labels.statuses[s]:,} · {summary.percent(labels.statuses[s] / labels.n, 1)}",
            colours.get(s, charts.ORANGE))
        for s in STATUSES
    ]  # fmt: skip
    note = "Only “ok” has a verdict. The others are counted, kept, and never become a label."
    cards.append(Card("What became of each judgment", charts.bars(rows, "Judgments by status"), note))
    trust = []
    if labels.consistency:
        trust.append(_estimate_dot("Same winner in both orders", labels.consistency.as_dict()))
    if labels.first_rate:
        trust.append(_estimate_dot("Winner is the response shown first", labels.first_rate.as_dict()))
    if data.pairs and data.pairs.consistent:
        trust.append(_estimate_dot("Kept pairs with every order agreed", data.pairs.consistent.as_dict()))
    if trust:
        svg = charts.dots(trust, "Order consistency and first-position rate", "share", span=(0, 1), reference=0.5)
        note = "A judge without position bias has the first-position rate on the dashed line, and consistency near 1."
        cards.append(Card("Does the order shown matter?", svg, note))
    if labels.order_map is not None:
        svg = charts.density(
            labels.order_map, "Probability in both orders", "P(A better), A shown first", "P(A better), A shown second"
        )
        note = "Each pair once. On the diagonal the order does not matter; top left and bottom right it decides."
        cards.append(Card("The same pair, both ways round", svg, note))
    if labels.p_first is not None:
        svg = charts.histogram([("", labels.p_first, charts.BLUE)], _UNIT, "P(first shown is better)",
                               "P(the response shown first is better)", "judgments", mark=(0.5, "no preference"))  # fmt: skip
        cards.append(Card("How sure single judgments are", svg, "Symmetric around ½ when the position has no pull."))
    if labels.label_mass is not None:
        svg = charts.histogram([("", labels.label_mass, charts.GREEN)], _UNIT, "Label mass",
                               "probability held by the verdict labels", "judgments")  # fmt: skip
        note = "Near 1 the judge answered in the form it was asked for; far below, its ratio of labels means little."
        cards.append(Card("Did the judge answer the question?", svg, note))
    return cards


def _principle_rows(data: ReportData) -> list[dict[str, Any]]:
    if data.labels is None:
        return []
    agrees = data.pairs.agrees if data.pairs else {}
    return [{"row": row, "agrees": agrees.get(row.name)} for row in data.labels.principles]


def _matrix(data: ReportData) -> dict[str, Any] | None:
    """Names, and rows of cells {"text", "tone", "shade", "n"}; shade in per cent, tone by side of one half."""
    found = data.labels.agreement if data.labels else {}
    if not found:
        return None
    names = sorted(found)
    rows = []
    for one in names:
        cells: list[dict[str, Any]] = []
        for other in names:
            agreement = found[one].get(other)
            if one == other:
                cells.append({"text": "", "tone": "self", "shade": 0, "n": 0})
            elif agreement is None:
                cells.append({"text": "–", "tone": "self", "shade": 0, "n": 0})
            else:
                share = agreement.accuracy.value
                tone = "agree" if share >= 0.5 else "clash"
                shade = round(abs(share - 0.5) * 2 * 70)
                cells.append({"text": f"{100 * share:.0f}", "tone": tone, "shade": shade, "n": agreement.n})
        rows.append({"name": one, "cells": cells})
    return {"names": names, "rows": rows}


def _criterion_cards(data: ReportData) -> list[Card]:
    cards = []
    for row in data.labels.criteria if data.labels else []:
        if row.summary is None or len(row.edges) < 2:
            continue
        svg = charts.histogram([("", row.counts, charts.BLUE)], row.edges, f"Scores: {row.name}", "score", "judgments")
        note = f"Mean {charts.number(row.summary['mean'])} over {row.summary['n']:,}; {row.n_null:,} not judged."
        cards.append(Card(f"Scores: {row.name}", svg, note))
    return cards


def _pair_cards(data: ReportData) -> list[Card]:
    pairs = data.pairs
    if pairs is None:
        return []
    lost = [group for group in data.dropped if group.stage == "pair"]
    total = pairs.n + sum(group.n for group in lost) or 1
    rows = [Bar("kept", pairs.n, f"{pairs.n:,} · {summary.percent(pairs.n / total)}")]
    rows += [
        Bar(f"dropped: {g.reason}", g.n, f"{g.n:,} · {summary.percent(g.n / total)}", charts.ORANGE)
        for g in lost[:_MAX_BARS]
    ]
    note = f"{pairs.n:,} preferences over {pairs.n_prompts:,} prompts."
    cards = [Card("Kept and dropped", charts.bars(rows, "Pairs kept and dropped by reason"), note)]
    if pairs.n == 0:
        return cards
    mean = pairs.summary["mean"] if pairs.summary else 0.5
    svg = charts.histogram([("", pairs.probability, charts.BLUE)], _UNIT, "Probability of the chosen response",
                           "P(chosen is better), orders averaged", "pairs", mark=(mean, f"mean {mean:.2f}"))  # fmt: skip
    margin = f" Margin in the judge's unit: median {charts.number(pairs.margin['median'])}." if pairs.margin else ""
    cards.append(Card("How sure the kept labels are", svg, "Near ½ a label is little more than a guess." + margin))
    if pairs.chosen_length and pairs.rejected_length and pairs.chosen_longer:
        series = [
            (f"chosen, mean {pairs.chosen_length['mean']:.0f}", pairs.chosen_lengths, charts.BLUE),
            (f"rejected, mean {pairs.rejected_length['mean']:.0f}", pairs.rejected_lengths, charts.ORANGE),
        ]
        svg = charts.histogram(series, pairs.length_edges, "Length of chosen and rejected", "characters", "responses")
        note = f"The chosen response is the longer one in {summary.interval(pairs.chosen_longer)} of the pairs."
        cards.append(Card("Is longer better?", svg, note))
    return cards


def _training_cards(data: ReportData) -> list[Card]:
    cards = []
    for title, unit, keys, zero in _CURVES:
        series = []
        for key, name, colour in zip(keys, ("training", "held out"), (charts.BLUE, charts.ORANGE), strict=False):
            rows = [row for row in data.training if _is_number(row.get(key)) and _is_number(row.get("step"))]
            if rows:
                series.append(Line(name, [row["step"] for row in rows], [row[key] for row in rows], colour))
        svg = charts.lines(series, title, "training step", unit, zero=zero)
        if svg:
            cards.append(Card(title, svg))
    return cards


def _before_after(data: ReportData, names: Iterable[str]) -> list[Dot]:
    dots = []
    for name in names:
        sides = summary.metric(data, name)
        for group, side in enumerate(("before", "after")):
            if side in sides:
                dots.append(_estimate_dot(_NAMES.get(name, name.replace("_", " ")), sides[side], group))
    return dots


def _policy_cards(data: ReportData) -> list[Card]:
    cards = []
    measured = [name for name in data.evaluation.get("metrics") or {} if name not in summary.ORACLE]
    shares = [n for n in measured if all(0 <= e["value"] <= 1 for e in summary.metric(data, n).values() if e)]
    dots = _before_after(data, shares)
    if dots:
        svg = charts.dots(dots, "Metrics before and after", "score or share", span=(0, 1))
        cards.append(Card("Other measures", svg, "Grey: before training. Blue: after."))
    for name in measured:
        if name not in shares and (dots := _before_after(data, [name])):
            cards.append(Card(name, charts.dots(dots, name, name), "Grey: before training. Blue: after."))
    length = data.evaluation.get("length") or {}
    sides = [(side, summary.estimate(length.get(side))) for side in ("before", "after")]
    rows = [
        _estimate_dot("Response length", e, group) for group, (_, e) in enumerate(sides) if e is not None
    ]
    if rows:
        svg = charts.dots(rows, "Response length before and after", "mean length", span=(0, max(_tops(rows)) * 1.1))
        cards.append(Card("How long responses are", svg, "A policy that only got longer has often learned length, not quality."))
    return cards + _domain_cards(data)


def _tops(rows: Sequence[Dot]) -> list[float]:
    return [max(row.value, row.high or row.value) for row in rows]


def _domain_cards(data: ReportData) -> list[Card]:
    """One chart per figure that evaluation gives by domain."""
    by_figure: dict[str, list[Dot]] = {}
    for domain, figures in (data.evaluation.get("by_domain") or {}).items():
        for name, e, group in _figures(figures):
            by_figure.setdefault(name, []).append(_estimate_dot(domain or "no domain", e, group))
    cards = []
    for name, dots in by_figure.items():
        share = all(0 <= dot.value <= 1 for dot in dots)
        won = name.startswith("win rate")
        svg = charts.dots(dots, f"{name} by domain", _WIN_LABEL if won else "score or share" if share else name,
                          span=(0, 1) if share else None, reference=0.5 if won else None)  # fmt: skip
        cards.append(Card(f"By domain: {name}", svg, "" if won else "Grey: before training. Blue: after."))
    return cards


def _figures(node: Any, path: tuple[str, ...] = ()) -> Iterable[tuple[str, dict[str, Any], int]]:
    """(name, estimate, group) for every estimate inside a nested mapping; keys before/after become the group."""
    found = summary.estimate(node)
    if found is not None and path:
        side = path[-1]
        named = [part for part in path if part not in ("before", "after", "metrics", "value")]
        name = " ".join(named).replace("_", " ") or "value"
        if side != "difference" and named != ["n"]:
            yield name, found, 0 if side == "before" else 1
    elif isinstance(node, Mapping):
        for key, child in node.items():
            yield from _figures(child, (*path, str(key)))


def _policy_examples(data: ReportData) -> list[dict[str, str]]:
    """{"prompt", "before", "after", "more"} of the evaluation's own examples."""
    rows = []
    for raw in data.evaluation.get("examples") or []:
        if isinstance(raw, Mapping) and {"prompt", "before", "after"} <= set(raw):
            more = ", ".join(f"{k} {v}" for k, v in raw.items() if isinstance(v, int | float | str) and k not in
                             ("prompt", "before", "after"))  # fmt: skip
            rows.append({**{k: _plain_text(raw[k]) for k in ("prompt", "before", "after")}, "more": more})
    return rows


def _plain_text(value: Any) -> str:
    return str(value.get("text", value)) if isinstance(value, Mapping) else str(value)


def _example(example: Example) -> dict[str, Any]:
    """One pair for the template; judgments say what they thought of the chosen response."""
    chosen_id = example.preference.chosen_id
    judgments = []
    for judgment in example.judgments:
        first = judgment.response_ids[:1] == [chosen_id]
        p = p_first(judgment) if judgment.kind == "pairwise" else float("nan")
        judgments.append(
            {
                "id": judgment.id,
                "standard": standard_of(judgment),
                "shown": "chosen first" if first else "rejected first",
                "status": judgment.status,
                "p": p if first else 1 - p,
                "rationale": judgment.rationale,
            }
        )
    return {
        "preference": example.preference,
        "prompt": example.prompt,
        "chosen": example.chosen,
        "rejected": example.rejected,
        "by_principle": sorted(example.preference.by_principle.items()),
        "judgments": judgments,
    }


def _cost_cards(data: ReportData) -> list[Card]:
    rows = [(name, float(stage.get("seconds") or 0)) for name, stage in data.stages.items()]
    total = sum(seconds for _, seconds in rows)
    if not total:
        return []
    bars = [Bar(name, seconds, f"{charts.number(seconds)} s") for name, seconds in rows if seconds]
    return [Card("Time by stage", charts.bars(bars, "Seconds by stage"), f"{charts.number(total)} seconds in all.")]


def _cost_rows(data: ReportData) -> list[dict[str, Any]]:
    rows = []
    for name, stage in data.stages.items():
        asked, used = stage.get("requests") or {}, stage.get("tokens") or {}
        counts = stage.get("counts") or {}
        rows.append(
            {
                "name": name,
                "status": stage.get("status", ""),
                "seconds": float(stage.get("seconds") or 0),
                "requests": [int(asked.get(key) or 0) for key in ("sent", "from_journal", "failed")],
                "tokens": [int(used.get(key) or 0) for key in ("prompt", "completion")],
                "counts": ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in counts.items()),
            }
        )
    return rows


def _engines(data: ReportData) -> list[dict[str, str]]:
    engines = data.manifest.get("engines") or {}
    return [
        {"role": role, "model": str(raw.get("model", "")), "identity": str(raw.get("identity", ""))}
        for role, raw in engines.items()
        if isinstance(raw, Mapping)
    ]


def _templates(data: ReportData) -> list[tuple[str, int]]:
    return [(sha, n) for sha, n in data.labels.templates.most_common() if sha] if data.labels else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
