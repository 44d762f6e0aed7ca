"""The one jinja2 environment: sandboxed, strict, bounded, and with fences around text that comes from data.

A frame is a template file. Its blocks `system` and `user` become the messages; a frame without blocks is one user
message. Frames see only what `render` is given; values are inserted as they are and never read as template code.
A frame may import, include or extend files of its own folder and the shipped frames, by literal name: they are read
once, at load, so a render touches no file and the hash covers everything that can change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from jinja2 import FileSystemLoader, FunctionLoader, StrictUndefined, meta, nodes
from jinja2 import Template as _JinjaTemplate
from jinja2 import TemplateError as _JinjaError
from jinja2.environment import TemplateModule
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlaif.errors import TemplateError
from rlaif.fencing import fence, neutralise
from rlaif.paths import shipped

__all__ = ["Frame", "fence", "load_frame", "neutralise"]

_ROLES = ("system", "user")
_MAX_STEPS = 200_000  # loop turns and calls in one render; a frame that needs more does not end
_MAX_REPEAT = 1_000_000  # length of "x" * n


class Frame:
    """A compiled frame: which variables it wants, its hash, and how to render it.

    `sha256`: of the file; where others are imported, of all of them. Errors: TemplateError with file and line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._env = _Sandbox()
        files = _gather(self._env, path)
        self._env.loader = FunctionLoader(lambda name: (files[name].text, str(files[name].path), None))
        for name in files:
            _compile(self._env, name, files[name].path)
        self._template: _JinjaTemplate = self._env.get_template(path.name)
        self._has_blocks = _check_blocks(files)
        self.variables = _wanted(files)
        self.paths = tuple(file.path for file in files.values())
        self.sha256 = _hash(files)

    def render(self, context: Mapping[str, Any]) -> list[dict[str, str]]:
        """Chat messages. Errors: TemplateError that lists all the missing variables."""
        missing = self.variables - context.keys()
        if missing:
            raise TemplateError(
                f"{self.path}: the frame wants {', '.join(sorted(missing))}; it is given {', '.join(sorted(context))}"
            )
        self._env.steps = 0
        try:
            messages = self._render_blocks(context) if self._has_blocks else self._render_whole(context)
        except TemplateError:
            raise
        except RecursionError:
            raise TemplateError(f"{self.path}: macros or includes call each other without end") from None
        except Exception as error:  # a sandboxed template can raise anything that its expressions raise
            raise TemplateError(f"{_place(error.__traceback__, self.path)}: {error}") from None
        if not messages or messages[-1]["role"] != "user":
            raise TemplateError(f"{self.path}: the user message is empty")
        return messages

    def _render_whole(self, context: Mapping[str, Any]) -> list[dict[str, str]]:
        text = "".join(self._template.root_render_func(self._template.new_context(dict(context)))).strip()
        return [{"role": "user", "content": text}] if text else []

    def _render_blocks(self, context: Mapping[str, Any]) -> list[dict[str, str]]:
        """Run the top of the file first, with empty blocks: its imports and sets belong to no block, yet blocks use
        them, and `extends` only there adds the blocks of the extended frame."""
        scope = self._template.new_context(dict(context))
        scope.blocks = {role: [_nothing] for role in _ROLES}
        for _ in self._template.root_render_func(scope):
            pass
        for role, inherited in scope.blocks.items():
            own = self._template.blocks.get(role)
            scope.blocks[role] = ([own] if own else []) + inherited[1:]
        messages = []
        for role in _ROLES:
            if scope.blocks[role]:
                text = "".join(scope.blocks[role][0](scope)).strip()
                if text:
                    messages.append({"role": role, "content": text})
        return messages


def load_frame(path: Path) -> Frame:
    """The compiled frame at `path`; compiled once per process, and again when one of its files has changed."""
    known = _loaded.get(path)
    if known is None or known[0] != _stamp(known[1].paths):
        frame = Frame(path)
        known = _loaded[path] = (_stamp(frame.paths), frame)
    return known[1]


