"""Log-probs under the policies of an evaluation that are model folders: of their own responses, for the KL to the
starting policy, and of demonstrations. One model is in memory at a time.

A run keeps the text of a response and not its token ids. So the ids are had by encoding again: the prompt as the
engine renders it, the text by the policy's own tokenizer, and the end token where the response came to its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif.config import EvaluateSection
from rlaif.engines.base import IN_PROCESS
from rlaif.records import Prompt
from rlaif.stages.base import Context
from rlaif.stages.contest import Contestant
from rlaif.stages.forgetting import LogProbs, Skills, skill_prompt
from rlaif.stages.generate import sampling_request
from rlaif.stages.paired import Column, Paired, Row
from rlaif.training.likelihood import KL, Texts, kl, log_likelihoods
from rlaif.training.tokens import Ids, written

_BESIDE_THE_FOLDER = ("adapter", "lora", "quantization", "revision")  # engine options that change what is served
_RENDERS = "chat_template_kwargs"  # the one extra that is no parameter of sampling


@dataclass
class Likelihoods:
    """Policy → what its log-probs are, or the reason why there are none."""

    kl: dict[str, KL | str] = field(default_factory=dict)  # of its rows, in their order
    skills: dict[str, dict[str, LogProbs] | str] = field(default_factory=dict)  # by skill


class _Reader:
    """A policy in a folder, as ids: its prompts and texts in the way that it met them."""

    def __init__(self, contestant: Contestant, folder: Path, dtype: str, seed: int) -> None:
        from rlaif.engines.local import ChatFormat, load_tokenizer

        where = f"evaluate: {contestant.name}"
        self.folder, self.dtype = folder, dtype
        self._sampler, self._seed = contestant.sampler, seed
        self._chat = ChatFormat(load_tokenizer(str(folder), folder, None, where), where)

    def ids(self, prompt: Prompt, text: str, *, finished: bool) -> Ids:
        asked = self._chat.encode(sampling_request(prompt, self._sampler, 0, self._seed))
        return Ids(asked, written(self._chat.tokenizer, text, finished=finished))

    def responses(self, rows: Sequence[Row]) -> list[Ids]:
        return [
            self.ids(row.prompt, row.response.text, finished=row.response.finish_reason != "length") for row in rows
        ]

    def skill(self, name: str, skills: Skills) -> list[Ids]:
        return [self.ids(skill_prompt(name, i, d), d.completion, finished=True) for i, d in enumerate(skills[name])]


def measure(
    context: Context,
    section: EvaluateSection,
    contestants: Sequence[Contestant],
    rows: Mapping[str, Sequence[Row]],
    skills: Skills,
) -> Likelihoods:
    """Errors: ConfigError, EngineError (a folder that does not load, a text too long for its model)."""
    found, asked = Likelihoods(), _Asked()
    readers = {c.name: _reader(context, c) for c in contestants}
    start = readers[contestants[0].name]
    for c in contestants:
        why = _ask_skills(asked, c, readers[c.name], skills)
        if why:
            found.skills[c.name] = why
        why = _ask_kl(asked, c, rows[c.name], readers[c.name], start) if section.kl else None
        if why:
            found.kl[c.name] = why
    values = asked.answers()
    for c in contestants:
        if c.name not in found.skills:
            found.skills[c.name] = {name: values[c.name, name] for name in skills}
        if section.kl and c.name not in found.kl:
            found.kl[c.name] = kl(values[c.name, _OWN], values[c.name, _START])
    return found


_OWN, _START = "\0 own responses", "\0 own responses, under the start"  # beside the names of skills


class _Asked:
    """Which log-probs are wanted of which model, so that each is loaded once. Keys: policy, and what of it."""

    def __init__(self) -> None:
        self._of: dict[tuple[Path, str], dict[tuple[str, str], Texts]] = {}

    def add(self, reader: _Reader, key: tuple[str, str], ids: Sequence[Ids], temperature: float = 1.0) -> None:
        self._of.setdefault((reader.folder, reader.dtype), {})[key] = Texts(ids, temperature)

    def answers(self) -> dict[tuple[str, str], LogProbs]:
        found: dict[tuple[str, str], LogProbs] = {}
        for (folder, dtype), of in self._of.items():
            found.update(log_likelihoods(folder, of, dtype=dtype))
        return found


def _ask_skills(asked: _Asked, contestant: Contestant, reader: _Reader | str, skills: Skills) -> str | None:
    """Why there can be none, if so."""
    if isinstance(reader, str):
        return reader
    if contestant.reward is not None:
        return "the best of several answers, as a reward model sees it"
    for name in skills:
        asked.add(reader, (contestant.name, name), reader.skill(name, skills))
    return None


def _ask_kl(
    asked: _Asked, contestant: Contestant, rows: Sequence[Row], reader: _Reader | str, start: _Reader | str
) -> str | None:
    """Why there can be none, if so."""
    why = _no_samples(contestant, rows)
    if why:
        return why
    if isinstance(reader, str):
        return reader
    if isinstance(start, str):
        return f"the starting policy: {start}"
    ours, theirs = reader.responses(rows), start.responses(rows)
    if any(a.completion != b.completion for a, b in zip(ours, theirs, strict=True)):
        return "its tokenizer cuts texts otherwise than the starting policy's"
    asked.add(reader, (contestant.name, _OWN), ours, contestant.sampler.temperature)
    asked.add(start, (contestant.name, _START), theirs, contestant.sampler.temperature)
    return None


def _reader(context: Context, contestant: Contestant) -> _Reader | str:
    """Errors: EngineError for a folder that cannot be read."""
    from rlaif.engines.local import find_folder

    spec = context.engine_spec(contestant.sampler.engine)
    options = spec.options()
    if spec.engine not in IN_PROCESS:
        return f"it is served by {spec.engine}: there is no model folder to load"
    beside = next((name for name in _BESIDE_THE_FOLDER if options.get(name)), None)
    if beside is not None:
        return f"it is served with {beside}: the model folder alone is another policy"
    folder = find_folder(str(options["model"]), f"evaluate: {contestant.name}")
    if folder is None:
        return f"{options['model']} is a hub id, not a folder"
    return _Reader(contestant, folder, str(options.get("dtype") or "auto"), context.config.seed)


def _no_samples(contestant: Contestant, rows: Sequence[Row]) -> str | None:
    """Why the responses are no draws from the policy's own distribution."""
    sampler = contestant.sampler
    extra = next((name for name in sampler.extra if name != _RENDERS), None)
    if not rows:
        return "it answered nothing"
    if contestant.reward is not None:
        return "chosen among several samples"
    if sampler.temperature == 0:
        return "greedy replies (temperature 0) are no draws from a distribution"
    if sampler.top_p < 1:
        return f"top_p {sampler.top_p:g} cuts the distribution that was sampled"
    if extra is not None:
        return f"extra.{extra}: which distribution was sampled is not known"
    if sampler.stop:
        return "stop strings: whether the policy had come to its end is not known"
    if any(row.response.thinking for row in rows):
        return "responses stand without the thinking that was written before them"
    return None


