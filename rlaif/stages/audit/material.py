"""The tables of a run as an audit looks at them: single verdicts in the order shown, pairs with orders averaged."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from rlaif import metrics
from rlaif.errors import DataError
from rlaif.metrics import Estimate, Floats
from rlaif.records import FIRST, SECOND, TIE, Judgment, Prompt, Response
from rlaif.stages.audit.families import Families
from rlaif.stages.report.labels import p_first, standard_of
from rlaif.store import RunFolder


@dataclass(frozen=True)
class Missing:
    """A figure that could not be computed."""

    reason: str


Found = Estimate | Missing
Part = tuple[dict[str, Found], dict[str, Any]]  # named figures, and what stands beside them in audit.json
_Of = tuple[str, str | None, str, str, str]  # judge, member, model, standard, prompt
_RESAMPLES = 500  # of figures that are no means: each resample computes them anew


@dataclass(frozen=True)
class Shown:
    """One usable pairwise verdict. `p`: P(the response shown first is better), a tie counting half."""

    judge: str
    member: str | None
    standard: str
    prompt_id: str
    first: str
    second: str
    p: float


@dataclass(frozen=True)
class Meeting:
    """Two responses under one judge and one standard; `a` sorts before `b`. `p`: P(a better), orders averaged.

    `p_first`, `p_second`: where a was shown first and where second; NaN where that order was not judged.
    """

    judge: str
    member: str | None
    model: str
    standard: str
    prompt_id: str
    a: str
    b: str
    p: float
    p_first: float = math.nan
    p_second: float = math.nan


@dataclass(frozen=True)
class Material:
    """What one audit, or one slice of it, looks at. Superseded judgments are not among the judgments."""

    judgments: Sequence[Judgment]
    responses: Mapping[str, Response]
    domains: Mapping[str, str]  # prompt id → domain, "" for none
    families: Families
    near_duplicate: float = 0.8
    seed: int = 0

    def of_domain(self, domain: str) -> Material:
        return replace(
            self,
            judgments=[row for row in self.judgments if self.domains.get(row.prompt_id) == domain],
            responses={k: row for k, row in self.responses.items() if self.domains.get(row.prompt_id) == domain},
        )

    @property
    def rng(self) -> np.random.Generator:
        """A new one for each figure, so that none depends on which others are computed."""
        return np.random.default_rng(self.seed)

    @cached_property
    def kinds(self) -> dict[str, int]:
        counts: dict[str, int] = {"pairwise": 0, "pointwise": 0, "listwise": 0}
        for row in self.judgments:
            counts[row.kind] += 1
        return counts

    @cached_property
    def shown(self) -> list[Shown]:
        """Pairwise verdicts that somebody was asked for: not those on two equal texts."""
        return [
            Shown(
                row.judge,
                row.member,
                standard_of(row),
                row.prompt_id,
                row.response_ids[0],
                row.response_ids[1],
                _p(row),
            )
            for row in self.judgments
            if row.kind == "pairwise" and row.status == "ok" and not row.meta.get("identical")
        ]

    @cached_property
    def meetings(self) -> list[Meeting]:
        return [*_from_pairs(self.judgments), *_from_scores(self.judgments), *_from_rankings(self.judgments)]

    def length(self, response_id: str) -> int:
        """Characters, at least 1."""
        return max(1, len(self.responses[response_id].text))

    def rate(self, values: Sequence[float], prompt_ids: Sequence[str], why: str) -> Found:
        """A mean of values in [0, 1], its interval over prompts; `why` where there are no values."""
        return metrics.proportion(values, np.asarray(prompt_ids), self.rng) or Missing(why)

    def bootstrapped(
        self, figure: Callable[..., float | None], columns: Sequence[Floats], prompt_ids: Sequence[str], why: str
    ) -> Found:
        """Any figure of columns of numbers, with a percentile interval that resamples prompts (95 %)."""
        value = figure(*columns) if prompt_ids else None
        if value is None:
            return Missing(why)
        _, which = np.unique(np.asarray(prompt_ids), return_inverse=True)
        order, sizes = np.argsort(which, kind="stable"), np.bincount(which)
        clusters, rng = np.split(order, np.cumsum(sizes)[:-1]), self.rng
        if len(clusters) < 2:
            return Estimate(value, None, None, len(prompt_ids))
        again = []
        for _ in range(_RESAMPLES):
            rows = np.concatenate([clusters[i] for i in rng.integers(len(clusters), size=len(clusters))])
            again.append(figure(*(column[rows] for column in columns)))
        kept = [x for x in again if x is not None]
        low, high = np.quantile(kept, [0.025, 0.975]) if kept else (value, value)
        return Estimate(value, float(low), float(high), len(prompt_ids))


def load(folder: RunFolder, families: Families, near_duplicate: float, seed: int) -> Material:
    """The tables of a run. Errors: StoreError (a table is missing), DataError (it contradicts itself)."""
    responses = {row.id: row for row in folder.read("responses", Response)}
    judgments = [row for row in folder.read("judgments", Judgment) if not row.superseded]
    where = folder.table("judgments")
    for row in judgments:
        _check(row, responses, str(where))
    domains = {row.id: row.domain or "" for row in folder.read("prompts", Prompt)}
    return Material(judgments, responses, domains, families, near_duplicate, seed)


def _check(row: Judgment, responses: Mapping[str, Response], where: str) -> None:
    for response_id in row.response_ids:
        owner = responses.get(response_id)
        if owner is None or owner.prompt_id != row.prompt_id:
            what = "is not in responses.jsonl" if owner is None else f"belongs to prompt {owner.prompt_id}"
            raise DataError(f"{where}: judgment {row.id} of prompt {row.prompt_id}: response {response_id} {what}")
    wanted = {"pairwise": 2, "pointwise": 1}.get(row.kind)
    if wanted is not None and len(row.response_ids) != wanted:
        raise DataError(f"{where}: judgment {row.id}: a {row.kind} judgment has {wanted} responses, not "
                        f"{len(row.response_ids)}")  # fmt: skip
    if row.kind == "pairwise" and row.status == "ok":
        if row.probabilities is None and row.verdict not in (FIRST, SECOND, TIE):
            raise DataError(f"{where}: judgment {row.id}: verdict {row.verdict!r} is none of first, second, tie")
        if not 0 <= p_first(row) <= 1 + 1e-9:
            raise DataError(f"{where}: judgment {row.id}: {row.probabilities} are not probabilities")


def _p(row: Judgment) -> float:
    return min(1.0, p_first(row))  # sums of rounded probabilities


def _of(row: Judgment, standard: str) -> _Of:
    return row.judge, row.member, row.model, standard, row.prompt_id


def _from_pairs(judgments: Iterable[Judgment]) -> list[Meeting]:
    """Both orders of a pair as one meeting; of several verdicts in one order, their mean."""
    orders: dict[tuple[_Of, str, str], tuple[list[float], list[float]]] = {}
    for row in judgments:
        if row.kind != "pairwise" or row.status != "ok" or row.meta.get("identical"):
            continue
        one, other = row.response_ids
        key = (_of(row, standard_of(row)), min(one, other), max(one, other))
        seen = orders.setdefault(key, ([], []))
        (seen[0] if one < other else seen[1]).append(_p(row) if one < other else 1 - _p(row))
    found = []
    for (of, a, b), (first, second) in orders.items():
        means = [_mean(first), _mean(second)]
        there = [p for p in means if not math.isnan(p)]
        found.append(Meeting(*of, a, b, sum(there) / len(there), means[0], means[1]))
    return found


def _from_scores(judgments: Iterable[Judgment]) -> list[Meeting]:
    """Every two responses of a prompt under one criterion: the higher score is the better one."""
    scores: dict[_Of, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in judgments:
        for criterion, score in (row.scores or {}).items() if row.kind == "pointwise" else ():
            if score is not None:
                standard = f"{row.principle}: {criterion}" if row.principle else criterion
                scores[_of(row, standard)][row.response_ids[0]].append(score)
    return [
        Meeting(*key, a, b, _beats(_mean(of_one[a]), _mean(of_one[b])))
        for key, of_one in scores.items()
        for a, b in combinations(sorted(of_one), 2)
    ]


def _from_rankings(judgments: Iterable[Judgment]) -> list[Meeting]:
    """Every two responses of a ranking: the one that stands earlier is the better one."""
    places: dict[_Of, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in judgments:
        key = _of(row, standard_of(row))
        for place, response_id in enumerate(row.ranking or ()):
            places[key][response_id].append(float(place))
    return [
        Meeting(*key, a, b, _beats(_mean(of_one[b]), _mean(of_one[a])))
        for key, of_one in places.items()
        for a, b in combinations(sorted(of_one), 2)
    ]


def _beats(one: float, other: float) -> float:
    return 0.5 if one == other else float(one > other)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def outcomes(values: Iterable[float]) -> Floats:
    """1 a win, ½ a tie, 0 a loss."""
    return metrics.outcomes(list(values))
