"""Judges: pure generators of requests. `build` makes the one that a config's `judge:` section describes.

A new built-in judge is one line of `BUILT_IN`. Its class has `from_section(section, engine_of, *, role, where)`; one
made of judges calls `build` for each of `section.members`. A class without it (a user's own) is called with
`standard_arguments`, `choice`, `orders`, and the section's `options`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlaif.config import JudgeSection
from rlaif.engines.base import import_path
from rlaif.errors import ConfigError
from rlaif.judges.base import Judge
from rlaif.judges.section import EngineOf, choice_of, find_frame_of, find_standard, standard_arguments
from rlaif.paths import resolve
from rlaif.templates import Frame

__all__ = ["BUILT_IN", "EngineOf", "build", "find_files_of", "find_frames_of", "find_standard"]

# name → "module:class", imported when it is used: a judge made of judges may import this module
BUILT_IN = {
    "pairwise": "rlaif.judges.pairwise:PairwiseJudge",
    "pointwise": "rlaif.judges.pointwise:PointwiseJudge",
    "listwise": "rlaif.judges.listwise:ListwiseJudge",
    "checklist": "rlaif.judges.checklist:ChecklistJudge",
    "cascade": "rlaif.judges.cascade:CascadeJudge",
    "tournament": "rlaif.judges.tournament:TournamentJudge",
    "panel": "rlaif.judges.panel:PanelJudge",
}


_NEWER = ("reference", "samples", "clamp")


def build(section: JudgeSection, engine_of: EngineOf, *, role: str | None = None, where: str = "judge") -> Judge:
    """The judge of `section`. `engine_of`: the engine behind a role; `role`: ask this one instead of the section's;
    `where`: the section's place in the config, for messages. Errors: ConfigError, TemplateError.
    """
    kind = _find(section.judge, where)
    role = role or section.engine
    try:
        if hasattr(kind, "from_section"):
            judge: Judge = kind.from_section(section, engine_of, role=role, where=where)
        else:
            judge = kind(**_own_arguments(section, engine_of, role, where))
    except TypeError as error:
        raise ConfigError(f"{where}.options: {section.judge}: {error}") from None
    return judge


def find_files_of(section: JudgeSection) -> Iterator[Path]:
    """What the judge reads: rubrics or constitutions, frames and what they import, thresholds, patterns. Errors:
    ConfigError, TemplateError."""
    for leaf in section.leaves:
        standard = find_standard(leaf)
        if standard is not None and standard.path is not None:
            yield standard.path
        for frame in find_frames_of(leaf):
            yield from frame.paths
        patterns = leaf.parse.file(Path()) if leaf.parse else None
        if patterns is not None:
            yield patterns
    if section.judge == "cascade" and "thresholds" in section.options:
        yield resolve(str(section.options["thresholds"]), Path())


def find_frames_of(section: JudgeSection) -> Iterator[Frame]:
    """The frames that the judge renders; `frame:` names the first. Errors: ConfigError, TemplateError."""
    first, *others = getattr(_find(section.judge, "judge"), "frames", ("pairwise",))
    yield find_frame_of(section, first)
    for name in others:
        yield find_frame_of(section.model_copy(update={"frame": None}), name)


def _own_arguments(section: JudgeSection, engine_of: EngineOf, role: str, where: str) -> dict[str, Any]:
    if section.read == "rationale":
        raise ConfigError(f"{where}.read: rationale: {section.judge} decides itself what it asks; leave read out")
    standard = standard_arguments(section, engine_of, role=role, frame="pairwise")
    for key in _NEWER:  # only a class that takes them is given them, and one that does not says so
        if getattr(section, key) == JudgeSection.model_fields[key].default:
            standard.pop(key, None)
        else:
            standard[key] = getattr(section, key)
    return {
        **standard,
        "choice": choice_of(section, engine_of(role), where),
        "orders": section.orders,
        **section.options,
    }


def _find(name: str, where: str) -> Any:
    if name in BUILT_IN:
        return import_path(BUILT_IN[name], f"{where}.judge")
    if ":" in name:
        return import_path(name, f"{where}.judge")
    close = difflib.get_close_matches(name, BUILT_IN, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    known = ", ".join(sorted(BUILT_IN))
    raise ConfigError(f"{where}.judge: unknown judge {name!r}; {hint}known: {known}, or 'package.module:Class'")
