"""The figures of evaluation.json, from comparisons, judgments and measured values. Pure: no engine, no file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.config import PairSection
from rlaif.judges.base import Task
from rlaif.records import Judgment, Prompt, Response
from rlaif.stages import pair
from rlaif.stages.pairing.standards import Standards

QUALITY = "quality"  # the metric that stands for the oracle
QUALITY_TIE = 0.01  # oracle qualities closer than this are a tie
VERSION = 1
_DIGITS = 6
_UNUSABLE = "excluded"

Values = Mapping[str, Mapping[str, float | None]]  # response id → metric → value


@dataclass(frozen=True)
class Comparison:
    """One response of the starting policy and one of the trained policy to the same prompt."""

    prompt: Prompt
    before: Response
    after: Response


@dataclass
class JudgeView:
    """What one judge said of each comparison, in their order."""

    p_after: list[float | None]  # P(after is better), both orders averaged; None: no usable judgment
    consistent: list[float | None]  # 1 or 0: whether both orders named the same winner; None: neither named one
    excluded: dict[str, int] = field(default_factory=dict)  # reason → comparisons without a verdict
    by_principle: list[dict[str, float]] = field(default_factory=list)  # P(after is better) under each alone

    @property
    def outcomes(self) -> list[float]:
        """1 after wins, ½ tie, 0 before wins, NaN no verdict."""
        found: list[float] = metrics.outcomes(self.p_after).tolist()
        return found


def tasks_of(arity: int, comparisons: Sequence[Comparison], seed: int) -> list[Task]:
    """What a judge looks at: each comparison (arity 2), or each response once, however often it is compared (1)."""
    if arity == 2:
        return [Task(prompt=c.prompt, responses=[c.before, c.after], seed=seed) for c in comparisons]
    alone = {
        row.id: Task(prompt=c.prompt, responses=[row], seed=seed) for c in comparisons for row in (c.before, c.after)
    }
    return list(alone.values())


def view(
    comparisons: Sequence[Comparison],
    judgments: Sequence[Judgment],
    weights: Mapping[str, float] | None = None,
    *,
    standards: Standards | None = None,
    section: PairSection | None = None,
) -> JudgeView:
    """One judge's judgments as verdicts on the comparisons, aggregated as labels are (see stages.pair).

    `section`: by default orders are averaged, and so are the members of a panel.
    """
    said = {
        (prompt_id, ids): result
        for prompt_id, results in pair.compared(judgments, section or PairSection(), weights, standards)
        for ids, result in results.items()
    }
    found = JudgeView([], [])
    for c in comparisons:
        ids = (min(c.before.id, c.after.id), max(c.before.id, c.after.id))
        result = said.get((c.prompt.id, ids), "not_judged")
        if isinstance(result, str):
            found.p_after.append(None)
            found.consistent.append(None)
            found.by_principle.append({})
            found.excluded[result] = found.excluded.get(result, 0) + 1
        else:
            sign = 1 if result.first_id == c.after.id else -1
            found.p_after.append(_probability(sign * result.difference))
            found.by_principle.append({name: _probability(sign * d) for name, d in result.by_principle.items()})
            found.consistent.append(None if result.consistent is None else float(result.consistent))
    return found


def _probability(lead: float) -> float:
    return (1 + min(1.0, max(-1.0, lead))) / 2


def evaluate(
    comparisons: Sequence[Comparison],
    views: Mapping[str, JudgeView],
    values: Values,
    *,
    seed: int,
    n_examples: int = 12,
) -> dict[str, Any]:
    """The figures of one match: what stands at the top of evaluation.json, and in each of its `matches`.

    Every interval is at 95 % and resamples prompts, since responses to one prompt are not independent. A figure that
    cannot be had is null. Win rates count ties as ½ and leave out comparisons without a usable judgment.
    """
    figures = _Figures(comparisons, values, seed)
    oracle = figures.oracle_outcomes()
    return {
        "version": VERSION,
        "n": len(comparisons),
        "win_rate": {judge: figures.win_rate(seen.outcomes) for judge, seen in views.items()},
        "judges": {judge: figures.judge(seen) for judge, seen in views.items()},
        "length": {"unit": "characters", **figures.sides(lambda response: float(len(response.text)))},
        "metrics": {name: figures.metric(name) for name in figures.metric_names},
        "oracle_win_rate": figures.win_rate(oracle),
        "judge_minus_oracle": {
            judge: _plain(metrics.paired_difference(oracle, seen.outcomes, figures.clusters, figures.rng))
            for judge, seen in views.items()
            if figures.has_oracle
        },
        "by_principle": {judge: figures.by_principle(seen) for judge, seen in views.items()},
        "by_domain": _by_domain(comparisons, views, values, seed),
        "examples": _examples(comparisons, views, values, n_examples),
    }


class _Figures:
    """Estimates over one set of comparisons."""

    def __init__(self, comparisons: Sequence[Comparison], values: Values, seed: int) -> None:
        self.comparisons, self.values, self.seed = comparisons, values, seed
        self.clusters = [c.prompt.id for c in comparisons]
        names = {name: None for c in comparisons for r in (c.before, c.after) for name in values.get(r.id, {})}
        self.metric_names = list(names)
        self.has_oracle = QUALITY in names

    @property
    def rng(self) -> np.random.Generator:
        """A new one for each figure, so that none depends on which others are computed."""
        return np.random.default_rng(self.seed)

    def win_rate(self, outcomes: Sequence[float]) -> dict[str, Any] | None:
        found = metrics.win_rate(outcomes, self.clusters, self.rng)
        return None if found is None else {**_estimate(found), "ties": sum(x == 0.5 for x in outcomes)}

    def judge(self, seen: JudgeView) -> dict[str, Any]:
        delta = [len(c.after.text) - len(c.before.text) for c in self.comparisons]
        controlled = metrics.length_controlled_win_rate(seen.outcomes, delta)
        return {
            "length_controlled_win_rate": None if controlled is None else round(controlled, _DIGITS),
            "mean_probability": _plain(metrics.proportion(seen.p_after, self.clusters, self.rng)),
            "order_consistency": _plain(metrics.proportion(seen.consistent, self.clusters, self.rng)),
            _UNUSABLE: dict(sorted(seen.excluded.items())),
        }

    def by_principle(self, seen: JudgeView) -> dict[str, Any]:
        """Win rates under each principle (or criterion) alone; {} where the judge named none."""
        names = sorted({name for row in seen.by_principle for name in row})
        return {
            name: self.win_rate(metrics.outcomes([row.get(name) for row in seen.by_principle]).tolist())
            for name in names
        }

    def sides(self, value: Callable[[Response], float | None]) -> dict[str, Any]:
        """A figure of the response before and after, and its paired difference."""
        before = [value(c.before) for c in self.comparisons]
        after = [value(c.after) for c in self.comparisons]
        return {
            "before": _plain(metrics.mean(before, self.clusters, self.rng)),
            "after": _plain(metrics.mean(after, self.clusters, self.rng)),
            "difference": _plain(metrics.paired_difference(before, after, self.clusters, self.rng)),
        }

    def metric(self, name: str) -> dict[str, Any]:
        return self.sides(lambda response: self.values.get(response.id, {}).get(name))

    def oracle_outcomes(self) -> list[float]:
        """The same scale as a judge's, from the metric `quality`; NaN where that was not measured."""
        return [oracle_outcome(c, self.values) for c in self.comparisons]


