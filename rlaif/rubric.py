"""Rubrics and constitutions: the written standards that a judge applies, as YAML files.

    Rubric       → Criterion → Scale     what to look at, with weights: one judgment covers all of it
    Constitution → Principle             short rules with several wordings: one judgment covers one of them

A fault in such a file names the file, the line and the key.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import random
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, PrivateAttr, StringConstraints, ValidationError, field_validator, model_validator

from rlaif.config import Section, read_yaml, telling_fault, validate
from rlaif.errors import ConfigError
from rlaif.paths import resolve, shipped
from rlaif.records import Prompt, Response
from rlaif.yaml_lines import key_lines, line_of

# An id is a key of `principle_weights` and of `--set`, so it may hold no dot, and no "@", which starts a version.
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$")]
_Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
_Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FrameName = Literal["pointwise", "listwise", "checklist", "checklist_items"]


class Scale(Section):
    """Whole-number steps from `min` to `max`; `labels` say what a step means."""

    min: int
    max: int
    labels: dict[int, _Text] = {}

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if self.min >= self.max:
            raise ValueError(f"min must be below max, got {self.min} and {self.max}")
        outside = [step for step in self.labels if not self.min <= step <= self.max]
        if outside:
            raise ValueError(f"labels: step {outside[0]} is outside {self.min}–{self.max}")
        return self

    @property
    def steps(self) -> range:
        return range(self.min, self.max + 1)


class Criterion(Section):
    """One thing that a rubric looks at.

    `hard`: a response that fails it loses to one that passes, whatever their other merits. `pass_at`: the least score
    that passes; by default the middle of the scale.
    """

    id: _Id
    description: _Text
    weight: _Weight = 1.0  # relative to the other criteria
    scale: Scale | None = None  # for judges that score; pairwise judges compare and need none
    hard: bool = False
    pass_at: Annotated[float, Field(allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _can_be_passed(self) -> Criterion:
        if self.pass_at is not None and not self.hard:
            raise ValueError("pass_at: only a hard criterion is passed or failed; set hard: true")
        if self.pass_at is not None and self.scale and not self.scale.min < self.pass_at <= self.scale.max:
            raise ValueError(
                f"pass_at: {self.pass_at:g} does not divide the scale {self.scale.min}–{self.scale.max}; it is above "
                "its least step and at most its greatest"
            )
        return self


class Principle(Section):
    """One rule of a constitution, in several wordings so that a verdict does not hang on one phrase.

    `scope`: field (`domain`, or a column kept in `Prompt.meta`) → allowed values. Every field must match;
    where the prompt's value is a list, one match is enough. An empty scope means always.
    """

    id: _Id
    weight: _Weight = 1.0  # relative to the other principles
    texts: list[_Text] = Field(min_length=1)
    scope: dict[str, list[str]] = {}

    def applies(self, prompt: Prompt) -> bool:
        return all(allowed_here(prompt, field, allowed) for field, allowed in self.scope.items())

    def wording(self, rng: random.Random) -> str:
        """One of the texts, each equally likely."""
        return rng.choice(self.texts)


def allowed_here(prompt: Prompt, field: str, allowed: Sequence[str]) -> bool:
    """Whether the prompt's value of `field` is one of `allowed`, compared as text."""
    value = prompt.domain if field == "domain" else prompt.meta.get(field)
    values = value if isinstance(value, list | tuple) else [value]
    return any(_as_text(item) in allowed for item in values if item is not None)


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class _Standard(Section):
    """What rubrics and constitutions have in common."""

    id: _Id
    version: int | str
    name: _Text
    description: _Text
    frame: _Text = "pairwise.jinja"  # for judges that compare: beside this file, or shipped
    frames: dict[FrameName, _Text] = {}  # for the others; where one is not named, the shipped one is used
    _path: Path | None = PrivateAttr(default=None)

    @field_validator("version", mode="before")
    @classmethod
    def _version(cls, value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise ValueError(f"a whole number or quoted text, got {value!r}")
        return value

    def frame_for(self, kind: str) -> str:
        """The frame for judges that want `kind`, the stem of a shipped one."""
        if kind == "pairwise":
            return self.frame
        return {str(name): frame for name, frame in self.frames.items()}.get(kind, f"{kind}.jinja")

    @property
    def ref(self) -> str:
        """id@version, as judgments record it."""
        return f"{self.id}@{self.version}"

    @property
    def path(self) -> Path | None:
        """The file it was read from; None when it was built in Python."""
        return self._path

    @cached_property
    def sha256(self) -> str:
        """Of the content: comments, key order and defaults that are written out do not change it."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Rubric(_Standard):
    criteria: list[Criterion] = Field(min_length=1)

    @field_validator("criteria")
    @classmethod
    def _unique(cls, criteria: list[Criterion]) -> list[Criterion]:
        _no_duplicates(criteria)
        return criteria

    @cached_property
    def context(self) -> dict[str, Any]:
        """What a frame sees as `rubric`."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "criteria": [
                {**item.model_dump(exclude={"pass_at"}), "weight": _plain(item.weight)} for item in self.criteria
            ],
        }


class Constitution(_Standard):
    principles: list[Principle] = Field(min_length=1)

    @field_validator("principles")
    @classmethod
    def _unique(cls, principles: list[Principle]) -> list[Principle]:
        _no_duplicates(principles)
        return principles

    def applicable(self, prompt: Prompt) -> list[Principle]:
        """The principles whose scope the prompt is in, in the file's order; may be empty."""
        return [principle for principle in self.principles if principle.applies(prompt)]


