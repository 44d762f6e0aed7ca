"""kill -9 while vLLM, in process, judges: the run finishes, its journal replays, and no process is left."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from run_helpers import (
    assert_no_row_twice,
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
)

pytestmark = [
    pytest.mark.integration,  # vLLM takes half a minute to start, here twice
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
]


def test_killed_while_vllm_judges(tmp_path: Path) -> None:
    config = tiny_config(prompts=20, n=3)
    config["engines"]["judge"] = {
        "engine": "vllm",
        "model": "shipped:data/tiny/judge",
        "dtype": "float32",
        "max_model_len": 512,
        "max_num_seqs": 8,
        "concurrency": 8,
    }
    path = write_config(tmp_path / "p.yaml", config)
    run = tmp_path / "run"
    process = start(["run", path, "--quiet"], tmp_path)

    def judged() -> int:
        journal = run / "journal.jsonl"
        return sum(row["role"] == "judge" for row in rows(journal)) if (run / "responses.jsonl").exists() else 0

    wait_for(lambda: judged() >= 40, timeout_s=200, every_s=0.1)
    assert process.poll() is None and not (run / "judgments.jsonl").exists()
    kill(process)
    wait_until_gone(run, 10)
    paid = {row["key"] for row in rows(run / "journal.jsonl")}

    succeed("run", path, "--quiet", cwd=tmp_path, timeout_s=300)
    assert_no_row_twice(run)
    keys = [row["key"] for row in rows(run / "journal.jsonl")]
    assert len(keys) == len(set(keys)), "no reply was computed twice"
    assert paid < set(keys)
    wait_until_gone(run, 10)

    (tmp_path / "copy").mkdir()
    shutil.copy(run / "journal.jsonl", tmp_path / "copy")
    succeed("run", write_config(tmp_path / "copy.yaml", config, run="copy"), "--quiet", cwd=tmp_path)
    assert tables(tmp_path / "copy") == tables(run)
    assert sum(stage["requests"]["sent"] for stage in manifest(tmp_path / "copy")["stages"].values()) == 0
    wait_until_gone(tmp_path, 10)
