"""Recorded replies, found by what was asked and not by who was asked: of an earlier run's journal by the words of the
request (`ReplayEngine`), of other people's judgments by what is judged (`RecordingEngine`)."""

from __future__ import annotations

import gzip
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from rlaif.engines.base import Capabilities
from rlaif.errors import ConfigError, EngineError, RequestFailed
from rlaif.paths import resolve
from rlaif.records import SCHEMA_VERSION, Message, Reply, Request
from rlaif.store import content_key

if TYPE_CHECKING:
    from rlaif.recordings import Recording

_GZIP_MAGIC = b"\x1f\x8b"


class _Head(msgspec.Struct):
    """What indexing reads of a row; the reply itself is read when it is asked for."""

    content: str
    role: str = ""
    v: int = SCHEMA_VERSION
    reply: msgspec.Raw = msgspec.Raw(b"{}")


class _Recorded(msgspec.Struct):
    model: str = ""
    logprobs: msgspec.Raw = msgspec.Raw(b"null")


class _Row(msgspec.Struct):
    reply: Reply


def replay(path: str, by: str | None = None, **options: Any) -> ReplayEngine | RecordingEngine:
    """The engine for `path`: a recording (.yaml) is replayed by `subject`, a journal by `content`."""
    from rlaif.recordings import is_recording

    kind = "subject" if is_recording(path) else "content"
    if by not in (None, kind):
        raise ConfigError(
            f"replay: by: {by!r}; allowed for {path}: {kind} (journals by content, recordings by subject)"
        )
    return RecordingEngine(path, **options) if kind == "subject" else ReplayEngine(path, **options)


class ReplayEngine:
    """`path`: a journal.jsonl (also .gz), or the run folder that holds one. `role`, `model`: only rows of that role
    or model, for a journal in which several models were asked the same.

    A request that was not recorded fails with "not_recorded". `logprobs`: whether judges may ask for log-probs;
    by default whether the recording has any, so that they ask again what they asked then.
    """

    def __init__(
        self,
        path: str,
        *,
        role: str | None = None,
        model: str | None = None,
        logprobs: bool | None = None,
        json_schema: bool = True,
        concurrency: int = 64,
    ) -> None:
        self._path = _find(path)
        self._role, self._model = role, model
        self._file = _plain_file(self._path)
        self._offsets: dict[bytes, int] = {}
        recorded_logprobs, models = self._load()
        self.model = model or (models[0] if len(models) == 1 else "replay")
        chosen = "".join(f"|{value}" for value in (role, model) if value)
        self.identity = f"replay:{_sha256(self._file)}{chosen}"
        self.capabilities = Capabilities(
            logprobs=recorded_logprobs if logprobs is None else logprobs,
            json_schema=json_schema,
            concurrency=concurrency,
        )

    def __len__(self) -> int:
        """How many different requests have a recorded reply."""
        return len(self._offsets)

    async def start(self) -> None:
        """Nothing to start: the index is read when the engine is made."""

    async def complete(self, request: Request, seed: int) -> Reply:
        offset = self._offsets.get(bytes.fromhex(content_key(request)))
        if offset is None:
            raise RequestFailed("not_recorded", f"{self._path} holds no reply to this request")
        self._file.seek(offset)
        return msgspec.json.decode(self._file.readline(), type=_Row).reply

    def count_tokens(self, messages: list[Message]) -> int | None:
        return None

    async def close(self) -> None:
        """The file stays open: it is one read-only descriptor, and an engine may be started again."""

    def _load(self) -> tuple[bool, list[str]]:
        """Index the wanted rows; returns whether any has log-probs, and which models answered."""
        answered_by: dict[bytes, str] = {}
        models: set[str] = set()
        logprobs = False
        for number, offset, head in self._heads():
            if head.v > SCHEMA_VERSION:
                raise EngineError(f"{self._path}:{number}: schema version {head.v} is newer than {SCHEMA_VERSION}")
            reply = msgspec.json.decode(head.reply, type=_Recorded)
            if (self._role and head.role != self._role) or (self._model and reply.model != self._model):
                continue
            key, who = bytes.fromhex(head.content), f"role {head.role!r} (model {reply.model!r})"
            if answered_by.setdefault(key, who) != who:
                raise EngineError(
                    f"{self._path}:{number}: {who} and {answered_by[key]} were asked the same; "
                    "say whose replies are meant with role: or model:"
                )
            self._offsets[key] = offset
            models.add(reply.model)
            logprobs = logprobs or bytes(reply.logprobs) != b"null"
        if not self._offsets:
            wanted = " ".join(f"{k} {v!r}" for k, v in (("role", self._role), ("model", self._model)) if v)
            raise EngineError(f"{self._path}: no recorded replies{f' of {wanted}' if wanted else ''}")
        return logprobs, sorted(models)

    def _heads(self) -> Iterator[tuple[int, int, _Head]]:
        """(line number, offset, row) of every row that is whole and ours; a journal may end in a torn one."""
        decode = msgspec.json.Decoder(_Head).decode
        offset = 0
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            try:
                head = decode(line)
                bytes.fromhex(head.content)
            except (msgspec.MsgspecError, ValueError):
                pass
            else:
                yield number, offset, head
            offset += len(line)


