"""What a row of a recording says: a reply (its text, or an outcome that was read already), or labels of people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rlaif.config.parsing import ParseSection
from rlaif.errors import DataError
from rlaif.recordings.config import ReplyPart
from rlaif.recordings.expressions import Compiled, Scope, as_key, as_number
from rlaif.records import FIRST, SECOND, TIE, Reply, TokenLogprob, Usage

NONE = "none"  # in a map: the recorded value stands for no verdict
LABELS = {FIRST: "A", SECOND: "B", TIE: "C"}
_MEANS_ITSELF = {FIRST: FIRST, SECOND: SECOND, TIE: TIE}
_FINISHES = {
    "stop": (
        "",
        "stop",
        "eos",
        "eos_token",
        "end_turn",
        "stop_sequence",
        "completed",
        "complete",
        "done",
        "finished",
    ),
    "length": ("length", "max_tokens", "max_new_tokens", "max_output_tokens", "max_length", "model_length"),
    "refusal": ("refusal", "content_filter", "content management policy", "safety", "blocked", "recitation"),
}
_FINISH = {name: ours for ours, names in _FINISHES.items() for name in names}
_LEAST = 1e-30  # a probability of 0 has no logarithm
# How the outcomes that `outcome_text` writes are read back, whatever menu the judge's own section offers.
READS_VERDICTS = ParseSection.model_validate(
    {"patterns": {verdict: f"^Verdict: {label}$" for verdict, label in LABELS.items()}, "line": "last"}
)
READS_SCORE = ParseSection.model_validate({"score": r"^Score: (\S+)$", "line": "last"})


def reads_scores(criteria: Sequence[str]) -> ParseSection:
    """Each criterion's number in the JSON object that `outcome_text` writes; null is none."""
    keys = {name: re.escape(msgspec.json.encode(name).decode()) for name in criteria}
    regexes = {name: rf"[{{,]{key}:(-?[\d.eE+-]+)[,}}]" for name, key in keys.items()}
    return ParseSection.model_validate({"scores": regexes, "line": "last"})