def kl_figures(
    found: KL | str, contestant: Contestant, start: Contestant, counted: Column, paired: Paired
) -> dict[str, Any]:
    """What evaluation.json says of one policy's KL. `counted`: place → tokens of the response as the engine counted
    them, None where it did not; `as_written`: the share of responses that were encoded to as many. Of a best-of-n of
    the starting policy, instead of an estimate, a bound: log n − (n − 1)/n (Beirami et al. 2024, 2401.01879)."""
    if isinstance(found, str):
        n = contestant.best_of
        bounded = contestant.reward is not None and contestant.sampler.engine == start.sampler.engine
        bound = {"upper_bound": round(math.log(n) - (n - 1) / n, 6)} if bounded else {}
        return {"per_response": None, "per_token": None, "reason": found, **bound}
    places = list(counted)
    tokens, k1, k3 = (dict(zip(places, values, strict=True)) for values in (found.tokens, found.k1, found.k3))
    alike = [tokens[place] == n for place, n in counted.items() if n is not None]
    return {
        "per_response": paired.mean(k1),
        "per_token": paired.ratio(k1, tokens),
        "k3_per_response": paired.mean(k3),
        "k3_per_token": paired.ratio(k3, tokens),
        "temperature": contestant.sampler.temperature,
        "as_written": round(sum(alike) / len(alike), 6) if alike else None,
    }
