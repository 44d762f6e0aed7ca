"""Ctrl-C and SIGTERM: a clean end within seconds, nothing left running, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from run_helpers import (
    finish,
    http_config,
    manifest,
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


def to_process(process: subprocess.Popen[str], number: int) -> None:
    os.kill(process.pid, number)


def to_group(process: subprocess.Popen[str], number: int) -> None:
    os.killpg(process.pid, number)


def journal_rows(run: Path) -> int:
    path = run / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("send", [to_process, to_group], ids=["process", "group"])
@pytest.mark.parametrize("moment", [10, 100], ids=["generating", "judging"])
def test_over_http(
    tmp_path: Path, server: StubHandle, moment: int, send: Callable[..., None], number: signal.Signals
) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 16)
    write_config(tmp_path / "p.yaml", http_config(server.url))
    run = tmp_path / "run"
    server.set(latency_ms=100, jitter=0.5)
    process = start(["run", "p.yaml", "--quiet"], tmp_path)
    wait_for(lambda: journal_rows(run) >= moment)
    sent_at = time.monotonic()
    send(process, number)
    outcome = finish(process, 20)
    assert time.monotonic() - sent_at < 5
    assert outcome.code == 130
    assert "interrupted" in outcome.one_line and "run the same command to go on" in outcome.one_line
    wait_until_gone(run, 2)
    asked = server.stats()
    assert journal_rows(run) == asked["requests"], "what was in flight was waited for and is recorded"
    stage = "generate" if moment == 10 else "judge"
    assert manifest(run)["stages"][stage]["status"] == "stopped"
    succeed("run", "p.yaml", "--quiet", cwd=tmp_path)
    stats = server.stats()
    assert stats["requests"] == stats["unique"] == 16 * 4 + 16 * 6 * 2
    write_config(tmp_path / "q.yaml", http_config(server.url), run="unbroken")
    server.reset()
    succeed("run", "q.yaml", "--quiet", cwd=tmp_path)
    assert tables(run) == tables(tmp_path / "unbroken")


def test_a_server_that_hangs_is_waited_for_only_briefly(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 4)
    write_config(tmp_path / "p.yaml", http_config(server.url))
    server.set(hang="number 3?")
    process = start(["run", "p.yaml", "--quiet"], tmp_path)
    wait_for(lambda: journal_rows(tmp_path / "run") >= 12)
    sent_at = time.monotonic()
    to_process(process, signal.SIGINT)
    assert finish(process, 30).code == 130
    assert time.monotonic() - sent_at < 15
    wait_until_gone(tmp_path / "run", 2)


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, server: StubHandle) -> None:
    write_prompts(tmp_path / "prompts.jsonl", 4)
    write_config(tmp_path / "p.yaml", http_config(server.url))
    server.set(hang="number")
    process = start(["run", "p.yaml", "--quiet"], tmp_path)
    wait_for(lambda: server.stats()["in_flight"] == 0 and server.stats()["requests"] >= 16)
    to_process(process, signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    sent_at = time.monotonic()
    to_process(process, signal.SIGINT)
    assert finish(process, 30).code == 130
    assert time.monotonic() - sent_at < 3


@pytest.mark.parametrize("send", [to_process, to_group], ids=["process", "group"])
@pytest.mark.parametrize("after_s", [0.05, 0.3, 1.5, None], ids=["starting", "loading", "importing", "sampling"])
def test_while_a_child_works(tmp_path: Path, send: Callable[..., None], after_s: float | None) -> None:
    """Also while the child is still importing torch, before there is anything that could handle the signal."""
    config = write_config(tmp_path / "p.yaml", tiny_config(prompts=40))
    run = tmp_path / "run"
    process = start(
        ["run", config, "--quiet", "--set", "judge=null", "--set", "pair=null", "--set", "export=null"], tmp_path
    )
    if after_s is None:
        wait_for(lambda: journal_rows(run) >= 8)
    else:
        wait_for(lambda: (run / "prompts.jsonl").exists(), every_s=0.005)
        time.sleep(after_s)
    sent_at = time.monotonic()
    send(process, signal.SIGINT)
    outcome = finish(process, 40)
    assert outcome.code == 130, outcome
    assert "interrupted" in outcome.one_line
    assert time.monotonic() - sent_at < 15
    wait_until_gone(run, 2)
    succeed(
        "run",
        config,
        "--quiet",
        "--limit",
        4,
        "--set",
        "judge=null",
        "--set",
        "pair=null",
        "--set",
        "export=null",
        cwd=tmp_path,
    )
    assert manifest(run)["stages"]["generate"]["status"] == "finished"
