"""What can be wrong with files, flags, servers and disks: exit code 2 and one line, or a row in dropped.jsonl."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from run_helpers import (
    Outcome,
    finish,
    http_config,
    kill,
    manifest,
    rlaif,
    rows,
    start,
    succeed,
    wait_for,
    write_config,
    write_prompts,
)
from stub_server import StubHandle

pytestmark = pytest.mark.integration  # whole runs in processes of their own

Change = Callable[[Path, dict[str, Any]], list[str] | None]


@pytest.fixture
def config(tmp_path: Path, server: StubHandle) -> dict[str, Any]:
    write_prompts(tmp_path / "prompts.jsonl", 4)
    return http_config(server.url, n=2)


def run(folder: Path, config: Mapping[str, Any], *arguments: str, env: Mapping[str, str] | None = None) -> Outcome:
    write_config(folder / "p.yaml", config)
    return rlaif("run", "p.yaml", "--quiet", *arguments, cwd=folder, env=env)


def set_key(*path: str | int, value: Any) -> Change:
    def change(_: Path, config: dict[str, Any]) -> None:
        node: Any = config
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value

    return change


def flags(*arguments: str) -> Change:
    return lambda _, __: list(arguments)


def prompts_file(content: str | bytes, name: str = "prompts.jsonl") -> Change:
    def change(folder: Path, config: dict[str, Any]) -> None:
        (folder / name).write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
        config["prompts"]["path"] = name

    return change


def frame(text: str) -> Change:
    def change(folder: Path, config: dict[str, Any]) -> None:
        (folder / "mine.jinja").write_text(text)
        config["judge"]["frame"] = "mine.jinja"

    return change


SAMPLER = ("generate", "samplers", 0)
REFUSED: dict[str, tuple[Change, str]] = {
    # files
    "missing file": (set_key("prompts", "path", value="nowhere.jsonl"), r"nowhere\.jsonl: no such file"),
    "unknown format": (prompts_file("x", "prompts.txt"), r"prompts\.txt: cannot tell the format"),
    "wrong column": (prompts_file('{"question": "a?"}\n'), r"no column 'prompt'.*there: question"),
    "misspelled column": (prompts_file('{"promt": "a?"}\n'), r"no column 'prompt', did you mean 'promt'"),
    "mapped column missing": (set_key("prompts", "columns", value={"prompt": "q"}), r"no column 'q' \(for prompt"),
    "unknown name in columns": (set_key("prompts", "columns", value={"promt": "q"}), r"columns: unknown name"),
    "not JSON": (prompts_file('{"prompt": "a?"}\n{"prompt": \n'), r"prompts\.jsonl:2: not JSON"),
    "a row that is no object": (prompts_file('{"prompt": "a?"}\n[1]\n'), r"prompts\.jsonl:2: expected an object"),
    "not UTF-8": (prompts_file(b'{"prompt": "a?"}\n{"prompt": "\xff"}\n'), r"prompts\.jsonl:2: not UTF-8"),
    "one id, two texts": (
        prompts_file('{"id": "x", "prompt": "a?"}\n{"id": "x", "prompt": "b?"}\n'),
        r"prompts\.jsonl:2: .*'?x'?",
    ),
    "empty file": (prompts_file(""), r"prompts\.jsonl: no usable prompt"),
    "only blank lines": (prompts_file("\n\n"), r"prompts\.jsonl: no usable prompt"),
    "only empty prompts": (prompts_file('{"prompt": " "}\n'), r"no usable prompt \(1 empty_prompt\)"),
    "torn gzip": (prompts_file(b"\x1f\x8b\x08\x00", "p.jsonl.gz"), r"p\.jsonl\.gz: cannot read"),
    "torn Parquet": (prompts_file(b"PAR1", "p.parquet"), r"p\.parquet: "),
    "CSV with too few cells": (prompts_file("id,prompt\n1\n", "p.csv"), r"p\.csv"),
    "a folder of nothing": (lambda folder, config: _empty_folder(folder, config), r"empty"),
    # the config
    "unknown key": (set_key("jugde", value={}), r"p\.yaml: jugde: unknown key; allowed here: .*judge"),
    "unknown nested key": (set_key("judge", "order", value="both"), r"judge\.order: unknown key; .*orders"),
    "unknown key in a list": (set_key(*SAMPLER, "temprature", value=1), r"samplers\.0\.temprature: unknown key"),
    "unknown engine": (set_key("engines", "judge", "engine", value="opnai"), r"judge: unknown engine 'opnai'"),
    "unknown engine argument": (set_key("engines", "judge", "base_ulr", value="x"), r"engines\.judge: .*base_ulr"),
    "engine without a model": (set_key("engines", "judge", value={"engine": "openai"}), r"engines\.judge: .*model"),
    "engine that is not listed": (set_key("judge", "engine", value="jdge"), r"no engine 'jdge' under engines:"),
    "unknown model folder": (
        set_key("engines", "policy", value={"engine": "transformers", "model": "./no-model"}),
        r"no-model",
    ),
    "unknown rubric": (set_key("judge", "rubric", value="helpfulnes"), r"helpfulnes.*did you mean"),
    "unknown constitution": (
        set_key("judge", value={"engine": "judge", "constitution": "nothing.yaml"}),
        r"nothing\.yaml",
    ),
    "rubric and constitution": (set_key("judge", "constitution", value="tiny-world"), r"not both"),
    "no standard": (set_key("judge", value={"engine": "judge"}), r"name a rubric or a constitution"),
    "unknown judge": (set_key("judge", "judge", value="pairwize"), r"judge\.judge: unknown judge 'pairwize'"),
    "judge that cannot be imported": (set_key("judge", "judge", value="nowhere:Judge"), r"cannot import 'nowhere:"),
    "unknown option of a judge": (set_key("judge", "options", value={"a": 1}), r"judge\.options: .*'a'"),
    "unknown selector": (set_key("pair", "select", value="best"), r"pair\.select"),
    "frame that is not there": (set_key("judge", "frame", value="no.jinja"), r"no\.jinja"),
    "frame with a missing variable": (
        frame("{{ conversation }} {{ answer_key }} {{ instruction }}"),
        r"mine\.jinja: the frame wants answer_key; it is given .*responses",
    ),
    "frame with a syntax error": (frame("line\n{% if %}"), r"mine\.jinja:2: "),
    "frame that never ends": (frame("{% for a in range(9**9) %}x{% endfor %}"), r"mine\.jinja"),
    "temperature below zero": (set_key(*SAMPLER, "temperature", value=-1), r"samplers\.0\.temperature: .*got '-1'"),
    "temperature not a number": (set_key(*SAMPLER, "temperature", value=float("nan")), r"temperature: .*'nan'"),
    "infinite temperature": (set_key(*SAMPLER, "temperature", value=float("inf")), r"temperature: .*'inf'"),
    "no samples": (set_key(*SAMPLER, "n", value=0), r"samplers\.0\.n: "),
    "samples in words": (set_key(*SAMPLER, "n", value="four"), r"samplers\.0\.n: .*'four'"),
    "several samples at temperature 0": (set_key(*SAMPLER, "temperature", value=0), r"n: 2 at temperature 0"),
    "top_p of zero": (set_key(*SAMPLER, "top_p", value=0), r"top_p: "),
    "no tokens": (set_key(*SAMPLER, "max_tokens", value=0), r"max_tokens: "),
    "no samplers": (set_key("generate", "samplers", value=[]), r"generate\.samplers: "),
    "margin of one": (set_key("pair", "min_margin", value=1), r"pair\.min_margin: "),
    "margin not a number": (set_key("pair", "min_margin", value=float("nan")), r"pair\.min_margin: "),
    "weight not a number": (
        set_key("pair", "principle_weights", value={"kind": float("nan")}),
        r"pair\.principle_weights\.kind: .*'nan'",
    ),
    "all prompts held out": (set_key("export", "test_fraction", value=1), r"export\.test_fraction: "),
    "unknown export format": (set_key("export", "formats", value=["csv"]), r"export\.formats\.0: "),
    "no export format": (set_key("export", "formats", value=[]), r"export\.formats: "),
    "negative price": (set_key("engines", "judge", "price", value={"prompt": -1}), r"price\.prompt: "),
    "a base URL that is none": (set_key("engines", "judge", "base_url", value="localhost"), r"base_url 'localhost'"),
    "no concurrency": (set_key("engines", "judge", "concurrency", value=0), r"judge\.concurrency: .*got 0"),
    "concurrency in words": (set_key("engines", "judge", "concurrency", value="x"), r"judge\.concurrency: .*'x'"),
    # flags
    "--limit 0": (flags("--limit", "0"), r"prompts\.limit: "),
    "--limit x": (flags("--limit", "x"), r"--limit: invalid int value: 'x'"),
    "--max-requests -1": (flags("--max-requests", "-1"), r"budget\.max_requests: "),
    "--max-cost nan": (flags("--max-cost", "nan"), r"budget\.max_cost: "),
    "--set without a value": (flags("--set", "judge.orders"), r"--set 'judge\.orders': expected key=value"),
    "--set of nothing": (flags("--set", "=1"), r"--set '=1': expected key=value"),
    "--set that is no YAML": (flags("--set", "seed=[1"), r"the value is not YAML"),
    "--set of an unknown key": (flags("--set", "judge.ordres=both"), r"judge\.ordres: unknown key"),
    "--set past a list": (flags("--set", "generate.samplers.7.n=1"), r"'7' is not an index into a list of 1"),
    "--set into a text": (flags("--set", "run.x=1"), r"'run' holds 'run', not a mapping"),
    "--set of a wrong value": (flags("--set", "judge.orders=three"), r"judge\.orders: .*'three'"),
    "--retry x": (flags("--retry", "x"), r"--retry: invalid choice"),
    # the run folder
    "a run folder that is a file": (flags("--run", "prompts.jsonl"), r"prompts\.jsonl: cannot use this run folder"),
    "a run folder below a file": (flags("--run", "prompts.jsonl/run"), r"run folder: Not a directory"),
    "a run folder where none can be": (flags("--run", "/proc/run"), r"/proc/run: cannot use this run folder"),
    "an empty run folder": (flags("--run", ""), r"run: "),
}  # fmt: skip


def _empty_folder(folder: Path, config: dict[str, Any]) -> None:
    (folder / "empty").mkdir()
    config["prompts"]["path"] = "empty"


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_line(tmp_path: Path, config: dict[str, Any], server: StubHandle, name: str) -> None:
    change, expected = REFUSED[name]
    arguments = change(tmp_path, config) or []
    outcome = run(tmp_path, config, *arguments)
    assert outcome.code == 2, outcome
    assert re.search(expected, outcome.one_line), outcome.one_line
    assert len(outcome.one_line) < 600
    assert "Traceback" not in outcome.err and "rlaif itself" not in outcome.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "expected a mapping at the top, got NoneType"),
        ("- a\n", "expected a mapping at the top, got list"),
        ("run: [", "not YAML"),
        ("run: !!python/object/apply:os.system ['true']", "not YAML"),
        ("seed: 1\n", "run: Field required"),
        ("run: \xff", "p.yaml"),
    ],
)
def test_pipelines_that_are_none(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "p.yaml").write_bytes(text.encode("latin-1"))
    outcome = rlaif("run", "p.yaml", cwd=tmp_path)
    assert outcome.code == 2 and expected in outcome.one_line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "quickstrat"], "did you mean 'quickstart'"),
        (["run", "."], "not a run folder"),
        (["pair", "nowhere"], "no such pipeline or run folder"),
        (["show", "nowhere"], "nowhere: not a run folder"),
        (["report", "nowhere"], "no such pipeline or run folder"),
        (["judge", "answers.jsonl", "--run", "r"], "name an engine with --engine"),
        (["judge", "answers.jsonl", "--engine", "openai"], "name the run folder with --run"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run"], "the following arguments are required: PIPELINE"),
    ],
)
def test_commands_that_make_no_sense(tmp_path: Path, arguments: list[str], expected: str) -> None:
    outcome = rlaif(*arguments, cwd=tmp_path)
    assert outcome.code == 2 and expected in outcome.one_line


# -- rows that cannot be used, in runs that can go on ---------------------------------------------------------------


def test_rows_that_cannot_be_used_are_dropped(tmp_path: Path, config: dict[str, Any]) -> None:
    good = '{"id": "good", "prompt": "What is the use of thing number 1?"}\n'
    bad = [
        '{"id": "e", "prompt": "  "}',
        '{"id": "n", "prompt": null}',
        '{"id": "s", "prompt": "half of a pair: \\ud83d"}',
        '{"id": "a", "prompt": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}',
        '{"id": "r", "prompt": [{"role": "robot", "content": "Hi"}]}',
        '{"id": "good", "prompt": "What is the use of thing number 1?"}',
    ]
    (tmp_path / "prompts.jsonl").write_text(good + "\n".join(bad) + "\n")
    outcome = run(tmp_path, config)
    assert outcome.code == 0, outcome.err
    dropped = [row for row in rows(tmp_path / "run" / "dropped.jsonl") if row["stage"] == "prompts"]
    assert Counter(row["reason"] for row in dropped) == {
        "empty_prompt": 2, "lone_surrogate": 1, "not_user_turn": 1, "unknown_role": 1, "duplicate_prompt": 1,
    }  # fmt: skip
    assert all("prompts.jsonl:" in row["id"] + row.get("detail", "") for row in dropped), "they say where they stood"
    assert [row["id"] for row in rows(tmp_path / "run" / "prompts.jsonl")] == ["good"]


def test_a_response_of_a_megabyte(tmp_path: Path, config: dict[str, Any], server: StubHandle) -> None:
    server.set(pad=1_000_000)
    config["judge"]["read"] = "logprobs"
    config["pair"]["select"] = "best_vs_worst"
    assert run(tmp_path, config, "--limit", "2").code == 0
    responses = rows(tmp_path / "run" / "responses.jsonl")
    assert len(responses) == 4 and all(len(row["text"]) > 1_000_000 for row in responses)


def test_a_model_that_answers_nothing(tmp_path: Path, config: dict[str, Any], server: StubHandle) -> None:
    server.set(rate_refusal=1)
    outcome = run(tmp_path, config)
    assert outcome.code == 2
    assert "no preference survived" in outcome.one_line
    dropped = Counter((row["stage"], row["reason"]) for row in rows(tmp_path / "run" / "dropped.jsonl"))
    assert dropped["generate", "refused"] == 8 and dropped["judge", "no_response"] == 4


@pytest.mark.parametrize("read", ["logprobs", "text"])
def test_a_judge_that_answers_rubbish(tmp_path: Path, config: dict[str, Any], server: StubHandle, read: str) -> None:
    succeed("generate", write_config(tmp_path / "p.yaml", config), "--quiet", cwd=tmp_path)
    server.set(rate_rubbish=1)
    config["judge"]["read"] = read
    outcome = run(tmp_path, config)
    assert outcome.code == 2
    assert re.search(r"no preference survived: .*8 judgment_unparsed", outcome.one_line)
    judgments = rows(tmp_path / "run" / "judgments.jsonl")
    assert [row["status"] for row in judgments] == ["unparsed"] * 8
    assert all(row["reply_keys"] and "verdict" not in row for row in judgments)
    server.set(rate_rubbish=0)
    assert run(tmp_path, config, "--retry", "unparsed").code == 0


def test_a_prompt_too_long_for_the_model(tmp_path: Path, config: dict[str, Any], server: StubHandle) -> None:
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write(json.dumps({"id": "long", "prompt": "word " * 3000}) + "\n")
    server.set(context_tokens=2000)
    outcome = run(tmp_path, config)
    assert outcome.code == 0, outcome.err
    dropped = [row for row in rows(tmp_path / "run" / "dropped.jsonl") if row["stage"] == "generate"]
    assert [row["reason"] for row in dropped] == ["prompt_too_long"] * 2


# -- servers --------------------------------------------------------------------------------------------------------


def test_a_server_that_is_down(tmp_path: Path, config: dict[str, Any]) -> None:
    for engine in config["engines"].values():
        engine["base_url"] = "http://127.0.0.1:9/v1"
    outcome = run(tmp_path, config)
    assert outcome.code == 2 and "server down: http://127.0.0.1:9/v1 (Connection refused)" in outcome.one_line


def test_a_model_that_the_server_does_not_have(tmp_path: Path, config: dict[str, Any], server: StubHandle) -> None:
    server.set(models="one,two")
    outcome = run(tmp_path, config)
    assert outcome.code == 2 and re.search(r"model 'stub'.*it serves: one, two", outcome.one_line)


KEY = "sk-very-secret-8d1c"


def everything_in(folder: Path) -> Iterator[bytes]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path.read_bytes()


@pytest.mark.parametrize("right", ["sk-another-key", KEY], ids=["wrong key", "right key"])
def test_keys_are_written_nowhere(tmp_path: Path, config: dict[str, Any], server: StubHandle, right: str) -> None:
    """The server repeats a wrong key in its error message."""
    server.set(api_key=right)
    for engine in config["engines"].values():
        engine["api_key_env"] = "STUB_KEY"
    outcome = run(tmp_path, config, env={"STUB_KEY": KEY})
    assert outcome.code == (0 if right == KEY else 2)
    if right != KEY:
        assert "HTTP 401: the server refuses the key in $STUB_KEY" in outcome.one_line
    assert server.stats()["last"]["authorization"] == f"Bearer {KEY}"
    assert KEY not in outcome.out + outcome.err
    assert (tmp_path / "run" / "manifest.json").exists()
    assert not [content for content in everything_in(tmp_path) if KEY.encode() in content]


@pytest.mark.parametrize("status", [400, 422, 500, 503])
def test_keys_that_come_back_in_an_error_are_written_nowhere(
    tmp_path: Path, config: dict[str, Any], server: StubHandle, status: int
) -> None:
    server.set(status=status, error=json.dumps({"error": {"message": f"bad request with key {KEY}"}}))
    for engine in config["engines"].values():
        engine["api_key_env"] = "STUB_KEY"
    outcome = run(tmp_path, config, "--set", "budget.retries=0", env={"STUB_KEY": KEY})
    assert outcome.code == 2 and "no preference survived" in outcome.one_line
    assert KEY not in outcome.out + outcome.err
    assert not [content for content in everything_in(tmp_path) if KEY.encode() in content]


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_key_that_is_not_set(tmp_path: Path, config: dict[str, Any], server: StubHandle, value: str | None) -> None:
    for engine in config["engines"].values():
        engine["api_key_env"] = "STUB_KEY_THAT_IS_NOT_SET"
    outcome = run(tmp_path, config, env={} if value is None else {"STUB_KEY_THAT_IS_NOT_SET": value})
    assert outcome.code == 2
    assert "environment variable STUB_KEY_THAT_IS_NOT_SET is not set" in outcome.one_line
    assert server.stats()["requests"] == 0


# -- disks and folders ----------------------------------------------------------------------------------------------


def limited(folder: Path, blocks: int) -> Outcome:
    """No file may grow beyond `blocks` KiB: the kernel refuses the write that would do it."""
    script = 'ulimit -f "$1"; shift; exec "$@"'
    command = ["bash", "-c", script, "-", str(blocks), *_rlaif(), "run", "p.yaml", "--quiet"]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=60)
    return Outcome(done.returncode, done.stdout, done.stderr)


def _rlaif() -> list[str]:
    import sys

    return [sys.executable, "-m", "rlaif"]


def _environment() -> dict[str, str]:
    from run_helpers import environment

    return environment()


@pytest.mark.parametrize("blocks", [1, 8, 30, 60])
def test_a_disk_that_is_full(tmp_path: Path, config: dict[str, Any], server: StubHandle, blocks: int) -> None:
    """In the manifest, the journal or a table, whichever is first; with space again, the same command finishes."""
    write_prompts(tmp_path / "prompts.jsonl", 12)
    config["generate"]["samplers"][0]["n"] = 4
    write_config(tmp_path / "p.yaml", config)
    outcome = limited(tmp_path, blocks)
    assert outcome.code == 2
    assert re.search(r"run/(manifest\.json|\w+\.jsonl): cannot write.*: File too large", outcome.one_line)
    kept = (tmp_path / "run" / "journal.jsonl").read_bytes() if (tmp_path / "run" / "journal.jsonl").exists() else b""
    assert kept == b"" or kept.endswith(b"\n")
    assert not list((tmp_path / "run").rglob(".*.tmp"))
    assert run(tmp_path, config).code == 0
    stats = server.stats()
    assert stats["requests"] - stats["unique"] <= 64, "only what was in flight when the disk was full is asked again"


def test_a_disk_that_is_really_full(tmp_path: Path, config: dict[str, Any]) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small disk here")
    try:
        write_prompts(tmp_path / "prompts.jsonl", 40)
        outcome = run(tmp_path, config, "--run", str(disk / "run"))
        assert outcome.code == 2 and "No space left on device" in outcome.one_line
        subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
        assert run(tmp_path, config, "--run", str(disk / "run")).code == 0
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        readonly = run(tmp_path, config, "--run", str(disk / "run"))
        assert readonly.code == 2 and "Read-only file system" in readonly.one_line
    finally:
        subprocess.run(["umount", disk], check=False)


def test_two_runs_on_one_folder(tmp_path: Path, config: dict[str, Any], server: StubHandle) -> None:
    server.set(hang="number 3?")
    write_config(tmp_path / "p.yaml", config)
    first = start(["run", "p.yaml", "--quiet"], tmp_path)
    wait_for(lambda: server.stats()["requests"] >= 8)
    outcome = run(tmp_path, config)
    assert outcome.code == 2 and "another rlaif process is working on this run folder" in outcome.one_line
    shown = succeed("show", "run", cwd=tmp_path)
    assert "prompts 4" in shown.out, "reading beside a run is allowed"
    assert first.poll() is None
    kill(first)
    server.set(hang="")
    assert run(tmp_path, config).code == 0, "and the folder is free at once when the first has died"


def test_a_run_folder_of_a_newer_version(tmp_path: Path, config: dict[str, Any]) -> None:
    assert run(tmp_path, config).code == 0
    path = tmp_path / "run" / "manifest.json"
    path.write_text(json.dumps({**manifest(tmp_path / "run"), "schema_version": 99}))
    outcome = run(tmp_path, config)
    assert outcome.code == 2 and "schema version 99 is newer" in outcome.one_line


def test_a_journal_of_a_newer_version(tmp_path: Path, config: dict[str, Any], server: StubHandle) -> None:
    assert run(tmp_path, config).code == 0
    path = tmp_path / "run" / "journal.jsonl"
    first, rest = path.read_text().split("\n", 1)
    path.write_text(json.dumps({**json.loads(first), "v": 99}) + "\n" + rest)
    server.clear()
    outcome = run(tmp_path, config)
    assert outcome.code == 2 and "journal.jsonl:1: schema version 99" in outcome.one_line
    assert server.stats()["requests"] == 0


@pytest.mark.parametrize("name", ["responses", "judgments", "preferences"])
def test_a_table_that_somebody_damaged(tmp_path: Path, config: dict[str, Any], name: str) -> None:
    assert run(tmp_path, config).code == 0
    path = tmp_path / "run" / f"{name}.jsonl"
    path.write_text(path.read_text() + "{not a row\n")
    after = {"responses": "judge", "judgments": "pair", "preferences": "export"}[name]
    outcome = rlaif(after, "run", "--quiet", cwd=tmp_path)
    assert outcome.code == 2 and re.search(rf"{name}\.jsonl:\d+: not a ", outcome.one_line)


def test_a_child_that_is_killed_is_said(tmp_path: Path) -> None:
    """As the kernel does when memory runs out."""
    from run_helpers import tiny_config

    config = write_config(tmp_path / "p.yaml", tiny_config(prompts=40), judge=None, pair=None, export=None)
    process = start(["run", config, "--quiet"], tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: children.read_text().split())
    time.sleep(0.5)
    os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    outcome = finish(process, 20)
    assert outcome.code == 137 and "was ended by signal 9; did it run out of memory?" in outcome.one_line
