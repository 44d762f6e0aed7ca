"""Recordings through the real pipeline: as prompts, behind the replay engine, from the command line."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from recording_files import PAIRS, ROWS, put, write
from shared_data import recording, shared

from rlaif import cli
from rlaif.config import Pipeline
from rlaif.config import load as load_pipeline
from rlaif.engines.base import Engine, load
from rlaif.errors import ConfigError, EngineError, RequestFailed
from rlaif.fingerprint import fingerprint
from rlaif.recordings import read_gold
from rlaif.records import Gold, Judgment, Reply, Request, make_id
from rlaif.store import RunFolder

ONE, TWO = make_id("1", "1"), make_id("1", "2")


def ask(engine: Any, *subject: str, sample: int = 0) -> Reply:
    request = Request(role="judge", messages=[{"role": "user", "content": "?"}], subject=subject, sample=sample)
    reply: Reply = asyncio.run(engine.complete(request, seed=0))
    return reply


def judge(target: Path, run: Path, *arguments: str) -> list[Judgment]:
    assert cli.main(["judge", str(target), "--run", str(run), "--quiet", *arguments]) == 0
    return judgments(run)


def judgments(run: Path) -> list[Judgment]:
    with RunFolder(run) as folder:
        return list(folder.read("judgments", Judgment))


# -- the engine ------------------------------------------------------------------------------------------------------


def test_a_request_is_answered_by_what_it_judges(tmp_path: Path) -> None:
    engine = load({"engine": "replay", "path": str(write(tmp_path, PAIRS)), "by": "subject"})
    assert isinstance(engine, Engine) and engine.model == "judge-7b" and len(engine) == 3  # type: ignore[arg-type]
    assert ask(engine, "1", TWO, ONE).text == "I pick the second"
    assert not engine.capabilities.logprobs and engine.capabilities.by_subject


@pytest.mark.parametrize(
    ("subject", "sample", "message"),
    [
        (
            ("2", make_id("2", "2"), make_id("2", "1")),
            0,
            r"nothing recorded for 2, 1 under prompt '2'; only the other order",
        ),
        (("1", ONE, TWO), 1, r"nothing recorded for draw 1 of 1, 2 under prompt '1'$"),
        (("3", "x"), 0, r"nothing recorded for x under prompt '3'$"),
        ((), 0, "the request does not say what it judges"),
    ],
)
def test_what_was_not_recorded_fails(tmp_path: Path, subject: tuple[str, ...], sample: int, message: str) -> None:
    engine = load({"engine": "replay", "path": str(write(tmp_path, PAIRS))})
    with pytest.raises(RequestFailed, match=message) as caught:
        ask(engine, *subject, sample=sample)
    assert caught.value.kind == "not_recorded"


def test_the_draw_that_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, {**PAIRS, "repeats": "samples"}, [ROWS[0], {**ROWS[0], "out": "second"}])
    engine = load({"engine": "replay", "path": str(path)})
    assert [ask(engine, "1", ONE, TWO, sample=i).text for i in (0, 1)] == ["I pick the first", "second"]


def test_recordings_that_the_engine_cannot_use(tmp_path: Path) -> None:
    path = str(write(tmp_path, PAIRS))
    with pytest.raises(ConfigError, match=r"by: 'content'; allowed for .*recording.yaml: subject"):
        load({"engine": "replay", "path": path, "by": "content"})
    with pytest.raises(ConfigError, match=r"params.x: unknown parameter; there: none"):
        load({"engine": "replay", "path": path, "params": {"x": 1}})
    silent = str(write(tmp_path, {name: part for name, part in PAIRS.items() if name not in ("replies", "parse")}))
    with pytest.raises(EngineError, match="holds no replies"):
        load({"engine": "replay", "path": silent})


# -- the pipeline ----------------------------------------------------------------------------------------------------


def test_rlaif_judge_takes_a_recording_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path, PAIRS)
    found = judge(path, tmp_path / "run")
    assert [(j.prompt_id, j.status, j.verdict) for j in found] == [
        ("1", "ok", "first"),
        ("1", "ok", "second"),
        ("2", "ok", "second"),
        ("2", "error", None),
    ]
    assert "only the other order was" in str(found[3].reason)
    assert found[0].rubric == "as-recorded@1" and found[0].model == "judge-7b"
    assert found[0].rationale == "I pick the first"


def test_a_recording_before_a_live_judge(tmp_path: Path) -> None:
    """The pairs and texts of a recording, judged by somebody else."""
    found = judge(
        write(tmp_path, PAIRS),
        tmp_path / "run",
        "--rubric",
        "helpfulness",
        "--engine",
        "scripted",
        "--set",
        "engines.judge.default='Verdict: B'",
    )
    assert [(j.verdict, j.rubric) for j in found] == [("second", "helpfulness@1")] * 4


def test_one_order_of_some_pairs_with_the_same_texts_under_two_ids(tmp_path: Path) -> None:
    """Two questions in the same words are two questions: each keeps the verdict that was recorded for it."""
    rows = [
        {"p": p, "x": x, "y": y, "v": v}
        for p, x, y, v in [("p", "a", "b", "first"), ("p", "c", "b", "second"), ("q", "a", "b", "tie")]
    ]
    said = {
        "recording": "x",
        "data": "rows.jsonl",
        "prompts": {"id": "p", "text": "'Same?'"},
        "responses": [{"id": "x", "text": "join(' ', ['by', x])"}, {"id": "y", "text": "join(' ', ['by', y])"}],
        "replies": {"shown": ["x", "y"], "verdict": "v"},
    }
    path = write(tmp_path, said, rows)
    found = judge(path, tmp_path / "run")
    own = {make_id(p, r): r for p in "pq" for r in "abc"}
    assert [(j.prompt_id, *(own[i] for i in j.response_ids), j.verdict) for j in found] == [
        ("p", "a", "b", "first"),
        ("p", "c", "b", "second"),
        ("q", "a", "b", "tie"),
    ]


def test_recorded_rankings_and_scores_are_judgments_too(tmp_path: Path) -> None:
    rows = [{"id": "p", "list": ["x", "y", "z"], "best": ["z", "x", "y"]}]
    said = {"recording": "x", "data": "rows.jsonl", "prompts": {"id": "id"}}
    ranked = write(tmp_path, {**said, "replies": {"shown": "list", "ranking": "best"}}, rows)
    (found,) = judge(ranked, tmp_path / "ranks")
    assert found.ranking == [make_id("p", name) for name in "zxy"]
    rows = [{"m": "x", "s": 7.5, "t": 2}, {"m": "y", "s": 8, "t": None}]
    part = {"shown": ["m"], "scores": {"style": "s", "truth": "t"}}
    scored = write(tmp_path, {**said, "prompts": {"id": "'p'"}, "replies": part}, rows)
    both = judge(
        scored,
        tmp_path / "scores",
    )
    assert [j.scores for j in both] == [{"style": 7.5, "truth": 2.0}, {"style": 8.0, "truth": None}]


def test_recorded_probabilities_are_soft_labels(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        **PAIRS,
        "replies": {"shown": ["'1'", "'2'"], "probabilities": {"first": "p", "second": "s"}},
    }
    del said["parse"]
    path = write(tmp_path, said, [{**ROWS[0], "p": 0.3, "s": 0.6}])
    (found,) = judge(path, tmp_path / "run")
    assert found.verdict == "second" and found.label_mass == pytest.approx(0.9)
    assert found.probabilities == pytest.approx({"first": 1 / 3, "second": 2 / 3})


def test_a_stage_runs_again_when_a_file_behind_the_recording_changes(tmp_path: Path) -> None:
    path = write(tmp_path, PAIRS)
    source = {"path": str(path)}
    raw = {
        "run": str(tmp_path / "run"),
        "prompts": source,
        "engines": {"judge": {"engine": "replay", **source}},
        "judge": {"rubric": "as-recorded"},
    }
    config = Pipeline.model_validate(raw)
    folder = RunFolder(tmp_path / "run")
    before = [fingerprint(config, folder, stage) for stage in ("prompts", "judge")]
    assert [fingerprint(config, folder, stage) for stage in ("prompts", "judge")] == before
    put(tmp_path / "rows.jsonl", ROWS[:2])
    assert all(
        new != old
        for new, old in zip([fingerprint(config, folder, s) for s in ("prompts", "judge")], before, strict=True)
    )


def test_a_config_says_how_foreign_texts_are_read(tmp_path: Path) -> None:
    """`judge.parse` goes before what the recording says, and its file is looked for in the working folder."""
    patterns = tmp_path / "patterns.json"
    patterns.write_text(json.dumps({"mine": {"1": "second", "2": "first"}}), encoding="utf-8")
    parse = {"patterns": {"file": str(patterns), "first": 'mine."1"', "second": 'mine."2"'}, "take": "first"}
    source = {"path": str(write(tmp_path, PAIRS))}
    raw = {
        "run": str(tmp_path / "run"),
        "prompts": source,
        "engines": {"judge": {"engine": "replay", **source}},
        "judge": {"rubric": "as-recorded", "parse": parse},
    }
    pipeline = tmp_path / "pipeline.yaml"
    pipeline.write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert cli.main(["judge", str(pipeline), "--quiet"]) == 0
    assert [j.verdict for j in judgments(tmp_path / "run")] == ["second", "first", "first", None]
    config = load_pipeline(pipeline)
    before = fingerprint(config, RunFolder(tmp_path / "run"), "judge")
    patterns.write_text(json.dumps({"mine": {"1": "first", "2": "second"}}), encoding="utf-8")
    assert fingerprint(config, RunFolder(tmp_path / "run"), "judge") != before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["judge", "recording.yaml"], "name the run folder with --run DIR"),
        (["judge", "recording.yaml", "--run", "r", "--params", "x"], "--params 'x': expected NAME=VALUE"),
        (
            ["judge", "recording.yaml", "--run", "r", "--columns", "prompt=q"],
            "a recording says itself what its fields mean",
        ),
        (["recording", "check", "none.yaml"], "none.yaml: no such file"),
        (["recording", "check", "recording.yaml", "--prompt", "9"], "no prompt '9'; there, for example: 1, 2"),
    ],
)
def test_what_the_command_line_refuses(
    tmp_path: Path, monkeypatch: Any, capsys: Any, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, PAIRS)
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_recording_check_shows_what_was_understood(tmp_path: Path, capsys: Any) -> None:
    said = {**PAIRS, "gold": {"winner": "gold", "map": {"0": "tie"}}}
    path = write(tmp_path, said, [{**row, "gold": i} for i, row in enumerate(ROWS)])
    assert cli.main(["recording", "check", str(path)]) == 0
    out = capsys.readouterr().out
    for line in (
        "2 prompts, 4 responses",
        "replies: 3, to 3 questions about 2 responses",
        "pairs: 2, of them in both orders: 1",
        "read as: second 2, first 1",
        "judge: {rubric: as-recorded, judge: pairwise, pairs: listed, orders: both}",
        "gold labels: tie 1, first 1, second 1",
        "shown 2 (big) | 1 (small) → second: I pick the second",
        "gold on 1 (small) | 2 (big): tie, first",
    ):
        assert line in out, out


# -- real recordings, as a user runs them ----------------------------------------------------------------------------


def test_llmbar_through_the_pipeline(tmp_path: Path) -> None:
    """One evaluator whose texts must be read by its own patterns: the publisher's figures for every subset."""
    path, evaluator = recording("llmbar"), "ChatGPT/CoT"
    found = judge(path, tmp_path / "run", "--params", f"evaluator={evaluator}")
    gold = {g.prompt_id: g for g in read_gold(path)}
    right = Counter((j.prompt_id.rpartition("/")[0], agrees(j, gold[j.prompt_id])) for j in found)
    published = json.loads(shared("llmbar/llmbar_statistics.json").read_text(encoding="utf-8"))
    for subset in {subset for subset, _ in right}:
        accuracy = 100 * right[subset, True] / (right[subset, True] + right[subset, False])
        said = float(published[f"{subset}|{evaluator}"]["correct_average"].rstrip("%"))
        assert accuracy == pytest.approx(said, abs=1e-6), subset
    assert len(found) == 838 and Counter(j.status for j in found) == {"ok": 833, "unparsed": 5}


def agrees(judgment: Judgment, gold: Gold) -> bool:
    told = gold if gold.response_ids == judgment.response_ids else gold.swap()
    return judgment.verdict == told.labels[0]


def test_qlora_through_the_pipeline(tmp_path: Path) -> None:
    found = judge(recording("qlora_pairs"), tmp_path / "run")
    assert Counter(j.verdict or j.status for j in found) == {
        "first": 2512,
        "second": 1355,
        "tie": 600,
        "unparsed": 13,
    }


def test_pandalm_in_its_one_order_through_the_pipeline(tmp_path: Path) -> None:
    found = judge(recording("pandalm"), tmp_path / "run")
    assert Counter(j.verdict or j.status for j in found) == {"first": 460, "second": 476, "tie": 38, "unparsed": 25}
