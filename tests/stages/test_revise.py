"""`rlaif revise`, from a file of answers to a dataset of demonstrations, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlaif import cli

SCRIPT = [
    {"match": "(?s)bag.*Write your review", "reply": "Rude, and wrong."},
    {"match": "(?s)bag.*Write the response anew", "reply": "In water, ten minutes."},
    {"match": "(?s)silence.*Write your review", "reply": "", "finish_reason": "stop"},
    {"match": "Write your review", "reply": "It meets the standard."},
    {"match": "Write the response anew", "reply": "Boil it."},
]


@pytest.fixture
def answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": "egg", "prompt": "How do I boil an egg?", "responses": ["In a bag, you fool.", "Boil it."]},
        {"id": "hush", "prompt": "What is silence?", "responses": ["silence"], "level": 2},
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
    return path


def revise(*more: str) -> int:
    engine = ["--engine", "scripted", "--set", "engines.reviser.replies=script.json", "--quiet"]
    return cli.main(
        ["revise", "answers.jsonl", "--run", "run", "--constitution", "helpful-harmless-honest", *engine, *more]
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_originals_critiques_and_revisions_are_kept_and_the_last_becomes_a_demonstration(
    answers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = ["--set", "export.formats=[jsonl]", "--set", "export.test_fraction=0"]
    assert revise(*formats) == 0
    out = capsys.readouterr().out
    assert "1 unchanged" in out
    revisions = lines(Path("run/revisions.jsonl"))
    assert [row.get("text") for row in revisions] == ["In water, ten minutes.", "Boil it.", None]
    assert revisions[0]["critique"] == "Rude, and wrong." and revisions[2]["status"] == "unparsed"
    dropped = {(row["stage"], row["reason"]) for row in lines(Path("run/dropped.jsonl"))}
    assert dropped == {("revise", "revision_unparsed"), ("export", "no_revision")}
    rows = lines(Path("run/dataset-revised/train.jsonl"))
    assert [row["completion"][0]["content"] for row in rows] == ["In water, ten minutes.", "Boil it."]
    assert rows[0]["original"] == [{"role": "assistant", "content": "In a bag, you fool."}]
    assert all(
        key in {entry["key"] for entry in lines(Path("run/journal.jsonl"))} for key in revisions[0]["reply_keys"]
    )

    assert revise(*formats, "--force") == 0
    assert json.loads(Path("run/manifest.json").read_text())["last_run"]["sent"] == 0, "nothing is paid for twice"


def test_the_dry_run_counts_what_is_sent(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert revise("--set", "revise.rounds=2", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "12 requests" in out and "one request to the reviser" in out and not Path("run").exists()


def test_a_revision_loads_as_a_dataset(answers: Path) -> None:
    datasets = pytest.importorskip("datasets")
    assert revise("--set", "export.test_fraction=0") == 0
    found = datasets.load_dataset("run/dataset-revised", cache_dir="cache")["train"]
    assert found.column_names[:3] == ["prompt", "completion", "original"] and len(found) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "revise.rounds=0"], "revise.rounds"),
        (["--set", "revise.turns=2"], "revise.turns: unknown key"),
        (["--constitution", "tiny-wrold"], "did you mean 'tiny-world'"),
        (["--set", "revise.revision_frame=no.jinja"], "'no.jinja' not found"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str], message: str, answers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert revise(*flags) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1 and not Path("run/revisions.jsonl").exists()


def test_from_python(answers: Path) -> None:
    import rlaif

    rows = [{"prompt": "Why?", "response": "Because."}]
    engine = {"engine": "scripted", "default": "So."}
    (row,) = rlaif.revise(rows, engine=engine, rubric="helpfulness")
    assert (row["critique"], row["text"], row["round"], row["changed"]) == ("So.", "So.", 1, True)
