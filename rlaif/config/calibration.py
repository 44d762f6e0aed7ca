"""The section about calibrating judges against people."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from rlaif.config.base import Section, Source, telling_fault
from rlaif.config.judging import JudgeSection

BASE_JUDGE = "judge"  # what the judge section itself is called where no judges are named


class CascadeGoal(Section):
    """Thresholds for a cascade (docs/fewer-calls.md): what is wanted of it."""

    judges: list[str] = Field(min_length=1)  # names under calibrate.judges, cheap to strong: the cascade's members
    agreement: float = Field(default=0.9, gt=0, lt=1)  # wanted share of answers that are people's
    confidence: float = Field(default=0.9, gt=0, lt=1)  # that the promise holds
    max_escalated: float | None = Field(default=None, ge=0, le=1)  # share that may reach the last member


class CalibrateSection(Section):
    gold: Source  # what people say: a data file, or a recording (.yaml); a bare path will do
    labels: dict[str, Literal["a", "b", "tie", "none"]] = {}  # the file's word → ours; `none`: no label
    raters: list[str] = []  # columns that hold one rater's label (or score) each; default: `label`, `labels`, `score`
    judges: dict[str, dict[str, Any]] = {}  # name → the keys that differ from `judge:`; default: that section alone
    slices: list[str] = []  # columns to report by, `domain` among them; the first has maps of its own
    map: Literal["temperature", "isotonic", "none"] = "temperature"  # from the judge's P(a better) to people's
    test_fraction: float = Field(default=0.5, gt=0, lt=1)  # of the prompts: maps are fitted on the others
    min_slice: int = Field(default=100, ge=10)  # pairs to fit on, below which a slice takes the map of all
    cascade: CascadeGoal | None = None  # also find thresholds for a cascade of these judges
    alpha: Literal["nominal", "ordinal", "interval"] | None = None  # of Krippendorff's α; default: nominal for pairs
    # (b, tie, a in that order for the others), interval for scores

    @field_validator("gold", mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("labels", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """YAML reads 1, 2.0 and yes as numbers and truth values; a label in a file is compared as text."""
        return {str(word): ours for word, ours in value.items()} if isinstance(value, dict) else value

    def sections(self, base: JudgeSection | None) -> dict[str, JudgeSection]:
        """Name → the whole section of each judge. Errors: ValueError that names the key."""
        named = self.judges or {BASE_JUDGE: {}}
        if base is None and any(not own for own in named.values()):
            raise ValueError("calibrate: there is no judge section; name the judges under calibrate.judges")
        return {name: judge_of(base, own, f"judges.{name}") for name, own in named.items()}

    @model_validator(mode="after")
    def _judges_are_judges(self) -> CalibrateSection:
        for name, own in self.judges.items():
            judge_of(None, own, f"judges.{name}")
        for name in self.cascade.judges if self.cascade else ():
            if name not in (self.judges or {BASE_JUDGE: {}}):
                known = ", ".join(self.judges or [BASE_JUDGE])
                raise ValueError(f"cascade.judges: no judge {name!r} under calibrate.judges (there: {known})")
        return self


def judge_of(base: JudgeSection | None, own: dict[str, Any], where: str) -> JudgeSection:
    """`base` with the keys of `own`. A rubric of its own takes the place of a constitution; or the reverse."""
    keys = base.model_dump(exclude_unset=True) if base is not None else {}
    for standard, other in (("rubric", "constitution"), ("constitution", "rubric")):
        if own.get(standard):
            keys.pop(other, None)
    if own.get("judge", keys.get("judge")) != keys.get("judge"):  # another kind of judge has other options
        keys = {key: value for key, value in keys.items() if key not in ("options", "members", "frame")}
    try:
        return JudgeSection.model_validate({**keys, **own})
    except ValidationError as error:
        fault = telling_fault(error)
        key = ".".join(str(part) for part in fault["loc"])
        dot = "." if key else ""
        raise ValueError(f"{where}{dot}{key}: {fault['msg'].removeprefix('Value error, ')}") from None
