"""docs/training.md is held to the program: its settings are settings, its tables name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from rlaif.config import DPOSection, ExportSection, SFTSection, TrainSection
from rlaif.config.base import read_yaml
from rlaif.training.losses import PAIRWISE

DOC = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_sections_are_sections(tmp_path: Path) -> None:
    block = re.findall(r"^```yaml\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "doc.yaml").write_text(block, encoding="utf-8")
    raw = read_yaml(tmp_path / "doc.yaml")
    ExportSection.model_validate(raw["export"])
    train = TrainSection.model_validate(raw["train"])
    assert train.sft and train.dpo and train.kto
    named = set(yaml.safe_load(block)["train"]["dpo"])
    assert named == set(DPOSection.model_fields) - {"dataset"}


def test_the_trainers_read_what_the_table_says() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([\w/-]+)`", DOC, re.MULTILINE))
    section = TrainSection.model_validate({name: {"model": "m"} for name in rows})
    exported = {name: f"{found.exported}/" for name in rows if (found := section.section(name))}
    assert rows == exported
    assert f"`{SFTSection(model='m', on='demonstrations').exported}/`" in DOC


def test_the_losses_are_those_that_there_are() -> None:
    table = DOC.split("| `args.loss_type` |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [*PAIRWISE, "sft"]
