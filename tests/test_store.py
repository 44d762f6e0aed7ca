"""Keys, the journal and the run folder."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import RequestFailed, StoreError
from rlaif.records import Dropped, Reply, Request, TokenLogprob, Usage
from rlaif.store import (
    Journal,
    Reasks,
    RunFolder,
    canonical_key,
    content_key,
    seed_of,
    write_whole,
)

# -- keys ------------------------------------------------------------------------------------------------------------

PLAIN: dict[str, Any] = {"role": "judge", "messages": [{"role": "user", "content": "Hello"}]}
SPOKEN = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Grüß Gott 👋"}]
SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}}
VERDICT = {"max_tokens": 1, "temperature": 0.0, "labels": ["A", "B"], "top_logprobs": 20}
EXTRA = {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}
ENGINE = "http://localhost:8000/v1|some-model|"

# A key says what was paid for. Should one of these change, every reply that anybody has recorded would be asked, and
# billed, again: change the version tag on purpose, or not at all.
GOLDEN: list[tuple[dict[str, Any], str, str]] = [
    ({}, ENGINE, "e9efbcc98b67c5819bdcad1e12fb5e36"),
    ({"role": "policy"}, ENGINE, "e9efbcc98b67c5819bdcad1e12fb5e36"),
    ({}, "sha256:0123|tiny", "0f95b87a7be30dec5fd8876da1302aa1"),
    (
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Grüß Gott 👋"}]},
        ENGINE,
        "b55c852efbe3eb107a022f09f313aadb",
    ),
    (
        {"max_tokens": 1, "temperature": 0.0, "labels": ["A", "B"], "top_logprobs": 20},
        ENGINE,
        "9e99e55f918c54960deb75781f98e509",
    ),
    ({"temperature": 0.7, "top_p": 0.95, "sample": 3}, ENGINE, "b299370856cf9ce3856005532c899924"),
    ({"stop": ["\n\n", "END"], "attempt": 1}, ENGINE, "e72d09233842fafc73529f4f90773955"),
    (
        {"json_schema": {"type": "object", "properties": {"score": {"type": "integer"}}}},
        ENGINE,
        "b9b8ded9f0aa7f2942c62654933d2338",
    ),
    (
        {"extra": {"chat_template_kwargs": {"enable_thinking": False}, "top_k": 20}},
        ENGINE,
        "994d4edcea83e1b842e32c6224f7da19",
    ),
    ({"messages": [{"role": "user", "content": ""}], "max_tokens": 4096}, "", "0b4af86b0e9de5c56c9ab0747212eea5"),
]


def request(**fields: Any) -> Request:
    return Request(**{**PLAIN, **fields})


@pytest.mark.parametrize(("fields", "identity", "key"), GOLDEN)
def test_keys_are_frozen(fields: dict[str, Any], identity: str, key: str) -> None:
    assert canonical_key(request(**fields), identity) == key


def test_the_role_only_routes() -> None:
    assert canonical_key(request(role="a"), ENGINE) == canonical_key(request(role="b"), ENGINE)


def test_the_identity_and_the_request_do_not_run_into_each_other() -> None:
    assert canonical_key(request(), "x") != canonical_key(request(), "y")
    assert canonical_key(request(), "") != content_key(request())


numbers = st.integers(-(2**53), 2**53)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
requests = st.builds(
    Request,
    role=st.just("judge"),
    messages=st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(["user", "system"]), "content": st.text(max_size=20)}),
        min_size=1,
        max_size=3,
    ),
    max_tokens=st.integers(1, 9999),
    temperature=st.floats(0, 2),
    top_p=st.floats(0.01, 1),
    stop=st.lists(st.text(min_size=1, max_size=3), max_size=2),
    labels=st.lists(st.sampled_from("ABC"), max_size=2),
    top_logprobs=st.integers(0, 20),
    json_schema=st.none() | st.dictionaries(st.text(max_size=5), json_values, max_size=3),
    sample=st.integers(0, 64),
    attempt=st.integers(0, 9),
    extra=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
)


def _other_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _other_order(value[key]) for key in reversed(list(value))}
    return [_other_order(item) for item in value] if isinstance(value, list) else value


def _as_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@given(requests)
def test_neither_the_order_of_a_mapping_nor_the_spelling_of_a_number_is_in_the_key(asked: Request) -> None:
    key = canonical_key(asked, ENGINE)
    other = msgspec.structs.replace(
        asked,
        messages=[_other_order(message) for message in asked.messages],
        extra=_as_floats(_other_order(asked.extra)),
        json_schema=_as_floats(_other_order(asked.json_schema)),
        temperature=int(asked.temperature) if asked.temperature.is_integer() else asked.temperature,
    )
    assert canonical_key(other, ENGINE) == key
    assert canonical_key(msgspec.json.decode(msgspec.json.encode(asked), type=Request), ENGINE) == key


@given(requests, requests)
def test_different_requests_have_different_keys(one: Request, other: Request) -> None:
    same = all(
        getattr(one, name) == getattr(other, name) and _kinds(getattr(one, name)) == _kinds(getattr(other, name))
        for name in Request.__struct_fields__
        if name != "role"
    )
    assert (canonical_key(one, ENGINE) == canonical_key(other, ENGINE)) == same


def _kinds(value: Any) -> Any:
    """True is not 1, though Python says that they are equal."""
    if isinstance(value, dict):
        return {key: _kinds(item) for key, item in value.items()}
    return [_kinds(item) for item in value] if isinstance(value, list) else isinstance(value, bool)


CHANGES: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Hello "}],
    "max_tokens": 511,
    "temperature": 0.0,
    "top_p": 0.9,
    "stop": ["x"],
    "labels": ["A"],
    "top_logprobs": 1,
    "json_schema": {},
    "sample": 1,
    "seed": 1,
    "attempt": 1,
    "extra": {"a": None},
}


def test_every_field_but_role_and_subject_is_in_the_key() -> None:
    assert set(CHANGES) == set(Request.__struct_fields__) - {"role", "subject"}, "a new field: is it in the key?"
    keys = {canonical_key(request(**{name: value}), ENGINE) for name, value in CHANGES.items()}
    assert len(keys | {canonical_key(request(), ENGINE)}) == len(CHANGES) + 1


def test_minus_zero_is_zero() -> None:
    assert canonical_key(request(temperature=-0.0), ENGINE) == canonical_key(request(temperature=0), ENGINE)


def test_a_lone_surrogate_is_a_failed_request() -> None:
    with pytest.raises(RequestFailed) as caught:
        canonical_key(request(messages=[{"role": "user", "content": "\ud800"}]), ENGINE)
    assert caught.value.kind == "lone_surrogate"


@given(requests)
def test_seeds_fit_where_servers_want_63_bits(asked: Request) -> None:
    assert 0 <= seed_of(canonical_key(asked, ENGINE)) < 2**63


# -- the journal -----------------------------------------------------------------------------------------------------


def key_of(number: int) -> str:
    return f"{number:032x}"


def full_reply(number: int, size: int = 10) -> Reply:
    return Reply(
        text=f"{number} " + "ü" * size,
        thinking="hm",
        finish_reason="length",
        logprobs=[TokenLogprob("A", -0.1, [("A", -0.1), ("B", -2.5)])],
        usage=Usage(3, 4, 1),
        model="m",
    )


def filled(path: Path, n: int, size: int = 10) -> Path:
    journal = Journal(path)
    for number in range(n):
        journal.put(key_of(number), key_of(number + 1000), "judge", full_reply(number, size))
    journal.close()
    return path


def as_read(number: int, size: int = 10) -> Reply:
    return msgspec.structs.replace(full_reply(number, size), key=key_of(number))


def test_a_journal_gives_back_what_was_put(tmp_path: Path) -> None:
    journal = Journal(filled(tmp_path / "journal.jsonl", 5))
    assert len(journal) == 5
    assert journal.get(key_of(3)) == as_read(3)
    assert key_of(3) in journal and key_of(7) not in journal
    assert journal.get(key_of(7)) is None
    assert [entry.key for entry in journal.entries()] == [key_of(number) for number in range(5)]
    journal.close()


@given(
    operations=st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=80),
    sizes=st.lists(st.integers(0, 9000), min_size=41, max_size=41),
)
def test_puts_and_gets_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[bool, int]], sizes: list[int]
) -> None:
    """Rows longer and shorter than a read buffer, read while others are appended: a resumed run does just that."""
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    known: set[int] = set()
    for is_put, number in operations:
        if is_put and number not in known:
            journal.put(key_of(number), key_of(0), "judge", full_reply(number, sizes[number]))
            known.add(number)
        expected = as_read(number, sizes[number]) if number in known else None
        assert journal.get(key_of(number)) == expected
    journal.close()


def test_a_row_is_read_whole_after_another_was_appended(tmp_path: Path) -> None:
    """The row reaches over the end of the reader's buffer, and the writer has moved on in between."""
    path = filled(tmp_path / "journal.jsonl", 40, size=200)
    journal = Journal(path)
    for number in range(40):
        assert journal.get(key_of(number)) == as_read(number, 200)
        journal.put(key_of(100 + number), key_of(0), "judge", full_reply(100 + number, 200))
    journal.close()


