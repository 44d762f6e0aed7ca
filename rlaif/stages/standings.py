"""What a judge said of single responses, and how those of one prompt rank: for the exports that need no pairs."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum

from rlaif.config import PairSection
from rlaif.records import Judgment
from rlaif.stages.pair import compared
from rlaif.stages.pairing.standards import Standards

CriterionScores = dict[str, float | None]  # null: not judged
_DIGITS = 12  # floating-point noise does not decide between equals


def criterion_scores(judgments: Iterable[Judgment]) -> dict[tuple[str, str], CriterionScores]:
    """(prompt id, response id) → criterion → mean score over the usable pointwise judgments that have one."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for judgment in judgments:
        if _counts(judgment, "pointwise") and judgment.scores is not None:
            scores = found.setdefault((judgment.prompt_id, judgment.response_ids[0]), {})
            for criterion, score in judgment.scores.items():
                scores.setdefault(criterion, []).extend([] if score is None else [score])
    return {key: {criterion: _mean(values) for criterion, values in scores.items()} for key, scores in found.items()}


def overall(scores: CriterionScores) -> float | None:
    """The plain mean of the criteria that were judged; None where none was."""
    return _mean([score for score in scores.values() if score is not None])


def standings(
    judgments: Iterable[Judgment], section: PairSection, standards: Standards | None = None
) -> dict[str, dict[str, float]]:
    """prompt id → response id → how well it stands among the prompt's responses; more is better.

    From listwise judgments, where there are any: the mean over them of the share of the others that it was ranked
    above (Borda). Else from pointwise ones: the mean score. Else from pairwise ones: the mean over its comparisons of
    P(it is better) − P(the other is better), which is what `best_vs_worst` ranks by. `standards` as for `pair`.
    """
    judgments = list(judgments)
    listwise = [judgment for judgment in judgments if _counts(judgment, "listwise")]
    if listwise:
        return _places(listwise)
    scored = {key: overall(scores) for key, scores in criterion_scores(judgments).items()}
    found: dict[str, dict[str, float]] = {}
    if scored:
        for (prompt_id, response_id), score in scored.items():
            if score is not None:
                found.setdefault(prompt_id, {})[response_id] = round(score, _DIGITS)
        return found
    pairwise = [judgment for judgment in judgments if judgment.kind == "pairwise"]
    for prompt_id, pairs in compared(pairwise, section, standards=standards):
        results: dict[str, list[float]] = {}
        for comparison in pairs.values():
            if not isinstance(comparison, str):
                results.setdefault(comparison.first_id, []).append(comparison.difference)
                results.setdefault(comparison.second_id, []).append(-comparison.difference)
        found[prompt_id] = {id_: round(fsum(values) / len(values), _DIGITS) for id_, values in results.items()}
    return found


def _places(judgments: Iterable[Judgment]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, list[float]]] = {}
    for judgment in judgments:
        ranking = judgment.ranking or []
        for place, response_id in enumerate(ranking):
            share = 1 - place / (len(ranking) - 1) if len(ranking) > 1 else 1.0
            found.setdefault(judgment.prompt_id, {}).setdefault(response_id, []).append(share)
    return {
        prompt_id: {id_: round(fsum(values) / len(values), _DIGITS) for id_, values in places.items()}
        for prompt_id, places in found.items()
    }


def _counts(judgment: Judgment, kind: str) -> bool:
    return judgment.kind == kind and judgment.status == "ok" and not judgment.superseded


def _mean(values: list[float]) -> float | None:
    return fsum(values) / len(values) if values else None
