"""What a guard asks: the prompts of its probes, the rewards that it watches, and the judge that it is handed."""

from __future__ import annotations

import inspect
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlaif import metrics
from rlaif.config.guarding import GuardSection
from rlaif.errors import ConfigError, DataError
from rlaif.training import tokens
from rlaif.training.data import Splits, dataset_sha256, located
from rlaif.training.guard.decision import Values
from rlaif.training.guard.monitors import Figures, Sample, figures
from rlaif.training.rewards import LIVE, MISSING_EOS

Prompt = str | tokens.Messages
# (prompts, the starting policy's responses, the policy's now) → P(the policy's is better) of each, None: no verdict
ProbeJudge = Callable[[Sequence[Prompt], Sequence[str], Sequence[str]], Sequence[float | None]]


class Probes(NamedTuple):
    """The prompts of every probe. `domains`: of each, or None. `columns`: others that reward functions may want."""

    prompts: list[Prompt]
    domains: list[str | None]
    columns: dict[str, list[Any]]
    facts: dict[str, Any]


def load_probes(section: GuardSection, splits: Splits, cache: Path, seed: int, where: str) -> Probes:
    """`section.n` of the prompts that `section.probes` names and that are not trained on, in the form of those that
    are. Errors: DataError where none is left, or they are conversations and the training is on plain text."""
    from rlaif.training.prompts import load_prompts

    found = load_prompts(located(section.probes), cache)
    split = found.test if found.test is not None else found.train
    trained = set(map(_canonical, splits.train["prompt"])) if "prompt" in splits.train.column_names else set()
    held_out = [at for at, prompt in enumerate(split["prompt"]) if _canonical(prompt) not in trained]
    if not held_out:
        raise DataError(
            f"{where}.probes: {section.probes}: all {len(split)} prompts are trained on: none is held out"
        )
    n_trained = len(split) - len(held_out)
    if section.n < len(held_out):
        held_out = sorted(random.Random(seed).sample(held_out, section.n))
    split = split.select(held_out)
    prompts = [_like(prompt, splits.train[0], f"{where}.probes: {section.probes}") for prompt in split["prompt"]]
    facts = {
        "source": section.probes, "sha256": dataset_sha256(split), "rows": len(prompts), "also_trained_on": n_trained,
    }  # fmt: skip
    columns = {name: list(split[name]) for name in split.column_names if name != "prompt"}
    return Probes(prompts, columns.get("domain") or [None] * len(prompts), columns, facts)


def _canonical(prompt: Any) -> str:
    """One text for a question, whether it is plain or a conversation of one turn."""
    if isinstance(prompt, str):
        return prompt
    turns = [(turn["role"], turn["content"]) for turn in prompt]
    return str(turns[0][1]) if len(turns) == 1 else json.dumps(turns)


def _like(prompt: Any, row: Mapping[str, Any], where: str) -> Prompt:
    """The prompt in the form of a row that is trained on."""
    plain = not any(isinstance(row.get(name), list) for name in ("prompt", "messages"))
    if plain and not isinstance(prompt, str):
        raise DataError(f"{where}: conversations, but the training is on plain text")
    if plain or not isinstance(prompt, str):
        return prompt if isinstance(prompt, str) else [dict(turn) for turn in prompt]
    return [{"role": "user", "content": prompt}]


class Written(NamedTuple):
    """The responses of one probe, with what a reward may want to know of them."""

    prompts: list[Prompt]
    prompt_ids: list[list[int]]
    completion_ids: list[list[int]]
    samples: list[Sample]
    columns: dict[str, list[Any]]


Reward = Callable[[Written], Values]


