"""A stage that loads a model runs in a process of its own: its end frees the memory, and nothing outlives the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PARENT_VARIABLE = "RLAIF_PARENT_PID"  # set for a child, so that it knows whom to watch
LAUNCHED_VARIABLE = "RLAIF_LAUNCHED"  # set for what `accelerate launch` starts
_POLL_S = 0.5  # how often a child looks whether its parent lives
_STOP_GRACE_S = 30.0  # what a child may take to stop cleanly after Ctrl-C or SIGTERM


def run_child(arguments: Sequence[str], env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()) -> int:
    """Run `python -m rlaif *arguments` in a session of its own and wait; its exit code (128 + n after signal n).

    SIGINT and SIGTERM are forwarded to the child and all it started. The second one, or 30 s, ends them for good.
    Whatever the child left behind is killed before this returns.
    """
    return run_command([sys.executable, "-m", "rlaif", *arguments], env, pass_fds, hold_interrupts=True)


def run_command(
    command: Sequence[str],
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    *,
    hold_interrupts: bool = False,
) -> int:
    """`run_child` for any command that calls `die_with_parent` early on.

    `hold_interrupts`: SIGINT waits until the child calls `let_interrupts_in`. A child that dies of a signal after a
    forwarded SIGINT was interrupted: 130.
    """
    with contextlib.ExitStack() as stack:
        # A Ctrl-C between the child's start and our handlers would end this process with a line of its own.
        with _interrupts_held() if hold_interrupts else contextlib.nullcontext():
            process = subprocess.Popen(command, env=child_environment(env), start_new_session=True, pass_fds=pass_fds)
            stack.callback(_end, process)
            forwarded = stack.enter_context(_forwarding(process))
        code = process.wait()
    if code < 0 and signal.SIGINT in forwarded:
        return 128 + signal.SIGINT
    return code if code >= 0 else 128 - code


def _end(process: subprocess.Popen[Any]) -> None:
    """Whatever is left of the child and of what it started."""
    _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the threading settings that must be there before torch is imported.

    What the user has set stays; `env` overrides both.
    """
    result = {
        "OMP_WAIT_POLICY": "passive",
        "OMP_NUM_THREADS": str(physical_cores()),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **os.environ,
        **(env or {}),
    }
    result[PARENT_VARIABLE] = str(os.getpid())
    return result


def physical_cores() -> int:
    """Cores that this process may use, hyper-threads counted once. At least 1."""
    try:
        cpus = os.sched_getaffinity(0)
    except AttributeError:  # macOS
        return max(1, os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        try:
            cores.add(((topology / "physical_package_id").read_text(), (topology / "core_id").read_text()))
        except OSError:
            return max(1, len(cpus))
    return max(1, len(cores))


def die_with_parent() -> None:
    """In a child of `run_command`: end this process and all it started once the parent is gone, even by kill -9.

    Does nothing in a process that was not started so. A thread looks at the parent's id: the kernel's own signal
    on a parent's death (Linux only) would end this process alone and leave its children. The end is a hard one;
    the journal is written to bear that.
    """
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent.isdigit() or os.getpgid(0) != os.getpid():
        return
    threading.Thread(target=_watch, args=(int(parent),), name="rlaif-parent-watch", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os.killpg(0, signal.SIGKILL)


def n_processes() -> int:
    """How many processes do the same work together, as torch's launchers say it. 1 where none started this one."""
    value = os.environ.get("WORLD_SIZE", "1")
    return int(value) if value.isdigit() else 1


def is_main() -> bool:
    """Whether this is the one of them that writes."""
    return n_processes() == 1 or os.environ.get("RANK", "0") == "0"


def is_launched() -> bool:
    """Whether `rlaif` itself had this process started by `accelerate launch`."""
    return LAUNCHED_VARIABLE in os.environ


def let_interrupts_in() -> None:
    """In a child of `run_command`, once it can end cleanly: a Ctrl-C that came before now arrives."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """A child that is started in here gets no SIGINT while it still imports: it waits for `let_interrupts_in`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _forwarding(process: subprocess.Popen[Any]) -> Iterator[list[int]]:
    """Pass SIGINT and SIGTERM on to the child's group while it runs; yields the list of those that came.

    Handlers exist only in the main thread.
    """
    forwarded: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield forwarded
        return
    timers: list[threading.Timer] = []

    def forward(number: int, _frame: object) -> None:
        forwarded.append(number)
        if timers:
            _signal_group(process.pid, signal.SIGKILL)
            return
        _signal_group(process.pid, number)
        timer = threading.Timer(_STOP_GRACE_S, _signal_group, (process.pid, signal.SIGKILL))
        timer.daemon = True
        timers.append(timer)
        timer.start()

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield forwarded
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
