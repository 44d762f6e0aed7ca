"""The command line: what it says without a run, and each stage alone on the user's own files."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from run_helpers import environment, http_config, manifest, rlaif, rows, succeed, tables, write_config, write_prompts
from stub_server import StubHandle

from rlaif import cli

# -- without a run --------------------------------------------------------------------------------------------------


def test_help_is_quick_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, rlaif.cli\n"
        "try: rlaif.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pandas', 'datasets', 'transformers', 'pyarrow', 'aiohttp', 'numpy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr == "[]\n"
    assert rlaif("--help", cwd=tmp_path).code == 0


@pytest.mark.parametrize(
    "command", ["run", "generate", "judge", "pair", "export", "evaluate", "report", "train", "show"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"rlaif {command}" in capsys.readouterr().out


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "commands:" in capsys.readouterr().out


def test_the_childs_command_is_not_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([])
    assert "_stage" not in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["frobnicate"])
    assert "_stage" not in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    import rlaif as package

    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"rlaif {package.__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device", "x"), 2, "No space left on device"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero (this is a bug in rlaif"),
        (ValueError("two\nlines"), 1, "ValueError: two lines"),
        (MemoryError(), 1, "MemoryError"),
    ],
)
def test_whatever_happens_is_one_line(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise error

    assert cli.guarded(command) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and said in lines[0]


# -- stages alone, on the user's own files --------------------------------------------------------------------------

ANSWERS = [
    {"question": f"Why is thing {n} useful?", "one": f"It helps {n} people.", "two": f"It does not, number {n}."}
    for n in range(6)
]


def as_jsonl(folder: Path) -> str:
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ANSWERS))
    return "answers.jsonl"


def as_csv(folder: Path) -> str:
    with (folder / "answers.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "one", "two"])
        writer.writeheader()
        writer.writerows(ANSWERS)
    return "answers.csv"


def as_parquet(folder: Path) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ANSWERS), folder / "answers.parquet")
    return "answers.parquet"


def judge_flags(server: StubHandle, *more: object) -> list[object]:
    columns = ["--columns", "prompt=question", "--columns", "response_a=one", "--columns", "response_b=two"]
    engine = ["--engine", "openai", "--model", "m", "--base-url", server.url]
    return [*columns, *engine, "--rubric", "helpfulness", "--run", "mine", "--quiet", *more]


@pytest.mark.integration  # whole runs in processes of their own
def test_judging_a_file_that_has_responses(tmp_path: Path, server: StubHandle) -> None:
    found = []
    for make in (as_jsonl, as_csv, as_parquet):
        folder = tmp_path / make.__name__
        folder.mkdir()
        succeed("judge", make(folder), *judge_flags(server), cwd=folder)
        judgments = rows(folder / "mine" / "judgments.jsonl")
        assert len(judgments) == len(ANSWERS) * 2 and all(row["probabilities"] for row in judgments)
        found.append((folder / "mine" / "judgments.jsonl").read_bytes())
    assert found[0] == found[1] == found[2], "the file's format is in no id"
    stats = server.stats()
    assert stats["unique"] == len(ANSWERS) * 2 and stats["requests"] == 3 * stats["unique"]


@pytest.mark.integration  # whole runs in processes of their own
def test_the_road_on_from_a_judged_file(tmp_path: Path, server: StubHandle) -> None:
    succeed("judge", as_jsonl(tmp_path), *judge_flags(server), cwd=tmp_path)
    asked = server.stats()["requests"]
    out = succeed("pair", "mine", "--set", "pair.min_margin=0.01", cwd=tmp_path).out
    n = len(rows(tmp_path / "mine" / "preferences.jsonl"))
    assert n and f"{n} preferences" in out
    succeed("export", "mine", "--set", "export.formats=[jsonl]", "--set", "export.test_fraction=0", cwd=tmp_path)
    exported = rows(tmp_path / "mine" / "dataset" / "train.jsonl")
    assert len(exported) == n
    texts = {row["question"]: {row["one"], row["two"]} for row in ANSWERS}
    for row in exported:
        (prompt,), (chosen,), (rejected,) = row["prompt"], row["chosen"], row["rejected"]
        assert {chosen["content"], rejected["content"]} == texts[prompt["content"]]
    succeed("report", "mine", cwd=tmp_path)
    assert (tmp_path / "mine" / "report.html").stat().st_size > 1000
    fewer = succeed("pair", "mine", "--set", "pair.min_margin=0.4", cwd=tmp_path).out
    assert "below_margin" in fewer and len(rows(tmp_path / "mine" / "preferences.jsonl")) < n
    assert server.stats()["requests"] == asked


CUSTOM_JUDGE = """
from rlaif.records import FIRST, SECOND, Judgment, make_id


class Longer:
    arity = 2

    def __init__(self, *, factor=1, **_):
        self.factor = factor

    def __call__(self, task):
        yield []
        one, two = task.responses
        first = 0.9 if len(one.text) * self.factor > len(two.text) else 0.1
        return [
            Judgment(
                id=make_id(task.id), prompt_id=task.prompt.id, response_ids=[one.id, two.id],
                verdict=FIRST if first > 0.5 else SECOND, probabilities={FIRST: first, SECOND: 1 - first},
            )
        ]
