"""sha256 of files, of model folders, and of whatever a stage reads: one way to say that two things are the same."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatch
from pathlib import Path

# what decides a model's answers; a card or a training log beside it does not
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "chat_template*",
)
_known: dict[tuple[str, int, int], str] = {}


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_sha256(folder: Path) -> str:
    """One digest over the names and contents of the files that decide what the model answers."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(fnmatch(path.name, pattern) for pattern in MODEL_FILES):
            digest.update(f"{path.name}\0{_remembered(path)}\n".encode())
    return digest.hexdigest()


def _remembered(path: Path) -> str:
    """For this process: gigabytes of weights are read once however many engines name them."""
    status = path.stat()
    key = (str(path.resolve()), status.st_mtime_ns, status.st_size)
    if key not in _known:
        _known[key] = file_sha256(path)
    return _known[key]


def path_sha256(path: Path) -> str:
    """Of a file, a model folder, or any folder's files by name; "" where there is nothing (a hub id, say)."""
    if path.is_file():
        return file_sha256(path)
    if not path.is_dir():
        return ""
    if (path / "config.json").is_file():
        return model_sha256(path)
    digest = hashlib.sha256()
    for item in sorted(item for item in path.rglob("*") if item.is_file()):
        digest.update(f"{item.relative_to(path)}\0{file_sha256(item)}\n".encode())
    return digest.hexdigest()
