"""What a guard has seen and decided, as training.json says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.training.guard.decision import Decision, Probe, Rules


def told(
    history: Sequence[Probe], decision: Decision, rules: Rules, kept_step: int, *, keep_best: bool
) -> dict[str, Any]:
    """The limits, every probe's figures, whether and why it stopped, and which step's weights are written."""
    return {
        "by": rules.by,
        "limits": {name: limit.model_dump(exclude_none=True) for name, limit in rules.limits.items()},
        "stopped_at_step": history[-1].step if decision.stop else None,
        "why": decision.why,
        "best_step": history[decision.best].step,
        "kept_step": kept_step,
        "kept_why": decision.best_why if keep_best else "keep: last",
        "history": [_row(probe, rules) for probe in history],
    }


def _row(probe: Probe, rules: Rules) -> dict[str, Any]:
    """Figures of one probe; of rewards and win rates the interval over prompts too."""
    overall: dict[str, Any] = {"step": probe.step}
    domains: dict[str, dict[str, Any]] = {}
    for name, value in probe.figures.items():
        domain, _, figure = name.rpartition("/")
        part = domains.setdefault(domain, {}) if domain else overall
        part[figure] = None if value is None else round(value, 6)
    intervals = {}
    for name, values in probe.values.items():
        column = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        found = metrics.mean(column, np.asarray(rules.clusters), np.random.default_rng(rules.seed))
        intervals[name] = None if found is None else found.as_dict()
    return {**overall, "intervals": intervals, **({"by_domain": domains} if domains else {})}


def examples(
    history: Sequence[Probe], decision: Decision, prompts: Sequence[Any], shown: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Of a few prompts: what the policy answered at the start, at the best probe and at the last one."""
    steps = [history[at].step for at in dict.fromkeys((0, decision.best, len(history) - 1))]
    n = min((len(shown.get(str(step), [])) for step in steps), default=0)
    return [
        {
            "prompt": prompts[row],
            "responses": [{"step": step, "text": shown[str(step)][row]} for step in steps],
        }
        for row in range(n)
    ]


def in_words(figures: Mapping[str, float | None]) -> str:
    """For the log."""
    return ", ".join(f"{name} {x:.3g}" for name, x in figures.items() if x is not None and "/" not in name)