_loaded: dict[Path, tuple[list[tuple[int, int]], Frame]] = {}


def _stamp(paths: Iterable[Path]) -> list[tuple[int, int]]:
    stats = [path.stat() if path.exists() else None for path in paths]
    return [(stat.st_mtime_ns, stat.st_size) if stat else (0, 0) for stat in stats]


class _Sandbox(ImmutableSandboxedEnvironment):
    """Counts loop turns and calls, so that no frame runs for ever: every unbounded template needs one of them."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
        self.steps = 0
        self.filters.update(fence=fence, neutralise=neutralise, _counted=self._counted)
        self.globals.pop("lipsum")
        self.globals["range"] = self._range

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_counted", [], [], None, None, lineno=loop.lineno)
        tree.set_environment(self)
        return tree

    def _spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > _MAX_STEPS:
            raise OverflowError(f"more than {_MAX_STEPS} loop turns and calls in one render")

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._spend(1)
            yield item

    def _range(self, *bounds: int) -> range:
        self._spend(len(range(*bounds)))
        return range(*bounds)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self._spend(1)
        if type(__obj) is Macro:  # most calls, and safe: jinja2's own checks take longer than the macro
            kwargs.pop("_block_vars", None)
            kwargs.pop("_loop_vars", None)
            return __obj(*args, **kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Of a mapping, its key: faster than jinja2, and a column named `items` is a column. Of an import, its
        macro."""
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        if type(obj) is TemplateModule and not attribute.startswith("_"):
            return obj.__dict__.get(attribute) or super().getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise OverflowError("** is not available in frames")
        for text, count in ((left, right), (right, left)):
            if isinstance(text, str | list | tuple) and isinstance(count, int) and len(text) * count > _MAX_REPEAT:
                raise OverflowError(f"a repetition longer than {_MAX_REPEAT}")
        return super().call_binop(context, operator, left, right)


class _File(NamedTuple):
    path: Path
    text: str
    tree: nodes.Template
    sees_context: bool  # False: imported without context, so its macros see only their arguments
    shares_names: bool  # included or extended: it and the frame see what the other sets


def _nothing(_: Context) -> Iterator[str]:
    return iter(())


def _gather(env: _Sandbox, frame: Path) -> dict[str, _File]:
    """The frame and everything that it imports, includes or extends, however deep: name → file, the frame first."""
    files: dict[str, _File] = {}
    waiting = [(frame.name, frame, True, True)]
    while waiting:
        name, path, sees_context, shares_names = waiting.pop(0)
        if name in files:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateError(f"{path}: cannot read this frame: {error}") from None
        files[name] = _File(path, text, _parse(env, name, path, text), sees_context, shares_names)
        for node in files[name].tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
            assert isinstance(node, nodes.Extends | nodes.Include | nodes.Import | nodes.FromImport)
            other = _literal(node, path)
            sees = sees_context and bool(getattr(node, "with_context", True))
            shares = shares_names and isinstance(node, nodes.Extends | nodes.Include)
            waiting.append((other, _locate(other, frame.parent, f"{path}:{node.lineno}"), sees, shares))
    return files


def _literal(node: nodes.Extends | nodes.Include | nodes.Import | nodes.FromImport, path: Path) -> str:
    if isinstance(node.template, nodes.Const) and isinstance(node.template.value, str):
        return node.template.value
    raise TemplateError(f"{path}:{node.lineno}: name the other file in quotes; a computed name is not allowed")


def _locate(name: str, folder: Path, where: str) -> Path:
    for root in (folder, shipped("prompts") / "judges"):
        path = root / name
        if path.is_file() and path.resolve().is_relative_to(root.resolve()):
            return path
    raise TemplateError(f"{where}: no {name!r} in the frame's folder or among the shipped frames")


def _parse(env: _Sandbox, name: str, path: Path, text: str) -> nodes.Template:
    try:
        return env._parse(text, name, str(path))
    except _JinjaError as error:
        raise TemplateError(_syntax_fault(error, path)) from None