class Outcome:
    """The evaluated part of one reply entry. `key`: what errors call it."""

    def __init__(self, part: ReplyPart, key: str) -> None:
        self._map, self._key = part.map, key
        self._one = {
            name: Compiled(getattr(part, name), f"{key}.{name}")
            for name in ("text", "finish", "thinking", "verdict", "winner", "score", "ranking", "rationale", "model",
                         "prompt_tokens", "completion_tokens")
            if getattr(part, name) is not None
        }  # fmt: skip
        self._several = {
            name: {inner: Compiled(expression, f"{key}.{name}.{inner}") for inner, expression in given.items()}
            for name in ("probabilities", "logprobs", "scores")
            if (given := getattr(part, name))
        }
        self.n_shown = 1 if {"score", "scores"} & {*self._one, *self._several} else None
        if {"verdict", "winner", "probabilities", "logprobs"} & {*self._one, *self._several}:
            self.n_shown = 2

    def reply(self, row: Scope, shown: list[str], where: str) -> Reply | None:
        """None where the row records nothing. `shown`: the responses' own ids in the order shown."""
        tokens: list[TokenLogprob] | None = None
        if "text" in self._one:
            text = self._get("text", row, where)
        elif "probabilities" in self._several or "logprobs" in self._several:
            tokens = self._tokens(row, where)
            text = tokens[0].token if tokens else None
        else:
            text = self._outcome_text(row, shown, where)
        if text is None:
            return None
        finish = as_key(self._get("finish", row, where) or "")
        usage = [int(as_number(self._get(name, row, where), f"{self._key}.{name}", where) or 0)
                 for name in ("prompt_tokens", "completion_tokens")]  # fmt: skip
        thinking = self._get("thinking", row, where)
        return Reply(
            text=clean(text),
            thinking=None if thinking is None else clean(thinking),
            finish_reason=_FINISH.get(finish.lower(), finish),
            logprobs=tokens,
            usage=Usage(*usage),
            model=as_key(self._get("model", row, where) or ""),
        )

    def _get(self, name: str, row: Scope, where: str) -> Any:
        return self._one[name](row, where) if name in self._one else None

    def _outcome_text(self, row: Scope, shown: list[str], where: str) -> str | None:
        """The outcome as a last line that `READS_VERDICTS` and its like read; None where there is none."""
        said: str | None = None
        if "verdict" in self._one or "winner" in self._one:
            kind = "verdict" if "verdict" in self._one else "winner"
            value = self._get(kind, row, where)
            if value is None:
                return None
            meaning = verdict_of(value, kind, self._map, shown, f"{where}: {self._key}.{kind}")
            said = "" if meaning is None else f"Verdict: {LABELS[meaning]}"
        elif "score" in self._one:
            number = as_number(self._get("score", row, where), f"{self._key}.score", where)
            said = None if number is None else f"Score: {number:g}" if number.is_integer() else f"Score: {number!r}"
        elif "ranking" in self._one:
            said = self._ranking(row, shown, where)
        else:
            numbers = {name: as_number(expression(row, where), expression.key, where)
                       for name, expression in self._several["scores"].items()}  # fmt: skip
            said = msgspec.json.encode(numbers).decode() if any(v is not None for v in numbers.values()) else None
        if said is None:
            return None
        rationale = self._get("rationale", row, where)
        return said if rationale is None else f"{clean(rationale)}\n\n{said}"

    def _ranking(self, row: Scope, shown: list[str], where: str) -> str | None:
        found = self._get("ranking", row, where)
        if found is None:
            return None
        ids = [as_key(value) for value in found] if isinstance(found, list) else []
        if sorted(ids) != sorted(shown):
            raise DataError(
                f"{where}: {self._key}.ranking: expected the ids shown ({', '.join(shown)}), got {found!r}"
            )
        return "Ranking: " + " > ".join(chr(ord("A") + shown.index(name)) for name in ids)

    def _tokens(self, row: Scope, where: str) -> list[TokenLogprob] | None:
        """One token, whose alternatives are the verdicts' labels."""
        given = self._several.get("probabilities") or self._several["logprobs"]
        values = {
            name: as_number(expression(row, where), expression.key, where) for name, expression in given.items()
        }
        if any(value is None for value in values.values()):
            return None
        numbers = {name: float(value) for name, value in values.items() if value is not None}
        if "probabilities" in self._several:
            numbers = _logs(numbers, f"{where}: {self._key}.probabilities")
        top = sorted(((LABELS[name], value) for name, value in numbers.items()), key=lambda item: -item[1])
        return [TokenLogprob(top[0][0], top[0][1], top)]


def _logs(shares: dict[str, float], where: str) -> dict[str, float]:
    if set(shares) == {FIRST}:
        shares = {FIRST: shares[FIRST], SECOND: 1 - shares[FIRST]}
    if min(shares.values()) < 0 or math.fsum(shares.values()) > 1.001:
        raise DataError(f"{where}: expected shares of 1, got {', '.join(f'{k} {v:g}' for k, v in shares.items())}")
    return {name: math.log(max(value, _LEAST)) for name, value in shares.items()}


def verdict_of(value: Any, kind: str, meanings: Mapping[str, str], ids: list[str], where: str) -> str | None:
    """first | second | tie, or None for what `meanings` calls none. `kind`: verdict, or winner (one of `ids`).

    Errors: DataError for a value that nothing gives a meaning to.
    """
    said = as_key(value)
    if said in meanings:
        return None if meanings[said] == NONE else meanings[said]
    known = dict(zip(ids, (FIRST, SECOND), strict=False)) if kind == "winner" else {} if meanings else _MEANS_ITSELF
    if said in known:
        return known[said]
    listed = ", ".join(repr(name) for name in [*known, *meanings])
    raise DataError(f"{where}: {said[:60]!r} is none of {listed}; give it a meaning under map: "
                    "(first, second, tie or none)")  # fmt: skip


def clean(value: Any) -> str:
    """A text that can be written as UTF-8."""
    text = value if isinstance(value, str) else as_key(value)
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
