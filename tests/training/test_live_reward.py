"""A judge as reward in whole trainings: over a server, in two processes, and the shipped judge of the tiny world.

Slow: each test trains, two of them in processes that import torch.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from stub_server import StubHandle
from test_processes import ROOT, cpu_config

from rlaif import pipeline
from rlaif.config import Pipeline
from rlaif.store import Journal

pytestmark = pytest.mark.integration
torch = pytest.importorskip("torch")

POLICY = "shipped:data/tiny/policy"
QUICK: dict[str, Any] = {
    "per_device_train_batch_size": 8, "steps_per_generation": 2, "num_generations": 4, "max_completion_length": 16,
    "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_steps": 4, "use_cpu": True, "bf16": False,
}  # fmt: skip


def raw(run: Path, url: str, trainer: str = "grpo", **more: Any) -> dict[str, Any]:
    engine = {"engine": "openai", "model": "stub", "base_url": url, "name": "the-judge"}
    args = {**QUICK, **more.pop("args", {})}
    section = {"model": POLICY, "rewards": [{"judge": True}], "args": args, **more.pop(trainer, {})}
    judge = {"engine": "judge", "rubric": "helpfulness", "orders": "both", "pairs": "adjacent", "read": "text"}
    prompts = {"path": "shipped:data/tiny/prompts.jsonl", "limit": 24}
    base = {"run": str(run), "seed": 3, "engines": {"judge": engine}, "prompts": prompts, "judge": judge}
    return {**base, "train": {trainer: section}, **more}


def rlaif(folder: Path, config: dict[str, Any], *flags: str) -> subprocess.CompletedProcess[str]:
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "rlaif", "run", "pipeline.yaml", "--quiet", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if line.startswith("rlaif: ")]


def rows_of(run: Path, name: str, table: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "live" / name / f"{table}.jsonl").read_text().splitlines()]


def test_a_budget_stops_it_and_running_it_again_pays_the_rest(server: StubHandle, tmp_path: Path) -> None:
    saving = {"args": {"save_strategy": "steps", "save_steps": 2}}
    whole, broken = raw(tmp_path / "whole", server.url, **saving), raw(tmp_path / "broken", server.url, **saving)
    plan = rlaif(tmp_path, whole, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "train.grpo: 32 completions to judge, at most" in plan.stdout, "two rollouts of 16"
    assert re.search(r"grpo: judge judge +64 requests", plan.stdout), "8 groups × 4 neighbours × 2 orders"
    done = rlaif(tmp_path, whole)
    assert done.returncode == 0, done.stderr
    n = server.stats()["answered"]
    assert 32 < n <= 64
    server.clear()
    stopped = rlaif(tmp_path, broken, "--max-requests", str(n // 2 + 8))
    assert stopped.returncode == 4 and len(said(stopped)) == 1, stopped.stderr
    assert "stopped at max_requests" in said(stopped)[0]
    done = rlaif(tmp_path, broken)
    assert done.returncode == 0, done.stderr
    assert server.stats()["sent_twice"] == 0
    one, two = (load_file(tmp_path / run / "models/grpo/model.safetensors") for run in ("whole", "broken"))
    assert all(torch.equal(one[name], two[name]) for name in one), "as if it had not been stopped"
    scores = [rows_of(tmp_path / run, "grpo", "scores") for run in ("whole", "broken")]
    assert scores[0] == scores[1] and {row["step"] for row in scores[0]} == {0, 2}
    manifest = json.loads((tmp_path / "broken" / "manifest.json").read_text())
    assert manifest["stages"]["grpo"]["counts"]["unscored"] == 0
    assert manifest["stages"]["grpo"]["requests"]["sent"] > 0 and "judge" in manifest["engines"]


def test_two_processes_ask_once(server: StubHandle, tmp_path: Path) -> None:
    launch = {"config_file": str(cpu_config("ddp", tmp_path)), "num_processes": 2}
    config = raw(tmp_path / "run", server.url, grpo={"launch": launch}, args={"per_device_train_batch_size": 4})
    done = rlaif(tmp_path, config)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    record = json.loads((run / "models" / "grpo" / "training.json").read_text())
    scores = rows_of(run, "grpo", "scores")
    assert record["processes"] == 2 and len(scores) == 2 * 16, "two rollouts of 4 × 2 × 2 completions"
    mean = sum(row["score"] for row in scores[:16]) / 16
    assert record["history"][0]["rewards/judge/mean"] == pytest.approx(mean, abs=1e-5)
    assert len(Journal(run / "journal.jsonl", writable=False)) == server.stats()["answered"]
    assert server.stats()["sent_twice"] == 0
    stopped = rlaif(tmp_path, {**config, "run": str(tmp_path / "stopped")}, "--max-requests", "3")
    assert stopped.returncode == 4 and len(said(stopped)) == 1, stopped.stderr


def tiny(run: Path, trainer: str, rewards: list[Any], args: dict[str, Any]) -> Pipeline:
    """The shipped policy and judge; a response of the starting policy to every prompt."""
    engine = {"engine": "transformers", "dtype": "float32"}
    return Pipeline.model_validate(
        {
            "run": str(run),
            "engines": {
                "policy": {**engine, "model": POLICY},
                "judge": {**engine, "model": "shipped:data/tiny/judge"},
            },
            "prompts": {"path": "shipped:data/tiny/prompts.jsonl", "limit": 64},
            "generate": {"samplers": [{"engine": "policy", "n": 1, "max_tokens": 48}]},
            "judge": {"constitution": "tiny-world", "principles": "all", "read": "logprobs"},
            "pair": {"principle_weights": {"harmless": 3.0}},
            "train": {trainer: {"model": POLICY, "rewards": rewards, "args": args}},
        }
    )


def test_grpo_learns_to_win_before_the_shipped_judge(tmp_path: Path) -> None:
    args = {
        "max_steps": 16, "num_generations": 4, "per_device_train_batch_size": 32, "steps_per_generation": 1,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_completion_length": 48, "beta": 0.0,
        "logging_steps": 1,
    }  # fmt: skip
    config = tiny(tmp_path / "run", "grpo", [{"judge": True, "against": "responses"}], args)
    pipeline.run(config, ["prompts", "generate", "grpo"], quiet=True, in_process=True)
    record = json.loads((tmp_path / "run/models/grpo/training.json").read_text())
    wins = [point["rewards/judge/mean"] for point in record["history"]]
    first, last = sum(wins[:4]) / 4, sum(wins[-4:]) / 4
    assert 0.4 < wins[0] < 0.6, "the starting policy against itself"
    assert last > first + 0.05, wins


def test_ppo_takes_judges_too(tmp_path: Path) -> None:
    args = {
        "max_steps": 2, "num_iterations": 1, "per_device_train_batch_size": 8, "steps_per_generation": 1,
        "max_completion_length": 16, "logging_steps": 1,
    }  # fmt: skip
    rewards = [
        {"judge": True, "against": "responses"},
        {"judge": {"constitution": "tiny-world"}, "against": "responses"},
    ]
    config = tiny(tmp_path / "run", "ppo", rewards, args)
    pipeline.run(config, ["prompts", "generate", "ppo"], quiet=True, in_process=True)
    record = json.loads((tmp_path / "run/models/ppo/training.json").read_text())
    assert {"rewards/judge/mean", "rewards/judge_2/mean", "ppo/score"} <= set(record["history"][0])
    rows = rows_of(tmp_path / "run", "ppo", "scores")
    assert len(rows) == 2 * 2 * 8 and {row["reward"] for row in rows} == {"judge", "judge_2"}
    counts = json.loads((tmp_path / "run/manifest.json").read_text())["stages"]["ppo"]["counts"]
    assert counts["judged"] == 32 and counts["unscored"] == 0
