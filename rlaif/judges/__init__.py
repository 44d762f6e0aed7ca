"""Judges: pure generators of requests. `build` makes the one that a config's `judge:` section describes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlaif.config import JudgeSection
from rlaif.engines.base import Engine, import_path
from rlaif.errors import ConfigError
from rlaif.judges.base import Judge
from rlaif.judges.pairwise import PairwiseJudge
from rlaif.judges.verdicts import Choice
from rlaif.rubric import Constitution, Rubric, find_frame, load_constitution, load_rubric
from rlaif.templates import Frame, load_frame

BUILT_IN = {"pairwise": PairwiseJudge}


EngineOf = Callable[[str], Engine]


def build(section: JudgeSection, engine_of: EngineOf, *, role: str | None = None, where: str = "judge") -> Judge:
    """The judge of `section`. `engine_of`: the engine behind a role; `role`: ask this one instead of the section's.

    A custom judge (import path) is called with the same keyword arguments as `PairwiseJudge`, plus `options`.
    Errors: ConfigError, TemplateError.
    """
    standard = find_standard(section)
    if standard is None and section.judge in BUILT_IN:
        raise ConfigError(f"{where}: name a rubric or a constitution (`rlaif rubric list` shows the shipped ones)")
    role = role or section.engine
    engine = engine_of(role)
    arguments: dict[str, Any] = {
        "frame": find_frame_of(section),
        "choice": _choice(section, engine, where),
        "rubric": standard if isinstance(standard, Rubric) else None,
        "constitution": standard if isinstance(standard, Constitution) else None,
        "role": role,
        "model": engine.model,
        "principles": section.principles,
        "orders": section.orders,
        "max_tokens": section.max_tokens,
        "temperature": section.temperature,
        "extra": section.extra,
        **section.options,
    }
    try:
        judge: Judge = _find(section.judge, where)(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}.options: {section.judge}: {error}") from None
    return judge


def find_standard(section: JudgeSection) -> Rubric | Constitution | None:
    """The rubric or constitution that the section names."""
    if section.rubric:
        return load_rubric(section.rubric)
    return load_constitution(section.constitution) if section.constitution else None


def find_frame_of(section: JudgeSection) -> Frame:
    """The frame that the section names, else the one that its rubric or constitution names."""
    standard = find_standard(section)
    name = section.frame or (standard.frame if standard else "pairwise.jinja")
    beside = Path() if section.frame else standard.path if standard else None
    return load_frame(find_frame(name, beside))


def _find(name: str, where: str) -> Any:
    if name in BUILT_IN:
        return BUILT_IN[name]
    if ":" in name:
        return import_path(name, f"{where}.judge")
    known = ", ".join(sorted(BUILT_IN))
    raise ConfigError(f"{where}.judge: unknown judge {name!r}; known: {known}, or 'package.module:Class'")


def _choice(section: JudgeSection, engine: Engine, where: str) -> Choice:
    can = engine.capabilities.logprobs
    if section.read == "logprobs" and not can:
        raise ConfigError(
            f"{where}.read: logprobs, but engine {section.engine!r} gives none; use `read: text`, or `auto`"
        )
    labels: tuple[str, ...] = ("A", "B", "C") if section.ties else ("A", "B")
    read = "text" if section.read == "text" or not can else "logprobs"
    tie = "C" if section.ties else None
    return Choice(labels=labels, read=read, tie=tie, min_mass=section.min_label_mass)  # type: ignore[arg-type]
