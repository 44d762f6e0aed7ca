"""The report: figures against hand-made runs, missing files, hostile text, size."""

from __future__ import annotations

import json
import re
import time
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_run import HOSTILE, PRINCIPLES, make_run

from rlaif.config import ReportSection
from rlaif.errors import StoreError
from rlaif.io import write_table
from rlaif.records import Dropped, Judgment, Preference, Prompt, Response
from rlaif.stages.report import build, charts, collect
from rlaif.stages.report.collect import spread
from rlaif.stages.report.labels import measure, p_first
from rlaif.stages.report.page import cut
from rlaif.stages.report.remarks import remarks
from rlaif.stages.report.summary import estimate, interval

VOID = {"meta", "br", "img", "input", "link", "hr", "path", "rect", "circle"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_run(tmp_path_factory.mktemp("runs") / "demo")
    build(path, ReportSection(examples=4))
    return path


class Outline(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        self.text += data


def judgment(first: str, second: str, p: float, **more: object) -> Judgment:
    fields = {"id": f"{first}{second}{p}{more.get('principle')}", "prompt_id": "q", "rubric": "r@1"} | more
    return Judgment(response_ids=[first, second], probabilities={"first": p, "second": 1 - p}, **fields)  # type: ignore[arg-type]


def test_consistency_first_position_and_statuses_by_hand() -> None:
    labels = measure(
        [
            judgment("a", "b", 0.9),  # a wins shown first …
            judgment("b", "a", 0.2),  # … and shown second
            judgment("c", "d", 0.7),  # whoever is shown first wins
            judgment("d", "c", 0.6),
            judgment("e", "f", 0.5),  # a tie, one order only: no part of the consistency
            Judgment(id="x", prompt_id="q", response_ids=["a", "b"], rubric="r@1", status="refused", reason="no"),
        ]
    )
    assert dict(labels.statuses) == {"ok": 5, "refused": 1}
    assert (labels.consistency.value, labels.consistency.n) == (0.5, 2)
    assert (labels.first_rate.value, labels.first_rate.n) == (pytest.approx(3.5 / 5), 5)
    assert labels.n_pairs == 3
    assert [(f.status, f.reason, f.n, f.ids) for f in labels.failures] == [("refused", "no", 1, ["x"])]
    row = labels.principles[0]
    assert (row.name, row.n, row.n_ok) == ("r@1", 6, 5)
    # order-averaged: a over b .85, c over d .55, tie .5
    assert row.decisiveness == pytest.approx((0.35 + 0.05 + 0) / 3)
    assert labels.order_map.sum() == 2


def test_identical_responses_say_nothing_about_the_judge() -> None:
    same = {"meta": {"identical": True}}
    labels = measure([judgment("a", "b", 0.9), judgment("b", "a", 0.9)])
    padded = measure(
        [
            judgment("a", "b", 0.9),
            judgment("b", "a", 0.9),
            judgment("c", "d", 0.5, **same),
            judgment("d", "c", 0.5, **same),
        ]
    )
    assert padded.consistency == labels.consistency and padded.first_rate == labels.first_rate
    assert (padded.principles[0].n, padded.principles[0].n_ok) == (4, 4)


def test_a_failure_is_no_label_in_any_figure() -> None:
    failed = Judgment(id="x", prompt_id="q", response_ids=["a", "b"], rubric="r@1", status="unparsed")
    assert np.isnan(p_first(failed))
    empty = Judgment(id="y", prompt_id="q", response_ids=["a", "b"], rubric="r@1")  # "ok" without a verdict
    labels = measure([failed, empty])
    assert labels.first_rate is None and labels.consistency is None and labels.p_first is None and labels.n_pairs == 0


@pytest.mark.parametrize(
    ("verdict", "expected"), [("first", 1.0), ("second", 0.0), ("tie", 0.5)], ids=["first", "second", "tie"]
)
def test_a_verdict_without_probabilities_is_certain(verdict: str, expected: float) -> None:
    assert p_first(Judgment(id="x", prompt_id="q", response_ids=["a", "b"], verdict=verdict)) == expected


def test_agreement_counts_pairs_that_both_principles_decide() -> None:
    def both(pair: str, p_kind: float, p_brief: float) -> list[Judgment]:
        a, b = pair
        return [judgment(a, b, p_kind, principle="kind"), judgment(b, a, 1 - p_brief, principle="brief")]

    labels = measure([*both("ab", 0.9, 0.8), *both("cd", 0.9, 0.1), *both("ef", 0.2, 0.3), *both("gh", 0.5, 0.9)])
    found = labels.agreement["kind"]["brief"]
    assert (found.n, found.accuracy.value) == (3, pytest.approx(2 / 3))
    assert labels.agreement["brief"]["kind"] is found


def test_same_response_ids_under_two_prompts_stay_apart() -> None:
    rows = [judgment("a", "b", 0.9, prompt_id="q1"), judgment("b", "a", 0.9, prompt_id="q2")]
    labels = measure(rows)
    assert labels.n_pairs == 2 and labels.consistency is None


def test_pointwise_scores_are_counted_with_their_nulls() -> None:
    rows = [
        Judgment(id=str(i), prompt_id="q", response_ids=["a"], kind="pointwise", scores={"clear": score})
        for i, score in enumerate([1.0, 4.0, None])
    ]
    (row,) = measure(rows).criteria
    assert (row.name, row.n, row.n_null, row.summary["mean"]) == ("clear", 3, 1, 2.5)


def test_report_json_has_what_is_promised(run: Path) -> None:
    found = json.loads((run / "report.json").read_text())
    assert found["seconds"] == pytest.approx(138.5)
    assert set(found["requests"]) == {"sent", "sent_last_run", "from_journal", "failed"}
    assert found["requests"]["sent_last_run"] == 120
    assert found["win_rate"] == {"value": 0.74, "low": 0.69, "high": 0.79, "n": 240}
    assert list(found["win_rates"]) == ["judge", "second"], "the labelling judge first"
    for side in ("before", "after"):
        assert set(found["oracle"][side]) == {"quality", "harmful_compliance", "benign_correct"}
        assert set(found["oracle"][side]["quality"]) == {"value", "low", "high", "n"}
    assert found["judge_minus_oracle"]["value"] == 0.13, "the labelling judge's gap"
    assert found["counts"]["judgments"] == 60 * len(PRINCIPLES) * 2
    assert found["dropped"]["generate"] == {"duplicate": 7}
    assert set(found["principles"]) == set(PRINCIPLES)
    assert 0.5 < found["order_consistency"]["value"] <= 1


def test_build_returns_what_it_writes_and_writes_it_again_to_the_byte(run: Path) -> None:
    before = (run / "report.html").read_bytes(), (run / "report.json").read_bytes()
    figures = build(run, ReportSection(examples=4))
    assert figures == json.loads((run / "report.json").read_text())
    assert before == ((run / "report.html").read_bytes(), (run / "report.json").read_bytes())
    assert not list(run.glob(".*tmp")), "nothing temporary is left"


def test_page_is_self_contained_and_has_no_script(run: Path) -> None:
    outline = Outline((run / "report.html").read_text())
    assert not {"script", "iframe", "link", "img", "object"} & set(outline.tags)
    assert not [a for a in outline.attributes if a[1].startswith("on")]
    links = [value for _, name, value in outline.attributes if name in ("href", "src")]
    assert links and all(link.startswith("#") for link in links)
    page = (run / "report.html").read_text()
    assert "url(" not in page and "@import" not in page
    assert outline.tags.count("title") == 1 + outline.tags.count("svg")


def test_links_lead_somewhere(run: Path) -> None:
    attributes = Outline((run / "report.html").read_text()).attributes
    ids = {value for _, name, value in attributes if name == "id"}
    assert {value[1:] for _, name, value in attributes if name == "href"} <= ids


def test_hostile_text_is_shown_and_never_markup(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "<script>alert" not in page and "<img" not in page
    assert page.count("</style>") == 1, "text cannot close the style sheet"
    # failure reasons, dropped rows, the config and the evaluation's examples all hold it, word for word
    assert Outline(page).text.count(HOSTILE) >= 5


def test_every_chart_is_well_formed_labelled_and_large_enough(run: Path) -> None:
    page = (run / "report.html").read_text()
    svgs = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(svgs) >= 14
    for svg in svgs:
        root = ET.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-label")
        assert float(root.get("font-size", 0)) >= 12.5, "a small phone shows 320 units on 275 pixels"
        x, y, width, height = map(float, root.get("viewBox", "").split())
        assert (x, y, width) == (0, 0, charts.WIDTH)
        for text in root.iter("{http://www.w3.org/2000/svg}text"):
            assert 0 <= float(text.get("x", -1)) <= width and 0 <= float(text.get("y", -1)) <= height, text.text


def test_colours_of_text_stand_out_from_their_ground() -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1, in light and in dark."""

    def luminance(colour: str) -> float:
        colour = colour if len(colour) == 6 else "".join(2 * c for c in colour)
        parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    template = Path(charts.__file__).with_name("page.html.jinja").read_text()
    themes = re.findall(r":root \{(.*?)\}", template, re.S)[:2]
    assert len(themes) == 2
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #([0-9a-f]+);", theme))
        for ground in ("card", "page", "wash"):
            for ink in ("ink", "soft", "blue", "orange", "green"):
                a, b = sorted((luminance(colours[ink]), luminance(colours[ground])))
                assert (b + 0.05) / (a + 0.05) >= 4.5, (ink, ground)


def test_svg_text_is_escaped() -> None:
    svg = charts.bars([charts.Bar("</text><script>&", 1, "<b>")], "a & b <i>")
    assert "<script" not in svg and "<b>" not in svg and "<i>" not in svg
    assert ET.fromstring(svg).get("aria-label") == "a & b <i>"


@pytest.mark.parametrize(
    "svg",
    [
        charts.bars([], "nothing"),
        charts.bars([charts.Bar("zero", 0, "0")], "zero"),
        charts.dots([charts.Dot("one", 0.3)], "one", "x"),
        charts.dots([charts.Dot("same", 5, 5, 5)], "same", "x"),
        charts.histogram([("", np.zeros(4, dtype=int), charts.BLUE)], [0, 1, 2, 3, 4], "empty", "x", "y"),
        charts.lines([charts.Line("point", [1], [2.0])], "point", "x", "y"),
        charts.lines([charts.Line("flat", [1, 2], [3.0, 3.0])], "flat", "x", "y"),
        charts.density(np.zeros((20, 20), dtype=int), "empty", "x", "y"),
    ],
    ids=["no bars", "zero", "no interval", "no width", "empty", "point", "flat", "no pairs"],
)
def test_degenerate_charts_are_still_charts(svg: str) -> None:
    assert ET.fromstring(svg) is not None
    assert "nan" not in svg and "inf" not in svg


def test_lines_leave_out_what_is_not_a_number() -> None:
    svg = charts.lines([charts.Line("", [1, 2, 3], [0.5, float("nan"), 0.25])], "loss", "x", "y")
    assert "nan" not in svg and "0.25" in svg
    assert charts.lines([charts.Line("", [1], [float("inf")])], "loss", "x", "y") == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 100, [0, 20, 40, 60, 80, 100]), (0.5, 1, [0.5, 0.6, 0.7, 0.8, 0.9, 1]),
     (3, 3, [3])],
)  # fmt: skip
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "missing",
    ["prompts.jsonl", "responses.jsonl", "judgments.jsonl", "preferences.jsonl", "dropped.jsonl", "manifest.json",
     "models/dpo/training.json", "evaluation/evaluation.json"],
)  # fmt: skip
def test_any_file_may_be_missing(tmp_path: Path, missing: str) -> None:
    path = make_run(tmp_path / "run", n_prompts=8)
    (path / missing).unlink()
    build(path, ReportSection())
    Outline((path / "report.html").read_text())


def test_an_empty_run_folder_has_a_page(tmp_path: Path) -> None:
    figures = build(tmp_path, ReportSection())
    assert figures["counts"]["judgments"] is None and figures["win_rate"] is None and figures["oracle"] is None
    assert (tmp_path / "report.html").exists()


def test_empty_tables_have_a_page(tmp_path: Path) -> None:
    for name in ("prompts", "responses", "judgments", "preferences", "dropped"):
        write_table(tmp_path / f"{name}.jsonl", [])
    figures = build(tmp_path, ReportSection())
    assert (figures["counts"]["judgments"], figures["counts"]["preferences"]) == (0, 0)
    assert "No preference was kept." not in (tmp_path / "report.html").read_text(), "nothing was judged either"


def test_outside_the_tiny_world_there_is_no_oracle(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", n_prompts=8, oracle=False)
    figures = build(path, ReportSection())
    assert figures["oracle"] is None and figures["judge_minus_oracle"] is None
    assert "oracle" not in (path / "report.html").read_text().lower()


@pytest.mark.parametrize(
    ("name", "content", "where"),
    [("manifest.json", "{", "manifest.json"), ("judgments.jsonl", '{"id": 3}\n', "judgments.jsonl:1"),
     ("evaluation/evaluation.json", "[]", "evaluation.json")],
)  # fmt: skip
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str, where: str) -> None:
    path = make_run(tmp_path / "run", n_prompts=4)
    (path / name).write_text(content)
    with pytest.raises(StoreError, match=re.escape(where)):
        build(path, ReportSection())
    assert not (path / "report.html").exists()


def test_no_run_folder_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such run folder"):
        collect(tmp_path / "nowhere")


def preference(number: int, p: float) -> Preference:
    return Preference(id=f"{number:03}", prompt_id="q", chosen_id="a", rejected_id="b", probability=p,
                      judge_margin=2 * p - 1, judgment_ids=[])  # fmt: skip


def test_examples_go_from_the_surest_to_the_least_sure() -> None:
    rows = [preference(i, 0.5 + i / 202) for i in range(101)]
    assert [row.id for row in spread(rows, 3)] == ["100", "050", "000"]
    assert len(spread(rows, 12)) == 12 and spread(rows, 0) == [] and len(spread(rows[:2], 12)) == 2


def test_an_example_shows_all_that_led_to_it(run: Path) -> None:
    data = collect(run, 1)
    (example,) = data.examples
    text = Outline((run / "report.html").read_text()).text
    assert example.prompt.text in text and example.chosen.text in text and example.rejected.text in text
    assert {row.id for row in example.judgments} == set(example.preference.judgment_ids)
    assert all(row.id in text for row in example.judgments)


def test_a_very_long_or_broken_text_does_not_break_the_page(tmp_path: Path) -> None:
    write_table(tmp_path / "prompts.jsonl", [Prompt(id="q", messages=[{"role": "user", "content": "\x00\u202e?"}])])
    texts = {"a": "x" * 1_000_000, "b": "short\r\n\u2028 end"}
    write_table(tmp_path / "responses.jsonl", [Response(id=k, prompt_id="q", text=v) for k, v in texts.items()])
    write_table(tmp_path / "preferences.jsonl", [preference(1, 0.9)])
    build(tmp_path, ReportSection())
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 200_000 and "980,000 more characters" in page
    assert cut("short") == "short"


def test_lengths_are_of_the_right_side(tmp_path: Path) -> None:
    texts = {"a": "x" * 30, "b": "x" * 10}
    write_table(tmp_path / "responses.jsonl", [Response(id=k, prompt_id="q", text=v) for k, v in texts.items()])
    write_table(tmp_path / "preferences.jsonl", [preference(1, 0.9)])
    pairs = collect(tmp_path).pairs
    assert pairs is not None and pairs.chosen_longer.value == 1
    assert (pairs.chosen_length["mean"], pairs.rejected_length["mean"]) == (30, 10)


def test_dropped_rows_keep_reasons_counts_and_samples(tmp_path: Path) -> None:
    rows = [Dropped(stage="pair", reason="tie", id=str(i)) for i in range(9)]
    write_table(tmp_path / "dropped.jsonl", [*rows, Dropped(stage="judge", reason="tie", id="x", detail="why")])
    one, other = collect(tmp_path).dropped
    assert (one.stage, one.n, [row.id for row in one.samples]) == ("pair", 9, ["0", "1", "2"])
    assert (other.stage, other.n, other.samples[0].detail) == ("judge", 1, "why")


def test_remarks_say_what_stands_out(run: Path, tmp_path: Path) -> None:
    said = " ".join(remarks(collect(run)))
    assert "favours the response shown first" in said
    assert "13 points above the oracle" in said
    assert "(second) sees a smaller gain" in said
    assert remarks(collect(tmp_path)) == []


def test_a_second_judge_that_is_the_first_again_is_no_second_opinion(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", n_prompts=8)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["engines"]["second"] = manifest["engines"]["judge"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert "second is the labelling judge's own model: its win rate is no second opinion." in remarks(collect(path))
    build(path, ReportSection())
    assert "second (the same model)" in (path / "report.html").read_text()


def test_pairs_that_were_judged_and_not_selected_are_shown(run: Path) -> None:
    assert "judged, not selected" in (run / "report.html").read_text()


def test_a_panel_below_chance_or_of_one_voice_is_remarked_on(tmp_path: Path) -> None:
    panel = {"members": {name: {} for name in "xyz"}, "flagged": {"x": "below_chance", "y": "not_above_chance"}}
    for n_effective, said in ((1.2, ["as much as 1.2 independent judges"]), (2.5, [])):
        counts = {"panel": {**panel, "n_effective": n_effective}}
        (tmp_path / "manifest.json").write_text(json.dumps({"stages": {"pair": {"counts": counts}}}))
        first, *others = remarks(collect(tmp_path))
        assert first == "Below chance on gold, and left out of the panel: x."
        assert [text in line for text, line in zip(said, others, strict=True)] == [True] * len(said)


def test_consistent_and_unbiased_labels_raise_no_remark(tmp_path: Path) -> None:
    rows = [judgment(a, b, p, prompt_id=str(i)) for i in range(50) for a, b, p in (("a", "b", 0.9), ("b", "a", 0.1))]
    write_table(tmp_path / "judgments.jsonl", rows)
    assert remarks(collect(tmp_path)) == []


@pytest.mark.parametrize(
    ("raw", "shown"),
    [({"value": -0.5, "low": -0.75, "high": 0.25}, "−50\u00a0% (−75 to 25\u00a0%)"),
     ({"value": 0.5, "low": 0.25, "high": 0.75, "n": 9}, "50\u00a0% (25–75\u00a0%)"), (0.5, "50\u00a0%"),
     ({"value": None}, "–"), (None, "–"), (True, "–"), ({"value": float("nan")}, "–")],
    ids=["negative", "interval", "number", "null", "none", "bool", "nan"],
)  # fmt: skip
def test_estimates_are_read_leniently(raw: object, shown: str) -> None:
    assert interval(estimate(raw)) == shown


def test_a_hundred_thousand_judgments_take_seconds(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", n_prompts=10_000, n_responses=2)
    started = time.process_time()
    figures = build(path, ReportSection())
    assert figures["counts"]["judgments"] == 100_000
    assert time.process_time() - started < 15, "a few seconds on an idle core"
