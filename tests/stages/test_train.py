"""The training stages on a run folder: what they read, where they write, and one that goes on from another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif import pipeline
from rlaif.config import Pipeline
from rlaif.errors import ConfigError, StoreError
from rlaif.stages.base import Context
from rlaif.store import RunFolder

ONE_STEP = {"max_steps": 1, "per_device_train_batch_size": 4, "max_length": 128}


def config(run: Path, **train: dict[str, Any]) -> Pipeline:
    engine = {"engine": "scripted", "replies": [{"match": "yes", "reply": "Verdict: A"}], "default": "Verdict: A"}
    return Pipeline.model_validate(
        {
            "run": str(run),
            "engines": {"judge": engine},
            "prompts": {"path": str(run.parent / "rows.jsonl")},
            "judge": {"rubric": "helpfulness", "orders": "random"},
            "pair": {},
            "export": {"kinds": ["pair", "unpaired", "sft"], "test_fraction": 0.0},
            "train": {name: {"args": ONE_STEP, **section} for name, section in train.items()},
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"prompt": f"How do I bake bread {i}?", "responses": [f"Mix {i}.", f"Go away {i}."]} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "run"


@pytest.mark.integration  # imports TRL, and takes one step with each of three trainers
def test_each_trainer_reads_its_export_and_goes_on_from_another(folder: Path) -> None:
    policy = "shipped:data/tiny/policy"
    wanted = config(
        folder,
        sft={"model": policy, "on": "demonstrations"},
        dpo={"model": "run:sft", "soft_labels": True},
        kto={"model": "run:dpo"},
    )
    manifest = pipeline.run(wanted, quiet=True, in_process=True)
    counts = {name: manifest["stages"][name]["counts"] for name in ("sft", "dpo", "kto")}
    assert counts == {name: {"rows": n, "steps": 1} for name, n in (("sft", 8), ("dpo", 8), ("kto", 16))}
    records = {name: json.loads((folder / "models" / name / "training.json").read_text()) for name in counts}
    assert records["sft"]["dataset"]["source"].endswith("dataset-sft")
    assert records["kto"]["dataset"]["source"].endswith("dataset-unpaired")
    assert records["dpo"]["model"].endswith("models/sft") and records["dpo"]["model_sha256"]
    served = Context(wanted.model_copy(update={"generate": None}), RunFolder(folder))
    assert served.config.trainer_of("trained") == "kto"


def test_a_model_that_this_run_has_not_trained(folder: Path) -> None:
    from rlaif.stages.train import prepared

    context = Context(config(folder, dpo={"model": "run:sft"}), RunFolder(folder))
    with pytest.raises(StoreError, match=r"train.dpo.model: run:sft: .* is not there yet; train sft first"):
        prepared(context, "dpo")
    with pytest.raises(ConfigError, match=r"train.kto: this config has no such section"):
        prepared(context, "kto")
