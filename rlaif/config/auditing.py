"""The section about auditing: what of a run's labels is looked at, and which figures stop the run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlaif.config.base import Section, Source


class Gate(Section):
    """Bounds on one figure of the audit, in its own unit; docs/audit.md lists the figures."""

    min: float | None = None  # the value may not be below it
    max: float | None = None  # the value may not be above it
    missing: Literal["fail", "pass"] = "fail"  # what becomes of a figure that could not be computed

    @model_validator(mode="after")
    def _bounded(self) -> Gate:
        if self.min is None and self.max is None:
            raise ValueError("a gate needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class InjectionSection(Section):
    """Attacks on the weaker response of judged pairs: the one part of an audit that asks the judge."""

    pairs: Source | None = None  # prompts with two responses each; default: pairs of this run's preferences
    n: int = Field(default=20, ge=1)  # pairs to attack, drawn with the run's seed
    attacks: str = "shipped:data/attacks/injection.yaml"  # the attack set
    kinds: list[str] = []  # only these kinds of it; default: all. Placebos are always kept


class AuditSection(Section):
    slices: list[Literal["domain"]] = []  # every figure again for each value of this column
    gates: dict[str, Gate] = {}  # figure → bounds; a figure outside them ends the run with exit code 3
    families: dict[str, str] = {}  # name of a model or a source → its family, where the rule would be wrong
    near_duplicate: float = Field(default=0.8, gt=0, le=1)  # Jaccard similarity from which two texts nearly repeat
    injection: InjectionSection | None = None
