"""docs/reward-models.md is held to the program: its settings are settings, its names are there."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from rlaif.config import RewardSection
from rlaif.training import scoring

DOC = (Path(__file__).parents[2] / "docs" / "reward-models.md").read_text(encoding="utf-8")


def test_the_section_is_one() -> None:
    block = re.findall(r"^```yaml\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)[0]
    section = RewardSection.model_validate(yaml.safe_load(block)["train"]["reward"])
    assert section.kind == "pair" and section.soft_labels


def test_every_option_and_loss_is_named() -> None:
    for name in RewardSection.model_fields.keys() - {"dataset", "lora", "quantization", "launch", "heads", "guard"}:
        assert f"{name}:" in DOC or f"`{name}`" in DOC, name


def test_the_scorers_names_are_there() -> None:
    block = re.findall(r"^```python\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)[0]
    for name in re.findall(r"scorer\.(\w+)", block):
        assert hasattr(scoring.RewardScorer, name)
    assert set(re.findall(r"found\.(\w+)", block)) == set(scoring.Scores._fields)
