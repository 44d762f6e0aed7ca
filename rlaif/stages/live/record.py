"""live/NAME/ of the run folder: what was written while training, what the judges said of it, and the scores.

Rows are added as they come; those with an id come once. Only the main of several processes writes. A training that
begins anew begins them anew; one that goes on from a checkpoint drops the scores of the steps that it does again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rlaif.errors import StoreError
from rlaif.records import Judgment, Prompt, Response
from rlaif.stages.live.groups import Group
from rlaif.stages.live.scores import Found
from rlaif.store import write_whole

_T = TypeVar("_T", bound=msgspec.Struct)


class Score(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One completion of one rollout under one judge. `score` is null where it has none, and `reason` says why."""

    step: int  # optimizer steps before this rollout
    reward: str  # which of `rewards`
    prompt_id: str
    response_id: str
    score: float | None = None
    reason: str | None = None


class Record:
    """Errors of all methods: StoreError where the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, set[tuple[str, str]]] | None = None  # None: nothing was written by this process yet

    def add(
        self,
        reward: str,
        step: int,
        groups: Iterable[Group],
        judgments: Iterable[Judgment],
        found: dict[int, Found],
    ) -> None:
        if self._seen is None:
            self._seen = self._opened(step)
        groups = list(groups)
        self._append("prompts", [group.prompt for group in groups])
        self._append("responses", [response for group in groups for response in group.written.values()])
        self._append("opponents", [response for group in groups for response in group.opponents or ()])
        self._append("judgments", judgments)
        by_place = {place: response for group in groups for place, response in group.written.items()}
        rows = []
        for place, said in sorted(found.items()):
            response = by_place[place]
            about = {"score": said} if isinstance(said, float) else {"reason": said}
            rows.append(
                Score(step=step, reward=reward, prompt_id=response.prompt_id, response_id=response.id, **about)
            )
        self._write("scores", rows)

    def _append(self, table: str, rows: Iterable[Any]) -> None:
        """Rows that are new by id; a judgment that failed and was asked again by its status too."""
        assert self._seen is not None
        seen, new = self._seen[table], []
        for row in rows:
            key = (row.id, getattr(row, "status", ""))
            if key not in seen:
                seen.add(key)
                new.append(row)
        self._write(table, new)

    def _write(self, table: str, rows: Iterable[msgspec.Struct]) -> None:
        data = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        if not data:
            return
        path = self.folder / f"{table}.jsonl"
        try:
            with path.open("ab") as file:
                file.write(data)
        except OSError as error:
            raise StoreError(f"{path}: cannot write: {error.strerror}") from None

    def _opened(self, step: int) -> dict[str, set[tuple[str, str]]]:
        """The keys of the rows that stay. A torn last row of a killed process goes."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.folder}: cannot write: {error.strerror}") from None
        kinds: dict[str, type[Any]] = {
            "prompts": Prompt, "responses": Response, "opponents": Response, "judgments": Judgment,
        }  # fmt: skip
        seen = {}
        for table, kind in kinds.items():
            rows = self._kept(table, kind, lambda row: step > 0)
            seen[table] = {(row.id, getattr(row, "status", "")) for row in rows}
        self._kept("scores", Score, lambda row: row.step < step)
        return seen

    def _kept(self, table: str, kind: type[_T], stays: Callable[[_T], bool]) -> list[_T]:
        path = self.folder / f"{table}.jsonl"
        rows, decoder = [], msgspec.json.Decoder(kind)
        if path.exists():
            for line in path.read_bytes().splitlines():
                try:
                    row = decoder.decode(line)
                except msgspec.MsgspecError:
                    continue
                if stays(row):
                    rows.append(row)
        write_whole(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        return rows
