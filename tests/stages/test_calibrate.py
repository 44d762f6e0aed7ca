"""The stage on a scripted judge whose P(GOOD is better) stands in the prompt: every figure is derived by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlaif
from rlaif import cli
from rlaif.config import Pipeline, ReportSection, validate
from rlaif.errors import ConfigError, DataError
from rlaif.records import Dropped, Judgment
from rlaif.stages import calibrate, report
from rlaif.stages.base import Context
from rlaif.stages.calibration.correcting import corrected
from rlaif.stages.pairing.gold import load_gold
from rlaif.store import RunFolder

JUDGES = """
import math, re
import msgspec
from rlaif.records import Reply, TokenLogprob, Usage

def judge(request, sharpen=1.0, refuse=()):
    text = request.messages[-1]["content"]
    number, p, bias = re.search(r"item (\\d+) p=(\\S+) bias=(\\S+)", text).groups()
    if number in refuse:
        return Reply(text="I cannot say.", usage=Usage(100, 4), model="scripted")
    good_first = text.index("a GOOD answer") < text.index("a BAD answer")
    good = min(0.99, max(0.01, float(p) + float(bias) * (1 if good_first else -1)))
    logit = sharpen * math.log(good / (1 - good))
    first = 1 / (1 + math.exp(-logit if good_first else logit))
    top = sorted([("A", math.log(first)), ("B", math.log(1 - first))], key=lambda item: -item[1])
    return Reply(text=top[0][0], logprobs=[TokenLogprob(*top[0], top)], usage=Usage(100, 1), model="scripted")

def better(request):
    return judge(request, sharpen=2.0)

def worse(request):
    return judge(request, sharpen=-1.0)

def right(request):
    text = request.messages[-1]["content"]
    request = msgspec.structs.replace(request, messages=[{"content": re.sub(r"p=\\S+", "p=0.95", text)}])
    return judge(request)

def scorer(request):
    text = request.messages[-1]["content"]
    worth = re.search(r"worth (\\d)", text).group(1)
    names = re.findall(r'"(\\w+)": <', text)
    scores = ", ".join(f'"{name}": {worth}' for name in names if name != "rationale")
    return Reply(text='{"rationale": "so", "scores": {' + scores + "}}", usage=Usage(50, 9), model="scripted")

def refusing(request):
    return judge(request, refuse=("0", "1", "2"))

def mute(request):
    return Reply(text="I cannot say.", usage=Usage(100, 4), model="scripted")
