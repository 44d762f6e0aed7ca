"""Every model that the run trained: its curves as the trainer logged them, and what its guard saw and decided."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.stages.report import charts, summary
from rlaif.stages.report.cards import Card
from rlaif.stages.report.charts import Line
from rlaif.stages.report.collect import ReportData

Record = Mapping[str, Any]  # training.json
_QUALITY = {"win_rate": "second judge's win rate", "reward": "reward"}
_SHARES = (
    ("refusal_rate", "refusals", charts.ORANGE),
    ("eos_rate", "came to an end", charts.BLUE),
    ("repetition", "repeated 4-grams", charts.PURPLE),
)
_ALWAYS = (
    "win_rate", "reward", "kl", "kl_per_token", "length", "refusal_rate", "eos_rate", "repetition", "distinct_1",
    "distinct_2",
)  # fmt: skip
_WORDS = {
    "win_rate": "win rate against the start", "reward": "reward", "kl": "KL from the start, nats per response",
    "kl_per_token": "KL per token, nats", "kl_k3": "KL (k3), nats per response", "length": "length, tokens",
    "refusal_rate": "refusals", "eos_rate": "came to an end", "repetition": "repeated 4-grams",
    "distinct_1": "distinct-1", "distinct_2": "distinct-2",
}  # fmt: skip


# a judge that compares the completions of a prompt with one another gives them ½ on the mean, whatever is learnt
_NOTHING = 1e-6


class _Curve(NamedTuple):
    """`key` of a logged row. `of`: the trainers that it is shown for; empty: all."""

    title: str
    unit: str
    key: str
    of: tuple[str, ...] = ()
    zero: bool = True
    note: str = ""


_CURVES = (
    _Curve("Loss", "nats per pair", "loss", ("dpo",), note="Chance is at ln 2 = 0.693 for a plain DPO loss."),
    _Curve("Loss", "nats per token", "loss", ("sft",), note="−log π of the responses that are learnt."),
    _Curve("Loss", "as trained", "loss", ("kto", "reward")),
    _Curve("Reward accuracy", "share of pairs", "rewards/accuracies", ("dpo", "kto"), False,
           "How often the policy's implicit reward ranks the chosen response higher."),
    _Curve("Reward margin", "chosen − rejected", "rewards/margins", ("dpo", "kto"),
           note="How far apart it puts them. One that runs away while accuracy stands still is over-training."),
    _Curve("Accuracy", "share of pairs", "accuracy", ("reward",), False,
           "How often the chosen response gets the higher score."),
    _Curve("Reward", "as maximised", "reward", ("ppo", "grpo"), False,
           "What is maximised. That it rises says nothing of quality: see the guard and the evaluation."),
    _Curve("KL from the start", "nats per response", "ppo/kl", ("ppo",), note="Of the rollouts."),
    _Curve("KL from the start", "nats per token", "kl", ("grpo",), note="Of the rollouts."),
    _Curve("Length of completions", "tokens", "completions/mean_length", ("ppo", "grpo")),
    _Curve("Ended by themselves", "share of completions", "ppo/eos_rate", ("ppo",)),
    _Curve("Critic: explained variance", "1 is perfect", "ppo/explained_variance", ("ppo",)),
)  # fmt: skip


def sections(data: ReportData) -> list[dict[str, Any]]:
    """One for each training, in the order in which they ran: {"name", "cards", "guard"}; those that show nothing are
    left out."""
    found = []
    for name, record in data.trainings.items():
        cards, guard = _curves(name, record), _guard(data, record)
        if cards or guard:
            found.append({"name": name, "cards": cards, "guard": guard})
    return found


def facts(data: ReportData) -> list[tuple[str, list[tuple[str, str]]]]:
    """How each model was trained: name, then names and values."""
    found = []
    for name, record in data.trainings.items():
        rows = [(key, record.get(key)) for key in ("method", "model", "model_sha256", "steps", "soft_labels", "lora")]
        rows += [(f"args.{key}", value) for key, value in (record.get("given_args") or {}).items()]
        rows += [(key, record.get(key)) for key in ("rows_dropped_too_long", "rows_truncated")]
        rows += [(key, value) for key, value in (record.get("versions") or {}).items()]
        found.append((name, [(key.replace("_", " "), str(value)) for key, value in rows if value is not None]))
    return found


def figures(data: ReportData) -> dict[str, Any]:
    """For report.json: steps of each training, and what its guard decided."""
    names = ("stopped_at_step", "why", "best_step", "kept_step", "kept_why")
    return {
        name: {
            "steps": record.get("steps"),
            "guard": {key: guard.get(key) for key in names} if (guard := record.get("guard")) else None,
        }
        for name, record in data.trainings.items()
    }


def _curves(name: str, record: Record) -> list[Card]:
    found = []
    history = [row for row in record.get("history") or [] if isinstance(row, Mapping)]
    test = record.get("test") or {}
    for curve in _CURVES:
        rows = [row for row in history if _is_number(row.get(curve.key)) and _is_number(row.get("step"))]
        if not rows or (curve.of and name not in curve.of):
            continue
        values = [float(row[curve.key]) for row in rows]
        if curve.key == "reward" and len(values) > 1 and max(values) - min(values) < _NOTHING:
            continue
        line = Line("", [row["step"] for row in rows], values)
        svg = charts.lines([line], f"{name}: {curve.title}", "training step", curve.unit, zero=curve.zero)
        held_out = (
            f" On held-out rows at the end: {charts.number(test[curve.key])}." if _known(test, curve.key) else ""
        )
        if svg:
            found.append(Card(curve.title, svg, curve.note + held_out))
    return found


# -- the guard ---------------------------------------------------------------------------------------------------


def _guard(data: ReportData, record: Record) -> dict[str, Any] | None:
    """{"text", "tone", "cards", "rows", "examples"}; None where there was none."""
    guard = record.get("guard")
    if not isinstance(guard, Mapping) or not guard.get("history"):
        return None
    history = guard["history"]
    steps = {"start": history[0]["step"], "kept": guard.get("kept_step"), "last": history[-1]["step"]}
    return {
        "text": _told(data, record, guard),
        "tone": "look" if guard.get("why") else "fine",
        "cards": _cards(guard),
        "steps": steps,
        "rows": _rows(guard, list(steps.values())),
        "examples": guard.get("examples") or [],
    }


def _told(data: ReportData, record: Record, guard: Record) -> list[str]:
    """Sentences: whether and why it stopped, what is kept, on what that rests."""
    stopped, kept = guard.get("stopped_at_step"), guard.get("kept_step")
    planned = (record.get("args") or {}).get("max_steps")
    of = f" of {planned:,}" if isinstance(planned, int) and planned > 0 else ""
    end = f"Stopped at step {stopped:,}{of}: {guard.get('why')}." if stopped is not None else "It ran to its end."
    start = " Those are the starting policy's: no probe was better." if kept == 0 else ""
    responses = guard.get("n", 0) * guard.get("samples", 1)
    judge = guard.get("judge")
    by = {"win_rate": f"the win rate that {judge} gives it against the start", "reward": "the reward"}
    quality = by.get(str(guard.get("by")), "unknown: neither a judge nor a reward was watched")
    told = [
        f"{end} Written are the weights of step {kept:,} ({guard.get('kept_why')}).{start}",
        f"A probe every {guard.get('every'):,} steps, of {responses:,} responses to {guard.get('n'):,} held-out "
        f"prompts. Quality is {quality}.",
    ]
    if judge is not None and judge in _labellers(data):
        told.append(f"{judge} labelled the data too: what it gets wrong, this guard cannot see.")
    elif judge is None:
        told.append("No judge was asked: what pleases the reward without being better is seen only in the limits.")
    return told


def _labellers(data: ReportData) -> set[str]:
    section = data.config.get("judge") or {}
    members = section.get("members") or {}
    return {str(section.get("engine"))} if not members else {str(of.get("engine")) for of in members.values()}


def _cards(guard: Record) -> list[Card]:
    history = guard["history"]
    found = []
    for name in dict.fromkeys((guard.get("by"), "win_rate", "reward")):
        card = _against_kl(guard, str(name)) if name else None
        if card is not None:
            found.append(card)
    series = [
        Line(label, [row["step"] for row in rows], [row[name] for row in rows], colour)
        for name, label, colour in _SHARES
        if (rows := [row for row in history if _known(row, name)])
    ]
    svg = charts.lines(series, "Shares at each probe", "training step", "share", zero=True)
    return [*found, Card("What it writes", svg, "Of the probes' responses.")] if svg else found


def _against_kl(guard: Record, name: str) -> Card | None:
    """Gao et al. 2022, 2210.10760, figure 1: the same axes."""
    rows = [row for row in guard["history"] if _known(row, name) and _known(row, "kl")]
    if len(rows) < 2:
        return None
    points = sorted((math.sqrt(max(0.0, row["kl"])), row[name]) for row in rows)
    series = [Line("probes", [x for x, _ in points], [y for _, y in points])]
    for key, label, colour in (("kept_step", "kept", charts.GREEN), ("stopped_at_step", "stopped", charts.ORANGE)):
        row = next((row for row in rows if row["step"] == guard.get(key)), None)
        if row is not None:
            label = f"{label}: step {row['step']:,}"
            series.append(Line(label, [math.sqrt(max(0.0, row["kl"]))], [row[name]], colour))
    title = f"{_QUALITY[name][0].upper()}{_QUALITY[name][1:]} against √KL"
    svg = charts.lines(series, title, "√KL from the start, √nats per response", _QUALITY[name])
    held_out = "Held-out quality. Where it turns while the reward goes on, the policy is over-optimised."
    note = held_out if name == "win_rate" else "What is maximised, on prompts that are not trained on."
    return Card(title, svg, note)


def _rows(guard: Record, steps: Sequence[Any]) -> list[dict[str, Any]]:
    """A row a figure: {"name", "values", "limit", "broken"}; those with a limit, and the usual ones."""
    limits: Mapping[str, Any] = guard.get("limits") or {}
    by_step = {row["step"]: row for row in guard["history"]}
    found = []
    for name in dict.fromkeys([*_ALWAYS, *limits]):
        values = [_value(by_step.get(step), name) for step in steps]
        if all(value is None for value in values) and name not in limits:
            continue
        domain, _, figure = name.rpartition("/")
        word = _WORDS.get(figure, figure) + (f" ({domain})" if domain else "")
        said = _limit(limits.get(name) or {})
        broken = str(guard.get("why") or "").startswith(f"{name} is") or f"; {name} is" in str(guard.get("why") or "")
        row = by_step.get(steps[-1]) or {}
        e = summary.estimate((row.get("intervals") or {}).get(name))
        found.append({"name": word, "values": values, "last": e, "limit": said, "broken": broken})
    return found


def _limit(limit: Mapping[str, float]) -> str:
    words = {
        "min": "at least {}", "max": "at most {}", "max_rise": "at most {} above the start",
        "max_fall": "at most {} below the start",
        "min_ratio": "at least {} × the start", "max_ratio": "at most {} × the start",
    }  # fmt: skip
    return ", ".join(words[key].format(charts.number(value)) for key, value in limit.items() if key in words) or "–"


def _value(row: Mapping[str, Any] | None, name: str) -> float | None:
    domain, _, figure = name.rpartition("/")
    part: Mapping[str, Any] = row or {}
    if domain:
        part = (part.get("by_domain") or {}).get(domain) or {}
    return part[figure] if _known(part, figure) else None


def _known(row: Mapping[str, Any], name: str) -> bool:
    return _is_number(row.get(name)) and math.isfinite(row[name])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
