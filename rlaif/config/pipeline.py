"""The whole of a pipeline file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field, model_validator

from rlaif.config.auditing import AuditSection
from rlaif.config.base import Section, Source, apply_override, read_yaml, validate
from rlaif.config.calibration import CalibrateSection
from rlaif.config.data import Budget, EngineSpec, ExportSection, GenerateSection
from rlaif.config.evaluation import EvaluateSection, ReportSection
from rlaif.config.judging import JudgeSection, PairSection, ReviseSection
from rlaif.config.rounds import TRAINERS_OF_ROUNDS, RoundsSection
from rlaif.config.training import POLICIES, TRAINERS, OnlineSection, TrainSection

TRAINED = "trained"  # the role of the policy that this run trained last
_OF_A_ROUND = re.compile(r"round-([1-9]\d*)")  # the role of what a round trained, in a pipeline that goes in rounds


class Pipeline(Section):
    run: str = Field(min_length=1)  # the run folder
    seed: int = 0
    engines: dict[str, EngineSpec] = {}
    prompts: Source | None = None
    generate: GenerateSection | None = None
    revise: ReviseSection | None = None
    judge: JudgeSection | None = None
    calibrate: CalibrateSection | None = None
    pair: PairSection | None = None
    audit: AuditSection | None = None
    export: ExportSection | None = None
    train: TrainSection | None = None
    evaluate: EvaluateSection | None = None
    report: ReportSection | None = None
    rounds: RoundsSection | None = None
    budget: Budget = Budget()

    @property
    def starting_policy(self) -> str | None:
        """The engine key of the policy before training."""
        if self.evaluate and self.evaluate.before:
            return self.evaluate.before
        return self.generate.samplers[0].engine if self.generate else None

    def trainer_of(self, role: str) -> str | None:
        """The trainer whose output serves `role`; None where the role is no trained policy of this run."""
        if role in self.engines:
            return None
        if role == TRAINED or self._round_of(role):
            return (self.train.policy if self.train else None) or "dpo"
        return role if self.train and role in POLICIES and self.train.section(role) is not None else None

    def trained_folder(self, role: str) -> str | None:
        """Where in the run folder the trained policy lies that serves `role`: models/NAME, or that of a round."""
        trainer = self.trainer_of(role)
        if trainer is None:
            return None
        number = self._round_of(role)
        return f"rounds/{number}/models/{trainer}" if number else f"models/{trainer}"

    def _round_of(self, role: str) -> int | None:
        """Which round's policy the role `round-NUMBER` is."""
        found = _OF_A_ROUND.fullmatch(role)
        number = int(found[1]) if found and self.rounds else 0
        return number if self.rounds and 1 <= number <= self.rounds.n else None

    @property
    def labels(self) -> bool:
        """Whether `judge:` and `pair:` make labels of responses. Not where a judge rewards a policy live and nothing
        is generated or exported: they then only say how it rewards."""
        online = [self.train.section(name) for name in ("ppo", "grpo")] if self.train else []
        rewards = any(isinstance(section, OnlineSection) and section.judges(self.judge) for section in online)
        return not rewards or self.generate is not None or self.export is not None

    @model_validator(mode="after")
    def _engines_exist(self) -> Pipeline:
        used: list[tuple[str, str]] = []
        if self.generate:
            used += [(f"generate.samplers[{i}].engine", s.engine) for i, s in enumerate(self.generate.samplers)]
        if self.revise:
            used.append(("revise.engine", self.revise.engine))
        if self.judge:
            used += [("judge.engine", role) for role in self.judge.roles]
        for trainer in ("ppo", "grpo"):
            online = self.train.section(trainer) if self.train else None
            if isinstance(online, OnlineSection):
                for at, section in online.judges(self.judge).items():
                    used += [(f"train.{trainer}.rewards[{at}].judge.engine", role) for role in section.roles]
        if self.calibrate:
            for name, section in self.calibrate.sections(self.judge).items():
                used += [(f"calibrate.judges.{name}.engine", role) for role in section.roles]
        if self.evaluate:
            used += [("evaluate.judges", name) for name in self.evaluate.judges]
            used += [("evaluate.before", self.evaluate.before)] if self.evaluate.before else []
            others = [*self.evaluate.policies, *([self.evaluate.best_of.policy] if self.evaluate.best_of else [])]
            used += [("evaluate.policies", name) for name in others if name and self.trainer_of(name) is None]
            used += [("evaluate.after", self.evaluate.after)] if self.trainer_of(self.evaluate.after) is None else []
        for trainer, watched in self.train.sections() if self.train else ():
            if watched.guard and watched.guard.judge:
                used.append((f"train.{trainer}.guard.judge", watched.guard.judge))
        used += [(f"budget.max_requests_of.{role}", role) for role in self.budget.max_requests_of]
        for key, name in used:
            if name not in self.engines:
                known = ", ".join(sorted(self.engines)) or "none"
                raise ValueError(f"{key}: no engine {name!r} under engines: (there: {known})")
        return self

    @model_validator(mode="after")
    def _goes_in_rounds(self) -> Pipeline:
        fault = next(self._faults_of_rounds(), None) if self.rounds else None
        if fault:
            raise ValueError(f"rounds: {fault}")
        return self

    def _faults_of_rounds(self) -> Iterator[str]:
        """Why this pipeline cannot go in rounds."""
        for name in ("prompts", "generate", "judge", "pair", "export", "train"):
            if getattr(self, name) is None:
                yield f"every round needs a section {name}:, and there is none"
        own = "in a run of its own"
        trainers = [name for name in TRAINERS if self.train and self.train.section(name) is not None]
        if len(trainers) != 1 or trainers[0] not in TRAINERS_OF_ROUNDS:
            yield (
                f"train: one of {', '.join(TRAINERS_OF_ROUNDS)} goes on from round to round, there: "
                f"{', '.join(trainers) or 'none'}; train what comes before {own} and name its folder in model:"
            )
        section = self.train.section(trainers[0]) if self.train and trainers else None
        if section is not None and section.dataset is not None:
            yield f"train.{trainers[0]}.dataset: a round trains on what it labelled itself; take the key out"
        for value in section.read if section else ():
            if value.startswith("run:"):
                yield f"train.{trainers[0]}: {value}: train it {own} and name its folder"
        if self.calibrate is not None:
            yield f"calibrate: do it {own}, and name its calibration.json in pair.calibration"
        for key, section_of_key in (("pair", self.pair), ("evaluate", self.evaluate)):
            if getattr(section_of_key, "calibration", None) == "run:calibration":
                yield f"{key}.calibration: run:calibration: calibrate {own}, and name its calibration.json"
        samplers = [sampler.engine for sampler in self.generate.samplers] if self.generate else []
        if self.starting_policy not in samplers:
            yield (
                f"evaluate.before: {self.starting_policy!r} is the policy that goes on from round to round, and must "
                f"be among generate.samplers: {', '.join(samplers)}"
            )
        if self.evaluate is not None and self.evaluate.after not in (TRAINED, *trainers):
            yield f"evaluate.after: expected {TRAINED}, the last round's policy, got {self.evaluate.after!r}"
        if self.evaluate is None and self.rounds is not None and self.rounds.evaluate_on is not None:
            yield "evaluate_on: there is no section evaluate: to say how"


def load(path: str | Path, overrides: list[str] | None = None) -> Pipeline:
    """Read a pipeline file and apply `--set a.b=value` overrides (values are YAML).

    Errors: ConfigError with the file, the key, what came and what was allowed.
    """
    path = Path(path)
    raw = read_yaml(path)
    for override in overrides or []:
        apply_override(raw, override)
    return validate(Pipeline, raw, str(path))
