"""Replies from a script: for tests of judges, parsers and the driver, without a model.

A reply is a pure function of its request, whatever came before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from rlaif.engines.base import Capabilities, import_path
from rlaif.errors import ConfigError, RequestFailed, Transient
from rlaif.paths import resolve
from rlaif.records import Message, Reply, Request, TokenLogprob, Usage

TRANSIENT = ("connection", "dropped", "malformed", "server", "throttled", "timeout")  # kinds worth another try
_TOKEN = re.compile(r"\s*\S+|\s+$")


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`match` is searched in the last message. `reply`: a text, or several, of which a request's `sample` takes one
    in turn. `logprobs`: label → log-probability at the verdict's position; without `reply` the likeliest label is
    the reply. `fail`: a kind of failure instead of a reply.
    """

    match: str = ""
    reply: str | list[str] | None = None
    thinking: str | None = None
    logprobs: dict[str, float] | None = None
    finish_reason: str = "stop"
    fail: str | None = None


class ScriptedEngine:
    """`replies`: rules (the first that matches answers), a mapping from pattern to text, or the path of a YAML or
    JSON file of either; plain texts in a list are taken in turn by `sample`. `default` answers what no rule matches;
    without it that fails with "not_scripted". `function`: a callable Request → Reply or text, or its import path;
    it is asked instead of rules. `logprobs`: whether judges may ask for log-probs; default: whether a rule has any.
    """

    def __init__(
        self,
        replies: Sequence[Any] | Mapping[str, Any] | str | None = None,
        default: str | None = None,
        *,
        function: Callable[[Request], Reply | str] | str | None = None,
        logprobs: bool | None = None,
        model: str = "scripted",
        concurrency: int = 64,
    ) -> None:
        if (replies is None and default is None) == (function is None):
            raise ConfigError("scripted: give replies (or a default), or a function")
        self.model = model
        self.default = default
        self.function = import_path(function, "scripted: function") if isinstance(function, str) else function
        self.rules = _rules(replies)
        self._patterns = [_compiled(rule) for rule in self.rules]
        script = msgspec.json.encode([self.rules, default, _name(self.function)])
        self.identity = f"scripted:{hashlib.sha256(script).hexdigest()[:16]}|{model}"
        if logprobs is None:
            logprobs = any(rule.logprobs for rule in self.rules)
        self.capabilities = Capabilities(logprobs=logprobs, concurrency=concurrency)

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to free."""

    def count_tokens(self, messages: list[Message]) -> int | None:
        return sum(len(str(message["content"]).split()) for message in messages)

    async def complete(self, request: Request, seed: int) -> Reply:
        if self.function is not None:
            answer = self.function(request)
            return answer if isinstance(answer, Reply) else self._reply(Rule(reply=answer), request)
        text = str(request.messages[-1]["content"])
        for rule, pattern in zip(self.rules, self._patterns, strict=True):
            if pattern.search(text):
                return self._reply(rule, request)
        if self.default is None:
            raise RequestFailed("not_scripted", f"no rule matches {text[-80:]!r}")
        return self._reply(Rule(reply=self.default), request)

    def _reply(self, rule: Rule, request: Request) -> Reply:
        if rule.fail == "throttled":
            raise Transient("throttled", "scripted", throttled=True)
        if rule.fail is not None:
            raise (Transient if rule.fail in TRANSIENT else RequestFailed)(rule.fail, "scripted")
        text = _text(rule, request.sample)
        wanted = bool(request.labels or request.top_logprobs)
        return Reply(
            text=text,
            thinking=rule.thinking,
            finish_reason=rule.finish_reason,
            logprobs=_token_logprobs(text, rule.logprobs) if wanted and rule.logprobs else None,
            usage=Usage(self.count_tokens(request.messages) or 0, len(text.split())),
            model=self.model,
        )


def _rules(replies: Sequence[Any] | Mapping[str, Any] | str | None) -> list[Rule]:
    where = "scripted: replies"
    if isinstance(replies, str):
        where = f"scripted: {replies}"
        replies = _from_file(replies)
    if replies is None:
        return []
    if isinstance(replies, Mapping):
        replies = [{"match": pattern, "reply": reply} for pattern, reply in replies.items()]
    if replies and all(isinstance(reply, str) for reply in replies):
        replies = [{"reply": list(replies)}]
    try:
        return msgspec.convert(list(replies), list[Rule])
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None


def _from_file(path: str) -> Any:
    try:
        return yaml.safe_load(resolve(path, Path.cwd()).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"scripted: {path}: cannot read: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"scripted: {path}: not YAML: {' '.join(str(error).split())}") from None


def _compiled(rule: Rule) -> re.Pattern[str]:
    if rule.reply is None and rule.logprobs is None and rule.fail is None:
        raise ConfigError(f"scripted: rule {rule.match!r} needs reply, logprobs or fail")
    if rule.reply == []:
        raise ConfigError(f"scripted: rule {rule.match!r}: reply is an empty list")
    try:
        return re.compile(rule.match, re.DOTALL)
    except re.error as error:
        raise ConfigError(f"scripted: match {rule.match!r} is not a regular expression: {error}") from None


def _name(function: Callable[..., Any] | None) -> str:
    return f"{function.__module__}:{function.__qualname__}" if function is not None else ""


def _text(rule: Rule, sample: int) -> str:
    if isinstance(rule.reply, list):
        return rule.reply[sample % len(rule.reply)]
    if rule.reply is None and rule.logprobs:
        return max(rule.logprobs, key=lambda label: rule.logprobs[label])  # type: ignore[index]
    return rule.reply or ""


def _token_logprobs(text: str, labels: dict[str, float]) -> list[TokenLogprob]:
    """Words as tokens; the last that is a label carries the labels' log-probs, the others are certain."""
    tokens = _TOKEN.findall(text)
    at = max((i for i, token in enumerate(tokens) if token.strip() in labels), default=None)
    top = sorted(labels.items(), key=lambda item: -item[1])
    return [
        TokenLogprob(token, labels[token.strip()], top) if i == at else TokenLogprob(token, 0.0, [(token, 0.0)])
        for i, token in enumerate(tokens)
    ]
