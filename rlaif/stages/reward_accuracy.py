"""How often a reward model scores the better of two responses higher (RewardBench, Lambert et al. 2024, 2403.13787).

Any pair set will do: rows with `chosen` and `rejected`, or `responses` whose `source` is one of the two, where a
prompt may have several of both. Only texts are scored; nothing is asked of an engine.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rlaif import io, metrics
from rlaif.config import EvaluateSection, Source
from rlaif.errors import DataError
from rlaif.records import Dropped, Prompt, Response
from rlaif.stages.base import Context
from rlaif.stages.contest import STAGE, Score, scorer_of
from rlaif.stages.train import trained

CHOSEN, REJECTED = "chosen", "rejected"
RATIO = 1.2  # from this ratio of lengths on, one response counts as the longer one


class Pair(NamedTuple):
    """Two responses of which people, or whoever made the set, prefer the first."""

    prompt: Prompt
    chosen: Response
    rejected: Response


def measure_reward_models(context: Context, section: EvaluateSection, dropped: list[Dropped]) -> dict[str, Any]:
    """Model → pair set → figures (see `accuracy`). Errors: ConfigError, StoreError (a model), DataError (no pair)."""
    sets = {name: pairs_of(source, f"evaluate.pairs.{name}", dropped) for name, source in section.pairs.items()}
    found: dict[str, Any] = {}
    for name, model in section.reward_models.items():
        score = scorer_of(located_model(model, context, f"evaluate.reward_models.{name}"))
        found[name] = {of: accuracy(pairs, score, context.config.seed) for of, pairs in sets.items()}
    return found


def located_model(model: str, context: Context, where: str) -> str:
    """A folder, or what this run trained. Errors: StoreError."""
    return trained(model, context.folder.path, where) if model.startswith("run:") else model


def pairs_of(source: Source, where: str, dropped: list[Dropped]) -> list[Pair]:
    """Every chosen response of a prompt with every rejected one. Errors: DataError where there is no pair."""
    found: list[Pair] = []
    groups = io.read_responses(source, lambda row: dropped.append(_of_this_stage(row)))
    for prompt, responses in itertools.islice(groups, source.limit):
        chosen = [row for row in responses if row.source == CHOSEN]
        rejected = [row for row in responses if row.source == REJECTED]
        found += [Pair(prompt, better, worse) for better in chosen for worse in rejected]
    if not found:
        raise DataError(f"{where}: {source.path}: no prompt has a chosen and a rejected response")
    return found


def _of_this_stage(row: Dropped) -> Dropped:
    return Dropped(stage=STAGE, reason=row.reason, id=row.id, detail=row.detail)


def accuracy(pairs: Sequence[Pair], score: Score, seed: int) -> dict[str, Any]:
    """Accuracy with an interval over prompts, ties ½; by domain, and by which response is the longer one; the mean of
    the difference of scores in units of its standard deviation."""
    rows = list({row.id: (pair.prompt, row) for pair in pairs for row in (pair.chosen, pair.rejected)}.values())
    scores = score([p.messages for p, _ in rows], [row.text for _, row in rows], [True] * len(rows))
    of = {row.id: value for (_, row), value in zip(rows, scores, strict=True)}
    lead = np.array([of[pair.chosen.id] - of[pair.rejected.id] for pair in pairs])
    right = np.where(lead == 0, 0.5, (lead > 0).astype(float))
    spread = float(lead.std())
    return {
        "n": len(pairs),
        "accuracy": _rate(right, pairs, range(len(pairs)), seed),
        "ties": int((lead == 0).sum()),
        "margin": round(float(lead.mean()) / spread, 6) if spread > 0 else None,
        "by_domain": {
            domain: _rate(right, pairs, [i for i, pair in enumerate(pairs) if pair.prompt.domain == domain], seed)
            for domain in sorted({pair.prompt.domain for pair in pairs if pair.prompt.domain})
        },
        "by_length": {
            kind: _rate(right, pairs, [i for i, pair in enumerate(pairs) if longer(pair) == kind], seed)
            for kind in ("chosen_longer", "alike", "rejected_longer")
        },
    }


def longer(pair: Pair) -> str:
    """Which response is the longer one, in characters."""
    chosen, rejected = len(pair.chosen.text), len(pair.rejected.text)
    if max(chosen, rejected) < RATIO * min(chosen, rejected):
        return "alike"
    return "chosen_longer" if chosen > rejected else "rejected_longer"


def _rate(right: Any, pairs: Sequence[Pair], where: Sequence[int] | range, seed: int) -> dict[str, Any] | None:
    """None where no pair is."""
    clusters = [pairs[i].prompt.id for i in where]
    found = metrics.proportion(right[list(where)], clusters, np.random.default_rng(seed))
    return None if found is None else {k: round(v, 6) if k != "n" else v for k, v in found.as_dict().items()}
