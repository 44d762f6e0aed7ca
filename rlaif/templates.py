"""The one jinja2 environment: sandboxed, strict, and with fences around text that comes from data.

A frame is a template file. Its optional blocks `system` and `user` become the messages; a frame without
blocks is one user message. Frames see only what `render_messages` is given.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, meta
from jinja2 import Template as _JinjaTemplate
from jinja2 import TemplateError as _JinjaError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlaif.errors import TemplateError
from rlaif.paths import shipped

_MIN_FENCE = 3
# What chat templates use to open and close turns. A zero-width space after the first character keeps a
# tokenizer from reading such a string, when it stands in data, as the control token itself.
_CONTROL = re.compile(
    r"<(?=\|)|<(?=/?(?:s|think|start_of_turn|end_of_turn|bos|eos|pad|unk|im_start|im_end)>)|\[(?=/?(?:INST|SYS)\])"
)
_BREAK = "\u200b"


def neutralise(text: str) -> str:
    """Break chat-template control tokens inside `text`, visibly nothing else."""
    return _CONTROL.sub(lambda match: match.group() + _BREAK, text)


def fence(text: object) -> str:
    """`text` between two lines of backticks, longer than any run of backticks inside it."""
    body = neutralise(str(text))
    longest = max((len(run) for run in re.findall(r"`+", body)), default=0)
    ticks = "`" * max(_MIN_FENCE, longest + 1)
    return f"{ticks}\n{body}\n{ticks}"


class Frame:
    """A compiled frame: which variables it wants, its hash, and how to render it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"{path}: cannot read this frame: {error}") from None
        self._env = _environment(path.parent)
        try:
            self._template: _JinjaTemplate = self._env.get_template(path.name)
            tree = self._env.parse(source)
        except _JinjaError as error:
            line = getattr(error, "lineno", None)
            where = f"{path}:{line}" if line else str(path)
            raise TemplateError(f"{where}: {error}") from None
        self.variables = meta.find_undeclared_variables(tree)
        self.sha256 = _hash_with_imports(self._env, path.parent, path.name, source)

    def render(self, context: Mapping[str, Any]) -> list[dict[str, str]]:
        """Chat messages. Errors: TemplateError that lists all the missing variables."""
        missing = sorted(self.variables - set(context))
        if missing:
            raise TemplateError(
                f"{self.path}: the frame wants {', '.join(missing)}; it is given {', '.join(sorted(context))}"
            )
        try:
            if not self._template.blocks:
                return [{"role": "user", "content": self._template.render(context).strip()}]
            return self._render_blocks(context)
        except TemplateError:
            raise
        except Exception as error:  # a sandboxed template can raise anything that its expressions raise
            raise TemplateError(f"{self.path}: {error}") from None

    def _render_blocks(self, context: Mapping[str, Any]) -> list[dict[str, str]]:
        unknown = sorted(set(self._template.blocks) - {"system", "user"})
        if unknown:
            raise TemplateError(f"{self.path}: unknown block {', '.join(unknown)}; allowed: system, user")
        module_context = self._template.new_context(dict(context))
        # Imports at the top of the file belong to no block: run the root once so that the blocks see them.
        "".join(self._template.root_render_func(module_context))
        messages = []
        for role in ("system", "user"):
            block = self._template.blocks.get(role)
            if block is not None:
                text = "".join(block(module_context)).strip()
                if text:
                    messages.append({"role": role, "content": text})
        return messages


@lru_cache(maxsize=64)
def load_frame(path: Path) -> Frame:
    """The compiled frame at `path`; compiled once per process."""
    return Frame(path)


@lru_cache(maxsize=16)
def _environment(folder: Path) -> ImmutableSandboxedEnvironment:
    env = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader([folder, shipped("prompts") / "judges"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        autoescape=False,
    )
    env.filters["fence"] = fence
    env.filters["neutralise"] = neutralise
    return env


def _hash_with_imports(env: ImmutableSandboxedEnvironment, folder: Path, name: str, source: str) -> str:
    digest = hashlib.sha256(source.encode())
    for imported in sorted(set(meta.find_referenced_templates(env.parse(source))) - {None}):  # type: ignore[type-var]
        assert env.loader is not None
        digest.update(env.loader.get_source(env, str(imported))[0].encode())
    return digest.hexdigest()
