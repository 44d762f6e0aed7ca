"""What is measured of each policy of an evaluation by itself: length, variety, reward models' scores, KL, skills.

Every figure is on the policy's own held-out responses (skills: on demonstrations), beside its difference to the
starting policy's on the same prompts. Intervals resample prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.config import EvaluateSection
from rlaif.records import Prompt, Response
from rlaif.stages.base import Context
from rlaif.stages.contest import Contestant, Samples
from rlaif.stages.forgetting import Skills, skill_figures
from rlaif.stages.paired import Column, Paired, Row, rows_of
from rlaif.stages.reward_accuracy import located_model
from rlaif.training.guard.monitors import distinct

_DIGITS = 6
_Columns = dict[tuple[str, ...], Column]  # where a figure stands under its policy → its values


class Answers(NamedTuple):
    """What one policy answered. `right`: skill → 1 for each demonstration that it answers right, greedily, else 0."""

    contestant: Contestant
    samples: Samples
    right: Mapping[str, Column]


def describe(
    context: Context, section: EvaluateSection, prompts: Sequence[Prompt], answers: Sequence[Answers], skills: Skills
) -> dict[str, Any]:
    """Policy → figures, the starting one first: `contestants` of evaluation.json (docs/formats.md).

    Errors: ConfigError, StoreError, EngineError (a reward model or a policy that cannot be loaded).
    """
    rows = {of.contestant.name: rows_of(prompts, of.samples) for of in answers}
    clusters = {(i, k): prompt.id for i, prompt in enumerate(prompts) for k in range(section.n)}
    paired = Paired(clusters, context.config.seed)
    columns = {name: _of_texts(context, of) for name, of in rows.items()}
    for name, model in section.reward_models.items():
        _add_scores(columns, rows, name, located_model(model, context, f"evaluate.reward_models.{name}"))
    start = columns[answers[0].contestant.name]
    found = {}
    for name, of in rows.items():
        sides = {
            path: paired.side(column, None if columns[name] is start else start[path], share=path == ("finished",))
            for path, column in columns[name].items()
        }
        varied = {str(n): _distinct(of, n) for n in (1, 2)}
        found[name] = {"n": len(of), **_nested(sides), "distinct": varied}
    if section.kl or skills:
        counted = {name: of["length", "tokens"] for name, of in columns.items()}
        _add_likelihoods(context, section, answers, rows, skills, found, counted, paired)
    return found


def _of_texts(context: Context, rows: Sequence[Row]) -> _Columns:
    """Words, tokens as the engine counted them, and 1 where a response came to its end."""
    return {
        ("length", "words"): {row.place: float(len(row.response.text.split())) for row in rows},
        ("length", "tokens"): {row.place: _written_tokens(context, row.response) for row in rows},
        ("finished",): {row.place: float(row.response.finish_reason != "length") for row in rows},
    }


def _written_tokens(context: Context, response: Response) -> float | None:
    """Tokens of the reply, the end token and thinking among them; None where the engine did not say."""
    reply = context.folder.journal.get(response.reply_key) if response.reply_key else None
    return float(reply.usage.completion_tokens) if reply and reply.usage.completion_tokens else None


def _add_scores(columns: Mapping[str, _Columns], rows: Mapping[str, Sequence[Row]], name: str, folder: str) -> None:
    """Each response's reward (heads in standard deviations over the model's training responses, summed), and its
    heads in their own unit."""
    from rlaif.training.scoring import load_reward

    scorer = load_reward(folder)
    for policy, of in rows.items():
        scores = scorer.score(
            [row.prompt.messages for row in of],
            [row.response.text for row in of],
            [row.response.finish_reason != "length" for row in of],
        )
        named = {("score",): scores.reward} | {
            ("heads", head): scores.heads[:, k] for k, head in enumerate(scorer.heads)
        }
        for path, values in named.items():
            columns[policy]["reward", name, *path] = {row.place: float(x) for row, x in zip(of, values, strict=True)}


def _distinct(rows: Sequence[Row], n: int) -> float | None:
    """Of words."""
    share = distinct([row.response.text.lower().split() for row in rows], n)
    return None if share is None else round(share, _DIGITS)


def _nested(flat: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, value in flat.items():
        inner = found
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return found


def _add_likelihoods(
    context: Context,
    section: EvaluateSection,
    answers: Sequence[Answers],
    rows: Mapping[str, Sequence[Row]],
    skills: Skills,
    found: Mapping[str, dict[str, Any]],
    counted: Mapping[str, Column],
    paired: Paired,
) -> None:
    from rlaif.stages.local_policies import kl_figures, measure

    start = answers[0]
    likelihoods = measure(context, section, [of.contestant for of in answers], rows, skills)
    first = likelihoods.skills[start.contestant.name]
    for of in answers:
        c = of.contestant
        if section.kl:
            found[c.name]["kl"] = kl_figures(likelihoods.kl[c.name], c, start.contestant, counted[c.name], paired)
        mine = likelihoods.skills[c.name]
        found[c.name]["skills"] = {
            name: {
                "n": len(skills[name]),
                **skill_figures(
                    mine[name] if isinstance(mine, dict) else None,
                    first[name] if isinstance(first, dict) and of is not start else None,
                    of.right.get(name),
                    start.right.get(name) if of is not start else None,
                    context.config.seed,
                ),
                **({"reason": mine} if isinstance(mine, str) else {}),
            }
            for name in skills
        }
