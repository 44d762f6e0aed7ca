"""Which of a prompt's judged pairs become preferences. A selector of your own is a function with the same shape.

A built-in selector that gives one pair a prompt ranks the responses first (by mean P(win), or by Bradley–Terry
strengths); who of the ranked ones is chosen and who is rejected is then one decision for all of them (`ends`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from math import fsum, sqrt

import msgspec

from rlaif.config import PairSection
from rlaif.engines.base import import_path
from rlaif.errors import ConfigError

DEFAULT = PairSection()
ROUNDING = 1e-12  # a difference below this is floating-point noise, not an opinion


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that the judge said about two responses of one prompt. `first_id` sorts before `second_id`.

    `difference`: P(first better) − P(second better), in [−1, 1]; `by_principle`: the same for each named principle.
    `consistent`: whether both shown orders, each taken alone, name the same winner; None when one order was
    asked or neither names one.
    `margin`: score of the first − score of the second, where the judgments are scores; None: it is `difference`.
    `first_length`, `second_length`: characters of the two responses; None where the texts are not at hand.
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
    first_length: int | None = None
    second_length: int | None = None
    drop: str | None = None


# What `pair.select` names: the usable comparisons of one prompt → those to keep.
Selector = Callable[[Sequence[Comparison]], Iterable[Comparison]]


def selector(section: PairSection) -> Selector:
    """The selector behind `pair.select`, a built-in name or an import path, with the section's rules. Errors:
    ConfigError."""
    name = section.select
    if name == "all_pairs":
        return all_pairs
    if name in RANKED:
        return partial(RANKED[name], rules=section)
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


def best_vs_worst(comparisons: Sequence[Comparison], rules: PairSection = DEFAULT) -> Iterable[Comparison]:
    """One pair, of the responses ranked by their mean P(win) over their comparisons; equal ones by id.

    Without other `rules` the first and the last of them, see `ends`. If the two met, their own comparison is the
    label, and one that says the opposite is dropped as a `contradiction`. If they did not, the probability is
    ½ + ½·(score of the chosen − score of the rejected).
    """
    # Scores of 2·P(win) − 1, rounded so that floating-point noise does not decide between equals.
    scores = _means(comparisons, [c.difference for c in comparisons])
    values = scores
    if all(c.margin is not None for c in comparisons):  # scored one by one: distances are those of the scores
        values = _means(comparisons, [c.margin or 0.0 for c in comparisons])
    chosen, rejected = ends(scores, values, _lengths(comparisons), rules)
    return _pair_of(comparisons, chosen, rejected, (scores[chosen] - scores[rejected]) / 2)


def _means(comparisons: Sequence[Comparison], leads: Sequence[float]) -> dict[str, float]:
    """Response → the mean of what it leads by; `leads`: of the first over the second, for each comparison."""
    met: dict[str, list[float]] = {}
    for c, lead in zip(comparisons, leads, strict=True):
        met.setdefault(c.first_id, []).append(lead)
        met.setdefault(c.second_id, []).append(-lead)
    return {id_: round(fsum(results) / len(results), 12) for id_, results in met.items()}


def bradley_terry(comparisons: Sequence[Comparison], rules: PairSection = DEFAULT) -> Iterable[Comparison]:
    """One pair, of the responses ranked by strength in a Bradley–Terry model of all comparisons; equal ones by id.

    For incomplete comparisons (a tournament, `pairs: adjacent`): it knows how strong the opponents were. A tie counts
    half for each, a comparison in both orders counts twice. Which two: see `ends`. If the two met, their own
    comparison is the label, and one that says the opposite is dropped as a `contradiction`; else the probability is
    the model's.
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
    scores = {id_: round(float(model.strengths[number[id_]]), 9) for id_ in ids}
    chosen, rejected = ends(scores, scores, _lengths(comparisons), rules)
    return _pair_of(comparisons, chosen, rejected, model.difference(number[chosen], number[rejected]))


