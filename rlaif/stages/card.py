"""The dataset card: what `datasets` needs to find the splits, and where every label came from. No clock, no paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import msgspec
import yaml

import rlaif
from rlaif import metrics
from rlaif.config import Pipeline
from rlaif.records import Dropped, Judgment
from rlaif.stages.kinds import Column, Kind
from rlaif.stages.report.labels import p_first
from rlaif.store import RunFolder

_DESCRIPTIONS = {
    "prompt": "the conversation, ending with a user turn",
    "chosen": "the better next turn, as the judge sees it",
    "rejected": "the other one",
    "probability": "P(chosen is better) according to the judge, both orders averaged: a soft label in (½, 1]",
    "judge_margin": "2·probability − 1",
    "prompt_id": "the prompt's id in the run",
    "chosen_id": "the chosen response's id",
    "rejected_id": "the rejected response's id",
    "preference_id": "the preference's id; it names the judgments behind the label",
    "domain": "from the input, or null",
    "reference": "from the input, or null",
    "meta": "every other column of the input, as JSON text",
    "completion": "a response",
    "label": "true: a good response; false: a bad one, as the judge sees it",
    "response": "the response that was scored, as an assistant turn",
    "response_id": "the response's id",
    "scores": "criterion → mean score that the judge gave; null: not judged",
    "responses": "the responses, each an assistant turn; no two of them stand equal",
    "response_ids": "their ids, in the same order",
    "ranking": "their indices, best first",
    "standings": "how well each stands, in the order of `responses`; more is better",
    "margin": "judge_margin again, under the name that TRL's reward trainer subtracts in its loss",
}


class JudgeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How one judge behaved, over all its judgments. `None`: it cannot be told from them."""

    judge: str
    models: list[str]
    standards: list[str]
    templates: list[str]
    statuses: dict[str, int]
    order_consistency: float | None
    first_position_rate: float | None
    mean_label_mass: float | None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the card says."""

    version: str
    seed: int
    splits: dict[str, int]
    engines: dict[str, dict[str, str]]
    stages: dict[str, dict[str, int]]
    dropped: dict[str, int]
    judges: list[JudgeFigures]
    settings: dict[str, Any]
    calibration: dict[str, Any] = {}  # the map that the probabilities went through, and what it was fitted on


def collect(config: Pipeline, folder: RunFolder, splits: Mapping[str, int]) -> Facts:
    """The facts of a run from its tables and manifest. `splits`: rows per split."""
    manifest = folder.manifest
    dropped: Counter[str] = Counter()
    if folder.table("dropped").exists():
        dropped.update(f"{row.stage}: {row.reason}" for row in folder.read("dropped", Dropped))
    counts = {stage: entry.get("counts", {}) for stage, entry in manifest.get("stages", {}).items()}
    before_export = {
        name: counts[name] for name in ("prompts", "generate", "revise", "judge", "pair") if name in counts
    }
    return Facts(
        version=rlaif.__version__,
        seed=config.seed,
        splits=dict(splits),
        engines=manifest.get("engines", {}),
        stages={
            stage: {name: n for name, n in of.items() if isinstance(n, int)} for stage, of in before_export.items()
        },
        dropped=dict(sorted(dropped.items())),
        judges=judge_figures(folder.read("judgments", Judgment) if folder.table("judgments").exists() else ()),
        calibration=counts.get("pair", {}).get("calibration", {}),
        settings={
            **({"revise": config.revise.model_dump(mode="json")} if config.revise else {}),
            "pair": config.pair.model_dump(mode="json") if config.pair else {},
            "export": config.export.model_dump(mode="json") if config.export else {},
        },
    )


class _Tally:
    """One judge's judgments, folded."""

    def __init__(self) -> None:
        self.models: set[str] = set()
        self.standards: set[str] = set()
        self.templates: set[str] = set()
        self.statuses: Counter[str] = Counter()
        self.first: list[float] = []
        self.masses: list[float] = []
        # what was compared, under which principle → P(first by id is better), by whether it was shown first
        self.orders: dict[tuple[str | None, ...], dict[bool, float]] = {}

    def add(self, judgment: Judgment) -> None:
        self.models.add(judgment.model)
        self.standards.add(judgment.rubric)
        self.templates.add(judgment.template_sha256)
        self.statuses[judgment.status] += 1
        if judgment.label_mass is not None:
            self.masses.append(judgment.label_mass)
        if judgment.status != "ok" or judgment.kind != "pairwise" or judgment.meta.get("identical"):
            return
        p = p_first(judgment)
        self.first.append(p)
        low, high = sorted(judgment.response_ids)
        as_sorted = judgment.response_ids[0] == low
        orders = self.orders.setdefault((judgment.prompt_id, low, high, judgment.principle), {})
        orders[as_sorted] = p if as_sorted else 1 - p

    def figures(self, judge: str) -> JudgeFigures:
        both = [orders for orders in self.orders.values() if len(orders) == 2]
        consistency = metrics.order_consistency([o[True] for o in both], [o[False] for o in both])
        position = metrics.first_position_rate(self.first)
        return JudgeFigures(
            judge=judge,
            models=sorted(filter(None, self.models)),
            standards=sorted(filter(None, self.standards)),
            templates=sorted(filter(None, self.templates)),
            statuses=dict(sorted(self.statuses.items())),
            order_consistency=consistency.value if consistency else None,
            first_position_rate=position.value if position else None,
            mean_label_mass=sum(self.masses) / len(self.masses) if self.masses else None,
        )


