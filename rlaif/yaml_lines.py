"""Which line of a YAML file a key stands on, so that a fault can name it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from rlaif.errors import ConfigError

KeyPath = tuple[str, ...]  # ("criteria", "0", "weight")


def key_lines(path: Path) -> dict[KeyPath, int]:
    """Key path → line, counted from 1. Errors: ConfigError for a key that stands twice in one mapping."""
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    lines: dict[KeyPath, int] = {}
    for parts, line in _walk(root, (), set()):
        if parts in lines:
            raise ConfigError(f"{path}:{line}: {'.'.join(parts)}: key given twice, first on line {lines[parts]}")
        lines[parts] = line
    return lines


def line_of(lines: dict[KeyPath, int], location: Sequence[int | str]) -> int:
    """The line of the key, or of the nearest key around it that is in the file."""
    parts = tuple(str(part) for part in location)
    while parts and parts not in lines:
        parts = parts[:-1]
    return lines.get(parts, 1)


def _walk(node: yaml.Node | None, parts: KeyPath, seen: set[int]) -> Iterator[tuple[KeyPath, int]]:
    if node is None or id(node) in seen:  # an alias is walked once, under its anchor
        return
    seen.add(id(node))
    children: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(index), item, item) for index, item in enumerate(node.value)]
    for name, marked, value in children:
        yield (*parts, name), marked.start_mark.line + 1
        yield from _walk(value, (*parts, name), seen)
