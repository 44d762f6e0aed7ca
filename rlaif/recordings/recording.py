"""A recording that was read: prompts, responses, replies by what they judge, and what people say of the same."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rlaif.config.parsing import ParseSection
from rlaif.digests import path_sha256
from rlaif.errors import ConfigError
from rlaif.paths import resolve
from rlaif.recordings.config import RecordingFile, Table, load_file
from rlaif.recordings.tables import Tables
from rlaif.records import Dropped, Gold, Prompt, Reply, Response

Subject = tuple[str, ...]  # the prompt's id, then the responses' ids in the order shown
_KEPT = 3  # recordings held in memory: one command makes its engines several times
_known: OrderedDict[str, Recording] = OrderedDict()


class Recording(msgspec.Struct, kw_only=True):
    """`responses` by prompt id; `replies` to one subject in the order of their draws. `parse`: how their texts are
    read, if the recording says. `dropped`: prompts and responses that cannot be used. `counts`: rows by what became
    of them."""

    name: str
    path: Path
    identity: str  # sha256 of what the file says and of the files that it points at
    files: list[Path]
    prompts: list[Prompt]
    responses: dict[str, list[Response]]
    replies: dict[Subject, list[Reply]]
    gold: list[Gold]
    parse: ParseSection | None
    dropped: list[Dropped]
    counts: dict[str, int]

    @property
    def models(self) -> list[str]:
        """Who gave the replies."""
        return sorted({reply.model for replies in self.replies.values() for reply in replies} - {""})

    @property
    def n_both(self) -> int:
        """How many pairs were shown in both orders."""
        both = sum((prompt, *ids[::-1]) in self.replies for prompt, *ids in self.replies if len(ids) == 2)
        return both // 2

    @property
    def judge(self) -> dict[str, str]:
        """The keys of a judge section that asks what was recorded: the kind of most replies; both orders where most
        pairs were shown in both."""
        shown = Counter(min(len(subject) - 1, 3) for subject in self.replies)
        kind = {1: "pointwise", 2: "pairwise", 3: "listwise"}[max(shown, key=shown.__getitem__, default=2)]
        if kind == "pointwise":
            return {"judge": kind}
        given = kind == "listwise" or self.n_both * 4 < shown[2]
        return {"judge": kind, "pairs": "listed", "orders": "given" if given else "both"}

    @property
    def has_logprobs(self) -> bool:
        return any(reply.logprobs is not None for replies in self.replies.values() for reply in replies)


def load(path: str | Path, params: Mapping[str, Any] | None = None) -> Recording:
    """The recording at `path`, with `params` over its own. Errors: ConfigError, DataError, one line each."""
    from rlaif.recordings.build import Builder

    found = resolve(str(path), Path())
    file = load_file(found, params or {})
    root = _root(file, found)
    tables = Tables(root, str(found))
    files = _files(file, tables, root)
    identity = _identity(file, files)
    key = f"{found.resolve()}|{identity}"
    if key not in _known:
        _known[key] = Builder(file, found, tables, root).build(identity, files)
    _known.move_to_end(key)
    while len(_known) > _KEPT:
        _known.popitem(last=False)
    return _known[key]


def files_of(path: str | Path, params: Mapping[str, Any] | None = None) -> list[Path]:
    """The recording itself and every file that it points at."""
    found = resolve(str(path), Path())
    file = load_file(found, params or {})
    root = _root(file, found)
    return [found, *_files(file, Tables(root, str(found)), root)]


def read_gold(path: str | Path, params: Mapping[str, Any] | None = None) -> Iterator[Gold]:
    """What people say, from the `gold:` of a recording. Errors: ConfigError where it has none."""
    recording = load(path, params)
    if not recording.gold:
        raise ConfigError(f"{recording.path}: gold: this recording says nothing of what people prefer")
    yield from recording.gold


def is_recording(path: str | Path) -> bool:
    """Whether a path named as data is a recording."""
    return Path(path).suffix in (".yaml", ".yml")


def _root(file: RecordingFile, path: Path) -> Path:
    return resolve(file.root, path.parent) if file.root else path.parent


def _files(file: RecordingFile, tables: Tables, root: Path) -> list[Path]:
    parts = [file.prompts, *file.responses, *file.replies, *file.gold]
    own: list[Table] = [table for table in (file.data, *(part.data for part in parts)) if table is not None]
    found = [path for table in own for path in tables.files(table)]
    patterns = file.parse.file(root) if file.parse else None
    return list(dict.fromkeys([*found, *([patterns] if patterns else [])]))


def _identity(file: RecordingFile, files: list[Path]) -> str:
    """Where the files lie is not in it: the same recording in another folder is the same."""
    digest = hashlib.sha256()
    said = file.model_dump(mode="json", exclude_unset=True, exclude={"root", "params", "recording"})
    digest.update(msgspec.json.encode(_without_paths(said), order="deterministic"))
    for path in files:
        digest.update(f"\0{path.name}\0{path_sha256(path)}".encode())
    return digest.hexdigest()


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(inner) for key, inner in value.items() if key not in ("path", "file")}
    return [_without_paths(inner) for inner in value] if isinstance(value, list) else value