def _orders(c: Comparison) -> int:
    """In how many orders the two were judged, as far as the number of judgments tells."""
    return min(2, max(1, len(c.judgment_ids) // max(1, len(c.by_principle))))


def ends(
    scores: Mapping[str, float],
    values: Mapping[str, float],
    lengths: Mapping[str, int | None],
    rules: PairSection,
) -> tuple[str, str]:
    """Who is chosen and who is rejected, of two or more responses (ids); equal ones by id.

    `scores` rank them. `values` are what distances between them are measured on. Mean μ and standard deviation σ
    (with n) of a prompt's values, and their range R = max − min, make the rules independent of their unit:
    chosen `best`: the highest score. `shortest_among_best`: the shortest with a value ≥ max − within·R.
    rejected `worst`: the lowest score. `longest_among_worst`: the longest with a value ≤ min + within·R (both as in
    Meta-Rewarding, Wu et al. 2024, 2407.19594, with ρ = within). `near`: the value nearest to μ − sds·σ (Xiao et al.
    2025, 2502.16825, with sds = 2). With n responses no value is further below μ than √(n − 1)·σ: below five
    responses 2σ is out of reach and `near` is the worst; so it mostly is on mean P(win), which has no tails.
    With `max_length_ratio` the rejected one is looked for among those of a length alike, where there are any.
    Never is one rejected whose value is above that of the chosen one, where there is another.
    """
    ranked = sorted(scores, key=lambda id_: (-scores[id_], id_))
    top, bottom = max(values.values()), min(values.values())
    reach = rules.within * (top - bottom) + ROUNDING
    chosen = ranked[0]
    if rules.chosen == "shortest_among_best":
        chosen = min((id_ for id_ in ranked if values[id_] >= top - reach), key=lambda id_: _known(lengths[id_]))
    others = [id_ for id_ in ranked if id_ != chosen]
    if not rules.as_ranked:
        others = [id_ for id_ in others if values[id_] <= values[chosen]] or others
    if rules.max_length_ratio is not None:
        limit = rules.max_length_ratio
        others = [id_ for id_ in others if length_ratio(lengths[id_], lengths[chosen]) <= limit] or others
    if rules.rejected == "longest_among_worst":
        tier = [id_ for id_ in others if values[id_] <= bottom + reach] or others[-1:]
        return chosen, max(reversed(tier), key=lambda id_: _known(lengths[id_]))
    if rules.rejected == "near":
        mean = fsum(values.values()) / len(values)
        sd = sqrt(fsum((value - mean) ** 2 for value in values.values()) / len(values))
        target = mean - rules.rejected_sds * sd
        return chosen, min(reversed(others), key=lambda id_: round(abs(values[id_] - target), 12))
    return chosen, others[-1]


def length_ratio(one: int | None, other: int | None) -> float:
    """How many times as long as the other the longer one is; an empty text is as good as one character."""
    shorter, longer = sorted((max(1, _known(one)), max(1, _known(other))))
    return longer / shorter


def _known(length: int | None) -> int:
    if length is None:
        raise ConfigError(
            "pair: chosen, rejected or max_length_ratio asks for lengths, and the responses are not here"
        )
    return length


def _lengths(comparisons: Sequence[Comparison]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for c in comparisons:
        found[c.first_id], found[c.second_id] = c.first_length, c.second_length
    return found


def _pair_of(comparisons: Sequence[Comparison], chosen: str, rejected: str, inferred: float) -> list[Comparison]:
    """The comparison of the two: their own, or one with the `inferred` difference and all they stand on."""
    ids = (min(chosen, rejected), max(chosen, rejected))
    lengths = _lengths(comparisons)
    found = next((c for c in comparisons if (c.first_id, c.second_id) == ids), None)
    if found is None:
        met = [(id_, c) for id_ in ids for c in comparisons if id_ in (c.first_id, c.second_id)]
        found = Comparison(
            prompt_id=comparisons[0].prompt_id,
            first_id=ids[0],
            second_id=ids[1],
            difference=inferred if ids[0] == chosen else -inferred,
            judgment_ids=[judgment_id for _, c in met for judgment_id in c.judgment_ids],
            first_length=lengths[ids[0]],
            second_length=lengths[ids[1]],
        )
    lead = found.difference if found.first_id == chosen else -found.difference
    return [msgspec.structs.replace(found, drop="contradiction") if lead < -ROUNDING else found]


RANKED: dict[str, Callable[..., Iterable[Comparison]]] = {
    "best_vs_worst": best_vs_worst,
    "bradley_terry": bradley_terry,
}
SELECTORS = (*RANKED, "all_pairs")
