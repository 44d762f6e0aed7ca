"""How the texts of a foreign judge are read: the `parse:` of a judge section, or of a recording."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from rlaif.config.base import Section
from rlaif.errors import ConfigError
from rlaif.paths import resolve

FLAGS = {"ignorecase": re.IGNORECASE, "multiline": re.MULTILINE, "dotall": re.DOTALL}


class Patterns(Section):
    """Regular expressions (Python's), one per verdict, in the order shown. With `file` (JSON or YAML), each is
    instead a JMESPath expression that finds the pattern there."""

    first: str
    second: str
    tie: str | None = None
    file: str | None = None


class ParseSection(Section):
    patterns: Patterns | None = None  # pairwise: which verdict a text holds
    compare: str | None = None  # pairwise: a regex with two groups, the score of the first and of the second
    score: str | None = None  # pointwise: a regex whose only group is the score
    scores: dict[str, str] = {}  # pointwise: criterion → such a regex
    # of different verdicts in one text: that of the first pattern that matches anywhere, in the order first, second,
    # tie · of the match that begins first · of the match that ends last · none
    take: Literal["first", "earliest", "last", "strict"] = "strict"
    line: Literal["all", "first", "last"] = "all"  # which lines are read; blank ones do not count
    flags: list[Literal["ignorecase", "multiline", "dotall"]] = []
    truncated: Literal["refuse", "read"] = "refuse"  # a text cut off by the token limit
    max_chars: int = Field(default=50_000, ge=1)  # a longer text is unparsed: a pattern can take time in its square
    instruction: str | None = None  # what a live judge is told to write; recorded texts need none

    @model_validator(mode="after")
    def _one_reading(self) -> ParseSection:
        given = [name for name in ("patterns", "compare", "score", "scores") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give one of patterns, compare, score, scores; got {', '.join(given) or 'none'}")
        for key, regex, groups in self._regexes():
            check_regex(key, regex, groups)
        return self

    def _regexes(self) -> list[tuple[str, str, int | None]]:
        """(key, regex, how many groups it must have) of every regex that stands here."""
        found: list[tuple[str, str, int | None]] = []
        if self.patterns and self.patterns.file is None:
            found += [(f"patterns.{name}", regex, None) for name, regex in self.by_verdict.items()]
        found += [("compare", self.compare, 2)] if self.compare else []
        found += [("score", self.score, 1)] if self.score else []
        return found + [(f"scores.{name}", regex, 1) for name, regex in self.scores.items()]

    @property
    def by_verdict(self) -> dict[str, str]:
        """first | second | tie → pattern, in that order."""
        return self.patterns.model_dump(exclude={"file"}, exclude_none=True) if self.patterns else {}

    def file(self, base: Path) -> Path | None:
        """The file that holds the patterns, if one does."""
        return resolve(self.patterns.file, base) if self.patterns and self.patterns.file else None

    def inlined(self, base: Path, where: str) -> ParseSection:
        """The same with the patterns read from their file. Errors: ConfigError."""
        path = self.file(base)
        if path is None:
            return self
        document = _document(path)
        found = {name: _found(document, expression, f"{path}: {where}.patterns.{name}")
                 for name, expression in self.by_verdict.items()}  # fmt: skip
        try:
            return ParseSection.model_validate({**self.model_dump(exclude_unset=True), "patterns": found})
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{path}: {where}.{message}") from None


def check_regex(key: str, regex: str, groups: int | None) -> None:
    """Errors: ValueError for what is no regex, has other groups than wanted, or can take for ever on a long text."""
    try:
        compiled = re.compile(regex)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{key}: {regex!r} is no regular expression: {error}") from None
    if groups is not None and compiled.groups != groups:
        raise ValueError(f"{key}: {regex!r} has {compiled.groups} groups, expected {groups}; (?:…) is none")
    if _repeats_nest(regex):
        raise ValueError(
            f"{key}: {regex!r} repeats a repetition, which can take exponential time; make the inner one possessive "
            "(`++`, `*+`) or atomic (?>…)"
        )


def _repeats_nest(regex: str) -> bool:
    """Whether an unbounded repetition stands inside another, as in (a+)+, with nothing that forbids going back."""
    import re._constants as constants  # type: ignore[import-not-found]
    import re._parser as parser  # type: ignore[import-not-found]

    greedy = (constants.MAX_REPEAT, constants.MIN_REPEAT)

    def walk(node: Any, inside: bool) -> bool:
        if isinstance(node, parser.SubPattern | list | tuple):
            items = list(node)
            if len(items) == 2 and items[0] in greedy:
                _, high, body = items[1]
                unbounded = high is constants.MAXREPEAT
                return (unbounded and inside) or walk(body, inside or unbounded)
            if items and items[0] in (constants.ATOMIC_GROUP, constants.POSSESSIVE_REPEAT):
                return walk(items[1:], False)
            return any(walk(item, inside) for item in items)
        return False

    return walk(parser.parse(regex), False)


def _document(path: Path) -> Any:
    """A JSON or YAML file, which may be packed with gzip."""
    import gzip

    import yaml

    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # JSON is YAML
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file (parse.patterns.file)") from None
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: neither JSON nor YAML: {' '.join(str(error).split())}") from None


def _found(document: Any, expression: str, where: str) -> str:
    import jmespath

    try:
        found = jmespath.search(expression, document)
    except Exception as error:  # jmespath raises ValueErrors of its own, and some of Python's
        raise ConfigError(f"{where}: {expression!r} is no JMESPath: {' '.join(str(error).split())}") from None
    if not isinstance(found, str):
        raise ConfigError(f"{where}: {expression!r} finds no text there, but {str(found)[:60]}")
    return found
