"""A run folder as the numbers and texts of its report. Whatever file is missing leaves its part empty."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from rlaif import metrics
from rlaif.config.training import TRAINERS
from rlaif.errors import StoreError
from rlaif.records import Dropped, Judgment, Preference, Prompt, Response
from rlaif.stages.report.labels import Counts, Labels, measure, share_histogram, standard_of
from rlaif.store import RunFolder

_SAMPLES = 3  # rows shown for each reason of dropping
_LENGTH_BINS = 24
_Record = TypeVar("_Record", bound=msgspec.Struct)


@dataclass(frozen=True)
class Pairs:
    """The kept preferences. Lengths are in characters."""

    n: int
    n_prompts: int
    probability: Counts  # histogram over [½, 1]
    summary: dict[str, float] | None  # of the probability
    margin: dict[str, float] | None  # of judge_margin, in the judge's own unit
    consistent: metrics.Estimate | None
    chosen_length: dict[str, float] | None
    rejected_length: dict[str, float] | None
    length_edges: list[float]
    chosen_lengths: Counts
    rejected_lengths: Counts
    chosen_longer: metrics.Estimate | None
    agrees: dict[str, metrics.Estimate]  # principle → how often it alone names the chosen response


@dataclass(frozen=True)
class DroppedGroup:
    stage: str
    reason: str
    n: int
    samples: list[Dropped]


@dataclass(frozen=True)
class Example:
    """One kept pair with everything that led to it."""

    preference: Preference
    prompt: Prompt | None
    chosen: Response | None
    rejected: Response | None
    judgments: list[Judgment]


@dataclass
class ReportData:
    """Everything the page and the JSON are made of."""

    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)
    n_prompts: int | None = None
    n_responses: int | None = None
    domains: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    labels: Labels | None = None
    pairs: Pairs | None = None
    dropped: list[DroppedGroup] = field(default_factory=list)
    trainings: dict[str, dict[str, Any]] = field(default_factory=dict)  # trainer → training.json, as they ran
    evaluation: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)

    @property
    def config(self) -> dict[str, Any]:
        return dict(self.manifest.get("config") or {})

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The stages that ran. Not the report itself: what stands there is about the report before this one."""
        return {name: stage for name, stage in (self.manifest.get("stages") or {}).items() if name != "report"}


def collect(run_path: Path, n_examples: int = 12) -> ReportData:
    """Read a run folder. Errors: StoreError for a folder or file that is there and cannot be read."""
    if not run_path.is_dir():
        raise StoreError(f"{run_path}: no such run folder")
    run = RunFolder(run_path)
    data = ReportData(path=run_path, manifest=run.manifest)
    lengths = _read_responses(run, data)
    if run.table("prompts").exists():
        data.n_prompts = 0
        for prompt in run.read("prompts", Prompt):
            data.n_prompts += 1
            data.domains[prompt.domain or ""] += 1
    if run.table("judgments").exists():
        data.labels = measure(run.read("judgments", Judgment))
    preferences = list(_rows(run, "preferences", Preference))
    if run.table("preferences").exists():
        data.pairs = _pairs(preferences, lengths)
    data.dropped = _dropped(_rows(run, "dropped", Dropped))
    read = {name: _read_object(run_path / "models" / name / "training.json") for name in TRAINERS}
    data.trainings = {name: record for name, record in read.items() if record}
    data.calibration = _read_object(run_path / "calibration" / "calibration.json")
    data.evaluation = _read_object(run_path / "evaluation" / "evaluation.json")
    data.audit = _read_object(run_path / "audit.json")
    data.examples = _examples(run, spread(preferences, n_examples))
    return data


def spread(preferences: list[Preference], n: int) -> list[Preference]:
    """`n` preferences, evenly spaced from the surest to the least sure."""
    ranked = sorted(preferences, key=lambda row: (-row.probability, row.id))
    if n <= 0 or not ranked:
        return []
    if n == 1 or len(ranked) <= n:
        return ranked[:n]
    return [ranked[round(i * (len(ranked) - 1) / (n - 1))] for i in range(n)]


