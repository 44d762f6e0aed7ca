"""Any server that speaks OpenAI chat completions: vLLM serve, SGLang, llama.cpp, Ollama, hosted APIs.

One request is one POST; trying again is the driver's business. Several base URLs are one pool.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from rlaif.engines import openai_errors as errors
from rlaif.engines import openai_wire as wire
from rlaif.engines.base import Capabilities
from rlaif.engines.chat import fold_system
from rlaif.engines.openai_pool import CONNECT_S, Endpoint, connect_fault, pick, plain
from rlaif.errors import ConfigError, EngineError, RequestFailed, Transient
from rlaif.records import Message, Reply, Request

if TYPE_CHECKING:
    import aiohttp

# uvicorn (vLLM, SGLang) closes idle connections after 5 s: reusing one just then looks like a dropped request.
_KEEP_ALIVE_S = 4.0
_LARGE_BODY = 1 << 20
_SECRET_HEADER = re.compile(r"authorization|cookie|token|secret|(^|-)key$", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"key|token|secret|passw|credential|auth$|sig(nature)?$", re.IGNORECASE)


class OpenAIEngine:
    """`base_url`: one URL or several that serve the same model (requests go where the fewest are in flight; one that
    fails rests for a while). `api_key_env`: the environment variable that holds the key. `headers_env`: further
    secret headers, header → variable. `name`: what the pool is called in the keys of the journal (default: its
    URLs), so that the same model can move to another address without being asked again.

    Bodies: `extra_body` is merged into every one; `omit` names fields that the server will not have (for example
    temperature, top_p); `max_tokens_field` is max_completion_tokens for some hosts; `system_role: false` puts system
    messages into the user turn, which also happens by itself once the server refuses one.
    """

    def __init__(
        self,
        model: str,
        base_url: str | list[str] = "http://localhost:8000/v1",
        *,
        api_key_env: str | None = None,
        name: str | None = None,
        revision: str | None = None,
        timeout_s: float = 600.0,
        concurrency: int = 64,
        logprobs: bool = True,
        top_logprobs_max: int = 20,
        json_schema: bool = True,
        context_tokens: int | None = None,
        system_role: bool = True,
        send_seed: bool = True,
        max_tokens_field: str = "max_tokens",
        omit: list[str] | None = None,
        headers: dict[str, str] | None = None,
        headers_env: dict[str, str] | None = None,
        extra_body: dict[str, Any] | None = None,
    ) -> None:
        urls = [base_url] if isinstance(base_url, str) else list(base_url)
        if not urls:
            raise ConfigError("base_url: an empty list; expected at least one URL")
        _check_reserved(extra_body or {}, "extra_body")
        _refuse_secrets(headers or {})
        _refuse_secret_parameters(urls)
        self.endpoints = [Endpoint(url) for url in urls]
        self.model = model
        self.capabilities = Capabilities(
            logprobs=logprobs, json_schema=json_schema, context_tokens=context_tokens, concurrency=concurrency
        )
        self.dialect = wire.Dialect(
            model=model,
            logprobs=logprobs,
            top_logprobs_max=top_logprobs_max,
            json_schema=json_schema,
            send_seed=send_seed,
            max_tokens_field=max_tokens_field,
            omit=tuple(omit or ()),
            extra_body=extra_body or {},
        )
        self.identity = self._identity(name, revision, system_role)
        self._fold = not system_role
        self._timeout_s = timeout_s
        self._headers = dict(headers or {})
        self._headers_env = dict(headers_env or {})
        self._api_key_env = api_key_env
        self._secrets: tuple[str, ...] = ()
        self._session: aiohttp.ClientSession | None = None

    def _identity(self, name: str | None, revision: str | None, system_role: bool) -> str:
        """Pool, model, revision, and a digest of what else changes replies, if anything does."""
        pool = name or ",".join(sorted(endpoint.name for endpoint in self.endpoints))
        changed = {
            "extra_body": self.dialect.extra_body,
            "omit": sorted(self.dialect.omit),
            "no_system_role": not system_role,
            "no_json_schema": not self.dialect.json_schema,
        }
        changed = {key: value for key, value in changed.items() if value}
        parts = [pool, self.model, revision or ""]
        if changed:
            parts.append(hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:16])
        return "|".join(parts)

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        import aiohttp

        headers = {**self._headers, "Content-Type": "application/json", **self._secret_headers()}
        self._secrets = tuple(v.removeprefix("Bearer ") for v in self._secret_headers().values())
        self._session = aiohttp.ClientSession(
            # The driver's window is the limit; the pool grows to it and keeps every connection.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=2 * CONNECT_S),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        try:
            await self._check_reachable()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def count_tokens(self, messages: list[Message]) -> int | None:
        return None

    def _secret_headers(self) -> dict[str, str]:
        headers = {header: _secret(variable) for header, variable in self._headers_env.items()}
        if self._api_key_env is not None:
            headers["Authorization"] = f"Bearer {_secret(self._api_key_env)}"
        return headers

    async def _check_reachable(self) -> None:
        faults = await asyncio.gather(*(connect_fault(endpoint) for endpoint in self.endpoints))
        if all(faults):
            tried = "; ".join(f"{e.name} ({fault})" for e, fault in zip(self.endpoints, faults, strict=True))
            raise EngineError(f"server down: {tried}")
        for endpoint, fault in zip(self.endpoints, faults, strict=True):
            if fault:
                endpoint.failed(None)

    # ------------------------------------------------------------ one request

    async def complete(self, request: Request, seed: int) -> Reply:
        if request.extra:
            _check_reserved(request.extra, "extra")
        folded = self._fold
        body = wire.build_body(request, seed, self.dialect, fold=folded)
        endpoint = pick(self.endpoints)
        endpoint.in_flight += 1
        try:
            reply = await self._exchange(endpoint, body)
            if reply is None and not folded:  # the server has no system role: say it in the user turn, from now on
                self._fold = True
                reply = await self._exchange(endpoint, body | {"messages": fold_system(body["messages"])})
            if reply is None:
                raise RequestFailed("bad_request", f"{endpoint.name} refuses the system message, even folded")
        except Transient as fault:
            if fault.kind != "malformed":
                endpoint.failed(fault.retry_after_s)
            raise
        finally:
            endpoint.in_flight -= 1
        endpoint.worked()
        return reply

    async def _exchange(self, endpoint: Endpoint, body: dict[str, Any]) -> Reply | None:
        """The reply, or None where the server refuses the system role."""
        status, headers, payload = await self._post(endpoint, msgspec.json.encode(body))
        if status == 200:
            return wire.read_reply(payload, self.model, logprobs="logprobs" in body, where=endpoint.name)
        error = errors.read_error(status, payload, self._secrets)
        if errors.is_filtered(error):
            return Reply(finish_reason="refusal", model=self.model)
        if errors.refuses_system(error) and any(m["role"] == "system" for m in body["messages"]):
            return None
        if status in (401, 403):
            raise EngineError(f"{endpoint.name}: HTTP {status}: {self._key_advice()}")
        if status == 404:
            raise EngineError(await self._unknown_model(endpoint, error))
        if "logprobs" in body and errors.refuses_logprobs(error):
            raise EngineError(
                f"{endpoint.name} refuses log-probs ({errors.shorten(error.message)}): lower top_logprobs_max (now"
                f" {body.get('top_logprobs')}), or set logprobs: false on this engine and read: text on the judge"
            )
        if field := errors.refused_field(error, body):
            raise EngineError(
                f"{endpoint.name} will not have {field} ({errors.shorten(error.message)}): name it in omit: on this"
                " engine; for max_tokens set max_tokens_field: max_completion_tokens"
            )
        raise errors.to_exception(error, endpoint.name, headers)

    async def _post(self, endpoint: Endpoint, data: bytes) -> tuple[int, Any, bytes]:
        import aiohttp

        if self._session is None:
            raise EngineError("the engine is not started, or closed")
        payload = io.BytesIO(data) if len(data) > _LARGE_BODY else data
        try:
            async with self._session.post(
                endpoint.chat_url, data=payload, allow_redirects=False, proxy=endpoint.proxy
            ) as response:
                return response.status, response.headers, await response.read()
        except aiohttp.ConnectionTimeoutError:
            raise Transient("connection", f"{endpoint.name}: cannot connect within {2 * CONNECT_S:g} s") from None
        except TimeoutError:
            raise Transient("timeout", f"{endpoint.name}: no reply within {self._timeout_s:g} s") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise EngineError(f"{endpoint.name}: {errors.shorten(str(error.certificate_error))}") from None
        except aiohttp.ClientConnectorError as error:
            raise Transient("connection", f"{endpoint.name}: cannot connect: {plain(error)}") from None
        except aiohttp.ClientResponseError as error:
            raise Transient("malformed", f"{endpoint.name}: not HTTP: {errors.shorten(error.message)}") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Transient("dropped", f"{endpoint.name}: connection lost: {plain(error)}") from None

    def _key_advice(self) -> str:
        variables = [self._api_key_env] if self._api_key_env else []
        named = ", ".join(f"${variable}" for variable in [*variables, *self._headers_env.values()])
        if not named:
            return "the server wants a key; name the environment variable that holds it in api_key_env"
        return f"the server refuses the key in {named}"

    async def _unknown_model(self, endpoint: Endpoint, error: errors.ServerError) -> str:
        said = f"{endpoint.name}: HTTP 404 for model {self.model!r}: {errors.shorten(error.message) or 'not found'}"
        served = await self._served_models(endpoint)
        return f"{said}; it serves: {', '.join(served)}" if served else f"{said}; is base_url right?"

    async def _served_models(self, endpoint: Endpoint) -> list[str]:
        import aiohttp

        assert self._session is not None
        try:
            async with self._session.get(endpoint.models_url, allow_redirects=False, proxy=endpoint.proxy) as answer:
                listed = json.loads(await answer.read())["data"]
                return sorted(str(entry["id"]) for entry in listed)[:20]
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, KeyError, TypeError):
            return []  # only a help in an error message: the 404 itself is reported either way


def _secret(variable: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise EngineError(f"environment variable {variable} is not set; the config names it for a key")
    if not (value.isascii() and value.isprintable()):
        raise EngineError(f"environment variable {variable} holds characters that no header can carry")
    return value


def _check_reserved(extra: dict[str, Any], where: str) -> None:
    taken = sorted(set(extra) & set(wire.RESERVED))
    if taken:
        raise ConfigError(f"{where}: {', '.join(taken)} cannot be set here; rlaif sets it itself")


def _refuse_secrets(headers: dict[str, str]) -> None:
    """The config is kept in the manifest and shown in the report; the values of `headers` with it."""
    for header in headers:
        if _SECRET_HEADER.search(header):
            raise ConfigError(
                f"headers.{header}: a secret does not belong in a config; name the environment variable that holds "
                "it, in headers_env (or api_key_env)"
            )


def _refuse_secret_parameters(urls: list[str]) -> None:
    """As for headers. Before anything else is said of a URL, since that would show it."""
    for url in urls:
        for parameter, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True):
            if _SECRET_PARAMETER.search(parameter):
                raise ConfigError(
                    f"base_url: ?{parameter}=: a secret does not belong in a config; name the environment variable "
                    "that holds it in api_key_env, or with its header in headers_env"
                )
