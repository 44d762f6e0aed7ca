"""The audit on the report's page: what is shown, what is remarked on, and hostile text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_run import HOSTILE, audit, estimate, make_run

from rlaif.config import ReportSection
from rlaif.stages.audit.names import FIGURES
from rlaif.stages.report import audit as page
from rlaif.stages.report import build


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("runs") / "audited", n_prompts=20)
    build(path, ReportSection(examples=1))
    return path


def test_the_page_shows_gates_figures_and_attacks_and_escapes_names(run: Path) -> None:
    html = (run / "report.html").read_text(encoding="utf-8")
    section = html[html.index('<section id="audit">') :].split("</section>")[0]
    assert '<a href="#audit">Audit</a>' in html
    assert "66\u00a0% (61–71\u00a0%)" in section and "at least 0.4, at most 0.6" in section
    assert section.count('class="chip no">failed') == 1 and section.count('class="chip yes">passed') == 1
    assert "Not computed: no judge met its own family beside another." in section
    for name in FIGURES:
        assert f"<th>{name}</th>" in section
    for title in ("Attacks on the judge", "How the standards go together", "By domain", "Sources against each other"):
        assert f"<h3>{title}</h3>" in section
    assert HOSTILE not in html and "&lt;script&gt;" in section


def test_the_json_repeats_figures_and_gates(run: Path) -> None:
    figures = json.loads((run / "report.json").read_text(encoding="utf-8"))["audit"]
    assert figures["figures"]["length_effect"] == estimate(0.8, 0.2)
    assert [gate["passed"] for gate in figures["gates"]] == [False, True]


def test_a_run_without_an_audit_has_no_section(tmp_path: Path) -> None:
    path = make_run(tmp_path / "plain", n_prompts=4)
    (path / "audit.json").unlink()
    figures = build(path, ReportSection(examples=0))
    assert figures["audit"] is None
    assert "#audit" not in (path / "report.html").read_text(encoding="utf-8")


def calm() -> dict[str, Any]:
    found = audit()
    quiet = {name: estimate(0.0, 0.02) for name in FIGURES}
    quiet |= {"probe_win_rate": estimate(0.5), "fence_escapes": estimate(0.0, 0.0)}
    return {**found, "gates": [], "figures": quiet}


@pytest.mark.parametrize(
    ("figure", "value", "said"),
    [
        ("length_effect", estimate(0.8, 0.2), "Each doubling of a response's length adds 0.80 log-odds"),
        ("length_effect", estimate(-0.8, 0.2), "takes 0.80 log-odds"),
        ("length_effect", estimate(0.8, 0.9), None),
        ("own_family_excess", estimate(0.1, 0.04), "own model family win 10 points more often"),
        ("own_family_excess", estimate(0.1, 0.2), None),
        ("repeated_text_rate", estimate(0.31), "31\u00a0% of the responses also answer another prompt"),
        ("common_opening_rate", estimate(0.5), "begin with the same five words"),
        ("probe_win_rate", estimate(0.7), "address the judge win 70\u00a0% (65–75\u00a0%)"),
        (
            "injection_excess",
            estimate(0.2),
            "turn 20 points more verdicts than harmless additions do (the worst kind 0",
        ),
        ("injection_excess", estimate(0.03, 0.01), None),
        ("fence_escapes", estimate(0.6), "does not fence what it shows: 60\u00a0% of the attacks"),
    ],
)
def test_what_is_remarked_on(figure: str, value: dict[str, float], said: str | None) -> None:
    found = calm()
    assert list(page.remarks(found)) == []
    found["figures"][figure] = value
    remarks = list(page.remarks(found))
    assert len(remarks) == (said is not None)
    assert said is None or said in remarks[0]


def test_failed_gates_are_named_first() -> None:
    assert next(iter(page.remarks(audit()))) == "The run failed a gate of its audit: first_position_rate."
