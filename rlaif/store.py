"""The run folder: the journal in which every reply is paid for once, the tables, the manifest.

A request's key says everything that can change its reply: a version tag, the canonical request (messages, sampling,
sample and attempt numbers, schema, template arguments) and the identity of the engine. `content_key` is the same
without the identity; recordings are replayed by it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from rlaif import lock
from rlaif.config.data import KINDS, dataset_folder
from rlaif.errors import RequestFailed, StoreError
from rlaif.records import SCHEMA_VERSION, Dropped, Reply, Request

_VERSION_TAG = b"rlaif-key-1\x00"
_T = TypeVar("_T", bound=msgspec.Struct)
_FSYNC_EVERY_S = 1.0
STAGES = (
    *("prompts", "generate", "revise", "judge", "calibrate", "pair", "audit", "export"),
    *("sft", "reward", "dpo", "kto", "ppo", "grpo"),
    *("rounds", "evaluate", "report"),
)
ROUNDS = "rounds"  # the folder of a run's rounds: rounds/1, rounds/2, …
_ORDER = {stage: index for index, stage in enumerate(STAGES)}

# `role` only routes, so it is not in the key
_DEFAULTS: list[tuple[str, Any]] = [
    ("max_tokens", 512), ("temperature", 1.0), ("top_p", 1.0), ("stop", []), ("labels", []), ("top_logprobs", 0),
    ("json_schema", None), ("sample", 0), ("seed", 0), ("attempt", 0), ("extra", {}),
]  # fmt: skip
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


def _normalised(value: Any) -> Any:
    """1.0 and 1 are one number; bools stay bools; containers are walked."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _normalised(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_normalised(item) for item in value]
    return value


def _canonical(request: Request) -> bytes:
    body: dict[str, Any] = {"messages": request.messages}
    for name, default in _DEFAULTS:
        value = getattr(request, name)
        if value != default:
            body[name] = _normalised(value)
    try:
        return _VERSION_TAG + _encode_sorted(body)
    except UnicodeEncodeError:
        raise RequestFailed("lone_surrogate", "a message holds a lone surrogate, which is not text") from None


def content_key(request: Request) -> str:
    """32 hex digits: the request without the engine. Errors: RequestFailed for text that is not Unicode."""
    return hashlib.sha256(_canonical(request)).hexdigest()[:32]


def canonical_key(request: Request, identity: str) -> str:
    """32 hex digits: the request and the engine that is asked."""
    return hashlib.sha256(_canonical(request) + b"\x00" + identity.encode()).hexdigest()[:32]


def keys(request: Request, identity: str) -> tuple[str, str]:
    """(content_key, canonical_key), for the price of one."""
    digest = hashlib.sha256(_canonical(request))
    content = digest.hexdigest()[:32]
    digest.update(b"\x00" + identity.encode())
    return content, digest.hexdigest()[:32]


