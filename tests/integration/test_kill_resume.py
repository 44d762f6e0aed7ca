"""kill -9 at any moment, and the same command finishes with the same bytes."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from run_helpers import (
    REPO,
    assert_no_row_twice,
    http_config,
    kill,
    manifest,
    rows,
    start,
    succeed,
    tables,
    tiny_config,
    wait_for,
    wait_until_gone,
    write_config,
    write_prompts,
)
from stub_server import StubHandle

pytestmark = pytest.mark.integration  # whole runs in processes of their own

CONCURRENCY = 16
FAULTS = {"rate_429": 0.03, "rate_500": 0.03, "rate_drop": 0.02, "rate_half": 0.02, "retry_after": "0.2"}


def unbroken(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    write_config(folder / "unbroken.yaml", config, run="unbroken")
    succeed("run", "unbroken.yaml", "--quiet", cwd=folder)
    return tables(folder / "unbroken")


def journal_rows(run: Path) -> int:
    path = run / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("faults", [{}, FAULTS], ids=["sound server", "faulty server"])
def test_ten_kills(tmp_path: Path, server: StubHandle, faults: dict[str, Any]) -> None:
    """Eight kills after a number of recorded replies, spread over all the requests; two after a time, which hit the
    start, or a stage that asks nothing."""
    write_prompts(tmp_path / "prompts.jsonl", 60)
    config = http_config(server.url)
    expected = unbroken(tmp_path, config)
    n_requests = journal_rows(tmp_path / "unbroken")
    write_config(tmp_path / "p.yaml", config)
    run = tmp_path / "run"
    server.reset()
    server.set(latency_ms=25, jitter=0.8, tail=0.01, **faults)
    rng = random.Random(20)
    moments = sorted(rng.randrange(n_requests) for _ in range(8))
    kills = 0
    for moment in [None, *moments, None]:
        process = start(["run", "p.yaml", "--quiet"], tmp_path)
        if moment is None:
            time.sleep(rng.uniform(0.3, 1.2))
        else:
            wait_for(lambda moment=moment: journal_rows(run) >= moment)
            assert process.poll() is None, "the run ended before it could be killed"
        kills += process.poll() is None
        kill(process)
        time.sleep(0.05)  # what is in flight reaches the server
    succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    assert tables(run) == expected
    assert_no_row_twice(run)
    stats = server.stats()
    assert stats["unique"] == n_requests, "nothing else was asked than in the unbroken run"
    assert stats["sent_twice"] <= CONCURRENCY * kills
    if not faults:
        assert stats["requests"] - stats["unique"] <= CONCURRENCY * kills, "sent again: at most what was in flight"
    assert kills >= 8
    assert not [path.name for path in run.rglob(".*.tmp")], "killed runs leave no half-written files"

    asked = stats["requests"]
    again = succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    assert server.stats()["requests"] == asked, "a second run of a finished pipeline sends nothing"
    assert [line.split(": ")[1] for line in again.out.splitlines()[:5]] == ["up to date"] * 5


@pytest.mark.parametrize("stage", ["pair", "export", "report"])
def test_killed_in_a_stage_that_asks_nothing(tmp_path: Path, server: StubHandle, stage: str) -> None:
    """The journal is whole, the tables are not: killed as soon as the stage before is finished."""
    write_prompts(tmp_path / "prompts.jsonl", 30)
    config = http_config(server.url)
    expected = unbroken(tmp_path, config)
    write_config(tmp_path / "p.yaml", config)
    run = tmp_path / "run"
    before = {"pair": "judge", "export": "pair", "report": "export"}[stage]
    process = start(["run", "p.yaml", "--quiet"], tmp_path)
    wait_for(
        lambda: (run / "manifest.json").exists() and before in manifest(run)["stages"], every_s=0.001, timeout_s=30
    )
    kill(process)
    asked = server.stats()["requests"]
    succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    assert tables(run) == expected
    assert server.stats()["requests"] == asked
    assert (run / "report.html").exists()


def test_a_journal_replayed_into_a_new_folder_gives_the_same_tables(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 20)
    config = http_config(server.url)
    expected = unbroken(tmp_path, config)
    asked = server.stats()["requests"]
    (tmp_path / "copy").mkdir()
    shutil.copy(tmp_path / "unbroken" / "journal.jsonl", tmp_path / "copy")
    write_config(tmp_path / "p.yaml", config, run="copy")
    succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    assert tables(tmp_path / "copy") == expected
    assert server.stats()["requests"] == asked
    assert manifest(tmp_path / "copy")["last_run"]["sent"] == 0


def test_killed_with_the_tiny_models(tmp_path: Path) -> None:
    """kill -9 of the parent while its child samples, and again while its child judges. The journal is then replayed
    into a new folder, and nothing that was started is left."""
    config = tiny_config(prompts=14, n=3)
    path = write_config(tmp_path / "p.yaml", config)
    run = tmp_path / "run"
    for table, moment in (("responses.jsonl", 8), ("judgments.jsonl", 70)):
        process = start(["run", path, "--quiet"], tmp_path)
        wait_for(lambda moment=moment: journal_rows(run) >= moment, every_s=0.01)
        assert process.poll() is None and not (run / table).exists()
        kill(process)
        wait_until_gone(run, 10)
    succeed("run", path, "--quiet", cwd=tmp_path)
    assert_no_row_twice(run)
    recorded = journal_rows(run)
    keys = [row["key"] for row in rows(run / "journal.jsonl")]
    assert len(keys) == len(set(keys)), "no reply was computed twice"

    (tmp_path / "copy").mkdir()
    shutil.copy(run / "journal.jsonl", tmp_path / "copy")
    other = write_config(tmp_path / "copy.yaml", config, run="copy")
    succeed("run", other, "--quiet", cwd=tmp_path)
    assert tables(tmp_path / "copy") == tables(run)
    assert journal_rows(tmp_path / "copy") == recorded
    assert sum(stage["requests"]["sent"] for stage in manifest(tmp_path / "copy")["stages"].values()) == 0
    wait_until_gone(tmp_path, 10)


def test_killed_while_evaluating(tmp_path: Path, server: StubHandle) -> None:
    """kill -9 while both policies are sampled, and again while the judge compares them."""
    config = evaluation_config(tmp_path, server.url)
    write_config(tmp_path / "unbroken.yaml", config, run="unbroken")
    succeed("evaluate", "unbroken.yaml", "--quiet", cwd=tmp_path)
    expected = evaluation(tmp_path / "unbroken")
    n_samples = len(rows(tmp_path / "unbroken" / "evaluation" / "responses.jsonl"))
    n_requests = journal_rows(tmp_path / "unbroken")
    assert (n_samples, n_requests) == (2 * 30, 4 * 30), "both policies answered, and both orders were judged"

    write_config(tmp_path / "p.yaml", config)
    run = tmp_path / "run"
    server.reset()
    server.set(latency_ms=40, jitter=0.8)
    for moment, sampled in ((n_samples // 3, False), ((n_samples + n_requests) // 2, True)):
        process = start(["evaluate", "p.yaml", "--quiet"], tmp_path)
        wait_for(lambda moment=moment: journal_rows(run) >= moment, every_s=0.005)
        assert process.poll() is None, "the run ended before it could be killed"
        kill(process)
        answered = journal_rows(run)
        assert n_samples < answered < n_requests if sampled else 0 < answered < n_samples
        assert (run / "evaluation" / "responses.jsonl").exists() == sampled
        assert not (run / "evaluation" / "judgments.jsonl").exists()
        time.sleep(0.1)  # what is in flight reaches the server
    succeed("evaluate", "p.yaml", "--quiet", cwd=tmp_path)
    assert evaluation(run) == expected
    stats = server.stats()
    assert stats["unique"] == n_requests, "nothing else was asked than in the unbroken run"
    assert stats["requests"] - n_requests <= CONCURRENCY * 2, "sent again: at most what was in flight"
    keys = [row["key"] for row in rows(run / "journal.jsonl")]
    assert len(keys) == len(set(keys)) == n_requests, "no reply was recorded twice"
    again = succeed("evaluate", "p.yaml", "--quiet", cwd=tmp_path)
    assert "evaluate: up to date" in again.out and server.stats()["requests"] == stats["requests"]


def evaluation_config(folder: Path, url: str) -> dict[str, Any]:
    """Two models behind one server, compared on prompts of their own."""
    write_prompts(folder / "prompts.jsonl", 4)
    write_prompts(folder / "heldout.jsonl", 30)
    config = http_config(url)
    other = {**config["engines"]["policy"], "model": "other-stub", "name": "other"}
    section = {
        "prompts": {"path": "heldout.jsonl"},
        "before": "policy",
        "after": "other",
        "judges": ["judge"],
        "max_tokens": 48,
    }
    return {**config, "engines": {**config["engines"], "other": other}, "evaluate": section}


def evaluation(run: Path) -> dict[str, str]:
    names = ("responses.jsonl", "judgments.jsonl", "evaluation.json")
    return {name: (run / "evaluation" / name).read_text(encoding="utf-8") for name in names}


def test_killed_while_training(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 40)
    policy = REPO / "data" / "tiny" / "policy"
    train = {"dpo": {"model": str(policy), "args": {"num_train_epochs": 2, "per_device_train_batch_size": 4}}}
    config = write_config(tmp_path / "p.yaml", http_config(server.url, max_tokens=24), train=train, report=None)
    run = tmp_path / "run"
    process = start(["run", config, "--quiet"], tmp_path)
    wait_for(lambda: (run / "models" / ".dpo.partial").exists(), every_s=0.01)
    time.sleep(2)
    assert process.poll() is None and not (run / "models" / "dpo").exists()
    kill(process)
    wait_until_gone(run, 10)
    asked = server.stats()["requests"]
    before = tables(run)
    succeed("run", config, "--quiet", cwd=tmp_path)
    assert (run / "models" / "dpo" / "model.safetensors").exists()
    assert tables(run) == before and server.stats()["requests"] == asked
    assert manifest(run)["stages"]["dpo"]["status"] == "finished"
    again = succeed("run", config, "--quiet", cwd=tmp_path)
    assert "dpo: up to date" in again.out
    wait_until_gone(run, 10)
