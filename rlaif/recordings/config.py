"""The shape of a recording: a YAML file that says where other people's judgments stand and what each field means.

Strings under `id`, `text`, `where` and their like are JMESPath expressions over a row (docs/recordings.md); numbers,
true and null stand for themselves. `${name}` is a parameter, `${env:NAME:-default}` a variable of the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rlaif.config.base import Section, read_yaml, validate
from rlaif.config.parsing import ParseSection
from rlaif.errors import ConfigError
from rlaif.recordings.expressions import as_key

Expr = str | int | float | bool | None
Exprs = Expr | list[Expr]  # of an id: joined by "/"; of a text: paragraphs; of labels: one per rater
_SUBSTITUTION = re.compile(r"\$?\$\{(?:env:(?P<env>\w+)(?::-(?P<default>[^}]*))?|(?P<param>[^}]*))\}")


class Table(Section):
    """Rows: a file (or several, or a glob), what in it is a row, what is joined or added to it, which rows count."""

    path: str | list[str]  # JSONL, JSON, CSV, Parquet (text formats also .gz), a folder or a Hugging Face dataset
    split: str = "train"  # only for Hugging Face datasets
    config_name: str | None = None  # likewise
    rows: str | None = None  # JSON only: which list in the document holds the rows, for example data.items
    each: str | None = None  # a list in the row: one row for each element, `_each`, at `_index` (from 0)
    join: dict[str, Join] = {}  # name → rows of another table; the row that fits is there under the name
    let: dict[str, Expr] = {}  # name → expression: columns made of others, each may use those before it
    where: str | None = None  # rows for which this is false, null or empty are left out

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


class Join(Table):
    """Another table, by key: `here` is looked up among `there`."""

    here: Exprs  # in the row that is joined to
    there: Exprs  # in the rows of this table
    unmatched: Literal["error", "keep", "drop"] = "error"  # keep: the name is null


class _Part(Section):
    data: Table | None = None  # default: the recording's

    @field_validator("data", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return _as_table(value)


class _OfPrompt(_Part):
    prompt: Exprs = None  # the prompt's id; default: what `prompts` says, read in this part's rows
    where: str | None = None  # only these rows make one

    @field_validator("map", mode="before", check_fields=False)
    @classmethod
    def _keys_as_text(cls, value: Any) -> Any:
        return {as_key(name): meaning for name, meaning in value.items()} if isinstance(value, dict) else value


class PromptsPart(_Part):
    id: Exprs = None  # default: made of the text
    text: Exprs = None  # a text, or a list of messages with role and content; several: paragraphs
    system: Expr = None
    reference: Expr = None
    domain: Expr = None
    meta: dict[str, Expr] = {}
    where: str | None = None


class ResponsePart(_OfPrompt):
    id: Exprs = None  # unique within the prompt; default: "1", "2", … by its place in `responses`
    text: Exprs = None
    source: Expr = None  # who wrote it
    meta: dict[str, Expr] = {}


class ReplyPart(_OfPrompt):
    """One recorded reply: a `text`, or else what somebody has read in it already."""

    shown: list[Exprs] | str = Field(min_length=1)  # the responses' ids in the order shown, or one list of them
    swapped: Expr = None  # true: shown the other way round
    text: Expr = None  # the raw text
    finish: Expr = None  # why it ended: stop, length, refusal; names that other APIs give these are understood
    thinking: Expr = None
    verdict: Expr = None  # read through `map`
    winner: Expr = None  # or the id of the response that won; `map` names what means a tie or none
    probabilities: dict[Literal["first", "second", "tie"], Expr] = {}  # or what the judge gave to each
    logprobs: dict[Literal["first", "second", "tie"], Expr] = {}  # or their natural logs
    score: Expr = None  # or a number, of the one response shown
    scores: dict[str, Expr] = {}  # or criterion → number
    ranking: str | None = None  # or a list of ids, best first
    rationale: Expr = None  # beside a verdict, score or ranking that was read already
    map: dict[str, Literal["first", "second", "tie", "none"]] = {}
    model: Expr = None
    sample: Expr = None  # number of the draw, from 0
    prompt_tokens: Expr = None
    completion_tokens: Expr = None

    @model_validator(mode="after")
    def _one_outcome(self) -> ReplyPart:
        kinds = ("text", "verdict", "winner", "probabilities", "logprobs", "score", "scores", "ranking")
        given = [name for name in kinds if getattr(self, name) not in (None, {})]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}; got {', '.join(given) or 'none'}")
        return self


class GoldPart(_OfPrompt):
    """What people say. One expression, a list (one per rater), or rater → expression."""

    responses: list[Exprs] | str | None = None  # ids; default: the prompt's two, in their order
    verdict: Expr | list[Expr] | dict[str, Expr] = None  # read through `map`
    winner: Expr | list[Expr] | dict[str, Expr] = None  # or the id of the better one; `map` names what means a tie
    score: Expr | list[Expr] | dict[str, Expr] = None  # or a number, for one response
    map: dict[str, Literal["first", "second", "tie", "none"]] = {}
    rater: Expr = None  # where each row is one rater's; rows about the same responses are put together
    slices: dict[str, Expr] = {}  # name → value, to report by

    @model_validator(mode="after")
    def _one_label(self) -> GoldPart:
        kinds = ("verdict", "winner", "score")
        given = [name for name in kinds if getattr(self, name) not in (None, {}, [])]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}; got {', '.join(given) or 'none'}")
        if self.rater is not None and isinstance(getattr(self, given[0]), list | dict):
            raise ValueError("rater: is for rows of one rater each; a list or mapping of labels names several")
        return self


class RecordingFile(Section):
    recording: str | int | None = None  # a name
    params: dict[str, str | int | float] = {}  # defaults of what ${…} may name
    root: str | None = None  # the folder that paths start from; default: this file's
    data: Table | None = None  # what every part reads that has no `data` of its own
    prompts: PromptsPart
    responses: list[ResponsePart] = []  # none: replies that name responses without texts
    replies: list[ReplyPart] = []
    gold: list[GoldPart] = []
    repeats: Literal["error", "samples"] = "error"  # several replies to one question: draws 0, 1, 2 … of the judge
    parse: ParseSection | None = None  # how a judge reads the texts, where its own section does not say

    @field_validator("data", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return _as_table(value)

    @field_validator("responses", "replies", "gold", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _readable(self) -> RecordingFile:
        for name, parts in (("prompts", [self.prompts]), ("responses", self.responses), ("replies", self.replies),
                            ("gold", self.gold)):  # fmt: skip
            for part in parts:
                if self.data is None and part.data is None:
                    raise ValueError(f"{name} reads no file: give `data` here, or in {name}")
        raw = {part.text is not None for part in self.replies}
        if len(raw) > 1:
            raise ValueError(
                "replies: raw texts and outcomes that were read already cannot be mixed in one recording"
            )
        if self.parse is not None and raw == {False}:
            raise ValueError("parse: the replies hold no raw texts")
        return self


def _as_table(value: Any) -> Any:
    """A path alone is a table."""
    return {"path": value} if isinstance(value, str | list) else value


def load_file(path: Path, params: Mapping[str, Any]) -> RecordingFile:
    """The recording at `path` with `params` over its own. Errors: ConfigError with the file and the key."""
    raw = read_yaml(path)
    own = raw.get("params") or {}
    if not isinstance(own, dict):
        raise ConfigError(f"{path}: params: expected a mapping, got {type(own).__name__}")
    unknown = sorted(set(params) - set(own))
    if unknown:
        known = ", ".join(map(str, own)) or "none"
        raise ConfigError(f"{path}: params.{unknown[0]}: unknown parameter; there: {known}")
    values = {name: _filled(value, {}, f"{path}: params.{name}") for name, value in {**own, **params}.items()}
    filled = {key: _filled(value, values, f"{path}: {key}") for key, value in raw.items() if key != "params"}
    return validate(RecordingFile, {**filled, "params": values}, str(path))


def _filled(value: Any, params: Mapping[str, Any], where: str) -> Any:
    """`value` with every ${…} in its strings replaced; `$${` is a literal `${`."""
    if isinstance(value, dict):
        return {
            _filled(name, params, where): _filled(inner, params, f"{where}.{name}") for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_filled(inner, params, f"{where}[{index}]") for index, inner in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replaced(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        if match["env"]:
            found = os.environ.get(match["env"], match["default"])
            if found is None:
                raise ConfigError(f"{where}: the environment has no variable {match['env']}")
            return found
        if match["param"] not in params:
            raise ConfigError(f"{where}: unknown parameter {match[0]}; there: {', '.join(params) or 'none'}")
        return str(params[match["param"]])

    return _SUBSTITUTION.sub(replaced, value)