def judge_figures(judgments: Iterable[Judgment]) -> list[JudgeFigures]:
    tallies: dict[str, _Tally] = {}
    for judgment in judgments:
        tallies.setdefault(judgment.judge, _Tally()).add(judgment)
    return [tallies[judge].figures(judge) for judge in sorted(tallies)]


def render(
    facts: Facts, kind: Kind, splits: list[str], file_format: str, columns: Mapping[str, Column], sha256: str
) -> str:
    """README.md of the dataset. `columns`: name → type, as in `kinds`; `sha256`: of the splits' files.

    `datasets` names its cache of a local folder after the card's header alone, not its place or its files: without
    the digest in there, an export with other labels, or another run's, would load as the one that was read first.
    """
    files = [{"split": name, "path": f"{name}.{file_format}"} for name in splits]
    front = {
        "tags": list(kind.tags),
        "configs": [{"config_name": "default", "description": f"sha256:{sha256}", "data_files": files}],
        "dataset_info": {"features": [{"name": name, **_feature(column)} for name, column in columns.items()]},
    }
    about = {**_DESCRIPTIONS, **kind.about}
    engines = ((role, of.get("model"), of.get("identity")) for role, of in facts.engines.items())
    stages = ((stage, ", ".join(f"{n} {what}" for what, n in of.items())) for stage, of in facts.stages.items())
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        "# AI-labelled preferences" if kind.name == "pair" else f"# AI-labelled data: {kind.name}",
        f"Made by rlaif {facts.version}, seed {facts.seed}. The labels are a model's judgments, not people's.",
        _table(("split", "preferences" if kind.name == "pair" else "rows"), facts.splits.items()),
        "## Columns",
        _table(("column", "what it holds"), ((name, about.get(name, "")) for name in columns)),
        "## Who wrote and who judged",
        _table(("role", "model", "identity"), engines),
        *(_judge_section(figures) for figures in facts.judges),
        _calibration(facts.calibration),
        "## What became of the rows",
        _table(("stage", "counts"), stages),
        _table(("dropped", "rows"), facts.dropped.items()) if facts.dropped else "Nothing was dropped.",
        "## Settings",
        f"```yaml\n{yaml.safe_dump({'seed': facts.seed, **facts.settings}, sort_keys=False)}```",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


_FEATURES: dict[str, dict[str, Any]] = {
    "messages": {"list": [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]},
    "string": {"dtype": "string"},
    "double": {"dtype": "float64"},
    "bool": {"dtype": "bool"},
    "ints": {"list": "int64"},
    "doubles": {"list": "float64"},
    "strings": {"list": "string"},
}


def _calibration(about: Mapping[str, Any]) -> str:
    """Which map the probabilities went through; "" where they are the judge's own."""
    if not about:
        return ""
    rows = [
        ("fitted for judge", about["judge"]),
        ("kind", about["kind"]),
        ("fitted on pairs labelled by people", about["fitted_on"]),
        ("maps of their own", f"{about['by']}: {', '.join(about['slices'])}" if about["slices"] else "none"),
        ("pairs by map", ", ".join(f"{n} {name}" for name, n in about["pairs"].items())),
        ("sha256 of calibration.json", about["sha256"]),
    ]
    note = "`probability` is the judge's, mapped to what people say; `judge_margin` is the judge's own."
    return f"### Calibration\n\n{note}\n\n" + _table(("", ""), rows)


def _feature(column: Column) -> dict[str, Any]:
    """A column's type as `datasets` writes it. Unsaid, a split whose `domain` is always null would have another."""
    if isinstance(column, str):
        return deepcopy(_FEATURES[column])  # one object twice is an alias in YAML, which `datasets` cannot read
    return {"struct": [{"name": key, "dtype": "float64"} for key in column]}


def _judge_section(figures: JudgeFigures) -> str:
    rows = [
        ("model", ", ".join(figures.models)),
        ("rubric or constitution", ", ".join(figures.standards)),
        ("template sha256", ", ".join(figures.templates)),
        ("judgments", ", ".join(f"{n} {status}" for status, n in figures.statuses.items())),
        ("order consistency (same winner whichever is shown first)", _share(figures.order_consistency)),
        ("first-position rate (½ without position bias)", _share(figures.first_position_rate)),
        ("mean probability mass of the verdict labels", _share(figures.mean_label_mass)),
    ]
    return f"### Judge `{figures.judge}`\n\n" + _table(("", ""), rows)


def _share(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return str("" if value is None else value).replace("|", "\\|").replace("\n", " ")
