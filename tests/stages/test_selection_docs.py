"""docs/selection.md is held to the code: its examples are valid, and its keys and rules are those there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import yaml

from rlaif.config import ChooseSection, JudgeSection, PairSection
from rlaif.metrics.choosing import RULES

DOC = (Path(__file__).parents[2] / "docs" / "selection.md").read_text(encoding="utf-8")


def test_the_examples_are_valid_and_name_every_key() -> None:
    sections = {name: block for text in re.findall(r"```yaml\n(.*?)```", DOC, re.DOTALL)
                for name, block in yaml.safe_load(text).items()}  # fmt: skip
    PairSection(**sections["pair"])
    chosen = JudgeSection(**sections["judge"]).choose
    assert chosen is not None
    told = {
        "select",
        "chosen",
        "rejected",
        "rejected_sds",
        "within",
        "max_length_ratio",
        "length_matched",
        "min_margin",
    }
    told |= {"max_margin", "min_confidence_quantile", "min_likelihood_quantile"}
    assert set(sections["pair"]) == told <= set(PairSection.model_fields)
    assert set(sections["judge"]["choose"]) | {"share"} == set(ChooseSection.model_fields)


def test_every_rule_has_its_row() -> None:
    assert get_args(ChooseSection.model_fields["by"].annotation) == RULES
    assert [name for name in RULES if f"| `{name}` |" not in DOC] == []


def test_the_python_example_compiles_and_uses_what_is_there() -> None:
    import inspect

    from rlaif.training.active import learn

    (code,) = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)
    compile(code, "selection.md", "exec")
    named = set(re.findall(r"(\w+)=", code.split("learn(", 1)[1])) - {"model", "ensemble", "soft_labels"}
    assert named <= set(inspect.signature(learn).parameters)
