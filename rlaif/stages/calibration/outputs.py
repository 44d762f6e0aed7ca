"""What `rlaif calibrate` writes: each file is one function of what was measured.

Another kind of calibration is one more line of `OUTPUTS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from rlaif.config import CalibrateSection, PairSection, Pipeline
from rlaif.records import TIE, Judgment
from rlaif.stages.calibration import cascades, choice, figures, gold, rounds, views
from rlaif.stages.calibration.figures import Figures, Json, Rows
from rlaif.stages.calibration.fitting import Fitted
from rlaif.stages.calibration.gold import People
from rlaif.stages.calibration.views import View
from rlaif.store import RunFolder, write_whole

FOLDER = "calibration"
VERSION = 1
_OF_LABELS_ALONE = {"select", "min_margin", "calibration", "calibration_judge"}  # they change no P(a better)
_MAX_RATIONALE = 2000  # characters of one, in disagreements.jsonl; the judgments have the rest


@dataclass(frozen=True)
class Measured:
    """Everything that the outputs are made of."""

    config: Pipeline
    people: People
    views: list[View]
    what: dict[str, Json]  # judge → its provenance
    figures: Figures
    test: Rows  # (N,) the pairs that maps are tested on
    maps: dict[str, Fitted]

    @property
    def pair_section(self) -> PairSection:
        """How judgments become labels here."""
        return pair_section(self.config)

    @property
    def section(self) -> CalibrateSection:
        assert self.config.calibrate is not None
        return self.config.calibrate


def pair_section(config: Pipeline) -> PairSection:
    return config.pair or PairSection()


def calibration(measured: Measured) -> Json:
    """calibration.json, but for what the rounds say."""
    found, people = measured.figures, measured.people
    rows = choice.rows_of(measured.views, found)
    every = np.ones(len(people.pairs), dtype=bool)
    return {
        "version": VERSION,
        "seed": measured.config.seed,
        "gold": {"path": measured.section.gold.path, **gold.describe(people)},
        "people": found.people() | {"scores": figures.people_scores(people, found.seed, measured.section.alpha)},
        "judges": {view.name: _judge(measured, view, every) for view in measured.views},
        "members": _members(measured),
        "comparison": choice.table(rows, found),
        "choice": choice.choose(rows, found),
    }


def _judge(measured: Measured, view: View, every: Rows) -> Json:
    found, section = measured.figures, measured.section
    fitted = measured.maps.get(view.name)
    cost = view.cost
    return {
        "what": measured.what[view.name],
        "statuses": view.statuses,
        "unusable_pairs": view.unusable,
        **found.judge(view, every),
        "scores": figures.scores(measured.people, view, found.seed, section.alpha),
        "cost": {
            "calls": cost.calls,
            "prompt_tokens": cost.prompt_tokens,
            "completion_tokens": cost.completion_tokens,
            "money": None if cost.money is None else round(cost.money, figures.DIGITS),
        },
        "slices": _slices(measured, view),
        "map": None if fitted is None or fitted.map is None else msgspec.to_builtins(fitted.map),
        "map_test": None if fitted is None else fitted.report,
    }


def _slices(measured: Measured, view: View) -> Json:
    """Column → value → the figures of the pairs with that value."""
    found: Json = {}
    for column in measured.section.slices:
        values = [pair.slices.get(column) for pair in measured.people.pairs]
        found[column] = {
            value: measured.figures.judge(view, np.asarray([other == value for other in values]))
            for value in sorted({value for value in values if value is not None})
        }
    return found


def _members(measured: Measured) -> Json:
    """How often each judge, and each member of a judge made of judges, names the better response: what
    `pair.panel_gold` reads. A judge goes before a member of the same name; ties are halves.
    """
    found = {}
    for view in measured.views:
        found[view.name] = _count(views.correct(view.p, measured.figures.truth))
    for view in measured.views:
        for name in sorted({judgment.member for judgment in view.all if judgment.member is not None}):
            own = [judgment for judgment in view.all if judgment.member == name]
            seen = views.view(name, view.section, own, measured.people.pairs, measured.pair_section, {})
            found.setdefault(name, _count(views.correct(seen.p, measured.figures.truth)))
    return found


def _count(right: views.Floats) -> Json:
    known = right[~np.isnan(right)]
    return {"n": int(known.size), "correct": float(known.sum())}


def disagreements(measured: Measured) -> Iterator[Json]:
    """Pairs with a winner where a judge names the other response: judge by judge, the surest first."""
    for view in measured.views:
        wrong = np.flatnonzero(views.correct(view.p, measured.figures.truth) == 0)
        for index in sorted(wrong, key=lambda i: (-abs(view.p[i] - 0.5), measured.people.pairs[i].id)):
            pair = measured.people.pairs[index]
            about = [j for j in view.all if _is_about(j, pair)]
            yield {
                "judge": view.name,
                "pair_id": pair.id,
                "prompt_id": pair.prompt.id,
                "prompt": pair.prompt.text,
                "a": pair.a.text,
                "b": pair.b.text,
                "people": {"first": "a", "second": "b"}.get(pair.label, TIE),
                "votes": pair.votes,
                "p_a": round(float(view.p[index]), figures.DIGITS),
                "slices": pair.slices,
                "rationales": [j.rationale[:_MAX_RATIONALE] for j in about if j.rationale],
                "judgment_ids": [j.id for j in about],
            }


def _is_about(judgment: Judgment, pair: gold.Pair) -> bool:
    ids = {pair.a.id, pair.b.id}
    if judgment.prompt_id != pair.prompt.id or judgment.superseded:
        return False
    return ids <= set(judgment.response_ids) or (judgment.kind == "pointwise" and judgment.response_ids[0] in ids)


def _calibration_json(measured: Measured, folder: RunFolder) -> bytes:
    """calibration.json, and this round among the others."""
    history = folder.path / FOLDER / "rounds"
    settings = measured.pair_section.model_dump(mode="json", exclude_defaults=True, exclude=_OF_LABELS_ALONE)
    round_ = rounds.record(measured.views, measured.what, measured.people.pairs, settings)
    number, before = rounds.place(history, round_["key"])
    rounds.write(history, number, round_)
    changes = rounds.compare(before, round_, measured.views, measured.what, measured.figures) if before else {}
    result = calibration(measured)
    result["round"] = {"number": number, "before": before["round"] if before else None, "judges": changes}
    return json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _disagreements_jsonl(measured: Measured, folder: RunFolder) -> bytes:
    return b"".join(msgspec.json.encode(row) + b"\n" for row in disagreements(measured))


Output = Callable[[Measured, RunFolder], bytes | None]


def _cascade_json(measured: Measured, folder: RunFolder) -> bytes | None:
    plan = cascades.plan_of(measured.section, measured.views, measured.figures, measured.what)
    if plan is None:
        return None
    return json.dumps(plan.as_dict(), indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


OUTPUTS: dict[str, Output] = {  # name in calibration/ → its bytes, or None where there is nothing to write
    "disagreements.jsonl": _disagreements_jsonl,
    "cascade.json": _cascade_json,
    "calibration.json": _calibration_json,
}


def write_outputs(folder: RunFolder, measured: Measured) -> int:
    """Everything in calibration/ that is made of figures; returns the number of this round."""
    for name, output in OUTPUTS.items():
        body = output(measured, folder)
        if body is None:
            (folder.path / FOLDER / name).unlink(missing_ok=True)
        else:
            write_whole(folder.path / FOLDER / name, body)
    found = json.loads((folder.path / FOLDER / "calibration.json").read_text(encoding="utf-8"))
    return int(found["round"]["number"])
