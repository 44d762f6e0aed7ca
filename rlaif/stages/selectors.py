"""Which of a prompt's judged pairs become preferences. A selector of your own is a function with the same shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from math import fsum

import msgspec

from rlaif.engines.base import import_path
from rlaif.errors import ConfigError

ROUNDING = 1e-12  # a difference below this is floating-point noise, not an opinion


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that the judge said about two responses of one prompt. `first_id` sorts before `second_id`.

    `difference`: P(first better) − P(second better), in [−1, 1]; `by_principle`: the same for each named principle.
    `consistent`: whether both shown orders, each taken alone, name the same winner; None when one order was
    asked or neither names one.
    `margin`: score of the first − score of the second, where the judgments are scores; None: it is `difference`.
    `drop`: a selector sets it to the reason why this pair must not become a preference.
    """

    prompt_id: str
    first_id: str
    second_id: str
    difference: float
    judgment_ids: list[str]
    by_principle: dict[str, float] = {}
    consistent: bool | None = None
    margin: float | None = None
    drop: str | None = None


# What `pair.select` names: the usable comparisons of one prompt → those to keep.
Selector = Callable[[Sequence[Comparison]], Iterable[Comparison]]


def selector(name: str) -> Selector:
    """The selector behind a built-in name or an import path. Errors: ConfigError."""
    if name in SELECTORS:
        return SELECTORS[name]
    if ":" not in name:
        close = get_close_matches(name, SELECTORS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = f"known: {', '.join(SELECTORS)}, or an import path 'package.module:function'"
        raise ConfigError(f"pair.select: unknown selector {name!r}; {hint}{known}")
    found: Selector = import_path(name, "pair.select")
    return found


def all_pairs(comparisons: Sequence[Comparison]) -> Iterable[Comparison]:
    """Every pair that was judged."""
    return comparisons


def best_vs_worst(comparisons: Sequence[Comparison]) -> Iterable[Comparison]:
    """One pair: the responses with the highest and the lowest mean P(win) over their comparisons; equal ones by id.

    If the two met, their own comparison is the label, and one that says the opposite is dropped as a
    `contradiction`. If they did not, the probability is ½ + ½·(score of the best − score of the worst).
    """
    met: dict[str, list[float]] = {}
    for c in comparisons:
        met.setdefault(c.first_id, []).append(c.difference)
        met.setdefault(c.second_id, []).append(-c.difference)
    # Scores of 2·P(win) − 1, rounded so that floating-point noise does not decide between equals.
    scores = {id_: round(fsum(results) / len(results), 12) for id_, results in met.items()}
    ranked = sorted(scores, key=lambda id_: (-scores[id_], id_))
    best, worst = ranked[0], ranked[-1]
    return _ends(comparisons, best, worst, (scores[best] - scores[worst]) / 2)


def bradley_terry(comparisons: Sequence[Comparison]) -> Iterable[Comparison]:
    """One pair: the highest and the lowest strength in a Bradley–Terry model of all comparisons; equal ones by id.

    For incomplete comparisons (a tournament, `pairs: adjacent`): it knows how strong the opponents were. A tie counts
    half for each, a comparison in both orders counts twice. If the two met, their own comparison is the label, and
    one that says the opposite is dropped as a `contradiction`; else the probability is the model's.
    """
    from rlaif.metrics.ranking import bradley_terry as fit

    ids = sorted({id_ for c in comparisons for id_ in (c.first_id, c.second_id)})
    number = {id_: index for index, id_ in enumerate(ids)}
    model = fit(
        [number[c.first_id] for c in comparisons],
        [number[c.second_id] for c in comparisons],
        [min(1.0, max(0.0, (1 + c.difference) / 2)) for c in comparisons],
        weights=[_orders(c) for c in comparisons],
    )
    ranked = sorted(ids, key=lambda id_: (-round(float(model.strengths[number[id_]]), 9), id_))
    best, worst = ranked[0], ranked[-1]
    return _ends(comparisons, best, worst, model.difference(number[best], number[worst]))


def _orders(c: Comparison) -> int:
    """In how many orders the two were judged, as far as the number of judgments tells."""
    return min(2, max(1, len(c.judgment_ids) // max(1, len(c.by_principle))))


def _ends(comparisons: Sequence[Comparison], best: str, worst: str, inferred: float) -> list[Comparison]:
    """The comparison of best and worst: their own, or one with the `inferred` difference and all they stand on."""
    ids = (min(best, worst), max(best, worst))
    for c in comparisons:
        if (c.first_id, c.second_id) == ids:
            lead = c.difference if c.first_id == best else -c.difference
            return [msgspec.structs.replace(c, drop="contradiction") if lead < -ROUNDING else c]
    met = [(id_, c) for id_ in ids for c in comparisons if id_ in (c.first_id, c.second_id)]
    return [
        Comparison(
            prompt_id=comparisons[0].prompt_id,
            first_id=ids[0],
            second_id=ids[1],
            difference=inferred if ids[0] == best else -inferred,
            judgment_ids=[judgment_id for _, c in met for judgment_id in c.judgment_ids],
        )
    ]


SELECTORS: dict[str, Selector] = {
    "best_vs_worst": best_vs_worst,
    "bradley_terry": bradley_terry,
    "all_pairs": all_pairs,
}
