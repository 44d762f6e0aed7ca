"""Gold as calibration uses it: pairs with the label that people agree on, and scored responses."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from typing import Any

import msgspec
import numpy as np

from rlaif import io
from rlaif.config import CalibrateSection
from rlaif.errors import DataError
from rlaif.io.gold import GoldSet, Label, read_gold
from rlaif.records import FIRST, SECOND, TIE, Dropped, Gold, Prompt, Response, make_id

DOMAIN = "domain"
MIN_PAIRS = 10  # with a winner: below that no figure says anything


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two responses with what people say of them. `label`: what most raters say, FIRST being `a`; TIE where no label
    has more than the others. `cluster`: one value for all pairs of one prompt text.
    """

    id: str
    cluster: str
    prompt: Prompt
    a: Response
    b: Response
    label: str
    votes: dict[str, str]  # rater → label
    slices: dict[str, str] = {}

    @property
    def truth(self) -> float:
        """1: a is better, 0: b is, NaN: a tie."""
        return {FIRST: 1.0, SECOND: 0.0}.get(self.label, float("nan"))


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """One response with its raters' scores."""

    cluster: str
    prompt: Prompt
    response: Response
    votes: dict[str, float]
    slices: dict[str, str] = {}

    @property
    def score(self) -> float:
        return fsum(self.votes.values()) / len(self.votes)


class People(msgspec.Struct, frozen=True, kw_only=True):
    """All of gold. `oriented`: "file", a is the file's first response; or "id", where the file always puts the better
    one first: then a is the one whose id sorts first, since figures such as κ need both sides.
    """

    pairs: list[Pair]
    scored: list[Scored]
    oriented: str = "file"

    @property
    def raters(self) -> list[str]:
        rows: list[Pair | Scored] = [*self.pairs, *self.scored]
        return list(dict.fromkeys(rater for row in rows for rater in row.votes))

    def groups(self) -> list[tuple[Prompt, list[Response]]]:
        """Each prompt with all of its responses that gold is about, for judges that look at single ones or at all."""
        found: dict[str, tuple[Prompt, dict[str, Response]]] = {}
        for pair in self.pairs:
            found.setdefault(pair.prompt.id, (pair.prompt, {}))[1].update({pair.a.id: pair.a, pair.b.id: pair.b})
        for row in self.scored:
            found.setdefault(row.prompt.id, (row.prompt, {}))[1][row.response.id] = row.response
        return [(prompt, list(responses.values())) for prompt, responses in found.values()]


def load_people(section: CalibrateSection, on_drop: Any) -> People:
    """Gold of the config, read and checked. Errors: DataError, ConfigError, one line, before anything is asked."""
    found = read_gold(section.gold, on_drop, labels=section.labels, raters=section.raters, slices=section.slices)
    people = people_of(found, section.slices)
    if not people.pairs and not people.scored:
        raise DataError(f"{section.gold.path}: no row with a usable label")
    check(people, section.gold.path)
    return people


def check(people: People, where: str) -> None:
    """Errors: DataError where no figure could be had from it."""
    winners = sum(pair.label != TIE for pair in people.pairs)
    if people.pairs and not winners:
        raise DataError(f"{where}: all {len(people.pairs)} pairs are ties: no winner to compare a judge with")
    if winners < MIN_PAIRS and len(people.scored) < MIN_PAIRS:
        raise DataError(
            f"{where}: {winners} pairs with a winner and {len(people.scored)} scored responses; at least {MIN_PAIRS} "
            "of either are needed"
        )


def people_of(found: GoldSet, slices: Sequence[str] = ()) -> People:
    """Pairs and scored responses of gold; scores of one prompt's responses make pairs."""
    pairs = [pair for gold in found.gold if len(gold.response_ids) == 2 and (pair := _pair(gold, found, slices))]
    scored = [row for gold in found.gold if len(gold.response_ids) == 1 and (row := _scored(gold, found, slices))]
    met = {pair.id for pair in pairs}
    pairs += [pair for pair in _implied(scored) if pair.id not in met]
    labels = {pair.label for pair in pairs} - {TIE}
    if len(labels) == 1:
        return People(pairs=[_by_id(pair) for pair in pairs], scored=scored, oriented="id")
    return People(pairs=pairs, scored=scored)


def majority(labels: Iterable[str]) -> str:
    """The label that more raters give than any other; TIE where several share that place."""
    (first, n), *rest = Counter(labels).most_common()
    return TIE if rest and rest[0][1] == n else first


