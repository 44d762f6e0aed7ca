"""From a reply to a verdict. Pure: no clock, no randomness, no files, and never an exception for any text.

One object both prints the output instruction into the prompt and reads the reply, so the two cannot drift: `Choice`
here, `Rating` and `Form` in verdicts_scores.py, `Ranking` in verdicts_ranking.py. A reply that does not hold exactly
one offered verdict in the declared form is no verdict: it gets a status.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache
from typing import Literal

import msgspec

from rlaif.records import Reply, Status, TokenLogprob

_CLOSE_THINK = "</think>"
_WORD_GOES_ON = re.compile(r"[ \t]*\w|[.,/]\d")  # after a label: "A" was the article, "1" the start of "10" or "1.5"
_PLACEHOLDER = re.compile(r"^<[^>]*>$")  # an echo of the instruction's own placeholder is not an answer
_STILL_THINKING = (
    "the model thinks before it answers, and a log-prob verdict is its first token: turn thinking off "
    "(judge.extra: {chat_template_kwargs: {enable_thinking: false}}), give it room (judge.max_tokens: 2048), or set "
    "judge.read: text"
)
_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m sorry|i am sorry|sorry, (?:but )?i|i can(?:no|['’])t (?:help|assist|do|judge|compare|comply)|"
    r"i(?: am|['’]m) (?:unable|not able) to|i (?:must|have to) (?:decline|refuse)|i won['’]t)",
    re.IGNORECASE,
)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What every parser says: a status, and a `reason` where it is not ok."""

    status: Status = "ok"
    rationale: str | None = None
    reason: str | None = None


