"""From a reply to an order of several responses."""

from __future__ import annotations

import msgspec

from rlaif.judges.verdicts import Outcome, answer_of, bare, declared, nothing_said
from rlaif.records import Reply

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def labels_for(n: int) -> tuple[str, ...]:
    """A to Z; numbers where the letters do not suffice."""
    return tuple(_LETTERS[:n]) if n <= len(_LETTERS) else tuple(str(i) for i in range(1, n + 1))


class ParsedRanking(Outcome, frozen=True, kw_only=True):
    """`order`: every offered label once, best first; None with a `reason`."""

    order: tuple[str, ...] | None = None


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """An order of all `labels`, read from a line "Ranking: B > A > C"."""

    labels: tuple[str, ...]

    @property
    def instruction(self) -> str:
        """What the frame prints last."""
        first, last = self.labels[0], self.labels[-1]
        return (
            "First compare them in a few sentences. Then end your reply with one line of the form "
            f"“Ranking: <best> > … > <worst>”, which names every response from {first} to {last} exactly once."
        )

    def parse(self, reply: Reply) -> ParsedRanking:
        """The order, or why there is none. A label that is missing or named twice is no order, and neither are two
        different ones: a part of an order would shift every place after it."""
        answer = answer_of(reply)
        text = answer.rationale or ""
        rationale = text.strip() or None
        if answer.status != "ok":
            return ParsedRanking(status=answer.status, reason=answer.reason, rationale=answer.rationale)
        said = {self._names(value) for value in declared(text, "ranking") if "<best>" not in value.casefold()}
        if not said:
            none = nothing_said(text, "no line “Ranking: …”")
            return ParsedRanking(status=none.status, reason=none.reason, rationale=rationale)
        names = min(said)
        reason = "different rankings in one reply" if len(said) > 1 else self._fault(names)
        if reason:
            return ParsedRanking(status="unparsed", reason=reason, rationale=rationale)
        offered = {label.casefold(): label for label in self.labels}
        return ParsedRanking(order=tuple(offered[name] for name in names), rationale=rationale)

    def _names(self, value: str) -> tuple[str, ...]:
        return tuple(bare(part).casefold() for part in value.split(">"))

    def _fault(self, names: tuple[str, ...]) -> str | None:
        offered = [label.casefold() for label in self.labels]
        for name in names:
            if name not in offered:
                return f"{name[:40]!r} was not offered; offered: {', '.join(self.labels)}"
            if names.count(name) > 1:
                return f"{name!r} is named twice"
        missing = [label for label in self.labels if label.casefold() not in names]
        return f"the ranking leaves out {', '.join(missing)}" if missing else None