"""

# 12 clear ones, 4 that hang on the order, 4 wrong ones; the better response is a in every second
ITEMS = [(0.8, 0.0)] * 12 + [(0.6, 0.25)] * 4 + [(0.3, 0.0)] * 4


@pytest.fixture(autouse=True)
def judges_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "calibrate_judges.py").write_text(JUDGES)
    monkeypatch.syspath_prepend(str(tmp_path))


def write_gold(folder: Path, items: list[tuple[float, float]] = ITEMS, **change: Any) -> Path:
    rows = []
    for n, (p, bias) in enumerate(items):
        sides = ["a GOOD answer", "a BAD answer"]
        row = {
            "prompt": f"item {n} p={p} bias={bias}",
            "response_a": sides[n % 2],
            "response_b": sides[1 - n % 2],
            "label": "ab"[n % 2],
            "domain": "even" if n % 4 < 2 else "odd",
        }
        rows.append({**row, **{key: value(n, row) for key, value in change.items()}})
    path = folder / "gold.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(folder: Path, gold: Path, engines: tuple[str, ...] = ("judge",), **calibrate: Any) -> Pipeline:
    raw = {
        "run": str(folder / "run"),
        "engines": {
            name: {"engine": "scripted", "function": f"calibrate_judges:{name}", "logprobs": True,
                   "price": {"prompt": 2, "completion": 4}}
            for name in engines
        },
        "judge": {"engine": engines[0], "rubric": "helpfulness"},
        "calibrate": {"gold": str(gold), **calibrate},
    }  # fmt: skip
    return validate(Pipeline, raw, "test")


def run(pipeline: Pipeline) -> dict[str, Any]:
    with RunFolder(pipeline.run) as folder:
        calibrate.run(Context(pipeline, folder, quiet=True))
    found: dict[str, Any] = json.loads((Path(pipeline.run) / "calibration" / "calibration.json").read_text())
    return found


def lines(pipeline: Pipeline, name: str) -> list[dict[str, Any]]:
    path = Path(pipeline.run) / "calibration" / name
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_figure_of_one_judge(tmp_path: Path) -> None:
    found = run(config(tmp_path, write_gold(tmp_path)))
    judge = found["judges"]["judge"]
    value = {name: judge[name]["value"] for name in (
        "accuracy", "accuracy_one_order", "accuracy_both_orders", "order_consistency", "first_position_rate",
        "agreement", "kappa", "brier", "ece", "auroc",
    )}  # fmt: skip
    assert value == pytest.approx({
        "accuracy": 16 / 20,
        "accuracy_one_order": (12 + 4 / 2) / 20,  # .6 ± .25: right where GOOD is shown first
        "accuracy_both_orders": 12 / 20,
        "order_consistency": 16 / 20,
        "first_position_rate": (16 + 4 * 2) / 40,  # those four name whatever stands first
        "agreement": 16 / 20,
        "kappa": (0.8 - 0.5) / 0.5,  # ten of each side, as people and as the judge say
        "brier": (12 * 0.2**2 + 4 * 0.4**2 + 4 * 0.7**2) / 20,
        "ece": (12 * 0.2 + 4 * 0.4 + 4 * 0.7) / 20,  # sure to .8 and right; to .6 and right; to .7 and wrong
        # told from both sides: of 400 pairs of (better, worse) seen from P(better) ∈ {.8, .6, .3} and 1 − those,
        # better above worse: .8 beats .2 .4 .7 (20); .6 beats .2 .4 (16); .3 beats .2 (12)
        "auroc": (12 * 20 + 4 * 16 + 4 * 12) / 400,
    }, abs=1e-6)  # fmt: skip
    # of 40 labels 20 are a and 20 b: two drawn without replacement differ in 2·20·20 of 40·39 cases
    assert judge["alpha"]["value"] == pytest.approx(1 - (4 / 20) / (2 * 20 * 20 / (40 * 39)))
    assert judge["accuracy"]["low"] < 0.8 < judge["accuracy"]["high"]
    assert (judge["n"], judge["unusable"], judge["statuses"]) == (20, 0, {"ok": 40})
    assert judge["cost"] == {
        "calls": 40, "prompt_tokens": 4000, "completion_tokens": 40, "money": (4000 * 2 + 40 * 4) / 1e6,
    }  # fmt: skip
    assert found["members"] == {"judge": {"n": 20, "correct": 16.0}}
    assert found["gold"]["labels"] == {"first": 10, "second": 10, "tie": 0}


def test_one_random_order_costs_half(tmp_path: Path) -> None:
    found = run(config(tmp_path, write_gold(tmp_path)))
    rows = {row["policy"]: row for row in found["comparison"]}
    assert rows["average"]["accuracy"]["value"] == 0.8 and rows["random_one"]["accuracy"]["value"] == 0.7
    assert rows["average"]["per_label"]["calls"] == 2 and rows["random_one"]["per_label"]["calls"] == 1
    assert rows["random_one"]["to_best"]["value"] == pytest.approx(-0.1)  # four pairs of twenty, half right


def test_slices_and_their_maps(tmp_path: Path) -> None:
    items = [(0.9, 0.0)] * 40 + [(0.1, 0.0)] * 20
    gold = write_gold(tmp_path, items * 2, domain=lambda n, row: "big" if n % 60 < 48 else "small")
    found = run(config(tmp_path, gold, slices=["domain"], min_slice=30))
    judge = found["judges"]["judge"]
    # of each 60, the first 48 are 40 right and 8 wrong, the last 12 all wrong
    assert judge["slices"]["domain"]["big"]["accuracy"]["value"] == pytest.approx(40 / 48, abs=1e-6)
    assert judge["slices"]["domain"]["small"]["accuracy"]["value"] == 0
    assert judge["map"]["by"] == "domain" and list(judge["map"]["slices"]) == ["big"]
    test = judge["map_test"]
    assert test["n_fit"] + test["n_test"] == 120 and test["kind"] == "temperature"
    assert test["after"]["brier"]["value"] < test["before"]["brier"]["value"]
    assert test["difference"]["brier"]["value"] == pytest.approx(
        test["after"]["brier"]["value"] - test["before"]["brier"]["value"], abs=2e-6
    )


def test_disagreements_are_listed_the_surest_first(tmp_path: Path) -> None:
    items = [(0.8, 0.0)] * 20 + [(0.4, 0.0), (0.1, 0.0)]
    pipeline = config(tmp_path, write_gold(tmp_path, items), map="none")
    run(pipeline)
    rows = lines(pipeline, "disagreements.jsonl")
    assert [row["prompt"].split()[1] for row in rows] == ["21", "20"]
    # item 21: people say b, the judge gives a .9
    assert rows[0]["people"] == "b" and rows[0]["p_a"] == pytest.approx(0.9) and rows[0]["b"] == "a GOOD answer"
    assert rows[0]["judge"] == "judge" and len(rows[0]["judgment_ids"]) == 2


def test_running_again_asks_nothing_and_writes_the_same(tmp_path: Path) -> None:
    pipeline = config(tmp_path, write_gold(tmp_path), slices=["domain"])
    run(pipeline)
    folder = Path(pipeline.run)
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    before = {path: path.read_bytes() for path in files}
    run(pipeline)
    assert {path: path.read_bytes() for path in files} == before
    assert len(list((folder / "calibration" / "rounds").iterdir())) == 1


def test_rounds_tell_what_was_fixed_and_what_is_new(tmp_path: Path) -> None:
    items = [(0.8, 0.0)] * 16 + [(0.3, 0.0)] * 4
    gold = write_gold(tmp_path, items)
    engines = ("judge", "worse")
    run(config(tmp_path, gold, engines, judges={"mine": {"engine": "judge"}}))
    found = run(config(tmp_path, gold, engines, judges={"mine": {"engine": "worse"}}))
    change = found["round"]["judges"]["mine"]
    assert (found["round"]["number"], found["round"]["before"]) == (2, 1)
    assert "engines" in change["changed"] and "section" in change["changed"] and "rubrics" not in change["changed"]
    assert (len(change["fixed"]), len(change["new"])) == (4, 16)
    assert change["difference"]["value"] == pytest.approx((4 - 16) / 20)
    again = run(config(tmp_path, gold, engines, judges={"mine": {"engine": "worse"}}))
    assert again["round"] == found["round"]
    assert sorted(path.name for path in (tmp_path / "run" / "calibration" / "rounds").iterdir()) == [
        "1.json",
        "2.json",
    ]


def test_the_choice_is_the_cheapest_that_is_not_below_the_best(tmp_path: Path) -> None:
    pipeline = config(tmp_path, write_gold(tmp_path, [(0.8, 0.0)] * 40), ("judge", "better", "worse"),
                      judges={"plain": {}, "sharp": {"engine": "better"}, "wrong": {"engine": "worse"}})  # fmt: skip
    raw = pipeline.model_dump()
    raw["engines"]["judge"]["price"]["prompt"] = 1  # half the price, and just as right
    found = run(validate(Pipeline, raw, "test"))
    assert (found["choice"]["judge"], found["choice"]["policy"]) == ("plain", "random_one")
    assert found["choice"]["by"] == "money" and "1.000" in found["choice"]["reason"]
    assert found["judges"]["wrong"]["map"]["overall"]["temperature"] > 1000  # never turned round


def test_no_judge_above_chance_is_no_choice(tmp_path: Path) -> None:
    found = run(config(tmp_path, write_gold(tmp_path), ("worse",)))
    assert found["choice"]["judge"] is None and "chance" in found["choice"]["reason"]


def test_what_a_judge_cannot_say_is_no_answer(tmp_path: Path) -> None:
    found = run(config(tmp_path, write_gold(tmp_path), ("refusing",), map="none"))
    judge = found["judges"]["judge"]
    assert (judge["n"], judge["unusable"]) == (17, 3) and judge["unusable_pairs"] == {"no_usable_judgment": 3}
    assert judge["accuracy"]["value"] == pytest.approx(13 / 17, abs=1e-6)
    with RunFolder(tmp_path / "run") as folder:
        dropped = list(folder.read("dropped", Dropped))
        assert {row.stage for row in dropped} == {"calibrate"} and len(dropped) == 6
        judgments = list(folder.read("calibration/judgments", Judgment))
    assert len(judgments) == 40 and all(row.meta["calibrated"] == "judge" for row in judgments)


def test_ties_of_people_are_labels_but_no_winners(tmp_path: Path) -> None:
    gold = write_gold(tmp_path, label=lambda n, row: "tie" if n < 4 else row["label"])
    found = run(config(tmp_path, gold, map="none"))
    judge = found["judges"]["judge"]
    assert judge["accuracy"] == {**judge["accuracy"], "value": 12 / 16, "n": 16}
    assert judge["agreement"]["value"] == 12 / 20  # a judge without ties never agrees with one
    assert found["gold"]["labels"] == {"first": 8, "second": 8, "tie": 4}


def test_a_file_that_always_puts_the_better_one_first_is_told_by_id(tmp_path: Path) -> None:
    rows = [{"prompt": f"item {n} p={p} bias={b}", "chosen": "a GOOD answer", "rejected": "a BAD answer"}
            for n, (p, b) in enumerate(ITEMS)]  # fmt: skip
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run(config(tmp_path, gold, map="none"))
    assert found["gold"]["oriented"] == "id" and min(found["gold"]["labels"].values()) == 0
    labels = found["gold"]["labels"]
    assert 0 < labels["first"] < 20 and found["judges"]["judge"]["kappa"]["value"] > 0.3
    assert found["judges"]["judge"]["accuracy"]["value"] == 0.8


def test_several_raters_vote_and_are_told_among_themselves(tmp_path: Path) -> None:
    # two of three raters say what the file says; the third the opposite in the first four items
    def votes(n: int, row: dict[str, Any]) -> list[str]:
        other = "ba"[n % 2]
        return [row["label"], row["label"], other if n < 4 else row["label"]]

    raters = {name: lambda n, row, i=i: votes(n, row)[i] for i, name in enumerate(("ann", "ben", "cid"))}
    found = run(config(tmp_path, write_gold(tmp_path, **raters), raters=list(raters)))
    assert found["judges"]["judge"]["accuracy"]["value"] == 0.8
    people = found["people"]
    assert people["pairs_with_several"] == 20
    assert people["agreement"]["value"] == pytest.approx((16 + 4 / 3) / 20, abs=1e-6)
    assert people["raters"]["cid"]["agreement"]["value"] == pytest.approx(16 / 20)
    assert people["raters"]["ann"]["agreement"]["value"] == pytest.approx(16 / 20)  # the others tie in four


def test_labels_of_one_order_are_calibrated_as_such(tmp_path: Path) -> None:
    gold = write_gold(tmp_path)
    raw = config(tmp_path, gold).model_dump()
    raw["judge"]["orders"] = "random"
    found = run(validate(Pipeline, raw, "test"))
    judge = found["judges"]["judge"]
    assert judge["statuses"] == {"ok": 40}  # both orders are asked all the same
    assert judge["map_test"]["n_fit"] + judge["map_test"]["n_test"] == 40


def test_a_win_rate_is_corrected_by_the_verdicts_on_gold(tmp_path: Path) -> None:
    pipeline = config(tmp_path, write_gold(tmp_path, [(0.8, 0.0)] * 80 + [(0.3, 0.0)] * 20))
    run(pipeline)
    path = Path(pipeline.run) / "calibration" / "calibration.json"
    outcomes = [1.0] * 62 + [0.0] * 38
    found = corrected(path, "judge", outcomes, range(100), np.random.default_rng(0))
    assert found is not None and found.corrected is not None
    assert found.sensitivity == pytest.approx(0.8)  # right in 80 of 100 pairs
    assert found.corrected.value == pytest.approx((0.62 + 0.8 - 1) / (2 * 0.8 - 1))
    with pytest.raises(ConfigError, match="no judge 'nobody'; there: judge"):
        corrected(path, "nobody", outcomes, range(100), np.random.default_rng(0))


def test_the_api_returns_the_figures(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in write_gold(tmp_path).read_text().splitlines()]
    engine = {"engine": "scripted", "function": "calibrate_judges:judge", "logprobs": True}
    found = rlaif.calibrate(rows, engine=engine, rubric="helpfulness", map="none", slices=["domain"])
    assert found["judges"]["judge"]["accuracy"]["value"] == 0.8
    assert set(found["judges"]["judge"]["slices"]["domain"]) == {"even", "odd"}


def test_thresholds_of_a_cascade_are_what_the_judge_reads(tmp_path: Path) -> None:
    # the cheap judge is right where it is sure (.8) and wrong where it is not (.4); the strong one always right
    items = [(0.8, 0.0)] * 60 + [(0.4, 0.0)] * 20
    pipeline = config(tmp_path, write_gold(tmp_path, items), ("judge", "right"), map="none",
                      judges={"cheap": {}, "strong": {"engine": "right"}},
                      cascade={"judges": ["cheap", "strong"], "agreement": 0.9, "confidence": 0.9})  # fmt: skip
    run(pipeline)
    path = Path(pipeline.run) / "calibration" / "cascade.json"
    plan = json.loads(path.read_text())
    found = plan["slices"]["*"]
    assert plan["members"] == ["cheap", "strong"] and found["promised"] and found["errors"] == 0
    assert 0.6 < found["thresholds"]["cheap"] <= 0.8
    assert found["asked"] == {"cheap": 1.0, "strong": 0.25}
    assert plan["what"]["cheap"]["rubrics"] == ["helpfulness@1"] and plan["what"]["cheap"]["orders"] == ["both"]
    raw = pipeline.model_dump()
    raw["judge"] = {"judge": "cascade", "rubric": "helpfulness", "options": {"thresholds": str(path)},
                    "members": {"cheap": {"engine": "judge"}, "strong": {"engine": "right"}}}  # fmt: skip
    raw["calibrate"] |= {"cascade": None, "judges": {"both": {}}}
    judge = run(validate(Pipeline, raw, "test"))["judges"]["both"]
    assert judge["accuracy"]["value"] == 1 and judge["cost"]["calls"] == 2 * (80 + 20)
    assert not path.exists()  # this round wants none


def test_members_of_a_panel_are_counted_for_its_weights(tmp_path: Path) -> None:
    panel = {"judge": "panel", "members": {"x": {"engine": "judge"}, "y": {"engine": "worse"}}}
    pipeline = config(tmp_path, write_gold(tmp_path), ("judge", "worse"), judges={"three": panel}, map="none")
    found = run(pipeline)
    # y says the opposite of x: of the 4 + 4 wrong of x it has the right ones, and together they tie
    assert found["members"] == {
        "three": {"n": 20, "correct": 10.0}, "x": {"n": 20, "correct": 16.0}, "y": {"n": 20, "correct": 4.0},
    }  # fmt: skip
    gold = load_gold(str(Path(pipeline.run) / "calibration" / "calibration.json"))
    assert gold.counts is not None and gold.counts["x"] == (16.0, 20)


def test_scores_against_scores(tmp_path: Path) -> None:
    """Four responses a prompt, scored 1 to 4 by people; the judge says the same, but one prompt upside down."""
    rows = [
        {
            "prompt": f"Question {n}?",
            "response": f"answer {n} worth {5 - k if n == 0 else k}",
            "score": k,
            "by": "ann",
        }
        for n in range(5)
        for k in (1, 2, 3, 4)
    ]
    gold = tmp_path / "gold.jsonl"
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pipeline = config(tmp_path, gold, ("scorer",), judges={"scores": {"judge": "pointwise", "read": "text"}})
    found = run(pipeline)
    assert (found["gold"]["scored"], found["gold"]["pairs"]) == (20, 30)  # six pairs a prompt
    judge = found["judges"]["scores"]
    assert judge["accuracy"]["value"] == pytest.approx(24 / 30)  # all six of the first prompt are wrong
    # Σd² = 9 + 1 + 1 + 9 = 20 scores apart; by ranks with ties, r is that of the scores: 1 − 20 / (2 · 20 · 1.25)
    assert judge["scores"]["spearman"]["value"] == pytest.approx(1 - 20 / (2 * 20 * 1.25))
    assert judge["scores"]["mean"] == {"judge": 2.5, "people": 2.5}
    assert judge["cost"]["calls"] == 20 and judge["order_consistency"] is None


def documented(heading: str) -> list[str]:
    text = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = re.split(r"^#+ ", text.split(f"### {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_the_docs_name_every_key(tmp_path: Path) -> None:
    pipeline = config(tmp_path, write_gold(tmp_path), slices=["domain"])
    found = run(pipeline)
    judge = found["judges"]["judge"]
    assert list(found) == documented("`calibration.json`")
    assert list(judge) == documented("A judge of `calibration.json`")
    start, end = list(judge).index("n"), list(judge).index("auroc")
    assert list(judge["slices"]["domain"]["odd"]) == list(judge)[start : end + 1]
    assert list(lines(pipeline, "disagreements.jsonl")[0]) == documented("`disagreements.jsonl`")
    round_ = json.loads((Path(pipeline.run) / "calibration" / "rounds" / "1.json").read_text())
    assert list(round_) == documented("`rounds/N.json`")
    files = {path.name for path in (Path(pipeline.run) / "calibration").iterdir()}
    assert files == {"prompts.jsonl", "responses.jsonl", "judgments.jsonl", "disagreements.jsonl", "calibration.json",
                     "rounds"}  # fmt: skip


def test_the_report_shows_people_beside_the_judge(tmp_path: Path) -> None:
    gold = write_gold(tmp_path, ann=lambda n, row: row["label"], ben=lambda n, row: row["label"])
    pipeline = config(tmp_path, gold, ("judge", "worse"), raters=["ann", "ben"], slices=["domain"],
                      judges={"mine": {}, "<other>": {"engine": "worse"}})  # fmt: skip
    run(pipeline)
    changed = pipeline.model_dump()
    changed["calibrate"]["judges"]["mine"] = {"engine": "worse"}
    run(validate(Pipeline, changed, "test"))
    figures = report.build(Path(pipeline.run), ReportSection())
    assert figures["calibration"]["pairs"] == 20
    assert figures["calibration"]["accuracy"]["mine"]["value"] == pytest.approx(4 / 20)
    page = (Path(pipeline.run) / "report.html").read_text()
    assert 'id="people"' in page and "Can mine be taken at its word?" in page
    assert "Reliability of &lt;other&gt;" in page and "<other>" not in page
    assert "ann (a person)" in page and "Choose none of them" in page
    assert "16 new" in page.replace("disagreements gone, ", "")


def test_a_report_without_calibration_has_no_such_section(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    figures = report.build(tmp_path / "run", ReportSection())
    assert figures["calibration"] is None
    assert 'id="people"' not in (tmp_path / "run" / "report.html").read_text()


# -- the command -----------------------------------------------------------------------------------------------------


def command(folder: Path, *arguments: str) -> int:
    base = [
        "calibrate",
        str(folder / "gold.jsonl"),
        "--run",
        str(folder / "run"),
        "--rubric",
        "helpfulness",
        "--quiet",
    ]
    engine = ["--engine", "scripted", "--set", "engines.judge.function=calibrate_judges:judge",
              "--set", "engines.judge.logprobs=true"]  # fmt: skip
    return cli.main([*base, *engine, *arguments])


def test_the_command_prints_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gold(tmp_path)
    assert command(tmp_path) == 0
    out = capsys.readouterr().out
    assert "accuracy      .800 [" in out and "choose judge (average)" in out
    assert "temperature map of 10 pairs, tested on 10 others" in out and "round 1" in out


def test_the_command_on_a_run_folder_with_its_own_gold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gold(tmp_path)
    assert command(tmp_path) == 0
    more = write_gold(tmp_path, ITEMS + [(0.8, 0.0)] * 4).rename(tmp_path / "more.jsonl")
    assert cli.main(["calibrate", str(tmp_path / "run"), "--gold", str(more), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "gold: 24 pairs" in out and "round 2" in out
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["stages"]["calibrate"]["requests"]["sent"] == 8  # the four new pairs, both orders


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gold(tmp_path)
    assert command(tmp_path, "--dry-run") == 0
    assert "calibrate: judge                40 requests" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_budget_stops_it_and_running_again_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gold(tmp_path)
    assert command(tmp_path, "--max-requests", "10") == 4
    assert not (tmp_path / "run" / "calibration" / "calibration.json").exists()
    assert command(tmp_path) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["last_run"]["sent"] == 30


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"label": lambda n, row: "better" if n == 5 else "a"}, [], "gold.jsonl:6: label: 'better' is no label"),
        ({"label": lambda n, row: "tie"}, [], "all 20 pairs are ties"),
        ({"label": lambda n, row: "a" if n < 4 else "tie"}, [], "4 pairs with a winner"),
        ({"label": lambda n, row: ""}, [], "no row with a usable label"),
        ({}, ["--set", "calibrate.test_fraction=0.9"], "2 pairs with a winner to fit a map on and 18 to test"),
        ({}, ["--set", "calibrate.slices=[topic]"], "no column 'topic'"),
        ({}, ["--set", "calibrate.map=spline"], "calibrate.map"),
        ({}, ["--set", "calibrate.judges={x: {engine: nobody}}"], "calibrate.judges.x.engine: no engine 'nobody'"),
        ({}, ["--set", "calibrate.judges={x: {rubrik: y}}"], "judges.x.rubrik"),
        ({}, ["--set", "calibrate.cascade={judges: [small]}"], "cascade.judges: no judge 'small'"),
        ({}, ["--set", "calibrate.gold=nothing.jsonl"], "nothing.jsonl: no such file"),
        ({}, ["--set", "engines.judge.function=calibrate_judges:mute"], "no pair has a usable judgment"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    tmp_path: Path,
    change: dict[str, Any],
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_gold(tmp_path, **change)
    assert command(tmp_path, *arguments) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and said in err[0]


def test_no_judge_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no judge section"):
        validate(Pipeline, {"run": "x", "calibrate": {"gold": "gold.jsonl"}}, "test")


def test_gold_without_pairs_needs_a_judge_that_scores(tmp_path: Path) -> None:
    gold = tmp_path / "gold.jsonl"
    rows = [{"prompt": f"item {n} p=.5 bias=0", "response": f"a GOOD answer {n}", "score": n} for n in range(12)]
    gold.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="no judge scored enough"):
        run(config(tmp_path, gold))