def _plain(weight: float) -> int | float:
    return int(weight) if weight.is_integer() else weight


def _no_duplicates(items: Sequence[Criterion] | Sequence[Principle]) -> None:
    ids = [item.id for item in items]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ValueError(f"ids must differ, {twice[0]!r} is there twice")


def judge_context(
    prompt: Prompt,
    responses: Sequence[Response],
    labels: Sequence[str],
    rubric: Rubric | None,
    principle_text: str | None,
    principle_id: str | None,
    instruction: str,
    names: Sequence[str] | None = None,
    reference: bool = True,
) -> dict[str, Any]:
    """Everything a frame sees; every variable is always there, None where it does not apply.

    `responses` in the order shown, `labels` what may be answered, one for each of them (further labels, such as a
    tie's, only show in `labels`); where the answer is no response, `names` are the responses' own. `reference`:
    whether the prompt's is shown. Who wrote a response is left out on purpose: a frame cannot leak what it is not
    given.
    """
    shown = zip(labels if names is None else names, responses, strict=False)
    return {
        "conversation": prompt.text,
        "reference": prompt.reference if reference else None,
        "responses": [{"label": label, "text": response.text} for label, response in shown],
        "rubric": None if rubric is None else rubric.context,
        "principle": None if principle_text is None else {"id": principle_id, "text": principle_text},
        "instruction": instruction,
        "labels": list(labels),
        "meta": prompt.meta,
    }


pairwise_context = judge_context  # its first name, which judges of users' own import


def load_rubric(name_or_path: str) -> Rubric:
    """A shipped rubric by name, or a YAML file. Errors: ConfigError."""
    return _load(Rubric, name_or_path)


def load_constitution(name_or_path: str) -> Constitution:
    """A shipped constitution by name, or a YAML file. Errors: ConfigError."""
    return _load(Constitution, name_or_path)


def load_standard(name_or_path: str) -> Rubric | Constitution:
    """Whichever of the two the name or file is. Errors: ConfigError."""
    path = _find([Rubric, Constitution], name_or_path)
    return _read(Constitution, path) if _is_constitution(read_yaml(path)) else _read(Rubric, path)


def find_frame(frame: str, beside: Path | None) -> Path:
    """The frame file: next to `beside` (a YAML file or a folder), else a shipped one. Errors: ConfigError."""
    folders = [] if beside is None else [beside if beside.is_dir() else beside.parent]
    folders.append(_frames_folder())
    for folder in folders:
        candidate = resolve(frame, folder)
        if candidate.is_file():
            return candidate
    names = sorted({path.name for folder in folders for path in folder.glob("[!_]*.jinja")})
    where = ""
    if beside is not None and beside.is_file():
        where = f"{beside}:{line_of(key_lines(beside), ['frame'])}: "
    raise ConfigError(f"{where}frame: {frame!r} not found; {_hint(frame, names)}")


def known(kind: type[Rubric] | type[Constitution]) -> dict[str, Path]:
    """The shipped rubrics or constitutions: name → file."""
    return {path.stem: path for path in sorted((shipped("prompts") / _FOLDERS[kind]).glob("*.yaml"))}


_Kind = TypeVar("_Kind", Rubric, Constitution)
_FOLDERS: dict[type[Rubric] | type[Constitution], str] = {Rubric: "rubrics", Constitution: "constitutions"}


def _frames_folder() -> Path:
    return shipped("prompts") / "judges"


def _load(kind: type[_Kind], name_or_path: str) -> _Kind:
    return _read(kind, _find([kind], name_or_path))


def _find(kinds: Sequence[type[Rubric] | type[Constitution]], name_or_path: str) -> Path:
    """A shipped name wins over a file of the working folder that is called the same without its suffix."""
    names = {name: path for kind in kinds for name, path in known(kind).items()}
    if name_or_path in names:
        return names[name_or_path]
    path = resolve(name_or_path, Path())
    for suffix in ("", ".yaml", ".yml"):
        candidate = path.parent / (path.name + suffix)
        if candidate.is_file():
            return candidate
    kind_name = " or ".join(kind.__name__.lower() for kind in kinds)
    raise ConfigError(f"no {kind_name} {name_or_path!r}: not a file; {_hint(path.stem, list(names))}")


def _hint(came: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(came, names, n=1)
    return f"did you mean {close[0]!r}? known: {', '.join(names)}" if close else f"known: {', '.join(names)}"


def _is_constitution(raw: dict[str, Any]) -> bool:
    return "principles" in raw and "criteria" not in raw


def _read(kind: type[_Kind], path: Path) -> _Kind:
    raw = read_yaml(path)
    lines = key_lines(path)
    if kind is Rubric and _is_constitution(raw):
        raise ConfigError(f"{path}: this is a constitution (it has principles); name it as one, not as a rubric")
    if kind is Constitution and "criteria" in raw and "principles" not in raw:
        raise ConfigError(f"{path}: this is a rubric (it has criteria); name it as one, not as a constitution")
    try:
        standard = kind.model_validate(raw)
    except ValidationError as error:
        line = line_of(lines, telling_fault(error)["loc"])
        return validate(kind, raw, f"{path}:{line}")  # raises, in the words that every config fault uses
    standard._path = path
    return standard
