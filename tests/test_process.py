"""No engine outlives its run: children end with their parent, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlaif import process

# What a stage's process does, in small: it starts a child of its own that ignores polite signals.
CHILD = """
import os, subprocess, sys, time
from rlaif.process import die_with_parent
die_with_parent()
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
worker = subprocess.Popen([sys.executable, "-c", stubborn])
open(sys.argv[1] + ".new", "w").write(f"{os.getpid()} {worker.pid}")
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
"""
PARENT = """
import sys
from rlaif.process import run_command
sys.exit(run_command([sys.executable, "-c", sys.argv[1], sys.argv[2]]))
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition, seconds: float = 20.0) -> bool:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def start_family(folder: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A parent in `run_command`, its child, and the child's own stubborn child."""
    note = folder / "pids"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(note)], cwd=Path.cwd())
    assert wait_for(note.exists)
    pids = [int(pid) for pid in note.read_text().split()]
    assert all(alive(pid) for pid in pids)
    return parent, pids


def test_exit_codes_pass_through() -> None:
    assert process.run_command([sys.executable, "-c", "raise SystemExit(7)"]) == 7
    assert process.run_command([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9


def test_environment_is_set_before_torch_and_the_users_own_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    env = process.child_environment({"EXTRA": "1"})
    assert env["OMP_NUM_THREADS"] == "3"
    assert env["OMP_WAIT_POLICY"] == "passive"
    assert env["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert env["EXTRA"] == "1"
    assert env[process.PARENT_VARIABLE] == str(os.getpid())


def test_physical_cores_are_at_most_the_usable_cpus() -> None:
    assert 1 <= process.physical_cores() <= (os.cpu_count() or 1)


def test_die_with_parent_does_nothing_in_a_process_that_was_started_otherwise() -> None:
    code = "import threading; from rlaif.process import die_with_parent as d; d(); print(threading.active_count())"
    env = {k: v for k, v in os.environ.items() if k != process.PARENT_VARIABLE}
    assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True).stdout == "1\n"


@pytest.mark.integration  # starts real processes and waits for them to end
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["kill", "term", "int"])
def test_nothing_survives_the_parent(tmp_path: Path, number: signal.Signals) -> None:
    parent, pids = start_family(tmp_path)
    parent.send_signal(number)
    parent.wait(10)
    assert wait_for(lambda: not any(alive(pid) for pid in pids), 10)


@pytest.mark.integration  # starts real processes and waits for them to end
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_dead_child_left_behind_is_killed(tmp_path: Path) -> None:
    parent, pids = start_family(tmp_path)
    os.kill(pids[0], signal.SIGKILL)
    assert parent.wait(10) == 128 + 9
    assert wait_for(lambda: not alive(pids[1]), 5)
