"""Two processes train what one trains: rows that are judged on few criteria fall on them unevenly, and no matter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif.config import RewardSection
from rlaif.training.reward import train_reward

pytestmark = pytest.mark.integration  # starts processes that import torch and train

PROGRAM = """
import sys
from pathlib import Path
from rlaif.config import RewardSection
from rlaif.training.reward import train_reward

train_reward(RewardSection.model_validate_json(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), seed=1)
"""


def rows(n: int) -> list[dict[str, Any]]:
    """`nice` is judged in the first half of the rows alone."""
    return [
        {
            "prompt": [{"role": "user", "content": f"is it {i % 3}"}],
            "response": [{"role": "assistant", "content": "good " * (i % 4) + "very"}],
            "scores": {"nice": float(i % 4) if i < n // 2 else None, "long": float(i % 5)},
        }
        for i in range(n)
    ]


def test_two_processes_are_one(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    data, program = tmp_path / "data.jsonl", tmp_path / "program.py"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(16)), encoding="utf-8")
    program.write_text(PROGRAM, encoding="utf-8")
    # plain gradient steps: Adam turns the last digit of a gradient near 0 into a whole step
    args = {"max_steps": 4, "learning_rate": 0.5, "optim": "sgd", "use_cpu": True}

    def job(batch: int) -> RewardSection:
        return RewardSection(
            model=str(tiny_model), kind="scores", args={**args, "per_device_train_batch_size": batch}
        )

    train_reward(job(8), data, tmp_path / "out-1", seed=1)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*launch, str(program), job(4).model_dump_json(), str(data), str(tmp_path / "out-2")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (load_file(tmp_path / f"out-{n}" / "model.safetensors") for n in (1, 2))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-4
    before = load_file(tiny_model / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert float((one[name] - before[name]).abs().max()) > 1e-3  # it did train
    figures = [
        json.loads((tmp_path / f"out-{n}" / "reward.json").read_text())["scores"]["long"]["mean"] for n in (1, 2)
    ]
    assert figures[0] == pytest.approx(figures[1], abs=1e-3)
