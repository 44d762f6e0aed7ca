"""From the probes of a training so far to a decision. Pure.

Two things stop a training. A limit: a figure is out of its bounds, which are mostly against the starting policy. And
over-optimisation: what the policy maximises goes on rising while the quality that somebody else sees does not (the
gold score against √KL of Gao et al. 2022, 2210.10760), or falls outright. Quality is noisy, so a fall counts only
where the interval of the paired difference (same prompts, same random numbers) is below zero too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.config.guarding import Limit
from rlaif.training.guard.monitors import Figures

Values = Sequence[float | None]


@dataclass(frozen=True)
class Probe:
    """The figures of one probe, `DOMAIN/figure` among them, and what `reward` and `win_rate` are means of: one number
    a response, None where there is none."""

    step: int
    figures: Figures
    values: Mapping[str, Values] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """`by`: the name of the figure that is quality, or None. `reward`: whether a reward is watched beside it.
    `clusters`: of each response, its prompt."""

    limits: Mapping[str, Limit]
    by: str | None = None
    fall: float = 0.05
    patience: int | None = None
    clusters: Sequence[int] = ()
    seed: int = 0


@dataclass(frozen=True)
class Decision:
    """`why`: of a stop, in words. `best`: number of the probe to keep, and why that one."""

    stop: bool
    why: str | None
    best: int
    best_why: str


def decide(history: Sequence[Probe], rules: Rules) -> Decision:
    """history: all probes in order, the first of the starting policy; at most the last one may break a limit."""
    best, best_why = _best(history, rules)
    why = _broken(history, len(history) - 1, rules.limits) if len(history) > 1 else []
    if not why and rules.by is not None:
        why = _over_optimised(history, best, rules)
    return Decision(bool(why), "; ".join(why) or None, best, best_why)


def broken_at_start(start: Probe, limits: Mapping[str, Limit]) -> list[str]:
    """Absolute bounds that the starting policy itself does not keep, in words."""
    return _broken([start], 0, limits)


def _best(history: Sequence[Probe], rules: Rules) -> tuple[int, str]:
    kept = [at for at in range(len(history)) if at == 0 or not _broken(history, at, rules.limits)]
    if rules.by is None:
        return kept[-1], "the last probe within the limits: no judge and no reward says which is better"
    known = [(value, at) for at in kept if (value := history[at].figures.get(rules.by)) is not None]
    if not known:
        return kept[-1], f"the last probe within the limits: no probe has a {rules.by}"
    most = max(value for value, _ in known)
    at = next(at for value, at in known if value == most)
    return at, f"the highest {rules.by} within the limits, {most:.3f}"


def _broken(history: Sequence[Probe], at: int, limits: Mapping[str, Limit]) -> list[str]:
    found = []
    for name, limit in limits.items():
        value, start = history[at].figures.get(name), history[0].figures.get(name)
        for bound, allowed in bounds(limit, start):
            above = bound.startswith("max")
            if value is not None and (value > allowed if above else value < allowed):
                side = "above" if above else "below"
                of_start = "" if start is None or at == 0 else f", {start:.3g} at the start"
                found.append(f"{name} is {value:.3g}, {side} {allowed:.3g} ({_said(limit, bound)}{of_start})")
    return found


def bounds(limit: Limit, start: float | None) -> list[tuple[str, float]]:
    """(name of the bound, the value that is allowed); those against a start that has no figure are left out."""
    found = [(name, value) for name in ("min", "max") if (value := getattr(limit, name)) is not None]
    if start is not None:
        found += [("max_rise", start + limit.max_rise)] if limit.max_rise is not None else []
        found += [("min_fall", start - limit.max_fall)] if limit.max_fall is not None else []
        found += [("max_ratio", start * limit.max_ratio)] if limit.max_ratio is not None else []
        found += [("min_ratio", start * limit.min_ratio)] if limit.min_ratio is not None else []
    return found


def _said(limit: Limit, bound: str) -> str:
    key = "max_fall" if bound == "min_fall" else bound
    return f"{key} {getattr(limit, key):.3g}"


def _over_optimised(history: Sequence[Probe], best: int, rules: Rules) -> list[str]:
    now, by = len(history) - 1, str(rules.by)
    if now == best:
        return []
    fallen = _rise(history[best], history[now], by, rules)
    if fallen is not None and fallen.high is not None and fallen.high < 0 and -fallen.value >= rules.fall:
        return [f"{by} has fallen by {_estimate(fallen, -1)} since step {history[best].step}: over-optimised"]
    if rules.patience is None or by == "reward" or now - best < rules.patience:
        return []
    risen = _rise(history[best], history[now], "reward", rules)
    if risen is not None and risen.low is not None and risen.low > 0:
        return [
            f"{by} has not risen for {now - best} probes, since step {history[best].step}, while the reward rose by "
            f"{_estimate(risen, 1)}: over-optimised"
        ]
    return []


def _rise(before: Probe, after: Probe, name: str, rules: Rules) -> metrics.Estimate | None:
    """Paired over responses, resampled over prompts."""
    olds, news = before.values.get(name), after.values.get(name)
    if not olds or not news:
        return None
    rng = np.random.default_rng(rules.seed)
    return metrics.paired_difference(_column(olds), _column(news), np.asarray(rules.clusters), rng)


def _column(values: Values) -> Any:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _estimate(found: metrics.Estimate, sign: int) -> str:
    low, high = sorted((sign * (found.low or 0.0), sign * (found.high or 0.0)))
    return f"{sign * found.value:.3f} [{low:.3f}, {high:.3f}]"