class Parsed(Outcome, frozen=True, kw_only=True):
    """What a reply says. `label` is one of the offered ones, or None with a `reason`.

    `probabilities` sum to 1 over the offered labels; `label_mass` is what they had together before that.
    """

    label: str | None = None
    probabilities: dict[str, float] | None = None
    label_mass: float | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A menu of labels. `read`: "logprobs" (the next token's distribution) or "text" (a line "Verdict: LABEL").

    `tie`: the label that means a tie, if one is offered.
    """

    labels: tuple[str, ...] = ("A", "B")
    read: Literal["logprobs", "text"] = "logprobs"
    tie: str | None = None
    min_mass: float = 0.5

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        menu = self._menu()
        if self.read == "logprobs":
            return f"Answer with one letter: {menu}."
        return (
            "First compare them in a few sentences. Then end your reply with one line of the form "
            f"“Verdict: <letter>”, where <letter> is {menu}."
        )

    @property
    def question(self) -> str:
        """What the frame prints last where the reasons are asked for first, and `instruction` after them."""
        return (
            "First compare the responses in a few sentences, by the standard alone. "
            "Give no verdict yet; you are asked for it next."
        )

    def _menu(self) -> str:
        named = [f"{label} for a tie" if label == self.tie else label for label in self.labels]
        return " or ".join(named) if len(named) == 2 else ", ".join(named[:-1]) + f", or {named[-1]}"

    def parse(self, reply: Reply) -> Parsed:
        """The verdict, or why there is none."""
        no_answer = failure(reply)
        if no_answer:
            return Parsed(status=no_answer.status, reason=no_answer.reason)
        return read_logprobs(reply, self) if self.read == "logprobs" else read_text(reply, self)


def failure(reply: Reply) -> Outcome | None:
    """Why there is nothing to read, whatever the text says."""
    if reply.error is not None:
        return Outcome(status="error", reason=reply.error)
    if reply.finish_reason in ("refusal", "content_filter"):
        return Outcome(status="refused", reason="the engine reports a refusal")
    return None


def answer_of(reply: Reply) -> Outcome:
    """The reply's text after any thinking, as `rationale`. A reply cut off by the token limit is no answer: its last
    line may have gone on."""
    no_answer = failure(reply)
    if no_answer:
        return no_answer
    text = after_thinking(reply.text)
    if text is None:
        status: Status = "truncated" if reply.finish_reason == "length" else "unparsed"
        return Outcome(status=status, reason="the thinking never ends")
    if reply.finish_reason == "length":
        return Outcome(status="truncated", reason="cut off by the token limit", rationale=text or None)
    return Outcome(rationale=text)


def nothing_said(text: str, missing: str) -> Outcome:
    """A text without the declared form. `missing`: the form, in words."""
    rationale = text.strip() or None
    if _REFUSAL.match(text):
        return Outcome(status="refused", reason="the reply reads as a refusal", rationale=rationale)
    return Outcome(status="unparsed", reason=missing if rationale else "an empty reply", rationale=rationale)


def read_rationale(reply: Reply) -> Outcome:
    """Reasons that a verdict is asked for next. None can be read after reasons that are not there, or not whole."""
    answer = answer_of(reply)
    if answer.status != "ok":
        return answer
    text = answer.rationale or ""
    if not text.strip() or _REFUSAL.match(text):
        return nothing_said(text, "an empty reply")
    return Outcome(rationale=text.strip())


def read_text(reply: Reply, choice: Choice) -> Parsed:
    """The declared form is a line of its own, after any thinking: "Verdict: LABEL".

    Two different verdicts in that form are no verdict, wherever they stand; verdict-like words in any other form
    are ignored. A reply cut off by the token limit is no verdict either: its last line may have gone on.
    """
    answer = answer_of(reply)
    if answer.status != "ok":
        return Parsed(status=answer.status, reason=answer.reason, rationale=answer.rationale)
    text = answer.rationale or ""
    said = [value for value in declared(text, "verdict") if not _PLACEHOLDER.match(value.strip(' *`."“”'))]
    return _one_value([bare(value) for value in said], text, choice)


def declared(text: str, word: str) -> list[str]:
    """What follows "WORD:" at the beginning of a line, Markdown around it or not."""
    line_form = _line_form(word)
    matches = [line_form.match(line.strip()) for line in plain(text).splitlines()]
    return [match["value"].strip() for match in matches if match]


@lru_cache(maxsize=8)
def _line_form(word: str) -> re.Pattern[str]:
    return re.compile(rf"^[-*_#>`\s]*(?:final\s+)?{word}[*_`\s]*:\s*(?P<value>.*)$", re.IGNORECASE)


def bare(value: str) -> str:
    """A value without the marks that are put around one."""
    return value.strip().strip("*_`'\"“”‘’.,;:()[]{} ")


def _one_value(values: list[str], text: str, choice: Choice) -> Parsed:
    rationale = text.strip() or None
    if not values:
        none = nothing_said(text, "no line “Verdict: …”")
        return Parsed(status=none.status, reason=none.reason, rationale=rationale)
    folded = {value.casefold() for value in values}
    if len(folded) > 1:
        shown = ", ".join(repr(value[:20]) for value in values[:3])
        return Parsed(status="unparsed", reason=f"different verdicts in one reply: {shown}", rationale=rationale)
    offered = {label.casefold(): label for label in choice.labels}
    label = offered.get(folded.pop())
    if label is None:
        reason = f"{values[0][:40]!r} was not offered; offered: {', '.join(choice.labels)}"
        return Parsed(status="unparsed", reason=reason, rationale=rationale)
    certain = {other: float(other == label) for other in choice.labels}
    return Parsed(label=label, probabilities=certain, rationale=rationale)


def read_logprobs(reply: Reply, choice: Choice) -> Parsed:
    """Softmax over the labels' probabilities at the verdict's position, summed over token variants (RLAIF,
    arXiv 2309.00267, section 3.1). Little mass on the labels is no verdict, not a ratio of two tiny numbers.

    A label outside the listed alternatives is at most as likely as the least of them, and at most what is left.
    """
    if not reply.logprobs:
        none = "the reply carries no log-probabilities"
        return Parsed(status="unparsed", reason=none if reply.thinking is None else _STILL_THINKING)
    answer = _answer(reply.logprobs)
    if not answer:
        return Parsed(status="unparsed", reason="no token after the thinking")
    if _WORD_GOES_ON.match("".join(token.token for token in answer[1:3])):
        said = "".join(token.token for token in answer)[:40]
        return Parsed(status="unparsed", reason=f"the reply begins a sentence, it is no label: {said!r}")
    listed = _listed(answer[0])
    probability: dict[str, float] = {}
    for token, logprob in listed:
        label = _as_label(token)
        if label in choice.labels:
            probability[label] = probability.get(label, 0.0) + _probability(logprob)
    mass = math.fsum(probability.values())
    if mass < choice.min_mass:
        reason = f"the labels have {mass:.3f} of the probability, below {choice.min_mass:g}"
        return Parsed(status="unparsed", reason=reason, label_mass=min(mass, 1.0))
    bound = 0.0 if len(probability) == len(choice.labels) else _bound_of_unlisted(listed)
    bounded = {label: probability.get(label, bound) for label in choice.labels}
    total = math.fsum(bounded.values())
    shares = {label: value / total for label, value in bounded.items()}
    return Parsed(label=most_likely(shares), probabilities=shares, label_mass=min(mass, 1.0))


def most_likely(shares: dict[str, float]) -> str | None:
    """The likeliest label; None if two share that place, since taking the one named first would be a bias."""
    best = max(shares.values())
    winners = [label for label, share in shares.items() if share == best]
    return winners[0] if len(winners) == 1 else None


def _listed(position: TokenLogprob) -> list[tuple[str, float]]:
    """The alternatives at this position, the decoded token always among them."""
    if position.token in [token for token, _ in position.top]:
        return position.top
    return [*position.top, (position.token, position.logprob)]


def _bound_of_unlisted(listed: list[tuple[str, float]]) -> float:
    values = [_probability(logprob) for _, logprob in listed]
    return min(*values, max(0.0, 1.0 - math.fsum(values)))


def _probability(logprob: float) -> float:
    """NaN, which some servers send, is no probability; a positive log-prob is rounding."""
    return math.exp(logprob) if logprob < 0.0 else float(logprob == logprob)


@lru_cache(maxsize=8192)
def _as_label(token: str) -> str:
    return plain(token).strip()


def _answer(tokens: list[TokenLogprob]) -> list[TokenLogprob]:
    """The tokens from the first that is not white space on, after any thinking."""
    start, seen = 0, ""
    for index, token in enumerate(tokens):
        seen += token.token
        if _CLOSE_THINK in seen:
            start, seen = index + 1, ""
    first = next((index for index in range(start, len(tokens)) if tokens[index].token.strip()), len(tokens))
    return tokens[first:]


def after_thinking(text: str) -> str | None:
    """What follows the thinking; None if it is opened and never closed."""
    _, close, rest = text.rpartition(_CLOSE_THINK)
    if close:
        return rest
    return None if text.lstrip().startswith("<think>") else text


def plain(text: str) -> str:
    """Full-width letters and digits as plain ones, invisible format characters (bidi marks, …) removed."""
    if text.isascii():
        return text
    folded = unicodedata.normalize("NFKC", text)
    return "".join(char for char in folded if unicodedata.category(char) != "Cf")