"""


@pytest.mark.integration  # whole runs in processes of their own
@pytest.mark.parametrize("command", [[str(Path(sys.executable).parent / "rlaif")], [sys.executable, "-m", "rlaif"]])
def test_a_judge_of_the_users_own_in_the_working_folder(
    tmp_path: Path, server: StubHandle, command: list[str]
) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 3)
    (tmp_path / "my_judge.py").write_text(CUSTOM_JUDGE)
    config = http_config(server.url, n=2)
    config["judge"] = {"engine": "judge", "judge": "my_judge:Longer", "options": {"factor": 2}}
    write_config(tmp_path / "p.yaml", config)
    env = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [*command, "run", "p.yaml", "--quiet"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "run" / "preferences.jsonl")) == 3
    assert server.stats()["requests"] == 6, "it asks nothing"


@pytest.mark.integration  # whole runs in processes of their own
def test_generating_for_a_file_of_prompts(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 3)
    engine = ["--engine", "openai", "--model", "m", "--base-url", server.url]
    succeed("generate", "prompts.jsonl", *engine, "--run", "mine", "--quiet", cwd=tmp_path)
    assert len(rows(tmp_path / "mine" / "responses.jsonl")) == 12
    flags = [
        "--engine",
        "openai",
        "--model",
        "m",
        "--base-url",
        server.url,
        "--constitution",
        "helpful-harmless-honest",
    ]
    succeed("judge", "mine", *flags, "--quiet", cwd=tmp_path)
    judgments = rows(tmp_path / "mine" / "judgments.jsonl")
    assert len(judgments) == 3 * 6 * 2 and all(row["principle"] for row in judgments)


@pytest.mark.integration  # whole runs in processes of their own
def test_stages_one_by_one_are_the_whole_run(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 5)
    write_config(tmp_path / "whole.yaml", http_config(server.url), run="whole")
    succeed("run", "whole.yaml", "--quiet", cwd=tmp_path)
    server.clear()
    write_config(tmp_path / "p.yaml", http_config(server.url))
    for stage in ("generate", "judge", "pair", "export", "report"):
        succeed(stage, "p.yaml", "--quiet", cwd=tmp_path)
    assert tables(tmp_path / "run") == tables(tmp_path / "whole")
    stats = server.stats()
    assert stats["requests"] == stats["unique"] == 5 * 4 + 5 * 6 * 2
    again = succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    assert again.out.count("up to date") == 5 and server.stats()["requests"] == stats["requests"]


@pytest.mark.integration  # whole runs in processes of their own
def test_stages_in_the_wrong_order_say_what_is_missing(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 2)
    write_config(tmp_path / "p.yaml", http_config(server.url))
    for stage, wanted in (("judge", "responses"), ("pair", "responses"), ("export", "preferences")):
        outcome = rlaif(stage, "p.yaml", "--quiet", cwd=tmp_path)
        assert outcome.code == 2 and f"{wanted}" in outcome.one_line and "not there yet" in outcome.one_line, outcome


@pytest.mark.integration  # whole runs in processes of their own
def test_show(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 25)
    config = http_config(server.url, n=2)
    write_config(tmp_path / "p.yaml", config)
    succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    run = tmp_path / "run"
    summary = succeed("show", "run", cwd=tmp_path).out
    assert "prompts 25 · responses 50 · judgments 50" in summary and "… and 5 more" in summary
    wanted = rows(run / "preferences.jsonl")[3]["prompt_id"]  # one that has a preference
    number = int(wanted.removeprefix("p"))
    one = succeed("show", "run", wanted, cwd=tmp_path).out
    assert f"thing number {number}?" in one and f"thing number {number + 1}?" not in one
    responses = [row for row in rows(run / "responses.jsonl") if row["prompt_id"] == wanted]
    judgments = [row for row in rows(run / "judgments.jsonl") if row["prompt_id"] == wanted]
    assert all(row["text"] in one for row in responses)
    assert all(row["id"] in one and row["reply_keys"][0] in one for row in judgments)
    assert "R1 then R2 shown" in one and "R2 then R1 shown" in one and "helpfulness@" in one
    for table in ("responses", "judgments", "preferences"):
        record: dict[str, Any] = next(row for row in rows(run / f"{table}.jsonl") if row["prompt_id"] == wanted)
        assert succeed("show", "run", record["id"], cwd=tmp_path).out == one
        assert succeed("show", "run", record["id"][:12], cwd=tmp_path).out == one
    unknown = rlaif("show", "run", "zzz", cwd=tmp_path)
    assert unknown.code == 2 and "no prompt, response, judgment or preference" in unknown.one_line
    vague = rlaif("show", "run", "p0", cwd=tmp_path)
    assert vague.code == 2 and "is the beginning of 25 ids" in vague.one_line


@pytest.mark.integration  # whole runs in processes of their own
def test_progress_is_plain_where_there_is_no_terminal(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 5)
    write_config(tmp_path / "p.yaml", http_config(server.url))
    outcome = succeed("run", "p.yaml", cwd=tmp_path)
    lines = outcome.err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["generate", "judge"] and "\x1b" not in outcome.err
    assert "5/5 rows" in lines[0] and "20 sent, 0 from journal" in lines[0] and "tokens" in lines[0]
    assert succeed("run", "p.yaml", "--force", "--quiet", cwd=tmp_path).err == ""
    assert manifest(tmp_path / "run")["last_run"]["from_journal"] == 20 + 60
