"""docs/ppo.md is held to the program: its section is a section, its arguments have the defaults it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from rlaif.config import PPOSection, TrainSection
from rlaif.config.base import read_yaml

DOC = (Path(__file__).parents[3] / "docs" / "ppo.md").read_text(encoding="utf-8")


def test_the_section_is_a_section(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    (tmp_path / "doc.yaml").write_text(block, encoding="utf-8")
    section = TrainSection.model_validate(read_yaml(tmp_path / "doc.yaml")["train"]).ppo
    assert section is not None and section.code == ["my_rewards:no_lists"]
    assert [source.model for source in section.rewards] == ["run:reward", None, None]
    assert f"`{section.exported}`" in DOC and section.replay is not None
    keys = set(PPOSection.model_fields) - {"quantization", "launch"}
    assert all(f"`{name}" in DOC or f"{name}:" in DOC for name in keys)


@pytest.mark.integration  # imports TRL
def test_the_arguments_have_the_defaults_that_it_names() -> None:
    pytest.importorskip("trl")
    from rlaif.training.ppo.arguments import PPOConfig

    table = DOC.split("## What is computed")[1].split("\n\n")[1]
    named = dict(re.findall(r"`(\w+)` \(([^)]*)\)", table))
    values = vars(PPOConfig("x", use_cpu=True, bf16=False))
    assert len(named) == 15
    assert {name: values[name] for name in named} == {name: first_word(said) for name, said in named.items()}


def first_word(said: str) -> object:
    word = said.partition(":")[0].split()[0].replace(",", "")
    return None if word == "none" else yaml.safe_load(word)
