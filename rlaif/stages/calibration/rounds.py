"""Rounds of writing a rubric: what the judges said of gold each time, kept, and what changed since the time before.

A round is known by what was judged: gold, and each judge's section, standard, frames and engines. The same again is
the same round and replaces it, so running twice changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.errors import StoreError
from rlaif.records import make_id
from rlaif.stages.calibration.figures import DIGITS, Figures, Json, plain
from rlaif.stages.calibration.gold import Pair
from rlaif.stages.calibration.views import Floats, View, correct
from rlaif.store import write_whole

VERSION = 1
_KEYS = {"version", "round", "key", "pair", "labels", "judges"}


def record(views: Sequence[View], what: Mapping[str, Json], pairs: Sequence[Pair], settings: Json) -> Json:
    """This round, but for its number.

    `what`: each judge's provenance; `settings`: of the pair section, what can change P(a better).
    """
    judges = {
        view.name: {
            "key": _key(what[view.name]),
            "what": what[view.name],
            "p": {
                pair.id: None if np.isnan(p) else round(float(p), DIGITS)
                for pair, p in zip(pairs, view.p, strict=True)
            },
        }
        for view in views
    }
    labels = {pair.id: [pair.a.id, pair.label, pair.cluster] for pair in pairs}
    key = _key([labels, settings, {name: judge["key"] for name, judge in judges.items()}])
    return {"version": VERSION, "key": key, "pair": settings, "labels": labels, "judges": judges}


def _key(value: Any) -> str:
    return make_id(json.dumps(value, sort_keys=True, ensure_ascii=False))


def place(folder: Path, key: str) -> tuple[int, Json | None]:
    """The number of the round with this key, and the round before it. `folder`: calibration/rounds of a run."""
    known = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdecimal())
    if not known:
        return 1, None
    last = read(folder / f"{known[-1]}.json")
    if last["key"] != key:
        return known[-1] + 1, last
    return known[-1], read(folder / f"{known[-2]}.json") if len(known) > 1 else None


def read(path: Path) -> Json:
    """A round's file. Errors: StoreError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] > VERSION:
            raise StoreError(f"{path}: version {found['version']} is newer than this rlaif reads")
        missing = _KEYS - found.keys()
        if missing:
            raise StoreError(f"{path}: not a round of `rlaif calibrate`: no {', '.join(sorted(missing))}")
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: not a round of `rlaif calibrate`: {error}") from None


def write(folder: Path, number: int, round_: Json) -> None:
    body = json.dumps({"round": number, **round_}, ensure_ascii=False, allow_nan=False)
    write_whole(folder / f"{number}.json", body.encode() + b"\n")


def compare(before: Json, now: Json, views: Sequence[View], what: Mapping[str, Json], figures: Figures) -> Json:
    """Judge → what changed since `before`; judges that were not there then are left out.

    `difference`: accuracy now − then, over the pairs that both rounds have a verdict for and that people say the same
    of. `fixed`: pair ids that were wrong and are right; `new`: the other way round; a tie is neither.
    """
    found: Json = {}
    for view in views:
        old = before["judges"].get(view.name)
        if old is None:
            continue
        then = _then(old["p"], before["labels"], figures.pairs)
        was, is_ = correct(then, figures.truth), correct(view.p, figures.truth)
        ids = [pair.id for pair in figures.pairs]
        found[view.name] = {
            "changed": [name for name in what[view.name] if what[view.name][name] != old["what"].get(name)]
            + (["pair"] if before["pair"] != now["pair"] else []),
            "pairs": int((~np.isnan(was) & ~np.isnan(is_)).sum()),
            "difference": plain(metrics.paired_difference(was, is_, figures.clusters, figures.rng)),
            "fixed": [ids[i] for i in np.flatnonzero((was == 0) & (is_ == 1))],
            "new": [ids[i] for i in np.flatnonzero((was == 1) & (is_ == 0))],
        }
    return found


def _then(p: Mapping[str, float | None], labels: Mapping[str, Sequence[str]], pairs: Sequence[Pair]) -> Floats:
    """(N,) P(a better) of an earlier round, told in this one's order; NaN for a pair that was not there, or of which
    people said something else.
    """
    found = np.full(len(pairs), np.nan)
    for index, pair in enumerate(pairs):
        value = p.get(pair.id)
        if value is None:
            continue
        a, label, _ = labels[pair.id]
        mirror = {"first": "second", "second": "first"}
        if (label if a == pair.a.id else mirror.get(label, label)) == pair.label:
            found[index] = value if a == pair.a.id else 1 - value
    return found
