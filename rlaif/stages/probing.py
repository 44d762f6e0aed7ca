"""The judge that a guard asks while a policy trains: a plain function over the run's engines and journal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rlaif.config import PairSection
from rlaif.errors import ConfigError
from rlaif.judges.base import Judge
from rlaif.records import Prompt, Response, make_id
from rlaif.stages.base import Context
from rlaif.stages.evaluation import Comparison, tasks_of, view
from rlaif.stages.pairing.standards import Standards

if TYPE_CHECKING:
    from rlaif.stages.evaluate import Seat

log = logging.getLogger("rlaif.stages")
ProbeJudge = Callable[[Sequence[Any], Sequence[str], Sequence[str]], list[float | None]]


def probe_judge(context: Context, trainer: str) -> ProbeJudge | None:
    """What `train.TRAINER.guard.judge` stands for; None where no judge is named.

    It judges by the standard and the weights of the labels, in both orders or by scores, as `evaluate.judges` do.
    Replies go through the journal, so that a training that is run again pays for none twice, and count towards the
    budget. The engine is opened for each probe and closed after it. Errors: ConfigError; when called, those of
    `Context.drive`.
    """
    config = context.config
    section = config.train.section(trainer) if config.train else None
    if section is None or section.guard is None or section.guard.judge is None:
        return None
    role = section.guard.judge
    seat = seat_of(context, trainer, role)
    judge = seat.build(context.engine)
    if config.judge is not None and role in config.judge.roles:
        log.warning(
            "train.%s.guard.judge: %s labelled the data too: what it gets wrong the policy has learnt, and the guard "
            "will not see; a judge of another family would",
            trainer, role,
        )  # fmt: skip

    def judged(prompts: Sequence[Any], starts: Sequence[str], texts: Sequence[str]) -> list[float | None]:
        return _judged(context, judge, role, _comparisons(prompts, starts, texts), f"{trainer}: guard")

    return judged


def seat_of(context: Context, trainer: str, role: str) -> Seat:
    """How the engine judges. Errors: ConfigError where the config has no standard to judge by."""
    from rlaif.stages.evaluate import Seat, judge_section_of  # which measures reward models, as trained by a run

    if context.config.judge is None:
        raise ConfigError(
            f"train.{trainer}.guard.judge: a judge section is needed, for the rubric or constitution to judge by"
        )
    section = judge_section_of(context.config)
    leaves = section.leaves
    alone = next((leaf for leaf in leaves if leaf.engine == role), leaves[0])
    return Seat(role, alone, role)


def _comparisons(prompts: Sequence[Any], starts: Sequence[str], texts: Sequence[str]) -> list[Comparison]:
    found = []
    for given, start, text in zip(prompts, starts, texts, strict=True):
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else [dict(turn) for turn in given]
        prompt = Prompt(id=make_id(*(f"{turn['role']}: {turn['content']}" for turn in messages)), messages=messages)
        before, after = (
            Response(id=make_id(prompt.id, source, body), prompt_id=prompt.id, text=body, source=source)
            for source, body in (("start", start), ("policy", text))
        )
        found.append(Comparison(prompt, before, after))
    return found


def _judged(
    context: Context, judge: Judge, role: str, comparisons: Sequence[Comparison], label: str
) -> list[float | None]:
    config = context.config
    tasks = tasks_of(judge.arity, comparisons, config.seed)
    judgments = context.drive(label, [role], map(judge, tasks), len(tasks))
    weights = config.pair.principle_weights if config.pair else {}
    found = view(
        comparisons,
        [row for rows in judgments for row in rows],
        standards=Standards.of(config.judge),
        section=PairSection(principle_weights=weights),
    )
    return found.p_after
