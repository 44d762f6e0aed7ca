"""The report: one self-contained HTML page that a person would look at, and its figures as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif.config import ReportSection
from rlaif.stages.base import Context
from rlaif.stages.report import page, summary, trainings
from rlaif.stages.report.collect import ReportData, collect
from rlaif.store import write_whole

__all__ = ["ReportData", "build", "collect", "run"]


def run(context: Context) -> dict[str, Any]:
    """The stage."""
    build(context.folder.path, context.config.report or ReportSection())
    return {}


def build(run_path: Path, section: ReportSection) -> dict[str, Any]:
    """Write report.html and report.json into a run folder and return the JSON.

    Files of stages that did not run are simply not reported on. Errors: StoreError.
    """
    data = collect(Path(run_path), section.examples)
    figures = summary.summarise(data) | {"trainings": trainings.figures(data)}
    # a lone surrogate in model output is no text: it is written as "?" instead of stopping the report
    write_whole(data.path / "report.html", page.render(data, section.title).encode("utf-8", "replace"))
    body = json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(data.path / "report.json", body.encode("utf-8", "replace"))
    return figures
