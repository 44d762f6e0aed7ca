"""Several replies to one question, as one verdict (self-consistency, arXiv 2203.11171)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import fsum
from typing import Any, TypeVar

from rlaif.judges.verdicts import Outcome, Parsed, most_likely
from rlaif.records import STATUSES

_Outcome = TypeVar("_Outcome", bound=Outcome)


def fault_of(draws: Sequence[_Outcome]) -> _Outcome | None:
    """Why these draws make no judgment; None if they do.

    One that never came makes it an error: asked again, only that one is sent, and then it says what all say. Of those
    that came, more than half must be usable: what a few say where most say nothing is no estimate of all.
    """
    missing = next((draw for draw in draws if draw.status == "error"), None)
    if missing is not None:
        return missing
    failed = [draw for draw in draws if draw.status != "ok"]
    if 2 * len(failed) < len(draws):
        return None
    counts = Counter(draw.status for draw in failed)
    worst = max(STATUSES, key=lambda status: counts[status])
    return next(draw for draw in failed if draw.status == worst)


def pooled(draws: Sequence[Parsed]) -> tuple[Parsed, dict[str, Any]]:
    """The mean of the draws' probabilities, which for votes is their shares; and how the draws fell.

    Facts: `samples`, `votes` (label → how many; "" where two labels were equal), `failed` (status → how many).
    """
    facts: dict[str, Any] = {"samples": len(draws)}
    usable = [draw for draw in draws if draw.status == "ok" and draw.probabilities is not None]
    facts["votes"] = dict(sorted(Counter(draw.label or "" for draw in usable).items()))
    if len(usable) < len(draws):
        facts["failed"] = dict(sorted(Counter(draw.status for draw in draws if draw.status != "ok").items()))
    fault = fault_of(draws)
    if fault is not None:
        n_failed = len(draws) - len(usable)
        reason = f"{n_failed} of {len(draws)} draws gave no verdict: {fault.reason}"
        return Parsed(status=fault.status, reason=reason, rationale=fault.rationale), facts
    labels = list(usable[0].probabilities or {})
    shares = {label: fsum((draw.probabilities or {})[label] for draw in usable) / len(usable) for label in labels}
    label = most_likely(shares)
    masses = [draw.label_mass for draw in usable if draw.label_mass is not None]
    spoken = next((draw for draw in usable if draw.label == label), usable[0])
    return Parsed(
        label=label,
        probabilities=shares,
        label_mass=fsum(masses) / len(masses) if masses else None,
        rationale=spoken.rationale,
    ), facts