def seed_of(key: str) -> int:
    """The 63-bit seed of a request: a resumed run draws what the unbroken one would have drawn."""
    return int(key[:16], 16) >> 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the journal. `t`: Unix seconds when the reply came."""

    v: int = SCHEMA_VERSION
    key: str
    content: str
    t: float
    role: str
    reply: Reply


class _EntryHead(msgspec.Struct):
    key: str
    v: int = SCHEMA_VERSION


class Journal:
    """Append-only replies, found by key. One writer; a row is one `write`, so a killed process loses none.

    A torn last row (power loss) is cut before appending. fsync runs at most once a second and on close.
    `writable=False` reads beside a writer and changes nothing. `earlier`: journals whose replies are known here too;
    nothing is written to them.
    """

    def __init__(self, path: Path, *, writable: bool = True, earlier: Iterable[Path] = ()) -> None:
        self.path = path
        self.earlier = [Journal(other, writable=False) for other in earlier]
        self._offsets: dict[bytes, int] = {}
        self._encode = msgspec.json.Encoder().encode
        self._decoder = msgspec.json.Decoder(Entry)
        self._synced = time.monotonic()
        self._dirty = False
        self.damaged = 0  # complete rows that are not ours: skipped, so they would be paid for again
        self._writable = writable
        try:
            if writable:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND if writable else os.O_RDONLY, 0o644)
            self._reader = path.open("rb")  # not a dup: that would share its position with the writer
            self._end = self._load()
        except OSError as error:
            raise StoreError(f"{path}: cannot open the journal: {error.strerror}") from None

    def __len__(self) -> int:
        """Replies of its own."""
        return len(self._offsets)

    def __contains__(self, key: str) -> bool:
        return bytes.fromhex(key) in self._offsets or any(key in other for other in self.earlier)

    def _load(self) -> int:
        head = msgspec.json.Decoder(_EntryHead)
        offset = 0
        self._reader.seek(0)
        for number, line in enumerate(self._reader, 1):
            if not line.endswith(b"\n"):
                if self._writable:
                    os.ftruncate(self._fd, offset)
                break
            try:
                entry = head.decode(line)
                digest = bytes.fromhex(entry.key)
            except (msgspec.MsgspecError, ValueError):
                self.damaged += 1
            else:
                if entry.v > SCHEMA_VERSION:
                    raise StoreError(
                        f"{self.path}:{number}: schema version {entry.v}; this rlaif reads up to {SCHEMA_VERSION}"
                    )
                self._offsets[digest] = offset
            offset += len(line)
        return offset

    def get(self, key: str) -> Reply | None:
        """The recorded reply, or None."""
        offset = self._offsets.get(bytes.fromhex(key))
        if offset is None:
            return next((reply for other in self.earlier if (reply := other.get(key)) is not None), None)
        self._reader.seek(offset)
        try:
            entry = self._decoder.decode(self._reader.readline())
        except msgspec.MsgspecError:  # its key could be read, but not the rest
            self.damaged += 1
            del self._offsets[bytes.fromhex(key)]
            return None
        return msgspec.structs.replace(entry.reply, key=key)

    def put(self, key: str, content: str, role: str, reply: Reply) -> None:
        """Append one reply. Errors: StoreError (disk full, …); the file then ends where it ended before."""
        entry = Entry(key=key, content=content, t=round(time.time(), 3), role=role, reply=reply)
        row = self._encode(entry) + b"\n"
        written = 0
        try:
            while written < len(row):  # a short write is followed by the error that says why
                written += os.write(self._fd, row[written:])
        except OSError as error:
            os.ftruncate(self._fd, self._end)
            raise StoreError(f"{self.path}: cannot write to the journal: {error.strerror}") from None
        self._offsets[bytes.fromhex(key)] = self._end
        self._end += written
        self._dirty = True
        now = time.monotonic()
        if now - self._synced > _FSYNC_EVERY_S:
            self._synced = now
            self._sync()

    def entries(self) -> Iterator[Entry]:
        """Every row, in arrival order."""
        with self.path.open("rb") as file:
            for line in file:
                try:
                    yield self._decoder.decode(line)
                except msgspec.MsgspecError:
                    continue

    def close(self) -> None:
        for other in self.earlier:
            other.close()
        if self._fd >= 0:
            try:
                if self._dirty:
                    self._sync()
            finally:
                self._reader.close()
                os.close(self._fd)
                self._fd = -1

    def _sync(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:  # network file systems say only now that the disk is full
            raise StoreError(f"{self.path}: cannot write to the journal: {error.strerror}") from None
        self._dirty = False


class Reasks:
    """Replies that the user asked to be asked again: `--retry unparsed`. A deliberate re-ask has a key of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: set[str] = set()
        if path.exists():
            self._keys.update(path.read_text(encoding="utf-8").split())

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def add(self, keys: Iterable[str]) -> int:
        new = set(keys) - self._keys
        if new:
            self._keys |= new
            write_whole(self.path, "".join(f"{key}\n" for key in sorted(self._keys)).encode())
        return len(new)


# what the stages write over
REPLACED = (
    *(f"{name}.jsonl" for name in ("prompts", "responses", "revisions", "judgments", "preferences", "dropped")),
    *(dataset_folder(kind) for kind in KINDS),
    *("calibration", "audit.json", "audit", "models", "live", "evaluation", "report.html", "report.json"),
    *(ROUNDS, f"{ROUNDS}.json"),
)


def is_round(path: Path) -> bool:
    """Whether this is RUN/rounds/NUMBER of a run."""
    path = path.absolute()
    return path.parent.name == ROUNDS and path.name.isdigit() and (path.parents[1] / "manifest.json").is_file()


def rounds_before(path: Path) -> list[Path]:
    """The folders of the rounds that came before: of RUN/rounds/3 the first two, of RUN all that are there."""
    one = is_round(path)
    there = path.absolute().parent if one else path / ROUNDS
    found = {int(item.name): item for item in there.glob("*") if item.name.isdigit()} if there.is_dir() else {}
    return [found[number] for number in sorted(found) if not one or number < int(path.absolute().name)]