def _pair(gold: Gold, found: GoldSet, slices: Sequence[str]) -> Pair | None:
    votes = {rater: str(label) for rater, label in _votes(gold).items()}
    if not votes:
        return None
    prompt = found.prompts[gold.prompt_id]
    a, b = (found.responses[response_id] for response_id in gold.response_ids)
    return _made(prompt, a, b, votes, _slices(gold, prompt, slices))


def _made(prompt: Prompt, a: Response, b: Response, votes: dict[str, str], slices: dict[str, str]) -> Pair:
    return Pair(
        id=make_id(prompt.id, *sorted((a.id, b.id))),
        cluster=io.messages_id(prompt.messages),
        prompt=prompt,
        a=a,
        b=b,
        label=majority(votes.values()),
        votes=votes,
        slices=slices,
    )


def _scored(gold: Gold, found: GoldSet, slices: Sequence[str]) -> Scored | None:
    votes = {rater: float(label) for rater, label in _votes(gold).items() if label is not None}
    if not votes:
        return None
    prompt = found.prompts[gold.prompt_id]
    return Scored(
        cluster=io.messages_id(prompt.messages),
        prompt=prompt,
        response=found.responses[gold.response_ids[0]],
        votes=votes,
        slices=_slices(gold, prompt, slices),
    )


def _votes(gold: Gold) -> dict[str, Label]:
    """Rater → label, those without one left out. Raters without names are numbered within the pair."""
    names = gold.raters or [str(n) for n in range(1, len(gold.labels) + 1)]
    votes: dict[str, Label] = {}
    for name, label in zip(names, gold.labels, strict=True):
        if label is not None:
            votes[name if name not in votes else f"{name} ({len(votes) + 1})"] = label
    return votes


def _slices(gold: Gold, prompt: Prompt, wanted: Sequence[str]) -> dict[str, str]:
    found = dict(gold.slices)
    if DOMAIN in wanted and prompt.domain:
        found.setdefault(DOMAIN, prompt.domain)
    return {name: found[name] for name in wanted if name in found}


def _implied(scored: Sequence[Scored]) -> Iterable[Pair]:
    """Pairs of one prompt's scored responses: per rater who scored both, else by their mean scores."""
    by_prompt: dict[str, list[Scored]] = {}
    for row in scored:
        by_prompt.setdefault(row.prompt.id, []).append(row)
    for rows in by_prompt.values():
        for one, other in itertools.combinations(rows, 2):
            shared = [rater for rater in one.votes if rater in other.votes]
            votes = {rater: _better(one.votes[rater], other.votes[rater]) for rater in shared}
            votes = votes or {"": _better(one.score, other.score)}
            yield _made(one.prompt, one.response, other.response, votes, one.slices)


def _better(one: float, other: float) -> str:
    return TIE if one == other else FIRST if one > other else SECOND


def _by_id(pair: Pair) -> Pair:
    if pair.a.id <= pair.b.id:
        return pair
    mirror = {FIRST: SECOND, SECOND: FIRST, TIE: TIE}
    votes = {rater: mirror[label] for rater, label in pair.votes.items()}
    return msgspec.structs.replace(pair, a=pair.b, b=pair.a, label=mirror[pair.label], votes=votes)


def split(pairs: Sequence[Pair], test_fraction: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(N,) which pairs are tested on. Whole prompts: by a hash of the seed and the prompt's text, so that the order
    of the file does not matter; the share is exact to one prompt.
    """
    clusters = sorted({pair.cluster for pair in pairs}, key=lambda cluster: make_id(seed, "calibrate", cluster))
    n_test = min(max(1, round(test_fraction * len(clusters))), max(1, len(clusters) - 1))
    test = set(clusters[:n_test])
    return np.asarray([pair.cluster in test for pair in pairs], dtype=bool)


def drop(row: Dropped) -> Dropped:
    return msgspec.structs.replace(row, stage="calibrate")


def describe(people: People) -> dict[str, Any]:
    """What gold holds, for calibration.json."""
    labels: Mapping[str, int] = Counter(pair.label for pair in people.pairs)
    return {
        "pairs": len(people.pairs),
        "prompts": len({pair.cluster for pair in people.pairs} | {row.cluster for row in people.scored}),
        "labels": {name: labels.get(name, 0) for name in (FIRST, SECOND, TIE)},
        "scored": len(people.scored),
        "raters": len(people.raters),
        "oriented": people.oriented,
    }
