"""A guard in two processes: one probes, both stop, and what is written is what one process would have kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from test_processes import cpu_config, difference, pipeline_of
from training_data import pairs

from rlaif import pipeline
from rlaif.config.guarding import DEFAULT_LIMITS

pytestmark = pytest.mark.integration  # starts processes that import torch and train
Write = Callable[..., Path]


@pytest.fixture
def section(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> dict[str, Any]:
    """Saying yes is a refusal here, and none is allowed to be learnt: the second probe breaks the limit."""
    probes = tmp_path / "probes.jsonl"
    probes.write_text("".join(f'{{"prompt": "is it good {i}?"}}\n' for i in range(6)), encoding="utf-8")
    guard = {
        "probes": str(probes), "every": 2, "max_tokens": 6, "refusals": ["yes"],
        "limits": {**dict.fromkeys(DEFAULT_LIMITS), "refusal_rate": {"max_rise": 0.1}},
    }  # fmt: skip
    args = {"max_steps": 40, "learning_rate": 1.0}
    return {"model": str(tiny_model), "dataset": str(write_dataset(train=pairs(16))), "guard": guard, "args": args}


def test_two_processes_stop_together(section: dict[str, Any], tiny_model: Path, tmp_path: Path) -> None:
    launch = {"config_file": str(cpu_config("ddp", tmp_path)), "num_processes": 2}
    records = []
    for name, batch, flags in (("one", 8, None), ("two", 4, launch)):
        config = pipeline_of(tmp_path / name, "sft", json.loads(json.dumps(section)), batch, flags)
        pipeline.run(config, ["sft"], quiet=True, in_process=True)
        records.append(json.loads((tmp_path / name / "models" / "sft" / "training.json").read_text()))
    one, two = (record["guard"] for record in records)
    assert records[1]["processes"] == 2
    assert one["stopped_at_step"] == two["stopped_at_step"] is not None
    assert one["kept_step"] == two["kept_step"] < one["stopped_at_step"]
    assert difference(tmp_path / "one" / "models" / "sft", tmp_path / "two" / "models" / "sft") < 1e-4
