"""The OpenAI chat-completions format: request bodies and replies. Pure, no I/O. Errors are in openai_errors.py.

Read against the servers' own dialects: OpenAI, Azure, vLLM, SGLang, llama.cpp, Ollama, OpenRouter.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

from rlaif.engines.chat import END_THINK, fold_system, split_thinking
from rlaif.engines.openai_errors import shorten
from rlaif.errors import Transient
from rlaif.records import Reply, Request, TokenLogprob, Usage

RESERVED = ("model", "messages", "stream", "n")  # a request is one reply, whole, from the model of the config
LOGPROB_FLOOR = -9999.0  # what vLLM sends for minus infinity, which JSON cannot hold
_FINISH = {
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "content_filter": "refusal",
    "safety": "refusal",
}
_BROKEN_OFF = ("abort", "error")  # the server gave up half-way: what it sent is no reply


# ---------------------------------------------------------------- request → body


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How one server wants its bodies."""

    model: str
    logprobs: bool = True
    top_logprobs_max: int = 20
    json_schema: bool = True
    send_seed: bool = True
    max_tokens_field: str = "max_tokens"
    omit: tuple[str, ...] = ()
    extra_body: dict[str, Any] = {}


def build_body(request: Request, seed: int, dialect: Dialect, *, fold: bool = False) -> dict[str, Any]:
    """The JSON body. `fold`: move system messages into the user turn.

    `temperature` and `top_p` are always sent: servers fill what is missing from the model's own
    generation settings, and then the journal would not know how a reply was sampled.
    """
    body: dict[str, Any] = {
        "model": dialect.model,
        "messages": fold_system(request.messages) if fold else request.messages,
        dialect.max_tokens_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
    }
    if request.stop:
        body["stop"] = request.stop
    if dialect.send_seed and request.temperature > 0:
        body["seed"] = seed
    if dialect.logprobs and (request.labels or request.top_logprobs):
        body["logprobs"] = True
        body["top_logprobs"] = min(request.top_logprobs or dialect.top_logprobs_max, dialect.top_logprobs_max)
    if request.json_schema is not None and dialect.json_schema:
        schema = {"name": "reply", "schema": request.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    for key in dialect.omit:
        body.pop(key, None)
    return body | dialect.extra_body | request.extra


# ---------------------------------------------------------------- body → reply


class _Top(msgspec.Struct):
    token: str
    logprob: float | None = None


class _Token(msgspec.Struct):
    token: str
    logprob: float | None = None
    top_logprobs: list[_Top] | None = None


class _Logprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None
    # Left raw: the log-probs are nine tenths of a reply and most of the decoding time, and often not wanted.
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    model: str | None = None
    error: Any = None


_decode_completion = msgspec.json.Decoder(_Completion).decode
_decode_logprobs = msgspec.json.Decoder(_Logprobs | None).decode


def read_reply(payload: bytes, model: str, *, logprobs: bool, where: str = "the server") -> Reply:
    """A 200 body as a Reply. Errors: Transient("malformed") for half or foreign JSON and for no choices."""
    try:
        completion = _decode(payload)
        if not completion.choices:
            raise Transient("malformed", f"{where}: a reply without choices{_its_error(completion.error)}")
        choice = completion.choices[0]
        tokens = _decode_logprobs(choice.logprobs) if logprobs else None
    except msgspec.MsgspecError as error:
        raise Transient("malformed", f"{where}: the reply is not a chat completion: {error}") from None
    if choice.finish_reason in _BROKEN_OFF:
        raise Transient("aborted", f"{where} broke off: finish_reason {choice.finish_reason!r}")
    text, thinking = _text_and_thinking(choice.message)
    return Reply(
        text=text,
        thinking=thinking,
        finish_reason=_finish_reason(choice),
        logprobs=_token_logprobs(tokens, text, thinking) if tokens is not None else None,
        usage=_usage(completion.usage),
        model=completion.model or model,
    )


def _decode(payload: bytes) -> _Completion:
    try:
        return _decode_completion(payload)
    except msgspec.MsgspecError:
        # Python servers write NaN, -Infinity and lone surrogates, which strict JSON has not; the reply is good.
        try:
            lenient = json.loads(payload)
        except ValueError:
            raise msgspec.DecodeError(f"not JSON ({len(payload)} bytes)") from None
        return _decode_completion(msgspec.json.encode(_clean(lenient)))


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(_clean(k)): _clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_clean(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return LOGPROB_FLOOR
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value


def _its_error(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return f": {shorten(str(message))}" if message else ""


def _finish_reason(choice: _Choice) -> str:
    if choice.message.refusal:
        return "refusal"
    return _FINISH.get(choice.finish_reason or "stop", choice.finish_reason or "stop")


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details
    return Usage(usage.prompt_tokens or 0, usage.completion_tokens or 0, (details and details.cached_tokens) or 0)


def _text_and_thinking(message: _Message) -> tuple[str, str | None]:
    content = message.content
    thinking = message.reasoning_content or message.reasoning or None
    if isinstance(content, list):  # Mistral: a list of parts
        thinking = thinking or _parts(content, "thinking") or None
        content = _parts(content, "text")
    text = content or message.refusal or ""
    if thinking is None:
        thinking, text = split_thinking(text)
    return text, thinking


def _parts(parts: list[dict[str, Any]], kind: str) -> str:
    found = [part.get(kind) for part in parts if part.get("type") == kind]
    return "".join(_parts(x, "text") if isinstance(x, list) else str(x or "") for x in found)


def _token_logprobs(tokens: _Logprobs, text: str, thinking: str | None) -> list[TokenLogprob] | None:
    content = tokens.content
    if content is None:
        return None
    if thinking is not None:
        content = _after_thinking(content, text)
    return [
        TokenLogprob(
            t.token,
            LOGPROB_FLOOR if t.logprob is None else t.logprob,
            [(a.token, LOGPROB_FLOOR if a.logprob is None else a.logprob) for a in t.top_logprobs or ()],
        )
        for t in content
    ]


def _after_thinking(tokens: list[_Token], text: str) -> list[_Token]:
    """The tokens of `text`: some servers list those of the thinking too, others only the text's.

    Where neither a closing tag nor the text itself is found among them, none: a position that cannot be told from
    thinking must not be read as a verdict.
    """
    joined = "".join(t.token for t in tokens)
    close = joined.rfind(END_THINK)
    start = close + len(END_THINK) if close >= 0 else joined.rfind(text.strip())
    if start < 0 or not text.strip():
        return []
    position = 0
    for index, token in enumerate(tokens):
        position += len(token.token)
        if position > start:
            return tokens[index:]
    return []
