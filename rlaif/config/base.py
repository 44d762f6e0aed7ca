"""What every section of a config is, where its rows come from, and how a file becomes one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlaif.errors import ConfigError

_Model = TypeVar("_Model", bound=BaseModel)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Source(Section):
    """Where rows come from: JSONL, Parquet, CSV, or a Hugging Face dataset (a folder or a hub id)."""

    path: str
    split: str = "train"  # only for Hugging Face datasets
    config_name: str | None = None  # likewise
    columns: dict[str, str] = {}  # our name → the column's name: prompt, id, reference, domain, responses, …
    params: dict[str, str | int | float] = {}  # only for a recording (.yaml): over its own
    skip: int = Field(default=0, ge=0)  # rows passed over, from the top
    limit: int | None = Field(default=None, ge=1)  # rows, from there


class _TextKeys(yaml.SafeLoader):
    """A safe loader for which a key is text: YAML 1.1 reads the key `on` as true."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping, safe-loaded. Errors: ConfigError with the line."""
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _TextKeys)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping at the top, got {type(raw).__name__}")
    return raw


def validate(model: type[_Model], raw: dict[str, Any], where: str) -> _Model:
    """`raw` as `model`. Errors: ConfigError, one line for the first fault, naming `where` and the key."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_fault(error, model)}") from None


def telling_fault(error: ValidationError) -> Any:
    """The fault to name: a misspelled key rather than the missing one that it causes."""
    faults = error.errors()
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


def _first_fault(error: ValidationError, model: type[BaseModel]) -> str:
    fault = telling_fault(error)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    key = ".".join(str(part) for part in fault["loc"]) or "top level"
    if fault["type"] == "extra_forbidden":
        allowed = ", ".join(_fields_at(model, fault["loc"][:-1]))
        return f"{key}: unknown key; allowed here: {allowed}{more}"
    message = fault["msg"].removeprefix("Value error, ")
    came = fault.get("input")
    shown = "" if fault["type"] in ("missing", "value_error") else f", got {str(came)[:80]!r}"
    return f"{key}: {message}{shown}{more}"


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the model nested at `location`."""
    current: Any = model
    for part in location:
        if isinstance(part, str) and hasattr(current, "model_fields") and part in current.model_fields:
            current = _inner_model(current.model_fields[part].annotation) or current
    return list(current.model_fields)


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one dotted key, in place. Errors: ConfigError."""
    key, equals, value = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ConfigError(
            f"--set {override!r}: expected key=value with a dotted key, for example judge.orders=random"
        )
    node: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        node = _descend(node, part, override)
    try:
        parsed = yaml.load(value, _TextKeys)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: the value is not YAML") from None
    if isinstance(node, list):
        _descend(node, last, override)
        node[int(last)] = parsed
    else:
        node[last] = parsed


def _descend(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        if not part.isdigit() or int(part) >= len(node):
            raise ConfigError(f"--set {override!r}: {part!r} is not an index into a list of {len(node)}")
        return node[int(part)]
    if node.get(part) is None:
        node[part] = {}
    if not isinstance(node[part], dict | list):
        raise ConfigError(f"--set {override!r}: {part!r} holds {node[part]!r}, not a mapping")
    return node[part]
