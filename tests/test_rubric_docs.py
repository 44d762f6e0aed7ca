"""What docs/rubrics.md shows is taken out of it and run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from rlaif.cli import main
from rlaif.config import JudgeSection
from rlaif.engines.base import Capabilities
from rlaif.judges import build
from rlaif.judges.base import Task
from rlaif.records import Prompt, Reply, Response
from rlaif.rubric import load_constitution, load_rubric
from rlaif.templates import load_frame

DOC = (Path(__file__).parent.parent / "docs" / "rubrics.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", DOC, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file that the page shows, under the name in its first line, and a row of data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for _, text in BLOCKS:
        name = re.match(r"(?:# |\{# )([\w.]+)", text)
        if name:
            Path(name.group(1)).write_text(text, encoding="utf-8")
    row = {"question": "How long do eggs boil?", "response_a": "Nine minutes.", "response_b": "An hour."}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path


def test_the_page_shows_every_kind_of_file() -> None:
    assert {path.name for path in Path().iterdir()} == {
        "my_rubric.yaml", "my_rules.yaml", "my_frame.jinja", "my_judges.py", "rows.jsonl",
    }  # fmt: skip


def test_the_commands_run(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [line[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines()]
    assert len(commands) >= 2
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "rlaif" and main(arguments) == 0
    assert "How long do eggs boil?" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["my_rubric.yaml", "my_rules.yaml"])
def test_the_standards_pass_the_check_also_through_the_frame(name: str) -> None:
    assert main(["rubric", "check", name]) == 0
    path = Path(name)
    path.write_text(path.read_text() + "frame: my_frame.jinja\n")
    assert main(["rubric", "check", name]) == 0


def test_the_scope_does_what_the_comment_says() -> None:
    rules = load_constitution("my_rules.yaml")
    ids = {
        domain: [principle.id for principle in rules.applicable(Prompt(id="p", messages=[], domain=domain))]
        for domain in ("vegan", "meat", None)
    }
    assert ids == {"vegan": ["safe", "veggie"], "meat": ["safe"], None: ["safe"]}


def test_the_table_of_variables_is_complete() -> None:
    from rlaif.rubric import pairwise_context

    context = pairwise_context(Prompt(id="p", messages=[{"content": "x"}]), [], [], None, None, None, "x")
    assert set(re.findall(r"^\| `(\w+)` \|", DOC, re.MULTILINE)) == set(context)


class NoEngine:
    """Judges make no call, so `build` only asks what the engine can do."""

    identity = model = "none"
    capabilities = Capabilities()


def test_the_judge_runs_on_replies_written_by_hand() -> None:
    section = JudgeSection(
        judge="my_judges:TwoSteps", rubric="my_rubric.yaml", options={"question": "Compare briefly."}
    )
    judge: Any = build(section, lambda role: NoEngine())  # type: ignore[arg-type]
    task = Task(
        prompt=Prompt(id="p", messages=[{"role": "user", "content": "Eggs?"}]),
        responses=[
            Response(id="good", prompt_id="p", text="Nine minutes."),
            Response(id="bad", prompt_id="p", text="x"),
        ],
    )
    assert judge.rubric.ref == load_rubric("my_rubric.yaml").ref
    run = judge(task)
    asked = next(run)
    assert [request.messages[-1]["content"].endswith("Compare briefly.") for request in asked] == [True, True]
    asked = run.send([Reply(text="The first is right.", key="1"), Reply(text="The second is right.", key="2")])
    assert [len(request.messages) for request in asked] == [4, 4]
    with pytest.raises(StopIteration) as done:
        run.send([Reply(text="Verdict: A", key="3"), Reply(text="No idea.", key="4")])
    first, second = done.value.value
    assert (first.response_ids, first.verdict, first.status) == (["good", "bad"], "first", "ok")
    assert (second.response_ids, second.verdict, second.status) == (["bad", "good"], None, "unparsed")
    assert second.probabilities is None


def test_the_frame_renders_both_kinds() -> None:
    assert load_frame(Path("my_frame.jinja")).variables == {
        "conversation", "responses", "rubric", "principle", "instruction",
    }  # fmt: skip