def _rows(run: RunFolder, name: str, record: type[_Record]) -> Iterator[_Record]:
    return run.read(name, record) if run.table(name).exists() else iter(())


def _read_responses(run: RunFolder, data: ReportData) -> dict[str, int]:
    """Response id → characters; the texts themselves are read again for the few that are shown."""
    lengths: dict[str, int] = {}
    for response in _rows(run, "responses", Response):
        lengths[response.id] = len(response.text)
        data.sources[response.source] += 1
        data.finish_reasons[response.finish_reason or "unknown"] += 1
    if run.table("responses").exists():
        data.n_responses = len(lengths)
    return lengths


def _pairs(preferences: list[Preference], lengths: dict[str, int]) -> Pairs:
    probability = np.asarray([row.probability for row in preferences], dtype=np.float64)
    known = [
        (lengths[row.chosen_id], lengths[row.rejected_id])
        for row in preferences
        if row.chosen_id in lengths and row.rejected_id in lengths
    ]
    both = np.asarray(known, dtype=np.float64).reshape(-1, 2)
    top = float(np.quantile(both, 0.99)) if both.size else 1.0
    edges = np.linspace(0, max(top, 1.0), _LENGTH_BINS + 1)
    clipped = np.minimum(both, edges[-1])  # the longest 1 % stand in the last bin
    by_principle: dict[str, list[float]] = {}
    for row in preferences:
        for name, p in row.by_principle.items():
            by_principle.setdefault(name, []).append(p)
    agrees = {name: metrics.proportion(metrics.outcomes(values)) for name, values in by_principle.items()}
    return Pairs(
        n=len(preferences),
        n_prompts=len({row.prompt_id for row in preferences}),
        probability=share_histogram(probability, 0.5),
        summary=metrics.describe(probability),
        margin=metrics.describe([row.judge_margin for row in preferences]),
        consistent=metrics.proportion([float(r.consistent) for r in preferences if r.consistent is not None]),
        chosen_length=metrics.describe(both[:, 0]),
        rejected_length=metrics.describe(both[:, 1]),
        length_edges=[float(edge) for edge in edges],
        chosen_lengths=np.histogram(clipped[:, 0], bins=edges)[0],
        rejected_lengths=np.histogram(clipped[:, 1], bins=edges)[0],
        chosen_longer=metrics.proportion((np.sign(both[:, 0] - both[:, 1]) + 1) / 2),
        agrees={name: value for name, value in sorted(agrees.items()) if value is not None},
    )


def _dropped(rows: Iterable[Dropped]) -> list[DroppedGroup]:
    counts: Counter[tuple[str, str]] = Counter()
    samples: dict[tuple[str, str], list[Dropped]] = {}
    for row in rows:
        key = (row.stage, row.reason)
        counts[key] += 1
        if counts[key] <= _SAMPLES:
            samples.setdefault(key, []).append(row)
    return [DroppedGroup(*key, n, samples[key]) for key, n in counts.most_common()]


def _examples(run: RunFolder, preferences: list[Preference]) -> list[Example]:
    if not preferences:
        return []
    prompts = _lookup(_rows(run, "prompts", Prompt), {row.prompt_id for row in preferences})
    responses = _lookup(
        _rows(run, "responses", Response), {i for row in preferences for i in (row.chosen_id, row.rejected_id)}
    )
    judgments = _lookup(_rows(run, "judgments", Judgment), {i for row in preferences for i in row.judgment_ids})
    return [
        Example(
            row,
            prompts.get(row.prompt_id),
            responses.get(row.chosen_id),
            responses.get(row.rejected_id),
            sorted((judgments[i] for i in row.judgment_ids if i in judgments), key=standard_of),
        )
        for row in preferences
    ]


def _lookup(rows: Iterable[Any], ids: set[str]) -> dict[str, Any]:
    return {row.id: row for row in rows if row.id in ids}


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object, {} where there is no such file."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot read: {error}") from None
    if not isinstance(raw, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(raw).__name__}")
    return raw
