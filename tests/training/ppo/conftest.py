from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from training_data import pairs

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _reward(model: Path, out: Path, **options: Any) -> Path:
    from rlaif.config import RewardSection
    from rlaif.training.reward import train_reward

    args = {"max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "bf16": False}
    data = out.parent / f"{out.name}.jsonl"
    import json

    data.write_text("".join(json.dumps(row) + "\n" for row in pairs(24)), encoding="utf-8")
    train_reward(RewardSection(model=str(model), args=args, **options), data, out, seed=1)
    return out


@pytest.fixture(scope="session")
def reward_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Says yes rather than no."""
    return _reward(tiny_model, tmp_path_factory.mktemp("rewards") / "reward")


@pytest.fixture(scope="session")
def reward_adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, as an adapter over the policy."""
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj", "up_proj"], "lora_dropout": 0.1}
    return _reward(tiny_model, tmp_path_factory.mktemp("adapters") / "reward", lora=lora)
