"""docs/online.md: its section is a section, its defaults are the code's, its request counts are what is asked."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from rlaif.config import GRPOSection, JudgeSection

DOC = (Path(__file__).resolve().parents[2] / "docs" / "online.md").read_text(encoding="utf-8")


def test_the_section_is_a_section() -> None:
    raw = yaml.safe_load(DOC.split("```yaml\n")[1].split("```")[0])
    own = JudgeSection.model_validate(raw["judge"])
    section = GRPOSection.model_validate(raw["train"]["grpo"])
    judges = section.judges(own)
    assert list(judges) == [0, 1] and judges[0] is own and judges[1].judge == "pointwise"
    assert section.code == ["my_rewards:no_lists"]


@pytest.mark.integration  # imports TRL
def test_the_arguments_have_the_defaults_that_it_names() -> None:
    pytest.importorskip("trl")
    from rlaif.training.grpo_arguments import GRPOArguments

    defaults = {field.name: field.default for field in dataclasses.fields(GRPOArguments)}
    table = DOC.split("Arguments whose defaults are ours:")[1].split("\n\n")[1]
    named = dict(re.findall(r"^\| `(\w+)` \| ([\w.]+) \|", table, re.MULTILINE))
    words = {"false": False, "none": None}
    assert {"beta", "missing_eos_penalty", "num_generations"} <= set(named)
    for name, value in named.items():
        assert defaults[name] == (words[value] if value in words else float(value)), name