class RecordingEngine:
    """`path`: a recording (docs/recordings.md), `params`: over its own, to choose one judge of several, say.

    A request is answered by its `subject`, whatever its words; one that was not recorded fails with "not_recorded".
    Of several recorded replies to one subject, `Request.sample` picks. `parse`: how the recording says that its texts
    are read; judges whose section does not say take it.
    """

    def __init__(
        self,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        model: str | None = None,
        logprobs: bool | None = None,
        concurrency: int = 64,
    ) -> None:
        from rlaif.recordings import load

        self._recording: Recording = load(path, params)
        if not self._recording.replies:
            raise EngineError(f"{path}: this recording holds no replies")
        models = self._recording.models
        self.model = model or (models[0] if len(models) == 1 else self._recording.name)
        self.identity = f"replay:{self._recording.identity}"
        self.parse = self._recording.parse
        self.capabilities = Capabilities(
            logprobs=self._recording.has_logprobs if logprobs is None else logprobs,
            concurrency=concurrency,
            by_subject=True,
        )

    def __len__(self) -> int:
        """How many subjects have a recorded reply."""
        return len(self._recording.replies)

    async def start(self) -> None:
        """Nothing to start: the recording is read when the engine is made."""

    async def complete(self, request: Request, seed: int) -> Reply:
        if not request.subject:
            raise RequestFailed("not_recorded", f"{self._recording.path}: the request does not say what it judges")
        found = self._recording.replies.get(request.subject, [])
        if request.sample >= len(found):
            raise RequestFailed("not_recorded", f"{self._recording.path}: {self._missing(request, len(found))}")
        return found[request.sample]

    def _missing(self, request: Request, recorded: int) -> str:
        prompt_id, *ids = request.subject
        own = {response.id: response.meta["id"] for response in self._recording.responses.get(prompt_id, [])}
        shown = ", ".join(str(own.get(name, name)) for name in ids)
        what = f"draw {request.sample} of {shown}" if recorded else shown
        other = (prompt_id, *reversed(ids))
        hint = (
            "; only the other order was (judge: {pairs: listed, orders: given})"
            if (not recorded and len(ids) == 2 and other in self._recording.replies)
            else ""
        )
        return f"nothing recorded for {what} under prompt {prompt_id!r}{hint}"

    def count_tokens(self, messages: list[Message]) -> int | None:
        return None

    async def close(self) -> None:
        """Nothing to close."""


def _find(path: str) -> Path:
    found = resolve(path, Path.cwd())
    if found.is_dir():
        candidates = [found / "journal.jsonl", found / "journal.jsonl.gz"]
        found = next((candidate for candidate in candidates if candidate.exists()), candidates[0])
    if not found.is_file():
        raise EngineError(f"replay: {found}: no such file")
    return found


def _plain_file(path: Path) -> IO[bytes]:
    """`path` opened for reading at offsets; a compressed one through an unnamed temporary copy."""
    try:
        file: Any = path.open("rb")
        if file.read(2) != _GZIP_MAGIC:
            return file  # type: ignore[no-any-return]
        file.seek(0)
        plain = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the engine
        with file, gzip.open(file) as packed:
            while block := packed.read(1 << 20):
                plain.write(block)
        return plain
    except (OSError, EOFError) as error:
        raise EngineError(f"{path}: cannot read this recording: {error}") from None


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