class RunFolder:
    """A run's files (docs/formats.md). Open it with `with`; a second process that opens it gets a StoreError."""

    def __init__(self, path: str | Path, *, wait_s: float = 5.0) -> None:
        self.path = Path(path)
        self._wait_s = wait_s
        self._lock: int | None = None
        self._journal: Journal | None = None

    def __enter__(self) -> RunFolder:
        if lock.vouched(self.path):
            return self
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            inherited = lock.inherited(self.path)
            mine = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644) if inherited is None else inherited
        except OSError as error:
            raise StoreError(f"{self.path}: cannot use this run folder: {error.strerror}") from None
        lock.acquire(mine, self.path, self._wait_s)
        self._lock = mine
        if inherited is None:
            _sweep(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def lock_for_child(self) -> tuple[int, dict[str, str]]:
        """The descriptor a child process must inherit, and the environment that tells it so."""
        assert self._lock is not None, "the folder is not open"
        return self._lock, {lock.DESCRIPTOR: str(self._lock)}

    @property
    def journal(self) -> Journal:
        """Its own, and behind it those of the rounds before."""
        if self._journal is None:
            self._journal = self._opened(writable=True)
        return self._journal

    def read_journal(self) -> Journal | None:
        """The same to read only, beside a process that writes; None where there is none. To be closed."""
        return self._opened(writable=False) if (self.path / "journal.jsonl").exists() else None

    def _opened(self, *, writable: bool) -> Journal:
        before = (folder / "journal.jsonl" for folder in rounds_before(self.path))
        earlier = [path for path in before if path.exists()]
        return Journal(self.path / "journal.jsonl", writable=writable, earlier=earlier)

    @property
    def paid(self) -> int:
        """Replies that were ever paid for here; of a run that goes in rounds, in its rounds too."""
        rounds = [] if is_round(self.path) else self.journal.earlier
        return len(self.journal) + sum(len(journal) for journal in rounds)

    def release_journal(self) -> None:
        """Close the journal so that a child process can be its one writer."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    @property
    def reasks(self) -> Reasks:
        return Reasks(self.path / "reasks.txt")

    def table(self, name: str) -> Path:
        return self.path / f"{name}.jsonl"

    def read(self, name: str, record: type[_T]) -> Iterator[_T]:
        """The rows of a table. Errors: StoreError if an earlier stage has not written it."""
        from rlaif import io

        path = self.table(name)
        if not path.exists():
            raise StoreError(f"{path}: not there yet; run the stage that writes {name} first")
        return io.read_table(path, record)

    def write(self, name: str, rows: Iterable[msgspec.Struct]) -> int:
        """Replace a table, whole or not at all; returns the number of rows."""
        from rlaif import io

        return io.write_table(self.table(name), rows)

    def drop(self, stage: str, rows: Iterable[Dropped]) -> int:
        """Replace what `stage` dropped; the other stages' rows stay. The order is that of the stages."""
        path = self.table("dropped")
        kept = [row for row in self.read("dropped", Dropped) if row.stage != stage] if path.exists() else []
        new = list(rows)
        together: list[Dropped] = [*kept, *new]
        together.sort(key=lambda row: _ORDER.get(row.stage, len(_ORDER)))
        self.write("dropped", together)
        return len(new)

    @property
    def manifest(self) -> dict[str, Any]:
        path = self.path / "manifest.json"
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: cannot read: {error}") from None
        version = loaded.get("schema_version", 1) if isinstance(loaded, dict) else None
        if not isinstance(version, int):
            raise StoreError(f"{path}: not a manifest of rlaif")
        if version > SCHEMA_VERSION:
            raise StoreError(f"{path}: schema version {version} is newer than this rlaif reads")
        return dict(loaded)

    def refuse_foreign(self, *more: str) -> None:
        """Errors: StoreError if this is no run of rlaif and holds what a run would replace, `more` included."""
        manifest = self.manifest
        if manifest and "schema_version" not in manifest:
            raise StoreError(f"{self.path}: not a run folder: its manifest.json is not rlaif's; name another one")
        if not manifest and not (self.path / "journal.jsonl").exists():
            found = ", ".join(name for name in (*REPLACED, *more) if (self.path / name).exists())
            if found:
                raise StoreError(f"{self.path}: not a run folder, but it holds {found}: name another one")

    def save_manifest(self, manifest: dict[str, Any]) -> None:
        write_whole(self.path / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b"\n")


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file: readers see the old bytes or the new ones. Errors: StoreError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path}: cannot write: {error.strerror}") from None


def _sweep(path: Path) -> None:
    """Remove what killed runs were writing. We hold the lock, so nobody is writing it now."""
    for left in [*path.glob(".*.tmp"), *path.glob("*/.*.tmp")]:
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