def test_a_torn_last_row_is_cut_wherever_it_was_torn(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole.jsonl", 3).read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    path = tmp_path / "torn.jsonl"
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        reader = Journal(path, writable=False)
        assert len(reader) == 2 and reader.get(key_of(1)) == as_read(1)
        reader.close()
        assert path.read_bytes() == whole[:end], "a reader changes nothing"
        journal = Journal(path)
        assert len(journal) == 2 and journal.damaged == 0
        assert path.read_bytes() == whole[:start]
        journal.put(key_of(9), key_of(0), "judge", full_reply(9))
        assert journal.get(key_of(9)) == as_read(9)
        journal.close()
        again = Journal(path)
        assert len(again) == 3 and again.get(key_of(9)) == as_read(9)
        again.close()


@pytest.mark.parametrize(
    "row",
    [
        b"\n",
        b"not json\n",
        b"{}\n",
        b"[]\n",
        b'{"key": "zz"}\n',
        b'{"key": 5}\n',
        b"\xff\xfe\n",
        b'{"key": "00000000000000000000000000000005"}\n',
        b'{"key": "00000000000000000000000000000005", "v": 1, "content": "", "t": 0, "role": "judge", "reply": 3}\n',
    ],
)
def test_a_damaged_row_costs_only_itself(tmp_path: Path, row: bytes) -> None:
    path = filled(tmp_path / "journal.jsonl", 2)
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + row + second)
    journal = Journal(path)
    assert [journal.get(key_of(number)) for number in (0, 1, 5)] == [as_read(0), as_read(1), None]
    assert journal.damaged == 1
    assert len(list(journal.entries())) == 2
    journal.close()


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "journal.jsonl", 1)
    path.write_bytes(path.read_bytes().replace(b'"v":1', b'"v":99'))
    if b'"v":99' not in path.read_bytes():
        path.write_bytes(path.read_bytes().replace(b"{", b'{"v":99,', 1))
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"journal.jsonl:1: schema version 99; this rlaif reads up to 1"):
        Journal(path)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    """A real refusal by the kernel: the file may not grow beyond a limit. In a process of its own: it is a limit
    of the process."""
    script = textwrap.dedent("""
        import resource, signal, sys
        from pathlib import Path
        from test_store import StoreError, Journal, full_reply, key_of, filled
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = filled(Path(sys.argv[1]), 3)
        before = path.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, resource.RLIM_INFINITY))
        journal = Journal(path)
        for _ in range(2):
            try:
                journal.put(key_of(9), key_of(0), "judge", full_reply(9))
            except StoreError as error:
                print(error)
        assert path.read_bytes() == before
        assert key_of(9) not in journal and journal.get(key_of(2)) is not None
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        journal.put(key_of(9), key_of(0), "judge", full_reply(9))
        journal.close()
        assert len(Journal(path)) == 4
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "journal.jsonl"],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cannot write to the journal") == 2


# -- what is asked again ---------------------------------------------------------------------------------------------


def test_reasks_remember(tmp_path: Path) -> None:
    path = tmp_path / "reasks.txt"
    assert not Reasks(path)
    reasks = Reasks(path)
    assert reasks.add([key_of(1), key_of(2), key_of(1)]) == 2
    assert reasks.add([key_of(2), key_of(3)]) == 1
    again = Reasks(path)
    assert all(key_of(number) in again for number in (1, 2, 3)) and key_of(4) not in again


def test_reasks_bear_a_torn_file(tmp_path: Path) -> None:
    path = tmp_path / "reasks.txt"
    path.write_text(f"{key_of(1)}\n{key_of(2)[:9]}")
    Reasks(path).add([key_of(3)])
    again = Reasks(path)
    assert key_of(1) in again and key_of(3) in again


# -- the run folder --------------------------------------------------------------------------------------------------


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run"), pytest.raises(StoreError, match="another rlaif process is working"):
        RunFolder(tmp_path / "run", wait_s=0.1).__enter__()
    with RunFolder(tmp_path / "run", wait_s=0.1):
        pass


@pytest.mark.parametrize("make", [lambda path: path.write_text("x"), lambda path: path.symlink_to("/dev/null")])
def test_a_run_folder_that_is_a_file(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "run")
    with pytest.raises(StoreError, match="cannot use this run folder"):
        RunFolder(tmp_path / "run").__enter__()


def test_dropped_rows_stand_in_the_order_of_the_stages(tmp_path: Path) -> None:
    """Whatever ran again last: a resumed run ends with the same bytes as an unbroken one."""

    def row(stage: str, name: str) -> Dropped:
        return Dropped(stage=stage, reason="r", id=name)

    with RunFolder(tmp_path / "run") as folder:
        folder.drop("judge", [row("judge", "b"), row("judge", "a")])
        folder.drop("mine", [row("mine", "m")])
        folder.drop("generate", [row("generate", "z")])
        folder.drop("prompts", [row("prompts", "q")])
        folder.drop("generate", [row("generate", "y")])
        found = [(item.stage, item.id) for item in folder.read("dropped", Dropped)]
    assert found == [("prompts", "q"), ("generate", "y"), ("judge", "b"), ("judge", "a"), ("mine", "m")]


def test_what_a_killed_process_was_writing_is_swept_up(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / ".dataset.77.tmp").mkdir(parents=True)
    (run / ".dataset.77.tmp" / "train.jsonl").write_text("half")
    (run / "evaluation").mkdir()
    (run / "evaluation" / ".judgments.jsonl.77.tmp").write_text("half")
    (run / ".manifest.json.tmp").write_text("half")
    (run / ".policy.partial").mkdir()  # a training goes on from there
    with RunFolder(run):
        left = {str(path.relative_to(run)) for path in run.rglob("*")}
    assert left == {".lock", ".policy.partial", "evaluation"}


def test_a_manifest_of_a_newer_version_or_a_torn_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    for text in ('{"schema_version": 99}', '{"schema', "[]", "3", '{"schema_version": "x"}'):
        path.write_text(text)
        with pytest.raises(StoreError, match=r"manifest.json: "):
            _ = RunFolder(tmp_path).manifest


def test_write_whole_keeps_the_old_file_when_it_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        with pytest.raises(StoreError, match="cannot write: File too large"):
            write_whole(path, b"n" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["file"]


def test_tables_are_json_lines_that_people_can_read(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run") as folder:
        folder.drop("judge", [Dropped(stage="judge", reason="empty", id="ü")])
        lines = folder.table("dropped").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"stage": "judge", "reason": "empty", "id": "ü"}]


def test_a_disk_that_says_only_at_sync_that_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    journal = Journal(tmp_path / "journal.jsonl")
    journal.put("0" * 32, "1" * 32, "judge", Reply(text="paid for"))
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"journal\.jsonl: cannot write to the journal: No space left"):
        journal.close()
    journal.close()  # it is closed all the same
    assert len(Journal(tmp_path / "journal.jsonl", writable=False)) == 1
