"""One process at a time works on a run folder; a stage's child process inherits its parent's lock."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from rlaif.errors import StoreError

DESCRIPTOR = "RLAIF_LOCK_FD"  # the environment variable that tells a child which descriptor it inherited
HELD = "RLAIF_LOCK_HELD"  # device and inode of a lock that the launcher of this process holds


def inherited(path: Path) -> int | None:
    """The parent's lock descriptor, if we are its child and it is the lock of this folder."""
    value = os.environ.get(DESCRIPTOR)
    if value is None:
        return None
    try:
        mine, theirs = (path / ".lock").stat(), os.fstat(int(value))
    except (OSError, ValueError):
        return None
    return os.dup(int(value)) if (mine.st_dev, mine.st_ino) == (theirs.st_dev, theirs.st_ino) else None


def vouch() -> None:
    """For processes that this one starts and that end with it: the lock that it inherited is theirs too.

    A launcher of several processes hands no descriptors on.
    """
    value = os.environ.pop(DESCRIPTOR, None)
    if value is not None:
        held = os.fstat(int(value))
        os.environ[HELD] = f"{held.st_dev}:{held.st_ino}"


def vouched(path: Path) -> bool:
    """Whether the process that started this one holds the lock of this folder for it."""
    try:
        there = (path / ".lock").stat()
    except OSError:
        return False
    return os.environ.get(HELD) == f"{there.st_dev}:{there.st_ino}"


def acquire(lock: int, path: Path, wait_s: float) -> None:
    """Errors: StoreError when another process still holds the lock after `wait_s`; the descriptor is closed then."""
    deadline = time.monotonic() + wait_s  # a killed run's child needs a moment to notice
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(lock)
                raise StoreError(f"{path}: another rlaif process is working on this run folder") from None
            time.sleep(0.1)
