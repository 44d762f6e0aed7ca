"""ReportData as the HTML page: the tables and texts that stand beside the charts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rlaif.stages.report import audit, cards, charts, matches, people, summary, trainings
from rlaif.stages.report.collect import Example, ReportData
from rlaif.stages.report.labels import p_first, standard_of
from rlaif.stages.report.remarks import remarks
from rlaif.templates import render_page

TEMPLATE = Path(__file__).with_name("page.html.jinja")
_SIDES = ("before", "after", "difference")
MAX_SHOWN = 20_000  # characters of one text on the page; the run folder has the rest


def render(data: ReportData, title: str | None = None) -> str:
    """The whole page, everything inline."""
    return render_page(TEMPLATE, context(data, title))


def context(data: ReportData, title: str | None = None) -> dict[str, Any]:
    """What the template sees. Text is plain here; the template escapes it."""
    return {
        "title": title or f"{data.path.name}: labels and policy",
        "data": data,
        "facts": _facts(data),
        "version": data.manifest.get("rlaif_version"),
        "tiles": _tiles(data),
        "remarks": remarks(data),
        "headline": cards.headline(data),
        "gap": _gap(data),
        "audit": audit.context(data.audit),
        "label_cards": cards.label_cards(data),
        "principles": _principle_rows(data),
        "matrix": _matrix(data),
        "criteria": cards.criterion_cards(data),
        "people_cards": people.cards(data),
        "people": people.section(data),
        "pair_cards": cards.pair_cards(data),
        "trainings": trainings.sections(data),
        "policy_cards": cards.policy_cards(data),
        "policy_judges": _policy_judges(data),
        "policy_metrics": _policy_metrics(data),
        "policy_principles": matches.principles(data.evaluation),
        "policy_matches": matches.matches(data.evaluation),
        "reward_models": matches.reward_models(data.evaluation),
        "policy_examples": _policy_examples(data),
        "examples": [_example(example) for example in data.examples],
        "cost_tiles": _cost_tiles(data),
        "cost_rows": _cost_rows(data),
        "cost": sum(float(stage.get("cost") or 0) for stage in data.stages.values()),
        "engines": _engines(data),
        "templates": _templates(data),
        "training_facts": trainings.facts(data),
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
        n_domains = len(data.domains.keys() - {""})
        add(f"{data.n_prompts:,}", "prompts", f"{n_domains} domains" if n_domains > 1 else "")
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


def _gap(data: ReportData) -> dict[str, Any] | None:
    """Judge minus oracle: {"points", "text"}, the text in words that need no statistics."""
    gap = summary.gap(data)
    if gap is None:
        return None
    known = gap["low"] is not None and gap["high"] is not None
    between = (
        charts.minus(f"{100 * gap['low']:+.0f}") + " to " + charts.minus(f"{100 * gap['high']:+.0f}") if known else ""
    )
    between = f" (95 % interval {between})" if known else ""
    if known and gap["low"] <= 0 <= gap["high"]:
        text = (
            f"With this many prompts the difference can be chance{between}: no proof, either way, that the policy "
            "learned to please the judge instead of getting better."
        )
    elif gap["value"] > 0:
        text = (
            f"The labelling judge sees more of a win than the oracle{between}. That part of the gain pleases the "
            "judge without being better: reward hacking, made visible."
        )
    else:
        text = f"The labelling judge sees less of a win than the oracle{between}: it undersells the gain."
    return {"points": charts.minus(f"{100 * gap['value']:+.0f}"), "text": text}


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


def _policy_judges(data: ReportData) -> list[dict[str, Any]]:
    """One row a judge: what its win rate rests on."""
    rows = []
    for name, e in summary.win_rates(data).items():
        more = (data.evaluation.get("judges") or {}).get(name) or {}
        excluded = more.get("excluded") or {}
        rows.append(
            {
                "name": name,
                "labels": name == summary.labelling_judge(data),
                "win_rate": e,
                "ties": data.evaluation["win_rate"][name].get("ties"),
                "corrected": (data.evaluation.get("corrected_win_rate") or {}).get(name),
                "controlled": more.get("length_controlled_win_rate"),
                "probability": summary.estimate(more.get("mean_probability")),
                "consistency": summary.estimate(more.get("order_consistency")),
                "excluded": ", ".join(f"{n} {reason}" for reason, n in excluded.items()) or "none",
            }
        )
    return rows


def _policy_metrics(data: ReportData) -> list[dict[str, Any]]:
    """Every metric before and after; `sure`: the interval of the difference is on one side of 0."""
    rows = []
    for name in data.evaluation.get("metrics") or {}:
        sides = summary.metric(data, name)
        difference = sides.get("difference") or {}
        low, high = difference.get("low"), difference.get("high")
        sure = low is not None and high is not None and (low > 0 or high < 0)
        rows.append({"name": name.replace("_", " "), **{s: sides.get(s) for s in _SIDES}, "sure": sure})
    return rows


def _policy_examples(data: ReportData) -> list[dict[str, Any]]:
    """{"prompt", "before", "after", "more"} of the evaluation's own examples; more: what else is known, in words."""
    rows = []
    for raw in data.evaluation.get("examples") or []:
        more = [_fact(key, value) for key, value in raw.items() if key not in ("prompt", "before", "after")]
        rows.append({**{key: str(raw.get(key, "")) for key in ("prompt", "before", "after")}, "more": more})
    return rows


