"""Replaying the replies of an earlier run's journal."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest

from rlaif.engines.base import Engine, load
from rlaif.engines.replay import ReplayEngine
from rlaif.errors import ConfigError, EngineError, RequestFailed
from rlaif.records import Reply, Request, TokenLogprob
from rlaif.store import Journal, canonical_key, content_key

PLAIN = Reply(text="Paris — 巴黎", thinking="hm", model="big")
WITH_LOGPROBS = Reply(text="A", logprobs=[TokenLogprob("A", -0.1, [("A", -0.1), ("B", -2.4)])], model="big")


def ask(text: str, **fields: Any) -> Request:
    return Request(**({"role": "judge", "messages": [{"role": "user", "content": text}]} | fields))


def record(path: Path, rows: list[tuple[Request, Reply]], identity: str = "http://h|big|") -> Path:
    journal = Journal(path)
    for request, reply in rows:
        journal.put(canonical_key(request, identity), content_key(request), request.role, reply)
    journal.close()
    return path


def replay(engine: ReplayEngine, *requests: Request) -> list[Reply]:
    async def main() -> list[Reply]:
        await engine.start()
        replies = [await engine.complete(request, seed=0) for request in requests]
        await engine.close()
        return replies

    return asyncio.run(main())


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return record(
        tmp_path / "journal.jsonl", [(ask("capital?"), PLAIN), (ask("better?", labels=["A"]), WITH_LOGPROBS)]
    )


def test_recorded_replies_come_back_whole_in_any_order(journal: Path) -> None:
    engine = ReplayEngine(str(journal))
    assert replay(engine, ask("better?", labels=["A"]), ask("capital?")) == [WITH_LOGPROBS, PLAIN]
    assert len(engine) == 2 and engine.model == "big" and isinstance(engine, Engine)


def test_the_role_that_asks_does_not_matter(journal: Path) -> None:
    assert replay(ReplayEngine(str(journal)), ask("capital?", role="other")) == [PLAIN]


@pytest.mark.parametrize("request_", [ask("unknown"), ask("capital?", temperature=0.5), ask("capital?", sample=1)])
def test_what_was_not_recorded_fails(journal: Path, request_: Request) -> None:
    with pytest.raises(RequestFailed) as caught:
        replay(ReplayEngine(str(journal)), request_)
    assert caught.value.kind == "not_recorded"


def test_a_run_folder_and_a_compressed_journal(journal: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed" / "journal.jsonl.gz"
    packed.parent.mkdir()
    packed.write_bytes(gzip.compress(journal.read_bytes()))
    engines = [ReplayEngine(str(path)) for path in (journal, journal.parent, packed, packed.parent)]
    assert len({engine.identity for engine in engines}) == 1, "the same recording, however it is stored"
    assert all(replay(engine, ask("capital?")) == [PLAIN] for engine in engines)


def test_identity_follows_the_file(journal: Path) -> None:
    before = ReplayEngine(str(journal)).identity
    assert before.startswith("replay:") and len(before) == len("replay:") + 64
    record(journal, [(ask("one more"), PLAIN)])
    assert ReplayEngine(str(journal)).identity != before


def test_torn_and_foreign_rows_are_passed_over(journal: Path) -> None:
    rows = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(rows[0] + b"not a row\n" + b'{"content": "xyz"}\n' + b"\xff\n" + rows[1][:40])
    engine = ReplayEngine(str(journal))
    assert len(engine) == 1 and replay(engine, ask("capital?")) == [PLAIN]


def test_capabilities_are_what_the_recording_had(tmp_path: Path, journal: Path) -> None:
    plain = record(tmp_path / "plain.jsonl", [(ask("capital?"), PLAIN)])
    assert ReplayEngine(str(journal)).capabilities.logprobs is True
    assert ReplayEngine(str(plain)).capabilities.logprobs is False
    assert ReplayEngine(str(journal), logprobs=False).capabilities.logprobs is False


def test_two_models_that_were_asked_the_same_must_be_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    other = Reply(text="Lyon", model="small")
    record(path, [(ask("capital?"), PLAIN)])
    record(path, [(ask("capital?", role="strong"), other)], identity="http://h|small|")
    with pytest.raises(EngineError, match=r"journal.jsonl:2: .*small.*big.*say whose"):
        ReplayEngine(str(path))
    assert replay(ReplayEngine(str(path), role="strong"), ask("capital?")) == [other]
    assert replay(ReplayEngine(str(path), model="big"), ask("capital?")) == [PLAIN]
    assert len({ReplayEngine(str(path), role="strong").identity, ReplayEngine(str(path), model="big").identity}) == 2


def test_recordings_that_cannot_be_used(tmp_path: Path, journal: Path) -> None:
    empty, newer, broken = tmp_path / "empty.jsonl", tmp_path / "newer.jsonl", tmp_path / "broken.gz"
    empty.touch()
    newer.write_text('{"v": 99, "content": "00"}\n')
    broken.write_bytes(gzip.compress(journal.read_bytes())[:60])
    for path, message in [
        (tmp_path / "none", "no such file"),
        (empty, "no recorded replies"),
        (newer, "newer.jsonl:1: schema version 99"),
        (broken, "cannot read"),
    ]:
        with pytest.raises(EngineError, match=message):
            ReplayEngine(str(path))
    with pytest.raises(EngineError, match="no recorded replies of role 'x'"):
        ReplayEngine(str(journal), role="x")
    with pytest.raises(ConfigError, match=r"allowed for .*: content"):
        load({"engine": "replay", "path": str(journal), "by": "order"})
