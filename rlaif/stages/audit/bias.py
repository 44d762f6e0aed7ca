"""What sways a judge beside the standard: the place in which a response is shown, its length, who wrote it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.stages.audit.material import Found, Material, Meeting, Missing, Part, Shown, outcomes

_MAX_SOURCES = 28  # pairs of sources in the table: eight sources, each against each
_NO_PAIRS = "no usable pairwise judgment"


def position(material: Material) -> Part:
    """Does the order shown matter, for the whole and for each judge, member and standard?"""
    figures = _position(material, material.shown, material.meetings)
    parts: dict[str, dict[str, dict[str, Found]]] = {}
    keys: dict[str, Callable[[Shown | Meeting], str | None]] = {
        "judge": lambda row: row.judge,
        "member": lambda row: row.member,
        "principle": lambda row: row.standard,
    }
    for name, key in keys.items():
        shown, meetings = _grouped(material.shown, key), _grouped(material.meetings, key)
        parts[name] = {group: _position(material, shown[group], meetings.get(group, ())) for group in sorted(shown)}
    return figures, {"position": parts}


def _position(material: Material, shown: Sequence[Shown], meetings: Sequence[Meeting]) -> dict[str, Found]:
    first = outcomes(row.p for row in shown)
    both = [row for row in meetings if not math.isnan(row.p_first) and not math.isnan(row.p_second)]
    same = outcomes(row.p_first for row in both) == outcomes(row.p_second for row in both)
    ids = [row.prompt_id for row in shown]
    return {
        "first_position_rate": material.rate(first.tolist(), ids, _NO_PAIRS),
        "order_consistency": material.rate(
            same.astype(float).tolist(), [row.prompt_id for row in both], "no pair was judged in both orders"
        ),
    }


def length(material: Material) -> Part:
    """Does length decide? Lengths are in characters."""
    apart = [row for row in material.meetings if material.length(row.a) != material.length(row.b)]
    won = outcomes(row.p if material.length(row.a) > material.length(row.b) else 1 - row.p for row in apart)
    rate = material.rate(won.tolist(), [row.prompt_id for row in apart], "no two responses of different length met")
    effect, place = _regression(material)
    figures: dict[str, Found] = {"longer_wins_rate": rate, "length_effect": effect, "position_effect": place}
    return figures, {"sources": _sources(material)}


def _regression(material: Material) -> tuple[Found, Found]:
    """Log-odds of winning for each doubling of the length, and for standing first.

    logit P(shown first wins) = position + length · log₂(characters of the first / characters of the second), over
    single verdicts; without the first term where no order was shown (scores, rankings).
    """
    if material.shown:
        y = outcomes(row.p for row in material.shown)
        x = [[1.0, _doublings(material, row.first, row.second)] for row in material.shown]
        clusters = [row.prompt_id for row in material.shown]
    else:
        y = outcomes(row.p for row in material.meetings)
        x = [[_doublings(material, row.a, row.b)] for row in material.meetings]
        clusters = [row.prompt_id for row in material.meetings]
    if not len(y):
        return Missing("no usable judgment of two responses"), Missing(_NO_PAIRS)
    found = metrics.logistic(y, x, np.asarray(clusters))
    if found is None:
        none = Missing("no finite answer: too few prompts, equal lengths, or one side that always wins")
        return none, none if material.shown else Missing(_NO_PAIRS)
    return found[-1], found[0] if material.shown else Missing(_NO_PAIRS)


def _doublings(material: Material, one: str, other: str) -> float:
    return math.log2(material.length(one) / material.length(other))


def _sources(material: Material) -> list[dict[str, Any]]:
    """Every two sources that met: the win rate of one, and the same if lengths were equal."""
    met: dict[tuple[str, str], list[tuple[float, float, str]]] = defaultdict(list)
    for row in material.meetings:
        one, other = material.responses[row.a].source, material.responses[row.b].source
        if one != other:
            delta = float(material.length(row.a) - material.length(row.b))
            mine, sign = (row.p, 1) if one < other else (1 - row.p, -1)
            met[(min(one, other), max(one, other))].append((mine, sign * delta, row.prompt_id))
    largest = sorted(met.items(), key=lambda item: (-len(item[1]), item[0]))[:_MAX_SOURCES]
    found = []
    for (one, other), rows in sorted(largest):
        ids = [row[2] for row in rows]
        scores = outcomes(row[0] for row in rows)
        deltas = np.asarray([row[1] for row in rows])
        controlled = material.bootstrapped(
            metrics.length_controlled_win_rate, (scores, deltas), ids, "too few comparisons, or one length difference"
        )
        rate = material.rate(scores.tolist(), ids, _NO_PAIRS)
        found.append({"source": one, "against": other, "win_rate": rate, "length_controlled_win_rate": controlled})
    return found


def family(material: Material) -> Part:
    """Does a judge favour what its own model family wrote?

    `own_family_win_rate` mixes favour with merit: a strong model's responses may deserve to win. Where another judge,
    of neither family, saw the same pairs under the same standard, `own_family_excess` is the difference to it.
    """
    rows: list[tuple[str, float, str]] = []  # (judge's model, its outcome for its own family, prompt)
    excess: list[float] = []
    excess_ids: list[str] = []
    others = _grouped(material.meetings, lambda row: f"{row.prompt_id}\0{row.a}\0{row.b}\0{row.standard}")
    for row in material.meetings:
        own, sides = material.families.of_model(row.model), _sides(material, row)
        if "" in (own, *sides) or (sides[0] == own) == (sides[1] == own):
            continue
        won = _won(row, sides[0] == own)
        rows.append((row.model, won, row.prompt_id))
        key = f"{row.prompt_id}\0{row.a}\0{row.b}\0{row.standard}"
        neutral = [o for o in others[key] if material.families.of_model(o.model) not in ("", *sides)]
        if neutral:
            excess.append(won - sum(_won(o, sides[0] == own) for o in neutral) / len(neutral))
            excess_ids.append(row.prompt_id)
    figures: dict[str, Found] = {
        "own_family_win_rate": material.rate(
            [won for _, won, _ in rows],
            [i for _, _, i in rows],
            "no judge met its own family beside another",
        ),
        "own_family_excess": metrics.mean(excess, np.asarray(excess_ids), material.rng)
        or Missing("no judge of neither family saw the same pairs"),
    }
    models = sorted({row.model for row in material.meetings})
    sources = sorted({response.source for response in material.responses.values()})
    detail = {
        "judges": {name: material.families.of_model(name) for name in models},
        "sources": {name: material.families.of_source(name) for name in sources},
        "by_judge": {
            name: material.rate([w for m, w, _ in rows if m == name], [i for m, _, i in rows if m == name], "none")
            for name in sorted({m for m, _, _ in rows})
        },
    }
    return figures, {"families": detail}


def _sides(material: Material, row: Meeting) -> tuple[str, str]:
    of = material.families.of_source
    return of(material.responses[row.a].source), of(material.responses[row.b].source)


def _won(row: Meeting, a: bool) -> float:
    """The outcome for `a`, or for `b`."""
    return float(outcomes([row.p if a else 1 - row.p])[0])


def _grouped(rows: Iterable[Any], key: Callable[[Any], str | None]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        name = key(row)
        if name is not None:
            found[name].append(row)
    return found
