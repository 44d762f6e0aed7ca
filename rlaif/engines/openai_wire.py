"""The OpenAI chat-completions format: request bodies, replies, and what its errors mean. Pure, no I/O.

Read against the servers' own dialects: OpenAI, Azure, vLLM, SGLang, llama.cpp, Ollama, OpenRouter.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from rlaif.errors import EngineError, RequestFailed, Transient
from rlaif.records import Message, Reply, Request, TokenLogprob, Usage

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


def fold_system(messages: list[Message]) -> list[Message]:
    """System messages put in front of the first user turn, for chat templates that have no system role."""
    system = [str(m["content"]) for m in messages if m["role"] == "system"]
    rest = [m for m in messages if m["role"] != "system"]
    if not system:
        return messages
    head = "\n\n".join(system)
    for position, message in enumerate(rest):
        if message["role"] == "user":
            content = message["content"]
            joined: Any = (
                [{"type": "text", "text": head}, *content] if isinstance(content, list) else f"{head}\n\n{content}"
            )
            return [*rest[:position], {**message, "content": joined}, *rest[position + 1 :]]
    return [{"role": "user", "content": head}, *rest]


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
    return (text, thinking) if thinking is not None else split_thinking(text)


def _parts(parts: list[dict[str, Any]], kind: str) -> str:
    found = [part.get(kind) for part in parts if part.get("type") == kind]
    return "".join(_parts(x, "text") if isinstance(x, list) else str(x or "") for x in found)


def split_thinking(text: str) -> tuple[str, str | None]:
    """(text, thinking) of a reply that carries its thinking in `<think>…</think>`.

    Thinking that is never closed leaves no text. A closing tag without an opening one means that the chat
    template had opened it in the prompt.
    """
    if "think>" not in text:
        return text, None
    head, closed, tail = text.partition("</think>")
    opened = head.lstrip().startswith("<think>")
    if not opened and (not closed or "<think>" in head):
        return text, None
    thinking = head.lstrip().removeprefix("<think>").strip()
    return (tail.lstrip("\r\n") if closed else ""), thinking


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
    close = joined.rfind("</think>")
    start = close + len("</think>") if close >= 0 else joined.rfind(text.strip())
    if start < 0 or not text.strip():
        return []
    position = 0
    for index, token in enumerate(tokens):
        position += len(token.token)
        if position > start:
            return tokens[index:]
    return []


# ---------------------------------------------------------------- errors

_TOO_LONG = re.compile(
    r"context.?(length|window|size)|max_model_len|(prompt|input|request|messages?)\b.{0,60}\btoo (long|large)"
    r"|longer than the (model|maximum)|max_total_tokens|too many tokens",
    re.IGNORECASE | re.DOTALL,
)
_FILTERED = re.compile(r"content_filter|content_policy|content management policy|input was flagged", re.IGNORECASE)
_NO_SYSTEM = re.compile(
    r"system.{0,12}(role|message|prompt|instruction).{0,40}(not|n't|un)\s*(be )?(support|allow|enabled|permit)"
    r"|(not|n't|un)\s*(support|allow).{0,40}\bsystem\b",
    re.IGNORECASE | re.DOTALL,
)
_SECRET = re.compile(r"\b(sk|pk|gsk|hf|xai|key)[-_][A-Za-z0-9_\-*]{8,}|(?<=Bearer )[^\s\"',]+")


class ServerError(msgspec.Struct, frozen=True):
    """What came with a status other than 200."""

    status: int
    message: str = ""
    code: str = ""
    param: str = ""


def read_error(status: int, payload: bytes, secrets: tuple[str, ...]) -> ServerError:
    """The server's own words, without secrets: bodies of OpenAI, vLLM, FastAPI and plain text."""
    try:
        body = json.loads(payload)
    except ValueError:
        return ServerError(status, redact(payload.decode("utf-8", "replace"), secrets))
    detail = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(detail, dict):
        return ServerError(status, redact(str(detail), secrets))
    message = detail.get("message") or detail.get("detail") or detail.get("error") or ""
    code = f"{detail.get('code') or ''} {detail.get('type') or ''}"
    return ServerError(status, redact(str(message), secrets), code, str(detail.get("param") or ""))


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    for secret in secrets:
        text = text.replace(secret, "***")
    return _SECRET.sub("***", text)


def shorten(text: str, limit: int = 240) -> str:
    """One line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def is_filtered(error: ServerError) -> bool:
    """A content filter refused the prompt: that is a reply, the same every time."""
    return error.status in (400, 403) and bool(_FILTERED.search(f"{error.code} {error.message[:300]}"))


def refuses_system(error: ServerError) -> bool:
    """The chat template has no system role (llama.cpp says so with a 500)."""
    return error.status in (400, 422, 500) and bool(_NO_SYSTEM.search(error.message[:600]))


def refuses_logprobs(error: ServerError) -> bool:
    if error.status not in (400, 422):
        return False
    return "logprobs" in error.param or "logprobs" in error.message[:300]


def to_exception(error: ServerError, where: str, headers: Mapping[str, str]) -> RequestFailed | EngineError:
    """The exception for a status that concerns this request or this moment; 401, 403, 404 are the engine's."""
    said = f"{where}: HTTP {error.status}: {shorten(error.message) or 'no message'}"
    status = error.status
    if status == 402 or "insufficient_quota" in error.code:
        return EngineError(f"{said} (no credit left)")
    if status == 429 or status == 529:
        return Transient("throttled", said, retry_after_s=retry_after_s(headers), throttled=True)
    if status in (408, 409, 425) or status >= 500:
        return Transient("server", said, retry_after_s=retry_after_s(headers))
    if 300 <= status < 400:
        return EngineError(f"{said}; redirects are not followed, since they would carry the key: fix base_url")
    if status == 413 or _TOO_LONG.search(f"{error.code} {error.message[:600]}"):
        return RequestFailed("prompt_too_long", said)
    return RequestFailed("bad_request", said)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait: `retry-after-ms`, or Retry-After in seconds or as an HTTP date."""
    try:
        if "retry-after-ms" in headers:
            return _not_negative(float(headers["retry-after-ms"]) / 1000)
        value = headers.get("Retry-After")
        if value is None:
            return None
        try:
            return _not_negative(float(value))
        except ValueError:
            return _not_negative(parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _not_negative(seconds: float) -> float | None:
    return max(0.0, seconds) if math.isfinite(seconds) else None
