"""A fitted map on the labels of a run: which map, for whom it holds, and what it leaves alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlaif import pipeline
from rlaif.config import Pipeline, ReportSection, validate
from rlaif.errors import ConfigError
from rlaif.metrics.maps import Map, SlicedMap
from rlaif.records import Preference
from rlaif.stages import report
from rlaif.stages.calibration.applying import LabelMap
from rlaif.stages.selectors import Comparison
from rlaif.store import RunFolder

GOOD = math.log(0.9 / 0.1)
HALF = math.exp(GOOD / 2) / (1 + math.exp(GOOD / 2))  # P = .9 at temperature 2: √9 : 1


def comparison(difference: float, margin: float | None = None, prompt_id: str = "p") -> Comparison:
    return Comparison(
        prompt_id=prompt_id, first_id="a", second_id="b", difference=difference, judgment_ids=["j"], margin=margin
    )


def test_a_comparison_keeps_its_side_and_its_margin() -> None:
    mapping = LabelMap(SlicedMap(overall=Map(kind="temperature", temperature=2.0)), {}, {})
    one, other = mapping(comparison(0.8)), mapping(comparison(-0.8))
    assert one.difference == -other.difference == pytest.approx(2 * HALF - 1)
    assert (one.margin, other.margin) == (0.8, -0.8)
    assert mapping(comparison(0.8, margin=1.5)).margin == 1.5
    assert mapping(comparison(0.0)).difference == 0
    assert mapping.provenance == {"pairs": {"overall": 4}}


def test_slices_choose_the_map() -> None:
    maps = SlicedMap(overall=Map(), by="domain", slices={"x": Map(kind="temperature", temperature=2.0)})
    mapping = LabelMap(maps, {"p": "x", "q": "y"}, {})
    assert mapping(comparison(0.8)).difference == pytest.approx(2 * HALF - 1)
    assert mapping(comparison(0.8, prompt_id="q")).difference == pytest.approx(0.8)
    assert mapping.provenance["pairs"] == {"overall": 1, "x": 1}


# -- in a run -------------------------------------------------------------------------------------------------------


def config(folder: Path, pair: dict[str, Any], rubric: str = "helpfulness") -> Pipeline:
    rows = [
        {"prompt": f"Question {n}?", "response_a": "GOOD", "response_b": "BAD", "domain": "xy"[n % 2]}
        for n in range(4)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    first = {"A": math.log(0.9), "B": math.log(0.1)}
    replies = [
        {"match": "GOOD.*BAD", "logprobs": first},
        {"match": "BAD.*GOOD", "logprobs": {"A": math.log(0.1), "B": math.log(0.9)}},
    ]
    raw = {
        "run": str(folder / "run"),
        "engines": {"judge": {"engine": "scripted", "replies": replies, "model": "m"}},
        "prompts": {"path": str(folder / "answers.jsonl")},
        "judge": {"rubric": rubric},
        "pair": {"select": "all_pairs", **pair},
        "export": {"formats": ["jsonl"], "test_fraction": 0},
    }
    return validate(Pipeline, raw, "test")


def calibration(map_: dict[str, Any] | None, **what: Any) -> dict[str, Any]:
    report = {"kind": "temperature", "reason": "fewer than 10 pairs"}
    return {"judges": {"mine": {"map": map_, "map_test": report, "what": {"models": ["m"], "rubrics": [], **what}}}}


TWO = {"overall": {"kind": "temperature", "n": 120, "temperature": 2.0}}


def write(folder: Path, found: dict[str, Any]) -> str:
    path = folder / "calibration.json"
    path.write_text(json.dumps(found))
    return str(path)


def run(found: Pipeline) -> list[Preference]:
    pipeline.run(found, quiet=True)
    with RunFolder(found.run) as folder:
        return list(folder.read("preferences", Preference))


def provenance_of(found: Pipeline) -> tuple[list[str], list[str]]:
    """The rubric refs and templates of a run's judgments."""
    lines = (Path(found.run) / "judgments.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return sorted({row["rubric"] for row in rows}), sorted({row["template_sha256"] for row in rows})


def test_labels_go_through_the_map_and_say_so(tmp_path: Path) -> None:
    plain = config(tmp_path, {})
    assert [row.probability for row in run(plain)] == pytest.approx([0.9] * 4)
    rubrics, templates = provenance_of(plain)
    path = write(tmp_path, calibration(TWO, rubrics=rubrics, templates=templates))
    mapped = config(tmp_path, {"calibration": path})
    rows = run(mapped)
    assert [row.probability for row in rows] == pytest.approx([HALF] * 4)
    assert [row.judge_margin for row in rows] == pytest.approx([0.8] * 4)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["last_run"]["sent"] == 0  # another map asks nothing
    about = manifest["stages"]["pair"]["counts"]["calibration"]
    assert (about["judge"], about["kind"], about["fitted_on"], about["pairs"]) == (
        "mine", "temperature", 120, {"overall": 4},
    )  # fmt: skip
    card = (tmp_path / "run" / "dataset" / "README.md").read_text()
    assert "### Calibration" in card and about["sha256"] in card
    # thresholds apply to what the map gives: |.75 − ½| is below .3, |.9 − ½| is not
    strict = config(tmp_path, {"calibration": path, "min_margin": 0.3})
    pipeline.run(strict, ["pair"], quiet=True)
    with RunFolder(strict.run) as folder:
        assert list(folder.read("preferences", Preference)) == []


def test_another_map_runs_the_stage_again(tmp_path: Path) -> None:
    run(config(tmp_path, {}))
    rubrics, templates = provenance_of(config(tmp_path, {}))
    path = write(tmp_path, calibration(TWO, rubrics=rubrics, templates=templates))
    found = config(tmp_path, {"calibration": path})
    run(found)
    four = {"overall": {"kind": "temperature", "n": 120, "temperature": 4.0}}
    write(tmp_path, calibration(four, rubrics=rubrics, templates=templates))
    assert run(found)[0].probability == pytest.approx(1 / (1 + math.exp(-GOOD / 4)))


def test_slices_are_read_from_the_prompts(tmp_path: Path) -> None:
    run(config(tmp_path, {}))
    rubrics, templates = provenance_of(config(tmp_path, {}))
    map_ = {"overall": {"kind": "none"}, "by": "domain", "slices": {"x": TWO["overall"]}}
    path = write(tmp_path, calibration(map_, rubrics=rubrics, templates=templates))
    rows = run(config(tmp_path, {"calibration": path}))
    assert [row.probability for row in rows] == pytest.approx([HALF, 0.9, HALF, 0.9])


@pytest.mark.parametrize(
    ("found", "pair", "said"),
    [
        (calibration(TWO, models=["other"]), {}, "fitted on judge 'mine' with models other, but judgment"),
        (calibration(TWO, rubrics=["other@1"]), {}, "with rubrics other@1, but judgment"),
        (calibration(None), {}, "judge 'mine' has no map: fewer than 10 pairs"),
        (calibration({"overall": {"kind": "spline"}}), {}, "the map of judge 'mine'"),
        (calibration(TWO), {"calibration_judge": "yours"}, "no judge 'yours'; there: mine"),
        ({"judges": {"a": {}, "b": {}}}, {}, "name one of its judges with pair.calibration_judge: a, b"),
        ({"what": "else"}, {}, "not a calibration.json"),
    ],
    ids=["model", "rubric", "no map", "unknown kind", "no such judge", "two judges", "another file"],
)
def test_a_map_that_does_not_hold_here_is_refused(
    tmp_path: Path, found: dict[str, Any], pair: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(config(tmp_path, {"calibration": write(tmp_path, found), **pair}))


def test_a_missing_file_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; `rlaif calibrate` makes one"):
        run(config(tmp_path, {"calibration": "run:calibration"}))


# -- win rates -------------------------------------------------------------------------------------------------------


def evaluation(folder: Path, calibration_file: Path, **evaluate: Any) -> dict[str, Any]:
    """The trained policy says BAD to the 30 prompts that end in 3, 6 or 9, else GOOD; the judge sees which."""
    rows = [{"prompt": f"Question {n}?"} for n in range(100)]
    (folder / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    replies = [
        {"match": "GOOD.*SO SO|SO SO.*BAD|GOOD.*BAD", "reply": "Verdict: A"},
        {"match": "SO SO.*GOOD|BAD.*SO SO|BAD.*GOOD", "reply": "Verdict: B"},
    ]
    new = [{"match": f"Question .*{n}\\?", "reply": "BAD"} for n in (3, 6, 9)] + [{"reply": "GOOD"}]
    raw = {
        "run": str(folder / "run"),
        "engines": {
            "old": {"engine": "scripted", "replies": [{"reply": "SO SO"}], "model": "old"},
            "new": {"engine": "scripted", "replies": new, "model": "new"},
            "judge": {"engine": "scripted", "replies": replies, "model": "m"},
        },
        "judge": {"rubric": "helpfulness"},
        "evaluate": {
            "prompts": {"path": str(folder / "held.jsonl")},
            "before": "old",
            "after": "new",
            "calibration": str(calibration_file),
            **evaluate,
        },
    }
    pipeline.run(validate(Pipeline, raw, "test"), ["evaluate"], quiet=True)
    found: dict[str, Any] = json.loads((folder / "run" / "evaluation" / "evaluation.json").read_text())
    return found


def gold(folder: Path, right: int, **what: Any) -> Path:
    """A calibration of 100 pairs, of which the judge got `right`. `what`: its rubrics and templates."""
    round_ = {
        "version": 1, "round": 1, "key": "k", "pair": {},
        "labels": {f"p{i}": ["a", "first", f"c{i}"] for i in range(100)},
        "judges": {"mine": {"p": {f"p{i}": 0.9 if i < right else 0.1 for i in range(100)}}},
    }  # fmt: skip
    (folder / "rounds").mkdir(exist_ok=True)
    (folder / "rounds" / "1.json").write_text(json.dumps(round_))
    path = folder / "calibration.json"
    path.write_text(json.dumps({"judges": {"mine": {"what": {"models": ["m"], **what}}}, "round": {"number": 1}}))
    return path


def test_win_rates_are_corrected_beside_the_raw_ones(tmp_path: Path) -> None:
    found = evaluation(tmp_path, gold(tmp_path, right=85, **known(tmp_path)))
    raw = found["win_rate"]["judge"]["value"]
    rate = found["corrected_win_rate"]["judge"]
    assert (raw, rate["raw"]["value"], rate["gold_judge"]) == (0.7, 0.7, "mine")
    assert rate["sensitivity"] == rate["specificity"] == 0.85
    assert rate["corrected"]["value"] == pytest.approx((0.7 + 0.85 - 1) / 0.7, abs=1e-6)
    assert rate["corrected"]["low"] < rate["corrected"]["value"] < rate["corrected"]["high"]
    report.build(tmp_path / "run", ReportSection())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "corrected by gold" in page and "79\u00a0% (" in page  # .55/.7 = .786


def known(folder: Path) -> dict[str, list[str]]:
    """The rubric and frame of the judge, as a calibration of it would name them."""
    run(config(folder, {}))
    rubrics, templates = provenance_of(config(folder, {}))
    return {"rubrics": rubrics, "templates": templates}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"judge": "yours"}, "evaluate.calibration_judges: .* has no judge 'yours'; there: mine"),
        ({}, "evaluate.calibration: .* fitted on judge 'mine' with rubrics none"),
    ],
)
def test_a_correction_that_does_not_hold_is_refused(tmp_path: Path, names: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluation(tmp_path, gold(tmp_path, right=85), calibration_judges=names)


def test_a_judge_at_chance_corrects_nothing_and_says_why(tmp_path: Path) -> None:
    found = evaluation(tmp_path, gold(tmp_path, right=50, **known(tmp_path)))
    rate = found["corrected_win_rate"]["judge"]
    assert rate["corrected"] is None and "no better than chance" in rate["reason"]
