"""The base URLs behind one openai engine: which is asked next, and which rests after a fault."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Sequence
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rlaif.engines.openai_errors import shorten
from rlaif.errors import ConfigError

CONNECT_S = 5.0  # to accept a TCP connection
_REST_S = 1.0  # a failing endpoint rests this long, doubled with every failure in a row …
_MAX_REST_S = 60.0  # … up to this


class Endpoint:
    """One base URL, and how it has been doing."""

    def __init__(self, base_url: str) -> None:
        parts = urlsplit(base_url)
        if parts.username or parts.password:
            raise ConfigError("base_url: no user or password in the URL; name their variable in api_key_env")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"base_url {base_url!r}: expected http://HOST[:PORT]/v1 or https://…")
        path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
        query = f"?{parts.query}" if parts.query else ""
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.host, self.port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self.name = f"{parts.scheme}://{host}{port}{path}"  # in identities and messages: never the query
        self.chat_url = f"{self.name}/chat/completions{query}"
        self.models_url = f"{self.name}/models{query}"
        local = parts.hostname in ("localhost", "::1") or parts.hostname.startswith("127.")
        self.proxy = None if local or proxy_bypass(parts.hostname) else getproxies().get(parts.scheme)
        self.in_flight = 0
        self.failures = 0
        self.rests_until = 0.0  # time.monotonic()

    def failed(self, retry_after_s: float | None) -> None:
        pause = retry_after_s if retry_after_s is not None else _REST_S * 2**self.failures
        self.rests_until = time.monotonic() + min(pause, _MAX_REST_S)
        self.failures = min(self.failures + 1, 6)

    def worked(self) -> None:
        self.failures, self.rests_until = 0, 0.0


def pick(endpoints: Sequence[Endpoint]) -> Endpoint:
    """The endpoint with the fewest requests in flight that does not rest; if all do, the one that wakes first."""
    if len(endpoints) == 1:
        return endpoints[0]
    now = time.monotonic()
    awake = [endpoint for endpoint in endpoints if endpoint.rests_until <= now]
    if awake:
        return min(awake, key=lambda endpoint: endpoint.in_flight)
    return min(endpoints, key=lambda endpoint: endpoint.rests_until)


async def connect_fault(endpoint: Endpoint) -> str | None:
    """Why no TCP connection can be made, or None. Through a proxy it is not tried."""
    if endpoint.proxy is not None:
        return None
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(endpoint.host, endpoint.port), CONNECT_S)
    except TimeoutError:
        return f"no answer within {CONNECT_S:g} s"
    except OSError as error:
        return plain(error)
    writer.close()
    return None


def plain(error: BaseException) -> str:
    """The operating system's words, without addresses and Python's decorations."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason}"
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return shorten(str(cause)) or type(error).__name__
