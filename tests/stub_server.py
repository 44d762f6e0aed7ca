"""A small OpenAI-compatible server for tests and benchmarks. Standard library only.

    python tests/stub_server.py --port 0        prints {"port": …} and serves until its standard input closes

Replies are a pure function of the request's body, so two runs that ask the same get the same. A prompt that shows
responses (`Response A:` and a fenced text, and so on) is judged: every response has a hidden score that depends on
its text alone, the first place has a small bonus, and log-probs follow, so swapping the order mostly mirrors the
verdict. Anything else is answered with a text drawn from the body.

Faults are a pure function of (body, how many times this body came), so a run with faults can be repeated exactly.
`/admin/set?key=value` sets one of `Settings`, `/admin/stats` counts, `/admin/reset` restores defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import json
import math
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_RESPONSE = re.compile(r"Response ([A-Z])\b[^\n]*\n+(`{3,})\n(.*?)\n\2", re.DOTALL)
_WORDS = re.findall(
    r"\w+",
    "the answer depends on water light stone river green small house always people often find that many things grow "
    "slowly because time and care matter here is one example first then finally you can try it yourself patiently",
)


@dataclasses.dataclass
class Settings:
    """Rates are probabilities per request; latencies are milliseconds."""

    latency_ms: float = 0.0
    jitter: float = 0.0  # latency is multiplied by 1 ± this
    tail: float = 0.0  # this share of the requests takes 20 times as long
    rate_429: float = 0.0
    rate_500: float = 0.0
    rate_drop: float = 0.0  # the connection closes without a reply
    rate_half: float = 0.0  # half of the reply, then the connection closes
    rate_half_json: float = 0.0  # a whole HTTP reply around half of its JSON
    rate_empty: float = 0.0  # no choices
    rate_rubbish: float = 0.0  # replies without a verdict; decided by the body alone
    rate_refusal: float = 0.0  # likewise
    retry_after: str = ""  # the Retry-After header of a 429
    retry_after_ms: str = ""
    status: int = 0  # every chat request gets this status …
    error: str = ""  # … with this body
    location: str = ""  # … and this Location header
    always_fail: str = ""  # requests that hold this text get a 500, always
    hang: str = ""  # requests that hold this text get no reply
    api_key: str = ""  # others get a 401
    models: str = ""  # comma-separated; others get a 404
    context_tokens: int = 0  # prompts with more words get vLLM's 400
    system_role: bool = True
    logprobs: bool = True
    top_logprobs_max: int = 20
    thinking: str = ""  # field | content | unclosed
    position_bonus: float = 0.3  # logits for the response that is shown first
    pad: int = 0  # characters added to every text
    reply: str = ""  # the body of every 200, as it is


class Stub:
    """All state of one server; `answer` is pure but for the counters."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.clear()

    def clear(self) -> None:
        self.came: dict[str, int] = {}
        self.answered: dict[str, int] = {}
        self.in_flight = self.max_in_flight = 0
        self.latency_sum_s = 0.0
        self.last: dict[str, Any] = {}

    def stats(self, counts: bool) -> dict[str, Any]:
        """`sent_twice`: whole replies sent beyond the first for the same body."""
        found: dict[str, Any] = {
            "requests": sum(self.came.values()),
            "unique": len(self.came),
            "answered": sum(self.answered.values()),
            "sent_twice": sum(n - 1 for n in self.answered.values()),
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "latency_sum_s": self.latency_sum_s,
            "last": self.last,
        }
        return found | {"counts": self.came} if counts else found

    def latency_s(self, digest: bytes) -> float:
        s = self.settings
        if not s.latency_ms:
            return 0.0
        factor = 1 + s.jitter * (2 * _unit(digest, 0) - 1)
        return s.latency_ms / 1000 * factor * (20 if _unit(digest, 1) < s.tail else 1)

    # -- a chat request → (status, headers, body), or None for no reply at all

    def answer(self, raw: bytes, headers: dict[str, str], digest: bytes) -> tuple[int, str, bytes] | None:
        s = self.settings
        body = json.loads(raw)
        self.last = {"body": body, "authorization": headers.get("authorization", ""), "headers": headers}
        refused = self._refusal(body, headers)
        if refused is not None:
            return refused
        text = "\n".join(str(m.get("content")) for m in body["messages"])
        if s.hang and s.hang in text:
            return None
        if s.always_fail and s.always_fail in text:
            return _error(500, "this one always fails")
        fault = self._fault(digest, self.came[digest.hex()])
        if fault == "drop":
            return 0, "", b""
        if fault == "429":
            extra = f"Retry-After: {s.retry_after}\r\n" if s.retry_after else ""
            extra += f"retry-after-ms: {s.retry_after_ms}\r\n" if s.retry_after_ms else ""
            return _error(429, "slow down", extra=extra)
        if fault == "500":
            return _error(500, "the server stumbled")
        reply = s.reply.encode() if s.reply else self._completion(body, text, digest)
        if fault == "empty":
            reply = b'{"object": "chat.completion", "choices": []}'
        if fault == "half":
            return -1, "", reply
        if fault == "half_json":
            reply = reply[: len(reply) // 2]
        return 200, "", reply

    def _refusal(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, str, bytes] | None:
        s = self.settings
        if s.status:
            extra = f"Location: {s.location}\r\n" if s.location else ""
            return s.status, extra, s.error.encode()
        if s.api_key and headers.get("authorization") != f"Bearer {s.api_key}":
            return _error(401, f"Incorrect API key provided: {headers.get('authorization')}", "invalid_api_key")
        if s.models and body["model"] not in s.models.split(","):
            return _error(404, f"The model `{body['model']}` does not exist.", "NotFoundError")
        n_words = sum(len(str(m["content"]).split()) for m in body["messages"])
        if s.context_tokens and n_words + body["max_tokens"] > s.context_tokens:
            return _error(
                400,
                f"This model's maximum context length is {s.context_tokens} tokens. However, you requested "
                f"{n_words + body['max_tokens']} tokens. Please reduce the length of the messages.",
                "BadRequestError",
            )
        if not s.system_role and any(m["role"] == "system" for m in body["messages"]):
            return _error(400, "System role not supported", "BadRequestError")
        if body.get("logprobs") and not s.logprobs:
            return _error(400, "logprobs are not supported by this model", "invalid_request_error")
        if body.get("top_logprobs", 0) > s.top_logprobs_max:
            return _error(400, f"Requested sample logprobs of {body['top_logprobs']}, which is greater than max "
                          f"allowed: {s.top_logprobs_max}", "BadRequestError")  # fmt: skip
        return None

    def _fault(self, digest: bytes, attempt: int) -> str:
        s = self.settings
        drawn = _unit(hashlib.blake2b(digest + attempt.to_bytes(4, "little")).digest(), 2)
        for kind in ("429", "500", "drop", "half", "half_json", "empty"):
            drawn -= getattr(s, f"rate_{kind}")
            if drawn < 0:
                return kind
        return ""

    def _completion(self, body: dict[str, Any], prompt: str, digest: bytes) -> bytes:
        s = self.settings
        shown = _RESPONSE.findall(prompt)
        finish, top = "stop", None
        if _unit(digest, 3) < s.rate_refusal:
            text, finish = "", "content_filter"
        elif _unit(digest, 3) > 1 - s.rate_rubbish:
            text = "It is hard to say, both have their merits."
        elif shown:
            top = _probabilities([(label, response) for label, _, response in shown], s.position_bonus)
            best = max(top, key=lambda label: top[label])
            brief = body["max_tokens"] <= 8 or body.get("logprobs")
            text = best if brief else f"Both were read with care.\nVerdict: {best}"
        else:
            text, finish = _story(digest, body["max_tokens"])
        message: dict[str, Any] = {"role": "assistant", "content": text + "x" * s.pad}
        _add_thinking(message, s.thinking)
        tokens = re.findall(r"\s*\S+", text)
        choice = {"index": 0, "message": message, "finish_reason": finish}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_token(t, top, body.get("top_logprobs", 0)) for t in tokens]}
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(tokens)}
        reply = {"id": digest.hex()[:12], "object": "chat.completion", "model": body["model"], "choices": [choice]}
        return json.dumps(reply | {"usage": usage}).encode()


