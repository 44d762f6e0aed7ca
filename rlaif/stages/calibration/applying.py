"""A fitted map on the labels of a run: `pair.calibration` names it; each pair's final P(a better) goes through it.

A map holds for the judge that it was fitted on: another model, rubric, constitution or frame is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rlaif.config import PairSection
from rlaif.digests import file_sha256
from rlaif.errors import ConfigError
from rlaif.metrics.maps import SlicedMap, from_json
from rlaif.paths import resolve
from rlaif.records import Judgment, Prompt
from rlaif.stages.selectors import Comparison
from rlaif.store import RunFolder

RUN = "run:calibration"
_FILE = "calibration.json"


class LabelMap:
    """`slices`: prompt id → the value that chooses the map. Counts what it did, for the manifest and the card."""

    def __init__(self, map_: SlicedMap, slices: Mapping[str, str], about: Mapping[str, Any]) -> None:
        self.map, self.slices, self.about = map_, slices, dict(about)
        self.counts: dict[str, int] = {}

    def __call__(self, comparison: Comparison) -> Comparison:
        """The comparison with its probability mapped; the margin stays in the judge's own unit."""
        slice_ = self.slices.get(comparison.prompt_id)
        used = slice_ if slice_ in self.map.slices else "overall"
        self.counts[str(used)] = self.counts.get(str(used), 0) + 1
        d = comparison.difference
        certainty = 2 * float(self.map.of(slice_)([(1 + abs(d)) / 2])[0]) - 1  # of |d|: exact for both signs
        margin = d if comparison.margin is None else comparison.margin
        return msgspec.structs.replace(comparison, difference=certainty if d >= 0 else -certainty, margin=margin)

    @property
    def provenance(self) -> dict[str, Any]:
        return {**self.about, "pairs": dict(sorted(self.counts.items()))}


def label_map(section: PairSection, folder: RunFolder) -> LabelMap | None:
    """The map that the section names; None where it names none. Errors: ConfigError, one line."""
    if section.calibration is None:
        return None
    path = path_of(section.calibration, folder.path)
    judge, found = judge_in(path, section.calibration_judge, "pair.calibration", "pair.calibration_judge")
    where = f"pair.calibration: {section.calibration}"
    if found.get("map") is None:
        why = (found.get("map_test") or {}).get("reason", "it was not fitted")
        raise ConfigError(f"{where}: judge {judge!r} has no map: {why}")
    try:
        map_ = from_json(found["map"])
    except ValueError as error:
        raise ConfigError(f"{where}: the map of judge {judge!r}: {error}") from None
    same_judge(found.get("what") or {}, folder.read("judgments", Judgment), where, judge)
    about = {
        "judge": judge,
        "kind": map_.overall.kind,
        "fitted_on": map_.overall.n,
        "by": map_.by,
        "slices": sorted(map_.slices),
        "sha256": file_sha256(path),
    }
    return LabelMap(map_, _slices(map_, folder), about)


def path_of(value: str, folder: Path) -> Path:
    """The calibration.json that `pair.calibration` means; `folder`: the run's."""
    path = folder / "calibration" if value == RUN else resolve(value, Path())
    if path.is_dir():
        inside = path / "calibration" / _FILE
        path = inside if inside.is_file() else path / _FILE
    return path


def judges_in(path: Path, key: str) -> dict[str, Any]:
    """The judges of a calibration.json. `key`: what names the file in the config. Errors: ConfigError."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return dict(raw["judges"])
    except FileNotFoundError:
        raise ConfigError(f"{key}: {path}: no such file; `rlaif calibrate` makes one") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{key}: {path}: not a calibration.json of rlaif: {error}") from None


def judge_in(path: Path, wanted: str | None, key: str, judge_key: str) -> tuple[str, Mapping[str, Any]]:
    """A judge's part of calibration.json: the one that is wanted, or the only one. Errors: ConfigError that names the
    config's keys.
    """
    judges = judges_in(path, key)
    known = ", ".join(judges) or "none"
    if wanted is None and len(judges) != 1:
        raise ConfigError(f"{key}: {path}: name one of its judges with {judge_key}: {known}")
    name = wanted if wanted is not None else next(iter(judges))
    if name not in judges:
        raise ConfigError(f"{judge_key}: {path} has no judge {name!r}; there: {known}")
    return name, judges[name]


def same_judge(what: Mapping[str, Any], judgments: Iterable[Judgment], where: str, judge: str) -> None:
    """Errors: ConfigError where a judgment is of a model, standard or frame that the calibration has not seen."""
    seen: dict[str, dict[str, str]] = {"models": {}, "rubrics": {}, "templates": {}}
    for row in judgments:
        if not row.superseded:
            for key, value in (("models", row.model), ("rubrics", row.rubric), ("templates", row.template_sha256)):
                seen[key].setdefault(value, row.id)
    for key, values in seen.items():
        allowed = {*what.get(key, ()), ""}
        for value, judgment_id in values.items():
            if value not in allowed:
                raise ConfigError(
                    f"{where}: fitted on judge {judge!r} with {key} {', '.join(sorted(allowed - {''})) or 'none'}, "
                    f"but judgment {judgment_id} is by {value}: run `rlaif calibrate` with this judge"
                )


def _slices(map_: SlicedMap, folder: RunFolder) -> dict[str, str]:
    """Prompt id → its slice, as calibrate reads it: the domain, or a column of the input."""
    if not map_.slices or map_.by is None:
        return {}
    found = {}
    for prompt in folder.read("prompts", Prompt):
        value = prompt.domain if map_.by == "domain" else prompt.meta.get(map_.by)
        if value is not None:
            found[prompt.id] = str(value)
    return found
