"""The stage on scripted engines: a policy that says BAD, one that says GOOD, and judges that can read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.config import Pipeline, validate
from rlaif.errors import ConfigError, DataError
from rlaif.records import Dropped, Judgment, Prompt, Response
from rlaif.stages import contest, evaluate
from rlaif.stages.base import Context
from rlaif.store import RunFolder

READS = [
    {"match": r"<?GOOD.*BAD", "reply": "Verdict: A"},
    {"match": "BAD.*GOOD", "reply": "Verdict: B"},
]
ALWAYS_FIRST = [{"reply": "Verdict: A"}]


def config(tmp_path: Path, prompts: list[str], **changes: Any) -> Pipeline:
    (tmp_path / "held.jsonl").write_text(
        "".join(json.dumps({"id": f"p{i}", "prompt": text, "domain": "d"}) + "\n" for i, text in enumerate(prompts))
    )
    raw: dict[str, Any] = {
        "run": str(tmp_path / "run"),
        "seed": 1,
        "engines": {
            "old": {"engine": "scripted", "replies": ["the BAD one"], "model": "old"},
            "new": {"engine": "scripted", "replies": [{"match": "long", "fail": "prompt_too_long"},
                                                      {"match": "empty", "reply": " "},
                                                      {"match": "", "reply": ["a GOOD one"]}], "model": "new"},
            "judge": {"engine": "scripted", "replies": READS, "model": "judge"},
            "second": {"engine": "scripted", "replies": ALWAYS_FIRST, "model": "second"},
        },
        "judge": {"rubric": "helpfulness", "orders": "random"},
        "evaluate": {
            "prompts": {"path": str(tmp_path / "held.jsonl")},
            "before": "old",
            "after": "new",
            "judges": ["judge", "second"],
            "metrics": ["tiny_metrics:quality"],
        },
    }  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition("__")
        raw[section] = {**raw[section], name: value} if name else value
    return validate(Pipeline, {k: v for k, v in raw.items() if v is not None}, "test")


def run(pipeline: Pipeline) -> tuple[dict[str, Any], dict[str, Any], RunFolder]:
    with RunFolder(pipeline.run) as folder:
        counts = evaluate.run(Context(pipeline, folder, quiet=True))
        result = json.loads((folder.path / "evaluation" / "evaluation.json").read_text())
    return counts, result, folder


@pytest.fixture(autouse=True)
def metrics_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tiny_metrics.py").write_text(
        "def quality(prompt, response):\n    return {'quality': float('GOOD' in response), 'odd': None}\n"
        "def broken(prompt, response):\n    raise KeyError('x')\n"
        "NUMBER = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_the_better_policy_wins_in_both_orders(tmp_path: Path) -> None:
    counts, result, folder = run(config(tmp_path, ["one", "two", "three"], evaluate__n=2))
    assert counts == {
        "prompts": 3, "prompts_also_trained_on": 0, "comparisons": 6, "judgments": 24, "dropped": {},
    }  # fmt: skip
    assert result["win_rate"]["judge"]["value"] == 1
    assert result["judges"]["judge"]["order_consistency"]["value"] == 1
    # A judge that always names the first response tells nothing once both orders are averaged.
    assert (result["win_rate"]["second"]["value"], result["win_rate"]["second"]["ties"]) == (0.5, 6)
    assert result["oracle_win_rate"]["value"] == 1
    assert result["judge_minus_oracle"]["judge"]["value"] == 0
    assert result["judge_minus_oracle"]["second"]["value"] == -0.5
    assert result["metrics"]["quality"]["difference"]["value"] == 1
    assert result["metrics"]["odd"] == {"before": None, "after": None, "difference": None}

    assert [row.id for row in folder.read("evaluation/prompts", Prompt)] == ["p0", "p1", "p2"]
    sources = [row.source for row in folder.read("evaluation/responses", Response)]
    assert sources == ["before", "after"] * 6
    judgments = list(folder.read("evaluation/judgments", Judgment))
    assert {row.judge for row in judgments} == {"judge", "second"}
    assert all(row.meta["orders"] == "both" for row in judgments)  # though labels use one random order


def test_run_again_asks_nothing_and_writes_the_same(tmp_path: Path) -> None:
    pipeline = config(tmp_path, ["one", "two"])
    run(pipeline)
    written = {path: path.read_bytes() for path in (tmp_path / "run" / "evaluation").iterdir()}
    journal = (tmp_path / "run" / "journal.jsonl").read_bytes()
    run(pipeline)
    assert {path: path.read_bytes() for path in (tmp_path / "run" / "evaluation").iterdir()} == written
    assert (tmp_path / "run" / "journal.jsonl").read_bytes() == journal


def test_what_cannot_be_compared_is_dropped_with_its_reason(tmp_path: Path) -> None:
    counts, result, folder = run(config(tmp_path, ["fine", "long", "empty", ""]))
    assert result["n"] == 1
    assert counts["dropped"] == {"empty_prompt": 1, "empty_response": 1, "prompt_too_long": 1}
    rows = list(folder.read("dropped", Dropped))
    assert {row.stage for row in rows} == {"evaluate"} and len(rows) == 3


def test_a_judge_that_answers_rubbish_gives_null(tmp_path: Path) -> None:
    engines = config(tmp_path, ["one"]).model_dump(exclude_defaults=True)["engines"]
    engines["judge"]["replies"] = [{"reply": "no idea"}]
    counts, result, _ = run(config(tmp_path, ["one"], engines=engines))
    assert result["win_rate"]["judge"] is None
    assert result["judges"]["judge"]["excluded"] == {"no_usable_judgment": 1}
    assert counts["dropped"] == {"judge_no_usable_judgment": 1}


def test_starting_policy_is_sampled_as_it_was_for_candidates(tmp_path: Path) -> None:
    samplers = [{"engine": "old", "n": 4, "system": "Be brief.", "stop": ["\n"], "temperature": 0.3}]
    pipeline = config(tmp_path, ["one"], generate={"samplers": samplers}, evaluate__before=None)
    assert pipeline.evaluate is not None
    found = contest.sampler_of(pipeline, pipeline.evaluate, "old", "new", "after")
    assert (found.engine, found.n, found.system, found.stop, found.temperature) == (
        "new",
        1,
        "Be brief.",
        ["\n"],
        1.0,
    )
    assert run(pipeline)[1]["win_rate"]["judge"]["value"] == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"judge": None}, ConfigError, "a judge section is needed"),
        ({"evaluate__metrics": ["nowhere"]}, ConfigError, "expected an import path"),
        ({"evaluate__metrics": ["tiny_metrics:nothing"]}, ConfigError, "tiny_metrics has no 'nothing'"),
        ({"evaluate__metrics": ["tiny_metrics:NUMBER"]}, ConfigError, "not a function"),
        ({"evaluate__metrics": ["tiny_metrics:broken"]}, ConfigError, "tiny_metrics:broken failed on response"),
        ({"evaluate__before": None}, ConfigError, "evaluate.before: name the starting policy"),
    ],
    ids=["no_judge", "no_colon", "no_attribute", "no_function", "failing_metric", "no_start"],
)
def test_bad_config(tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(config(tmp_path, ["one"], **changes))


def test_prompts_that_are_not_held_out_are_counted(tmp_path: Path) -> None:
    pipeline = config(tmp_path, ["one", "two", "three"])
    with RunFolder(pipeline.run) as folder:
        trained_on = [{"role": "user", "content": "two"}]
        folder.write("prompts", [Prompt(id="x", messages=trained_on)])
    counts, result, _ = run(pipeline)
    assert counts["prompts_also_trained_on"] == result["prompts_also_trained_on"] == 1


def test_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable prompt"):
        run(config(tmp_path, [""]))
    with pytest.raises(DataError, match=r"nothing to compare.*prompt_too_long"):
        run(config(tmp_path, ["long"]))


PANEL = {
    "judge": "panel",
    "rubric": "helpfulness",
    "orders": "random",
    "members": {"reads": {"engine": "judge"}, "biased": {"engine": "second"}},
}


def test_a_panel_judges_as_a_whole_or_its_members_alone(tmp_path: Path) -> None:
    together = config(tmp_path, ["one", "two"], judge=PANEL, evaluate__judges=[])
    counts, result, folder = run(together)
    assert counts["judgments"] == 2 * 2 * 2
    assert {j.member for j in folder.read("evaluation/judgments", Judgment)} == {"reads", "biased"}
    # one member is certain of the new answer, the other ties over both orders: ½ + ½·½
    assert result["win_rate"].keys() == {"panel"}
    assert result["judges"]["panel"]["mean_probability"]["value"] == 0.75
    alone = config(tmp_path, ["one", "two"], judge=PANEL, run=str(tmp_path / "alone"))
    _, result, _ = run(alone)
    assert result["win_rate"]["judge"]["value"] == 1
    assert result["win_rate"]["second"]["value"] == 0.5


SCORES = [
    {"match": "GOOD", "reply": json.dumps({"rationale": "", "scores": {"good": 4}})},
    {"match": "BAD", "reply": json.dumps({"rationale": "", "scores": {"good": 2}})},
]


def one_principle(tmp_path: Path) -> Path:
    path = tmp_path / "standard.yaml"
    path.write_text(
        "id: one\nversion: 1\nname: One\ndescription: One.\n"
        "principles: [{id: good, weight: 1, texts: [Choose the good one.]}]\n"
    )
    return path


def scoring(tmp_path: Path, judge: dict[str, Any], **changes: Any) -> Pipeline:
    """Judges that see one response at a time: the first gives GOOD more than BAD, the second everything the same."""
    found = config(tmp_path, ["one", "two"], judge=judge, evaluate__n=2, **changes).model_dump(exclude_unset=True)
    found["engines"]["judge"]["replies"] = SCORES
    found["engines"]["second"]["replies"] = [{"reply": SCORES[0]["reply"]}]
    return validate(Pipeline, found, "test")


def test_a_judge_that_scores_sees_each_response_once_and_the_scores_are_compared(tmp_path: Path) -> None:
    policies = {"policies": ["newer"], "each_other": True, "judges": ["judge", "second"]}
    pipeline = scoring(tmp_path, {"judge": "pointwise", "constitution": str(one_principle(tmp_path))})
    engines = {**pipeline.engines, "newer": pipeline.engines["new"]}
    section = pipeline.evaluate.model_copy(update=policies)  # type: ignore[union-attr]
    counts, result, folder = run(pipeline.model_copy(update={"engines": engines, "evaluate": section}))
    judgments = list(folder.read("evaluation/judgments", Judgment))
    assert {(j.kind, j.status, len(j.response_ids)) for j in judgments} == {("pointwise", "ok", 1)}
    # two prompts, two samples, three policies; two judges: every response once a judge, though each is in two matches
    assert counts["judgments"] == len(judgments) == 2 * 2 * 3 * 2
    assert result["win_rate"]["judge"]["value"] == 1
    assert result["win_rate"]["second"] == {**result["win_rate"]["second"], "value": 0.5, "ties": 4}
    assert result["judges"]["judge"]["order_consistency"] is None  # nothing was shown in an order
    assert [match["win_rate"]["judge"]["value"] for match in result["matches"]] == [1, 0.5]


def test_a_panel_that_scores_evaluates_too(tmp_path: Path) -> None:
    members = {"x": {"judge": "pointwise"}, "y": {"judge": "pointwise", "engine": "second"}}
    judge = {"judge": "panel", "constitution": str(one_principle(tmp_path)), "members": members}
    _, result, _ = run(scoring(tmp_path, judge, evaluate__judges=[]))
    assert result["judges"]["panel"]["mean_probability"]["value"] == 0.75  # one is certain, one ties


def test_a_judge_of_whole_lists_cannot_evaluate(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'listwise' neither compares two responses nor scores one"):
        run(config(tmp_path, ["one"], judge={"judge": "listwise", "rubric": "helpfulness"}))
