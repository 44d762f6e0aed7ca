"""docs/rounds.md is held to the program."""

from __future__ import annotations

import json
import re
from pathlib import Path

from test_rounds_course import rounds_of, writing

from rlaif.config import RoundsSection
from rlaif.config.base import read_yaml
from rlaif.config.rounds import TRAINERS_OF_ROUNDS
from rlaif.rounds import course, figures
from rlaif.store import RunFolder

DOCS = Path(__file__).parents[2] / "docs"
DOC = (DOCS / "rounds.md").read_text(encoding="utf-8")


def test_the_section_is_a_section(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", DOC, re.MULTILINE | re.DOTALL)
    (tmp_path / "doc.yaml").write_text(block, encoding="utf-8")
    section = RoundsSection.model_validate(read_yaml(tmp_path / "doc.yaml")["rounds"])
    assert set(section.model_fields_set) == set(RoundsSection.model_fields), "every key is shown"
    figures.check_names(section.gates, ["judge"])
    assert all(f"`{name}`" in DOC for name in TRAINERS_OF_ROUNDS)


def test_every_kind_of_figure_is_in_the_table() -> None:
    names = "".join(row.split("|")[1] for row in DOC.split("|---|---|\n")[1].split("\n\n")[0].splitlines())
    documented = {name.partition(".")[0] for name in re.findall(r"`([^`]+)`", names)} - {""}
    assert documented == {*figures.OWN, *figures.EVALUATED, *figures.OF_FILES}


def test_keys_of_rounds_json(tmp_path: Path) -> None:
    course.run(rounds_of(tmp_path, n=1), RunFolder(tmp_path), writing([9], []), {"sent": 0})
    found = json.loads((tmp_path / "rounds.json").read_text(encoding="utf-8"))
    table = (DOCS / "formats.md").read_text(encoding="utf-8").split("## `rounds.json`\n")[1].split("\n\n")[0].strip()
    rows = {row.split("|")[1].strip(" `"): row.split("|")[3] for row in table.splitlines()[2:]}
    assert list(rows) == list(found)
    assert re.findall(r"`(\w+)`", rows["rounds"]) == list(found["rounds"][0])
    assert re.findall(r"`(\w+)`", rows["policy"]) == list(found["policy"])