def _unit(digest: bytes, part: int) -> float:
    """A number in [0, 1) from the 8 bytes of `digest` that start at 8·part."""
    return int.from_bytes(digest[8 * part : 8 * part + 8], "little") / 2**64


def hidden_score(response: str) -> float:
    """How good the stub finds a response, in [0, 1): it depends on the text alone."""
    return _unit(hashlib.blake2b(response.encode(), digest_size=8).digest(), 0)


def _probabilities(shown: list[tuple[str, str]], bonus: float) -> dict[str, float]:
    logits = {label: 6 * hidden_score(response) for label, response in shown}
    logits[shown[0][0]] += bonus
    total = sum(math.exp(x) for x in logits.values())
    return {label: math.exp(x) / total for label, x in logits.items()}


def _story(digest: bytes, max_tokens: int) -> tuple[str, str]:
    n_words = 8 + digest[40] % 40
    text = " ".join(_WORDS[digest[i % 64] * (i + 7) % len(_WORDS)] for i in range(min(n_words, max_tokens)))
    return text, "length" if n_words > max_tokens else "stop"


def _add_thinking(message: dict[str, Any], how: str) -> None:
    if how == "field":
        message["reasoning_content"] = "Let me think. Verdict: B"
    elif how == "content":
        message["content"] = f"<think>Let me think. Verdict: B</think>\n\n{message['content']}"
    elif how == "unclosed":
        message["content"] = f"<think>Let me think about {message['content']}"


