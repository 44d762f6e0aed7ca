"""Runs with planted biases, for the tests of the audit: judges that favour the place, the length or the family."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from rlaif.records import Judgment, Response, make_id
from rlaif.stages.audit.families import Families
from rlaif.stages.audit.material import Material

Bias = Callable[[Response, Response], float]  # (shown first, shown second) → log-odds that the first one wins


def fair(first: Response, second: Response) -> float:
    return 0.0


def likes_first(strength: float) -> Bias:
    return lambda first, second: strength


def likes_longer(strength: float) -> Bias:
    """`strength`: log-odds for each doubling."""
    return lambda first, second: strength * math.log2(len(first.text) / len(second.text))


def likes_family(source: str, strength: float) -> Bias:
    return lambda first, second: strength * ((first.source == source) - (second.source == source))


def responses_of(
    n_prompts: int, rng: random.Random, sources: tuple[str, ...] = ("gpt-4", "llama-3")
) -> list[Response]:
    """One response of each source to each prompt, between 20 and 320 characters."""
    found = []
    for p in range(n_prompts):
        for source in sources:
            text = "".join(rng.choice("abcdefgh ") for _ in range(round(20 * 2 ** rng.uniform(0, 4))))
            found.append(Response(id=make_id(p, source), prompt_id=f"p{p}", text=text, source=source))
    return found


def judged(
    responses: list[Response], bias: Bias, rng: random.Random, *, model: str = "judge-x", judge: str = "judge",
    merit_sd: float = 0.8, principle: str | None = None,
) -> list[Judgment]:  # fmt: skip
    """Every two responses of a prompt in both orders; a merit that both orders share, the bias, and a coin."""
    rows = []
    by_prompt: dict[str, list[Response]] = {}
    for response in responses:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    for group in by_prompt.values():
        for i, one in enumerate(group):
            for other in group[i + 1 :]:
                merit = rng.gauss(0, merit_sd)
                for first, second, sign in ((one, other, 1), (other, one, -1)):
                    p = 1 / (1 + math.exp(-(sign * merit + bias(first, second))))
                    wins = rng.random() < p
                    rows.append(_judgment(first, second, wins, judge, model, principle))
    return rows


def _judgment(
    first: Response, second: Response, wins: bool, judge: str, model: str, principle: str | None
) -> Judgment:
    return Judgment(
        id=make_id(judge, model, principle, first.id, second.id),
        prompt_id=first.prompt_id,
        judge=judge,
        model=model,
        response_ids=[first.id, second.id],
        rubric="r@1",
        principle=principle,
        verdict="first" if wins else "second",
        probabilities={"first": float(wins), "second": float(not wins)},
        meta={"orders": "both"},
    )


def material(
    responses: list[Response], judgments: list[Judgment], families: Families | None = None, seed: int = 0
) -> Material:
    domains = {row.prompt_id: "even" if int(row.prompt_id[1:]) % 2 == 0 else "odd" for row in responses}
    return Material(judgments, {row.id: row for row in responses}, domains, families or Families(), seed=seed)
