"""From a config's `judge:` section to the arguments of a judge's constructor.

A built-in judge has `from_section(section, engine_of, *, role, where)`, and takes from here what all of them need.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from rlaif.config import JudgeSection
from rlaif.config.parsing import ParseSection
from rlaif.engines.base import Engine
from rlaif.errors import ConfigError
from rlaif.judges.patterns import pattern_choice
from rlaif.judges.verdicts import Choice
from rlaif.rubric import Constitution, Rubric, find_frame, load_constitution, load_rubric
from rlaif.templates import Frame, load_frame

EngineOf = Callable[[str], Engine]  # the engine behind a role


def standard_arguments(section: JudgeSection, engine_of: EngineOf, *, role: str, frame: str) -> dict[str, Any]:
    """What every judge that asks one model is given. `frame`: see `find_frame_of`. Errors: ConfigError."""
    standard = find_standard(section)
    return {
        "frame": find_frame_of(section, frame),
        "rubric": standard if isinstance(standard, Rubric) else None,
        "constitution": standard if isinstance(standard, Constitution) else None,
        "role": role,
        "model": engine_of(role).model,
        "principles": section.principles,
        "reference": section.reference,
        "max_tokens": section.max_tokens,
        "temperature": section.temperature,
        "extra": section.extra,
    }


def find_standard(section: JudgeSection) -> Rubric | Constitution | None:
    """The rubric or constitution that the section names."""
    if section.rubric:
        return load_rubric(section.rubric)
    return load_constitution(section.constitution) if section.constitution else None


def need_standard(section: JudgeSection, where: str) -> None:
    """Errors: ConfigError where the section names neither a rubric nor a constitution."""
    if not (section.rubric or section.constitution):
        raise ConfigError(f"{where}: name a rubric or a constitution (`rlaif rubric list` shows the shipped ones)")


def find_frame_of(section: JudgeSection, frame: str = "pairwise") -> Frame:
    """The frame that the section names, else the one that its rubric or constitution names for judges that want
    `frame`, the stem of a shipped one."""
    standard = find_standard(section)
    name = section.frame or (standard.frame_for(frame) if standard else f"{frame}.jinja")
    beside = Path() if section.frame else standard.path if standard else None
    return load_frame(find_frame(name, beside))


def choice_of(section: JudgeSection, engine: Engine, where: str) -> Choice:
    """The menu of a pairwise verdict, and how it is read. Errors: ConfigError."""
    foreign = foreign_parse(section, engine, where)
    if foreign is not None:
        return pattern_choice(foreign, f"{where}.parse")
    labels: tuple[str, ...] = ("A", "B", "C") if section.ties else ("A", "B")
    read: Literal["logprobs", "text"] = "logprobs" if reads_logprobs(section, engine, where) else "text"
    return Choice(labels=labels, read=read, tie="C" if section.ties else None, min_mass=section.min_label_mass)


def foreign_parse(section: JudgeSection, engine: Engine, where: str) -> ParseSection | None:
    """How texts in other words than ours are read: as the section says, else as a replayed recording does."""
    if section.parse is not None:
        return section.parse.inlined(Path(), f"{where}.parse")
    own: ParseSection | None = getattr(engine, "parse", None)
    return own


def reads_logprobs(section: JudgeSection, engine: Engine, where: str) -> bool:
    """Whether verdicts come from log-probs. `auto`: where the engine gives them, unless several replies are to be
    drawn, since log-probs say in one reply what draws estimate. Errors: ConfigError where that cannot be had."""
    if section.read in ("logprobs", "rationale") and not engine.capabilities.logprobs:
        raise ConfigError(
            f"{where}.read: {section.read}, but engine {section.engine!r} gives no log-probs; use `read: text`, or "
            "`auto`"
        )
    if section.read == "logprobs" and section.samples > 1:
        raise ConfigError(
            f"{where}.samples: {section.samples}, but log-probs give the whole distribution in one reply; leave "
            "samples out, or use `read: text` or `read: rationale`"
        )
    if section.read == "auto":
        return engine.capabilities.logprobs and section.samples == 1
    return section.read != "text"


def refuse(section: JudgeSection, where: str, **meaningless: bool) -> None:
    """Errors: ConfigError for a key that this judge has no use for, so that none is ignored without a word."""
    for key, is_set in meaningless.items():
        if is_set:
            raise ConfigError(f"{where}.{key}: the {section.judge} judge has no such choice; leave it out")