def oracle_outcome(comparison: Comparison, values: Values) -> float:
    before = values.get(comparison.before.id, {}).get(QUALITY)
    after = values.get(comparison.after.id, {}).get(QUALITY)
    if before is None or after is None:
        return math.nan
    if abs(after - before) <= QUALITY_TIE:
        return 0.5
    return float(after > before)


def _by_domain(
    comparisons: Sequence[Comparison], views: Mapping[str, JudgeView], values: Values, seed: int
) -> dict[str, Any]:
    """Win rates and metrics for each domain; {} where the prompts have none."""
    found = {}
    for domain in sorted({c.prompt.domain for c in comparisons if c.prompt.domain}):
        where = [i for i, c in enumerate(comparisons) if c.prompt.domain == domain]
        figures = _Figures([comparisons[i] for i in where], values, seed)
        outcomes = {judge: seen.outcomes for judge, seen in views.items()}
        measured = {name: figures.metric(name) for name in figures.metric_names}
        found[domain] = {
            "n": len(where),
            "win_rate": {judge: figures.win_rate([rows[i] for i in where]) for judge, rows in outcomes.items()},
            "metrics": {
                name: {s: row[s] for s in ("before", "after")} for name, row in measured.items() if row["after"]
            },
        }
    return found


def _examples(
    comparisons: Sequence[Comparison], views: Mapping[str, JudgeView], values: Values, n: int
) -> list[dict[str, Any]]:
    """`n` comparisons, evenly spread from the trained policy's clearest win to its clearest loss (first judge)."""
    p = next(iter(views.values())).p_after if views else [None] * len(comparisons)
    ranked = sorted((i for i, c in enumerate(comparisons) if p[i] is not None), key=lambda i: (-(p[i] or 0.0), i))
    if n < len(ranked):
        ranked = [ranked[round(k * (len(ranked) - 1) / max(1, n - 1))] for k in range(n)]
    rows = []
    for i in ranked:
        c = comparisons[i]
        row: dict[str, Any] = {
            "prompt": c.prompt.text,
            "before": c.before.text,
            "after": c.after.text,
            "domain": c.prompt.domain,
        }
        row |= {f"p_{judge}": _rounded(seen.p_after[i]) for judge, seen in views.items()}
        for side, response in (("before", c.before), ("after", c.after)):
            row[f"{QUALITY}_{side}"] = _rounded(values.get(response.id, {}).get(QUALITY))
        rows.append({key: value for key, value in row.items() if value is not None})
    return rows


def _estimate(found: metrics.Estimate) -> dict[str, Any]:
    return {key: _rounded(value) if key != "n" else value for key, value in found.as_dict().items()}


def _plain(found: metrics.Estimate | None) -> dict[str, Any] | None:
    return None if found is None else _estimate(found)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
