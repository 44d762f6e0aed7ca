"""What the errors of OpenAI-compatible servers mean, without the secrets that they may repeat. Pure, no I/O."""

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


def refused_field(error: ServerError, body: Mapping[str, Any]) -> str | None:
    """The field of the body that this server will not have at all (newer OpenAI models: max_tokens, temperature)."""
    unsupported = error.status in (400, 422) and "unsupported" in f"{error.code} {error.message[:100]}".lower()
    return error.param if unsupported and error.param in body else None


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
