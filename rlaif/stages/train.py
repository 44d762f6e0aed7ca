"""Trains on what the run exported (or on `dataset:`), into policy/."""

from __future__ import annotations

from typing import Any

from rlaif.fingerprint import dpo_section
from rlaif.stages.base import Context


def run(context: Context) -> dict[str, Any]:
    from rlaif.training.dpo import train_dpo

    section = dpo_section(context.config)
    dataset = section.dataset or context.folder.path / "dataset"
    training = train_dpo(section, dataset, context.folder.path / "policy", context.config.seed)
    return {"pairs": training["n_train"], "steps": training["steps"]}