def _compile(env: _Sandbox, name: str, path: Path) -> None:
    try:
        env.get_template(name)
    except _JinjaError as error:
        raise TemplateError(_syntax_fault(error, path)) from None


def _syntax_fault(error: _JinjaError, path: Path) -> str:
    line = getattr(error, "lineno", None)
    return f"{path}:{line}: {error.message}" if line else f"{path}: {error.message}"


def _check_blocks(files: Mapping[str, _File]) -> bool:
    """Whether the frame is made of blocks. Errors: TemplateError for what would silently not be sent."""
    frame = next(iter(files.values()))
    blocks = {block.name for file in files.values() for block in file.tree.find_all(nodes.Block)}
    if not blocks:
        return False
    for file in files.values():
        for block in file.tree.find_all(nodes.Block):
            if block.name not in _ROLES:
                allowed = ", ".join(_ROLES)
                raise TemplateError(f"{file.path}:{block.lineno}: unknown block {block.name!r}; allowed: {allowed}")
    if "user" not in blocks:
        raise TemplateError(f"{frame.path}: a frame with blocks needs a block 'user'")
    for output in frame.tree.body:
        if isinstance(output, nodes.Output) and not _is_blank(output):
            raise TemplateError(
                f"{frame.path}:{output.lineno}: text outside the blocks is not sent; move it into one"
            )
    return True


def _is_blank(output: nodes.Output) -> bool:
    return all(isinstance(part, nodes.TemplateData) and not part.data.strip() for part in output.nodes)


def _wanted(files: Mapping[str, _File]) -> frozenset[str]:
    """The variables that the frame must be given, also those used in what it includes and extends."""
    wanted: set[str] = set()
    shared = set().union(*(_set_at_top(file.tree) for file in files.values() if file.shares_names))
    for file in files.values():
        own = shared if file.shares_names else _set_at_top(file.tree)
        free = meta.find_undeclared_variables(file.tree) - own
        if free and not file.sees_context:
            raise TemplateError(
                f"{file.path}: its macros use {', '.join(sorted(free))} without taking it as an argument; "
                "pass it, or import the file 'with context'"
            )
        wanted |= free
    return frozenset(wanted)


def _set_at_top(tree: nodes.Template) -> set[str]:
    """Names that imports, macros and `set` define for the whole file; jinja2 counts them as undeclared in blocks."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, nodes.Import):
            names.add(node.target)
        elif isinstance(node, nodes.FromImport):
            names.update(alias[1] if isinstance(alias, tuple) else alias for alias in node.names)
        elif isinstance(node, nodes.Macro):
            names.add(node.name)
        elif isinstance(node, nodes.Assign | nodes.AssignBlock | nodes.If):
            names.update(name.name for name in node.find_all(nodes.Name) if name.ctx == "store")
    return names


def _hash(files: Mapping[str, _File]) -> str:
    (_, frame), *others = files.items()
    digest = hashlib.sha256(frame.text.encode())
    for name, file in sorted(others):
        digest.update(f"\0{name}\0{file.text}".encode())
    return digest.hexdigest()


def _place(traceback: TracebackType | None, path: Path) -> str:
    """file:line of the innermost template line that was running."""
    place = str(path)
    while traceback is not None:
        template = traceback.tb_frame.f_globals.get("__jinja_template__")
        if template is not None:
            place = f"{template.filename}:{template.get_corresponding_lineno(traceback.tb_lineno)}"
        traceback = traceback.tb_next
    return place


def render_page(path: Path, context: Mapping[str, Any]) -> str:
    """An HTML page of rlaif's own, such as the report, with the parts beside it; every value is escaped.

    Errors: TemplateError.
    """
    env = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(path.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        autoescape=True,
    )  # fmt: skip
    try:
        return env.get_template(path.name).render(context)
    except (OSError, UnicodeDecodeError, _JinjaError) as error:
        raise TemplateError(f"{path}: {error}") from None
