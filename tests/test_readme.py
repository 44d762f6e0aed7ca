"""The README's tree and commands are held to the disk and to the program."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from rlaif.cli import build_parser
from rlaif.paths import shipped

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def tree() -> list[str]:
    """Paths named in the tree: folders at the left margin, what is in rlaif/ below it."""
    block = next(text for _, text in BLOCKS if text.startswith("rlaif/ "))
    paths = []
    for line in block.splitlines():
        inside = line.startswith("  ")
        names = re.findall(r"(?<![\w/-])([\w_]+(?:\.py|/))", line.split("   ")[0] if not inside else line)
        paths += [f"rlaif/{name}" if inside else name for name in names]
    return paths


@pytest.mark.parametrize("path", tree())
def test_the_tree_names_what_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_tree_names_every_folder() -> None:
    named = set(tree())
    folders = {f"{item.name}/" for item in ROOT.iterdir() if item.is_dir()}
    private = {"runs/", "build/", "dist/", "scripts/"}
    missing = {name for name in folders - named - private if not name.startswith(".")}
    assert not missing
    rooms = {f"rlaif/{item.name}/" for item in (ROOT / "rlaif").iterdir() if item.is_dir()}
    assert {room for room in rooms - named if not room.startswith(("rlaif/_", "rlaif/."))} == set()


def commands() -> list[str]:
    lines: list[str] = []
    for kind, text in BLOCKS:
        if kind == "":
            joined = text.replace("\\\n", " ")
            lines += [line.split("   #")[0].strip() for line in joined.splitlines() if line.startswith("rlaif ")]
    return [line for line in lines if not line.startswith("rlaif/")]


@pytest.mark.parametrize("line", commands())
def test_the_parser_takes_the_commands(line: str) -> None:
    argv = shlex.split(line)[1:]
    assert build_parser(argv).parse_args(argv).func


def test_every_pipeline_is_in_the_table() -> None:
    for path in shipped("pipelines").glob("*.yaml"):
        assert f"`pipelines/{path.name}`" in README


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
