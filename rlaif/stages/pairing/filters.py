"""Which selected pairs do not become preferences: too close, too clear, or of too different lengths; and, seen over
all pairs of a run, too unsure or too unlikely.

The last two are West-of-N's filters (Pace et al. 2024, 2401.12086): a pseudo-preference is kept where the confidence
P(chosen ≻ rejected) reaches a quantile of all confidences, and where both responses reach a quantile of the
likelihood under the policy that wrote them. The confidence is the label's own probability, orders and members put
together; the likelihood is log π(y|x) summed over the response's tokens, as the engine reported it when it sampled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from rlaif.config import PairSection
from rlaif.errors import DataError
from rlaif.records import Preference, Response
from rlaif.stages.selectors import ROUNDING, Comparison, length_ratio

LOGPROB = "logprob"  # in a response's meta: log π(y|x), natural, summed over its tokens


class Traits(NamedTuple):
    """What selection may look at of a response. `length`: characters. `logprob`: None where nobody noted it."""

    prompt_id: str
    length: int
    logprob: float | None


def traits_of(response: Response) -> Traits:
    found = response.meta.get(LOGPROB)
    logprob = float(found) if isinstance(found, int | float) else None
    return Traits(response.prompt_id, len(response.text), logprob)


def unfit(c: Comparison, section: PairSection) -> str | None:
    """Why a comparison does not make a preference; |p − ½| is half of |difference|. Errors: ConfigError."""
    margin = abs(c.difference) / 2
    if margin < ROUNDING / 2:
        return "tie"
    if margin < section.min_margin - ROUNDING:
        return "below_margin"
    if margin > section.max_margin + ROUNDING:
        return "above_margin"
    limit = section.max_length_ratio
    if limit is None or section.length_matched == "prefer":
        return None
    return "length_mismatch" if length_ratio(c.first_length, c.second_length) > limit else None


def above_quantiles(
    preferences: Sequence[Preference], section: PairSection, traits: Mapping[str, Traits]
) -> tuple[list[Preference], list[tuple[Preference, str]]]:
    """Those kept, and the others with the reason. The quantiles are those of all `preferences` (of likelihoods: of
    the responses in them), with linear interpolation; one that equals it is kept.

    Errors: DataError where a likelihood is asked for and a response has none.
    """
    least = _quantile([row.probability for row in preferences], section.min_confidence_quantile)
    logprobs: dict[str, float] = {}
    if section.min_likelihood_quantile:
        ids = (id_ for row in preferences for id_ in (row.chosen_id, row.rejected_id))
        logprobs = {id_: _logprob(id_, traits) for id_ in ids}
    least_likely = _quantile(list(logprobs.values()), section.min_likelihood_quantile)

    def why(row: Preference) -> str | None:
        if row.probability < least:
            return "unconfident"
        if logprobs and min(logprobs[row.chosen_id], logprobs[row.rejected_id]) < least_likely:
            return "unlikely"
        return None

    reasons = [why(row) for row in preferences]
    kept = [row for row, reason in zip(preferences, reasons, strict=True) if reason is None]
    return kept, [(row, reason) for row, reason in zip(preferences, reasons, strict=True) if reason is not None]


def _quantile(values: Sequence[float], q: float) -> float:
    """Linear between the two nearest; 0 is no threshold."""
    import numpy as np

    return float(np.quantile(values, q)) - ROUNDING if values and q else -inf


def _logprob(response_id: str, traits: Mapping[str, Traits]) -> float:
    found = traits[response_id].logprob if response_id in traits else None
    if found is None:
        raise DataError(
            f"pair.min_likelihood_quantile: response {response_id} has no meta.{LOGPROB}; set logprobs: true on "
            "every sampler of generate, with an engine that reports them, or give it with the responses"
        )
    return found