def rewards_of(section: GuardSection, trainer: Any, where: str) -> tuple[list[str], Reward | None]:
    """Names, and the reward of each response: the mean over the models that the section names, else the weighted sum
    that the training maximises. Live judges and async functions are left out: a probe never waits for them. None:
    there is nothing to watch. Errors: ConfigError for a model that cannot score."""
    if section.rewards:
        scorers = [_model_reward(model, trainer.processing_class, where) for model in section.rewards]
        shares = [1 / len(scorers)] * len(scorers)
        return list(section.rewards), lambda written: _sum([score(written) for score in scorers], shares)
    functions = getattr(trainer, "reward_funcs", None) if section.rewards is None else None
    if not functions:
        return [], None
    weights = trainer.reward_weights.tolist()
    asked = [
        (f, w) for f, w in zip(functions, weights, strict=True)
        if not inspect.iscoroutinefunction(f) and not getattr(f, LIVE, False)
    ]  # fmt: skip
    names = [str(getattr(function, "__name__", "reward")) for function, _ in asked]
    if not set(names) - {MISSING_EOS}:  # which alone is no reward
        return [], None
    return names, lambda written: _sum([_called(f, written, trainer) for f, _ in asked], [w for _, w in asked])


def _model_reward(model: str, tokenizer: Any, where: str) -> Reward:
    from rlaif.training.scoring import load_reward

    scorer = load_reward(located(model))
    try:
        scorer.check_policy(tokenizer)
    except ConfigError:  # another family's: it reads the text

        def of_text(written: Written) -> Values:
            texts = [sample.text for sample in written.samples]
            return list(scorer.score(written.prompts, texts, [sample.ended for sample in written.samples]).reward)

        return of_text
    return lambda written: list(scorer.score_ids(written.prompt_ids, written.completion_ids).reward)


def _called(function: Callable[..., Any], written: Written, trainer: Any) -> Values:
    """A reward function as TRL calls one, but that nothing it logs is kept."""
    conversational = not isinstance(written.prompts[0], str)
    texts = [sample.text for sample in written.samples]
    completions = [[{"role": "assistant", "content": text}] for text in texts] if conversational else texts
    return list(
        function(
            prompts=written.prompts, completions=completions, prompt_ids=written.prompt_ids,
            completion_ids=written.completion_ids, trainer_state=trainer.state, log_extra=_nothing,
            log_metric=_nothing, **written.columns,
        )
    )  # fmt: skip


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _sum(parts: Sequence[Values], weights: Sequence[float]) -> Values:
    """Weighted; a part without a score is left out, a response without any has none."""
    found: list[float | None] = []
    for row in zip(*parts, strict=True):
        known = [w * float(x) for w, x in zip(weights, row, strict=True) if x is not None and x == x]
        found.append(sum(known) if known else None)
    return found


def wins(judge: ProbeJudge, prompts: Sequence[Prompt], starts: Sequence[str], texts: Sequence[str]) -> Values:
    """1 where the judge finds the response better than the start's own, ½ for a tie, 0, None where it did not say.

    Two equal texts are a tie and an empty one loses, without its being asked.
    """
    found: list[float | None] = []
    asked: list[int] = []
    for at, (start, text) in enumerate(zip(starts, texts, strict=True)):
        alike = start.strip() == text.strip()
        if alike or not start.strip() or not text.strip():
            found.append(0.5 if alike else float(bool(text.strip())))
        else:
            found.append(None)
            asked.append(at)
    if asked:
        said = judge([prompts[at] for at in asked], [starts[at] for at in asked], [texts[at] for at in asked])
        if len(said) != len(asked):
            raise ConfigError(f"guard.judge: {len(said)} verdicts for {len(asked)} comparisons")
        p = np.array([np.nan if value is None else value for value in said], dtype=np.float64)
        for at, outcome in zip(asked, metrics.outcomes(p).tolist(), strict=True):
            found[at] = None if outcome != outcome else outcome
    return found


def measured(
    samples: Sequence[Sample],
    values: Mapping[str, Values],
    domains: Sequence[str | None],
    refuses: Callable[[str], bool],
) -> Figures:
    """All figures of a probe, those of a domain's responses as `DOMAIN/figure`. values: of `reward`, `win_rate`."""

    def of(rows: Sequence[int]) -> Figures:
        found = figures([samples[row] for row in rows], refuses)
        for name, column in values.items():
            known = [x for row in rows if (x := column[row]) is not None]
            found[name] = sum(known) / len(known) if known else None
        return found

    found = of(range(len(samples)))
    for domain in sorted({name for name in domains if name}):
        rows = [row for row, name in enumerate(domains) if name == domain]
        found |= {f"{domain}/{name}": value for name, value in of(rows).items()}
    return found
