"""Two processes, started by `accelerate launch`, train what one trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_data import pairs, weights

from rlaif import pipeline
from rlaif.config import Pipeline
from rlaif.config.training import LaunchSection
from rlaif.errors import ConfigError
from rlaif.paths import shipped
from rlaif.training import processes

Write = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]
# plain gradient steps: Adam turns the last digit of a gradient near 0 into a whole step
ARGS: dict[str, Any] = {"max_steps": 3, "learning_rate": 0.3, "optim": "sgd", "use_cpu": True, "bf16": False}


def cpu_config(name: str, folder: Path) -> Path:
    """The shipped file with the one key changed that a machine without GPUs needs."""
    found = yaml.safe_load((shipped("pipelines") / "accelerate" / f"{name}.yaml").read_text(encoding="utf-8"))
    path = folder / f"{name}-cpu.yaml"
    path.write_text(yaml.safe_dump(found | {"use_cpu": True}), encoding="utf-8")
    return path


def pipeline_of(run: Path, trainer: str, section: dict[str, Any], batch: int, launch: Any = None) -> Pipeline:
    args = {**ARGS, "per_device_train_batch_size": batch, **section.pop("args", {})}
    return Pipeline.model_validate(
        {"run": str(run), "seed": 1, "train": {trainer: {**section, "args": args, "launch": launch}}}
    )


def trained(config: Pipeline, trainer: str, folder: Path) -> Path:
    """A stage here, or with `launch` in the processes that accelerate starts."""
    manifest = pipeline.run(config, [trainer], quiet=True, in_process=True)
    assert manifest["stages"][trainer]["status"] == "finished"
    assert manifest["stages"][trainer]["counts"]["steps"] == ARGS["max_steps"]
    return folder / "models" / trainer


def difference(a: Path, b: Path) -> float:
    one, two = weights(a), weights(b)
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


@pytest.mark.integration  # starts two processes that import torch and train
@pytest.mark.parametrize("trainer", ["sft", "dpo"])
def test_two_processes_are_one(tiny_model: Path, write_dataset: Write, tmp_path: Path, trainer: str) -> None:
    data = write_dataset(train=[{**row, "probability": 0.6 + 0.02 * i} for i, row in enumerate(pairs(16))])
    section = {"model": str(tiny_model), "dataset": str(data)}
    section |= {"soft_labels": True} if trainer == "dpo" else {}
    one = trained(pipeline_of(tmp_path / "one", trainer, dict(section), 8), trainer, tmp_path / "one")
    launch = {"config_file": str(cpu_config("ddp", tmp_path)), "num_processes": 2}
    two = trained(pipeline_of(tmp_path / "two", trainer, dict(section), 4, launch), trainer, tmp_path / "two")
    assert json.loads((two / "training.json").read_text())["processes"] == 2
    assert difference(one, two) < 1e-4
    assert difference(one, tiny_model) > 1e-3  # it did train
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in two.iterdir())
    assert [path.name for path in two.parent.iterdir()] == [trainer]


def test_fsdp_on_cpus_is_not_silently_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "ACCELERATE_USE_FSDP": "true"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="FSDP on CPUs: accelerate would train with DDP"):
        processes.join({"use_cpu": True})


def rlaif(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-m", "rlaif", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.integration  # starts two processes that import torch
def test_a_fault_of_all_processes_is_said_once(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=[{"prompt": "a", "chosen": "b"}])
    section = {"model": str(tiny_model), "dataset": str(data)}
    section |= {"args": ARGS, "launch": {"config_file": str(cpu_config("ddp", tmp_path))}}
    file = tmp_path / "pipeline.yaml"
    file.write_text(yaml.safe_dump({"run": str(tmp_path / "run"), "train": {"dpo": section}}), encoding="utf-8")
    done = rlaif("train", "dpo", str(file))
    lines = [line for line in done.stderr.splitlines() if line.startswith("rlaif: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and "missing column rejected" in lines[0]
    assert "Traceback" not in done.stderr and "elastic" not in done.stderr
    assert list((tmp_path / "run" / "models").iterdir()) == []


def test_rlaif_itself_is_not_started_several_times(tmp_path: Path) -> None:
    config = pipeline_of(tmp_path / "run", "sft", {"model": "m", "dataset": "d"}, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        with pytest.raises(ConfigError, match=r"one of 2 processes of a launcher; .* train.NAME.launch"):
            pipeline.run(config, ["sft"])
    assert not (tmp_path / "run").exists()


def test_launch_is_for_stages(tmp_path: Path) -> None:
    from rlaif.training.processes import check

    launch = LaunchSection(num_processes=2)
    with pytest.raises(ConfigError, match=r"train.sft.launch: is for a pipeline's stages"):
        check(launch, "train.sft.launch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLAIF_LAUNCHED", "1")
        with pytest.raises(ConfigError, match=r"num_processes: 2, but `accelerate launch` started 1"):
            check(launch, "train.sft.launch")
        patch.setenv("WORLD_SIZE", "2")
        check(launch, "train.sft.launch")


def test_a_config_file_that_is_not_there(tmp_path: Path) -> None:
    launch = {"config_file": "no.yaml"}
    config = pipeline_of(tmp_path / "run", "sft", {"model": "m", "dataset": "d"}, 1, launch)
    with pytest.raises(ConfigError, match=r"train.sft.launch.config_file: no.yaml: no such file"):
        pipeline.run(config, ["sft"])


@pytest.mark.parametrize("path", sorted((shipped("pipelines") / "accelerate").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_shipped_files_are_what_accelerate_reads(path: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    assert load_config_from_file(str(path)).num_processes == 2
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# UNVERIFIED") == (path.stem == "deepspeed-zero3")
