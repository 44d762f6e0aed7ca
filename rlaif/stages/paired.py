"""Means over what each policy wrote, and paired differences to the starting policy, with intervals over prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rlaif import metrics
from rlaif.metrics import resampling
from rlaif.records import Prompt, Response
from rlaif.stages.contest import Samples

Place = tuple[int, int]  # prompt and sample (or demonstration and token): by it two policies are paired
Column = Mapping[Place, float | None]  # None: could not be had
_DIGITS = 6


class Row(NamedTuple):
    """A response, its prompt and its place."""

    place: Place
    prompt: Prompt
    response: Response


def rows_of(prompts: Sequence[Prompt], samples: Samples) -> list[Row]:
    """What a policy did write: faults are left out."""
    return [
        Row((i, k), prompt, response)
        for i, (prompt, of) in enumerate(zip(prompts, samples, strict=True))
        for k, response in enumerate(of)
        if isinstance(response, Response)
    ]


class Paired:
    """Figures of columns whose places lie in these clusters (place → prompt id)."""

    def __init__(self, clusters: Mapping[Place, str], seed: int) -> None:
        self._clusters, self._seed = clusters, seed

    def mean(self, column: Column, *, share: bool = False) -> dict[str, Any] | None:
        """`share`: of values in [0, 1], whose interval does not leave it."""
        mean = metrics.proportion if share else metrics.mean
        return _plain(mean(list(column.values()), self._of(column), self._rng))

    def side(self, column: Column, start: Column | None, *, share: bool = False) -> dict[str, Any]:
        """{"mean", "difference"}: the mean, and by how much it is above the start's at the same places; null where
        there is nothing to compare with, as for the start itself."""
        difference = None
        if start is not None:
            both = {place: (start[place], value) for place, value in column.items() if place in start}
            before, after = ([pair[side] for pair in both.values()] for side in (0, 1))
            difference = _plain(metrics.paired_difference(before, after, self._of(both), self._rng))
        return {"mean": self.mean(column, share=share), "difference": difference}

    def ratio(self, above: Column, below: Column) -> dict[str, Any] | None:
        """Σ above / Σ below over the same places: nats a token from nats and tokens of each response, say."""
        over, under = (np.array([side[place] for place in above], dtype=np.float64) for side in (above, below))

        def statistic(weights: metrics.Floats) -> metrics.Floats:
            found: metrics.Floats = (weights @ over) / (weights @ under)
            return found

        return _plain(resampling.estimate(statistic, self._of(above), self._rng)) if above else None

    def _of(self, places: Mapping[Place, Any]) -> list[str]:
        return [self._clusters[place] for place in places]

    @property
    def _rng(self) -> np.random.Generator:
        """A new one for each figure, so that none depends on which others are computed."""
        return np.random.default_rng(self._seed)


def _plain(found: metrics.Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {key: round(x, _DIGITS) if isinstance(x, float) else x for key, x in found.as_dict().items()}
