"""docs/guards.md is held to the program: its section is a section, its table has the defaults, its figures exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from rlaif.config import GuardSection, TrainSection
from rlaif.config.base import read_yaml
from rlaif.config.guarding import DEFAULT_LIMITS, FIGURES, PROBES

DOC = (Path(__file__).parents[3] / "docs" / "guards.md").read_text(encoding="utf-8")


def test_the_section_is_a_section(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    (tmp_path / "doc.yaml").write_text(block, encoding="utf-8")
    ppo = TrainSection.model_validate(read_yaml(tmp_path / "doc.yaml")["train"]).ppo
    assert ppo is not None and ppo.guard is not None
    limits = ppo.guard.all_limits()
    assert "length" not in limits and limits["refusal_rate"].max_rise == 0.05 and "distinct_2" in limits
    for name in GuardSection.model_fields.keys() - {"batch_size", "max_tokens"}:
        assert f"{name}:" in block or f"`{name}" in DOC, name


def test_the_defaults_are_those_of_the_table() -> None:
    said = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+: [\d.]+`(?:, )?)+) \|", DOC, re.MULTILINE))
    told = {name: yaml.safe_load("{" + text.replace("`", "") + "}") for name, text in said.items()}
    assert told.keys() == DEFAULT_LIMITS.keys()
    for name, limit in DEFAULT_LIMITS.items():
        assert limit.model_dump(exclude_none=True) == pytest.approx(told[name], rel=2e-3)
    assert "default: about 20 probes" in DOC and PROBES == 20
    assert "kl_per_token" not in GuardSection(probes="x").all_limits(kl=False)


def test_every_figure_is_explained() -> None:
    table = DOC.split("| figure | what |")[1].split("\n\n")[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.MULTILINE)))) == set(FIGURES)
