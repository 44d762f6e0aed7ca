"""Starts `rlaif` as a user does, in a process of its own, and looks at what it leaves behind."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

REPO = Path(__file__).resolve().parent.parent
TABLES = ("prompts.jsonl", "responses.jsonl", "judgments.jsonl", "preferences.jsonl", "dropped.jsonl")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def one_line(self) -> str:
        """The only line on stderr. Fails where there is another number of lines, or a traceback."""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"expected one line on stderr, got:\n{self.err}\nstdout:\n{self.out}"
        assert lines[0].startswith("rlaif: "), lines[0]
        return lines[0]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": str(REPO),
        **(extra or {}),
    }


def start(arguments: Sequence[object], cwd: Path, *, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """`rlaif ARGUMENTS` in a session of its own, so that a test can signal its group."""
    return subprocess.Popen(
        [sys.executable, "-m", "rlaif", *map(str, arguments)],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 120.0) -> Outcome:
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Outcome(process.returncode, out, err)


def rlaif(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 120.0) -> Outcome:
    return finish(start(arguments, cwd, env=env), timeout_s)


def succeed(*arguments: object, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float = 120.0) -> Outcome:
    outcome = rlaif(*arguments, cwd=cwd, env=env, timeout_s=timeout_s)
    assert outcome.code == 0, f"exit code {outcome.code}\n{outcome.err}"
    return outcome


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 of the parent alone: what it started must notice by itself."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


# -- pipelines -----------------------------------------------------------------------------------------------------


def write_prompts(path: Path, n: int) -> Path:
    rows = [{"id": f"p{i:03d}", "prompt": f"What is the use of thing number {i}?"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def http_config(url: str, *, run: str = "run", n: int = 4, max_tokens: int = 48) -> dict[str, Any]:
    """Prompts to report over an OpenAI-compatible server. prompts.jsonl lies in the working folder."""
    engine = {"engine": "openai", "model": "stub", "base_url": url, "concurrency": 16}
    return {
        "run": run,
        "seed": 7,
        # names keep the stub's port, which is another one in each test session, out of the keys
        "engines": {"policy": {**engine, "name": "the-policy"}, "judge": {**engine, "name": "the-judge"}},
        "prompts": {"path": "prompts.jsonl"},
        "generate": {"samplers": [{"engine": "policy", "n": n, "max_tokens": max_tokens}]},
        "judge": {"engine": "judge", "rubric": "helpfulness", "orders": "both", "pairs": "all"},
        "pair": {"select": "all_pairs", "min_margin": 0.02},
        "export": {"formats": ["jsonl"], "test_fraction": 0.2},
        "report": {},
    }


def tiny_config(*, run: str = "run", prompts: int = 40, n: int = 4) -> dict[str, Any]:
    """Prompts to preferences with the shipped tiny models, in process."""
    engine = {"engine": "transformers", "dtype": "float32"}
    return {
        "run": run,
        "seed": 3,
        "engines": {
            "policy": {**engine, "model": "shipped:data/tiny/policy"},
            "judge": {**engine, "model": "shipped:data/tiny/judge"},
        },
        "prompts": {"path": "shipped:data/tiny/prompts.jsonl", "limit": prompts},
        "generate": {"samplers": [{"engine": "policy", "n": n, "max_tokens": 48}]},
        "judge": {"engine": "judge", "constitution": "tiny-world", "principles": "all", "orders": "both"},
        "pair": {"select": "best_vs_worst"},
        "export": {"formats": ["jsonl"], "test_fraction": 0.1},
    }


def write_config(path: Path, config: Mapping[str, Any], **sections: Any) -> Path:
    """Write a pipeline; a keyword replaces a section, and None takes it out."""
    merged = {**copy.deepcopy(dict(config)), **sections}
    path.write_text(yaml.safe_dump({key: value for key, value in merged.items() if value is not None}))
    return path


# -- what a run leaves ----------------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def manifest(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return found


def tables(run: Path) -> dict[str, str]:
    """The digest of every table, and of every file of the exported dataset."""
    files = [run / name for name in TABLES]
    files += sorted(path for path in (run / "dataset").rglob("*") if path.is_file())
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_no_row_twice(run: Path) -> None:
    for name in TABLES[:4]:
        ids = [row["id"] for row in rows(run / name)]
        assert ids, f"{name} is empty"
        assert len(ids) == len(set(ids)), f"{name} has an id twice"


def processes_of(run: Path) -> list[str]:
    """Living processes that name the run folder in their arguments or have a file of it open."""
    found, wanted = [], str(run)
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
            if wanted in arguments or any(path.startswith(wanted) for path in opened):
                found.append(f"{process.name} {arguments}")
    return found


def wait_until_gone(run: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while left := processes_of(run):
        assert time.monotonic() < deadline, f"still there after {timeout_s} s: {left}"
        time.sleep(0.1)


def wait_for(condition: Any, timeout_s: float = 60.0, every_s: float = 0.02) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every_s)
