"""A stage's view of its run: which engine a role is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.config import Pipeline, validate
from rlaif.errors import ConfigError
from rlaif.stages.base import Context
from rlaif.store import RunFolder


def config(folder: Path, policy: dict[str, Any], **evaluate: Any) -> Pipeline:
    raw = {
        "run": str(folder),
        "engines": {"policy": policy, "judge": {"engine": "scripted", "default": "A"}},
        "evaluate": {"prompts": {"path": "held.jsonl"}, "before": "policy", **evaluate},
    }
    return validate(Pipeline, raw, "p.yaml")


def test_the_trained_policy_is_served_as_the_starting_one_without_its_adapter(tmp_path: Path) -> None:
    policy = {"engine": "vllm", "model": "org/base", "revision": "abc", "lora": "old-lora", "max_model_len": 256}
    context = Context(config(tmp_path, policy), RunFolder(tmp_path))
    found = context.engine_spec("trained").options()
    assert found == {"engine": "vllm", "model": str(tmp_path / "models" / "dpo"), "max_model_len": 256}


def test_an_unknown_policy_to_evaluate_is_refused_with_the_config(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"evaluate.after: no engine 'tuned' under engines: \(there: judge, policy\)"
    ):
        config(tmp_path, {"engine": "scripted", "default": "x"}, after="tuned")
