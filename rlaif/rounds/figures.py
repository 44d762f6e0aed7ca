"""What is known of a finished round, by the names that gates have: docs/rounds.md lists them. Reads, asks nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rlaif import metrics
from rlaif.config import Gate
from rlaif.errors import ConfigError, StoreError
from rlaif.metrics import Estimate
from rlaif.records import Preference, Prompt
from rlaif.stages.audit import gates
from rlaif.stages.audit.material import Found, Missing
from rlaif.stages.contest import AFTER
from rlaif.store import RunFolder

BY_JUDGE = ("win_rate", "judges", "by_principle", "judge_minus_oracle")  # followed by a judge's name
EVALUATED = (*BY_JUDGE, "length", "length_ratio", "metrics", "oracle_win_rate", "by_domain", "policy")
OWN = ("preferences", "labelled", "consistent")  # from the tables
OF_FILES = ("audit", "training", "guard")  # followed by a figure of the audit, the trainer's log, or a guard's probes
_ENDS = ("low", "high")  # of an estimate's interval
_CLOSE = 3


def figures_of(folder: Path) -> dict[str, Found]:
    """Every figure of a round's run folder. Errors: StoreError for a file that is there and cannot be read."""
    evaluation = _read(folder / "evaluation" / "evaluation.json")
    found = dict(_labels(RunFolder(folder)))
    for name in EVALUATED:
        found |= _flat(name, evaluation.get(name))
    found |= _flat("policy", (evaluation.get("contestants") or {}).get(AFTER))
    before, after = found.get("length.before"), found.get("length.after")
    if isinstance(before, Estimate) and isinstance(after, Estimate) and before.value:
        found["length_ratio"] = Estimate(after.value / before.value, None, None, after.n)
    found |= _flat("audit", _read(folder / "audit.json").get("figures"))
    for path in sorted((folder / "models").glob("*/training.json")):
        record = _read(path)
        for row in record.get("history") or []:  # the last point that has it counts
            found |= _flat("training", {key: value for key, value in row.items() if key != "step"})
        found |= _flat("guard", _kept(record.get("guard") or {}))
    return found


def _kept(guard: Mapping[str, Any]) -> dict[str, Any]:
    """What a guard saw of the weights that were kept, with intervals where it has them."""
    rows: list[dict[str, Any]] = guard.get("history") or []
    row = next((row for row in rows if row.get("step") == guard.get("kept_step")), dict[str, Any]())
    found = {key: value for key, value in row.items() if key not in ("step", "intervals")}
    return {**found, **row.get("intervals", {})}


def _labels(run: RunFolder) -> Iterator[tuple[str, Found]]:
    """Preferences, the share of prompts that gave any, and the share of them with one winner in both orders."""
    if not run.table("preferences").exists() or not run.table("prompts").exists():
        return
    prompts = {row.id for row in run.read("prompts", Prompt)}
    rows = list(run.read("preferences", Preference))
    owners = {row.prompt_id for row in rows}
    yield "preferences", Estimate(float(len(rows)), None, None, len(rows))
    labelled = metrics.proportion([float(prompt in owners) for prompt in sorted(prompts)])
    yield "labelled", labelled or Missing("no prompts")
    consistent = metrics.proportion([float(row.consistent) for row in rows if row.consistent is not None])
    yield "consistent", consistent or Missing("no preference was judged in both orders")


def _flat(name: str, value: Any) -> dict[str, Found]:
    """Estimates and numbers below `value`, by dotted names."""
    if isinstance(value, bool) or value is None or isinstance(value, str | list):
        return {}
    if isinstance(value, int | float):
        return {name: Estimate(float(value), None, None, 1)}
    if "value" in value:
        if value["value"] is None:
            return {name: Missing(str(value.get("reason") or "no value"))}
        return {name: Estimate(value["value"], value.get("low"), value.get("high"), int(value.get("n") or 0))}
    found: dict[str, Found] = {}
    for key, inner in value.items():
        found |= _flat(f"{name}.{key}", inner)
    return found


def check_names(names: Iterable[str], judges: Iterable[str] | None) -> None:
    """What can be known of gates before a round has run. `judges`: those of the evaluation, None where there is none.

    Errors: ConfigError.
    """
    known = (*OWN, *EVALUATED, *OF_FILES)
    for name in names:
        root, _, rest = name.partition(".")
        if root not in known:
            close = get_close_matches(root, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(f"rounds.gates: no figure {name!r}; {hint}known: {', '.join(known)}")
        if root in EVALUATED and judges is None:
            raise ConfigError(f"rounds.gates: {name}: there is no section evaluate: that would measure it")
        if root in BY_JUDGE and not any(f"{rest}.".startswith(f"{judge}.") for judge in judges or ()):
            raise ConfigError(f"rounds.gates: {name}: expected {root}.JUDGE, judges here: {', '.join(judges or ())}")


def judged(bounds: Mapping[str, Gate], figures: Mapping[str, Found]) -> list[dict[str, Any]]:
    """One row a gate, as in audit.json."""
    return gates.judged(bounds, {name: _looked_up(name, figures) for name in bounds})


def _looked_up(name: str, figures: Mapping[str, Found]) -> Found:
    """The figure, or, where its name ends in .low or .high, that end of its interval."""
    if name in figures:
        return figures[name]
    of, _, end = name.rpartition(".")
    found = figures.get(of)
    if end in _ENDS and isinstance(found, Estimate):
        bound = getattr(found, end)
        return Missing("it has no interval") if bound is None else Estimate(bound, None, None, found.n)
    if end in _ENDS and isinstance(found, Missing):
        return found
    close = get_close_matches(name, figures, n=_CLOSE)
    return Missing("not measured" + (f"; close to it: {', '.join(close)}" if close else ""))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot read: {error}") from None
    return found if isinstance(found, dict) else {}