def _fact(key: str, value: Any) -> str:
    name = f"P(after is better) says {key[2:]}" if key.startswith("p_") else key.replace("_", " ")
    return f"{name} {f'{value:.2f}' if isinstance(value, float) else value}"


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


def _cost_tiles(data: ReportData) -> list[dict[str, str]]:
    asked, used = summary.requests(data), summary.tokens(data)
    last = f"{asked['sent_last_run']:,} in the latest run"
    tiles = [
        {"value": f"{asked['sent']:,}", "name": "requests sent", "more": last},
        {"value": f"{asked['from_journal']:,}", "name": "read from the journal", "more": "in the latest run"},
        {"value": f"{asked['failed']:,}", "name": "requests failed", "more": "for good, after retries"},
        {"value": f"{used['prompt']:,}", "name": "prompt tokens", "more": ""},
        {"value": f"{used['completion']:,}", "name": "completion tokens", "more": ""},
    ]
    cost = sum(float(stage.get("cost") or 0) for stage in data.stages.values())
    return [*tiles, {"value": charts.number(cost), "name": "cost", "more": "in the prices' unit"}] if cost else tiles


def _cost_rows(data: ReportData) -> list[dict[str, Any]]:
    rows = []
    longest = max((float(stage.get("seconds") or 0) for stage in data.stages.values()), default=0) or 1
    for name, stage in data.stages.items():
        asked, used = stage.get("requests") or {}, stage.get("tokens") or {}
        counts = stage.get("counts") or {}
        rows.append(
            {
                "name": name,
                "status": stage.get("status", ""),
                "seconds": float(stage.get("seconds") or 0),
                "of_longest": float(stage.get("seconds") or 0) / longest,
                "requests": [int(asked.get(key) or 0) for key in ("sent", "from_journal", "failed")],
                "tokens": [int(used.get(key) or 0) for key in ("prompt", "completion")],
                "cost": float(stage.get("cost") or 0),
                "counts": _spell(counts),
            }
        )
    return rows


def _spell(counts: Mapping[str, Any]) -> str:
    """Counts of the manifest as text; nested ones in brackets."""
    parts = []
    for key, value in counts.items():
        if isinstance(value, Mapping):
            shown = f"({_spell(value)})" if value else ""
        elif isinstance(value, list):
            shown = " ".join(map(str, value))
        else:
            shown = f"{value:,}" if _is_number(value) else str(value or "")
        if shown:
            parts.append(f"{key.replace('_', ' ')} {shown}")
    return ", ".join(parts)


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