def _token(token: str, top: dict[str, float] | None, n: int) -> dict[str, Any]:
    """One entry of logprobs.content. 3 % of the mass of a verdict lies on tokens that are no label."""
    word = token.strip()
    if top is None or word not in top:
        return {"token": token, "logprob": -0.1, "top_logprobs": [{"token": token, "logprob": -0.1}][:n]}
    entries = [(label, math.log(0.97 * p)) for label, p in top.items()]
    entries += [(f" {w}", math.log(0.03) - 2 - i) for i, w in enumerate(_WORDS[: max(0, n - len(entries))])]
    entries.sort(key=lambda entry: -entry[1])
    listed = [{"token": t, "logprob": round(p, 6), "bytes": list(t.encode())} for t, p in entries[:n]]
    return {"token": token, "logprob": round(math.log(0.97 * top[word]), 6), "top_logprobs": listed}


def _error(status: int, message: str, kind: str = "error", extra: str = "") -> tuple[int, str, bytes]:
    return status, extra, json.dumps({"error": {"message": message, "type": kind, "code": status}}).encode()


# ---------------------------------------------------------------- HTTP/1.1, just enough


class _Connection(asyncio.Protocol):
    def __init__(self, stub: Stub) -> None:
        self.stub = stub
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            lines = self.buffer[:end].decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            size = int(headers.get("content-length", 0))
            if len(self.buffer) < end + 4 + size:
                return
            body = bytes(self.buffer[end + 4 : end + 4 + size])
            del self.buffer[: end + 4 + size]
            self.handle(lines[0].split(" ")[1], headers, body)

    def handle(self, target: str, headers: dict[str, str], body: bytes) -> None:
        path, _, query = target.partition("?")
        if path.endswith("/chat/completions"):
            self.chat(headers, body)
        elif path.endswith("/models"):
            names = (self.stub.settings.models or "stub").split(",")
            self.send(200, "", json.dumps({"data": [{"id": name} for name in names]}).encode())
        elif path.startswith("/admin/"):
            self.admin(path.removeprefix("/admin/"), dict(urllib.parse.parse_qsl(query, keep_blank_values=True)))
        else:
            self.send(404, "", b'{"detail": "Not Found"}')

    def chat(self, headers: dict[str, str], raw: bytes) -> None:
        stub = self.stub
        digest = hashlib.blake2b(raw).digest()
        name = digest.hex()
        stub.came[name] = stub.came.get(name, 0) + 1
        stub.in_flight += 1
        stub.max_in_flight = max(stub.max_in_flight, stub.in_flight)
        latency_s = stub.latency_s(digest)
        stub.latency_sum_s += latency_s
        answer = stub.answer(raw, headers, digest)
        asyncio.get_running_loop().call_later(latency_s, self.reply, name, answer)

    def reply(self, name: str, answer: tuple[int, str, bytes] | None) -> None:
        self.stub.in_flight -= 1
        if answer is None or self.transport is None or self.transport.is_closing():
            return
        status, extra, body = answer
        if status == 0:
            self.transport.abort()
        elif status < 0:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.transport.write(head.encode() + body[: len(body) // 2])
            self.transport.close()
        else:
            if status == 200:
                self.stub.answered[name] = self.stub.answered.get(name, 0) + 1
            self.send(status, extra, body)

    def admin(self, verb: str, query: dict[str, str]) -> None:
        stub = self.stub
        if verb == "reset":
            stub.settings = Settings()
            stub.clear()
        elif verb == "clear":
            stub.clear()
        elif verb == "set":
            types = {field.name: type(getattr(Settings, field.name)) for field in dataclasses.fields(Settings)}
            for key, value in query.items():
                kind = types[key]
                setattr(stub.settings, key, value in ("1", "true", "True") if kind is bool else kind(value))
        self.send(200, "", json.dumps(stub.stats("counts" in query)).encode())

    def send(self, status: int, extra: str, body: bytes) -> None:
        assert self.transport is not None
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    shared = Stub()
    server = await loop.create_server(lambda: _Connection(shared), "127.0.0.1", port, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started us is gone


# ---------------------------------------------------------------- for tests and benchmarks


class StubHandle:
    """A running stub: its URL, and its admin calls."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.port = int(json.loads(process.stdout.readline())["port"])
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def set(self, **settings: object) -> None:
        self._admin("set", settings)

    def reset(self) -> None:
        self._admin("reset", {})

    def clear(self) -> None:
        """Zero the counters, keep the settings."""
        self._admin("clear", {})

    def stats(self, *, counts: bool = False) -> dict[str, Any]:
        return self._admin("stats", {"counts": 1} if counts else {})

    def _admin(self, verb: str, query: dict[str, object]) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.port}/admin/{verb}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


@contextlib.contextmanager
def stub() -> Iterator[StubHandle]:
    """A stub server in a process of its own, gone at the end whatever happens."""
    command = [sys.executable, str(Path(__file__).resolve()), "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield StubHandle(process)
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
