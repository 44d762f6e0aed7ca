"""What an engine is, and how one is chosen by name."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Protocol, runtime_checkable

import msgspec

from rlaif.errors import ConfigError
from rlaif.records import Message, Reply, Request

# engine name → "module:class"; the class is called with the keyword arguments of the config's entry
BUILT_IN = {
    "openai": "rlaif.engines.openai:OpenAIEngine",
    "transformers": "rlaif.engines.transformers:TransformersEngine",
    "vllm": "rlaif.engines.vllm:VLLMEngine",
    "replay": "rlaif.engines.replay:replay",
    "scripted": "rlaif.engines.scripted:ScriptedEngine",
}
IN_PROCESS = {"transformers", "vllm"}  # they load a model: their stage gets a process of its own
NEVER_SHRINKS = {"vllm"}  # in process, and gives its memory back only when the process ends
_PARTS = ("identity", "model", "capabilities", "start", "complete", "count_tokens", "close")
ENTRY_POINT_GROUP = "rlaif.engines"


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine can do, so that a stage can plan before it sends anything."""

    logprobs: bool = False
    exact_labels: bool = False  # label log-probs are read exactly, not only if they are among the top k
    json_schema: bool = False
    context_tokens: int | None = None  # None: unknown
    concurrency: int = 64  # how many requests it wants in flight
    by_subject: bool = False  # answers by what is judged: the same words about something else are another question


@runtime_checkable
class Engine(Protocol):
    """One model behind one way of reaching it.

    `identity` goes into every key: endpoint pool + model + revision, or for a local folder the sha256 of its files.
    It must be known without loading the model, since a finished run is replayed without it.
    """

    identity: str
    model: str
    capabilities: Capabilities

    async def start(self) -> None:
        """Load or connect. Errors: EngineError with one clear line. Called once, before the first `complete`."""

    async def complete(self, request: Request, seed: int) -> Reply:
        """One reply. `seed` (63 bit) is derived from the request's key and is used when temperature > 0.

        Errors: Transient (worth another try), RequestFailed (this request will never work, e.g. prompt_too_long),
        EngineError (nothing will ever work: wrong key, unknown model).
        """

    def count_tokens(self, messages: list[Message]) -> int | None:
        """Prompt tokens after the chat template, or None where that is unknown without a call."""

    async def close(self) -> None:
        """Free everything; no process or socket is left."""


def load(spec: Mapping[str, Any], where: str = "engines") -> Engine:
    """Build (not start) the engine that `spec["engine"]` names.

    `spec` is a mapping with `engine` and the engine's own arguments. A name with a colon is an import path.
    Errors: ConfigError that names `where`, what came and what is known.
    """
    options = dict(spec)
    name = str(options.pop("engine", ""))
    cls = find(name, where)
    try:
        engine: Engine = cls(**options)
    except TypeError as error:
        raise ConfigError(f"{where}: engine {name!r}: {_plain(error)}{_nearest(cls, options)}") from None
    missing = [name for name in _PARTS if not hasattr(engine, name)]
    if missing:
        raise ConfigError(f"{where}: engine {name!r} has no {', '.join(missing)} (see rlaif.engines.base.Engine)")
    concurrency: object = engine.capabilities.concurrency
    if not isinstance(concurrency, int) or concurrency < 1:
        raise ConfigError(f"{where}.concurrency: expected a whole number of at least 1, got {concurrency!r}")
    return engine


def find(name: str, where: str = "engines") -> Any:
    """The class behind an engine name or import path."""
    target = BUILT_IN.get(name) or _entry_points().get(name) or (name if ":" in name else None)
    if target is None:
        known = ", ".join(sorted({*BUILT_IN, *_entry_points()}))
        raise ConfigError(
            f"{where}: unknown engine {name!r}; known: {known}, or an import path 'package.module:Class'"
        )
    return import_path(target, where)


def import_path(target: str, where: str) -> Any:
    """The object at "package.module:attribute". Errors: ConfigError."""
    module_name, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except ImportError as error:
        raise ConfigError(f"{where}: cannot import {target!r}: {error}") from None
    except AttributeError:
        raise ConfigError(f"{where}: {module_name} has no {attribute!r}") from None


def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _nearest(cls: Any, options: Mapping[str, Any]) -> str:
    """A hint for a misspelled argument of an engine, where one is near."""
    known = [name for name, of in inspect.signature(cls).parameters.items() if of.kind != of.VAR_KEYWORD]
    near = [difflib.get_close_matches(name, known, n=1) for name in options if name not in known]
    return "".join(f"; did you mean {names[0]!r}?" for names in near[:1] if names)


def _plain(error: TypeError) -> str:
    return str(error).partition("() ")[2] or str(error)
