"""What users hand in, in every shape and with every fault; what rlaif writes, whole or not at all."""

from __future__ import annotations

import datetime
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from rlaif import io
from rlaif.config import Source
from rlaif.errors import ConfigError, DataError, StoreError
from rlaif.records import Dropped, Prompt, Response

ROWS = [{"id": "a", "prompt": "Why?", "level": 1}, {"id": "b", "prompt": "How?", "level": 2}]


def prompts_of(source, /, **columns):
    """(prompts, reasons of what was dropped)"""
    dropped: list[Dropped] = []
    found = list(io.read_prompts(source, dropped.append, columns or None))
    return found, [row.reason for row in dropped]


def responses_of(source, /, **columns):
    dropped: list[Dropped] = []
    found = list(io.read_responses(source, dropped.append, columns or None))
    return found, [row.reason for row in dropped]


def lines(path: Path, *rows: str | bytes) -> Path:
    path.write_bytes(b"".join((row.encode() if isinstance(row, str) else row) + b"\n" for row in rows))
    return path


# --- every format ------------------------------------------------------------------------------------------------


def write_as(kind: str, folder: Path) -> Path | pd.DataFrame | list:
    frame = pd.DataFrame(ROWS)
    if kind == "csv":
        frame.to_csv(folder / "x.csv", index=False)
    elif kind == "csv.gz":
        frame.to_csv(folder / "x.csv.gz", index=False)
    elif kind == "parquet":
        frame.to_parquet(folder / "x.parquet")
    elif kind == "json":
        (folder / "x.json").write_text(json.dumps(ROWS, indent=1))
    elif kind in ("jsonl", "ndjson"):
        lines(folder / f"x.{kind}", *(json.dumps(row) for row in ROWS))
    elif kind == "jsonl.gz":
        (folder / "x.jsonl.gz").write_bytes(gzip.compress("\n".join(json.dumps(row) for row in ROWS).encode()))
    elif kind == "json with lines":
        return lines(folder / "x.json", *(json.dumps(row) for row in ROWS))
    elif kind == "DataFrame":
        return frame
    elif kind == "iterable":
        return [dict(row) for row in ROWS]
    return folder / f"x.{kind}"


KINDS = [
    "csv",
    "csv.gz",
    "parquet",
    "json",
    "jsonl",
    "ndjson",
    "jsonl.gz",
    "json with lines",
    "DataFrame",
    "iterable",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_prompts(kind, tmp_path):
    found, reasons = prompts_of(write_as(kind, tmp_path))
    assert [(p.id, p.text, str(p.meta["level"])) for p in found] == [("a", "Why?", "1"), ("b", "How?", "2")]
    assert reasons == []


def test_hugging_face_datasets_in_memory_and_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": dataset, "test": dataset.select([1])}).save_to_disk(tmp_path / "splits")
    assert list(io.read_rows(dataset)) == ROWS
    assert list(io.read_rows(tmp_path / "saved")) == ROWS
    assert list(io.read_rows(Source(path=str(tmp_path / "splits"), split="test"))) == ROWS[1:]
    with pytest.raises(DataError, match="no split 'dev'; there: train, test"):
        list(io.read_rows(Source(path=str(tmp_path / "splits"), split="dev")))
    with pytest.raises(DataError, match="of splits train: pass one of them"):
        list(io.read_rows(datasets.DatasetDict({"train": dataset})))


def test_a_folder_of_data_files_is_a_dataset(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "folder").mkdir()
    pd.DataFrame(ROWS).to_parquet(tmp_path / "folder" / "train.parquet")
    assert list(io.read_rows(tmp_path / "folder")) == ROWS


def test_limit_counts_rows_from_the_top(tmp_path):
    path = write_as("jsonl", tmp_path)
    assert list(io.read_rows(Source(path=str(path), limit=1))) == ROWS[:1]


def test_skip_passes_rows_over_and_limit_counts_from_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Q{i}?"}) + "\n" for i in range(5)))
    texts = [prompt.text for prompt in io.read_prompts(Source(path=str(path), skip=1, limit=3), print)]
    assert texts == ["Q1?", "Q2?", "Q3?"]
    assert [prompt.text for prompt in io.read_prompts(Source(path=str(path), skip=4), print)] == ["Q4?"]
    assert list(io.read_prompts(Source(path=str(path), skip=9), print)) == []


def test_files_are_streamed(tmp_path):
    path = lines(tmp_path / "x.jsonl", '{"prompt": "first"}', "this line is broken")
    rows = io.read_rows(path)
    assert next(rows) == {"prompt": "first"}
    with pytest.raises(DataError):
        next(rows)


def test_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path):
    path = lines(tmp_path / "x.jsonl", b'\xef\xbb\xbf{"prompt": "one"}\r', b"", b"  ", b'{"prompt": "two"}\r')
    assert [p.text for p in prompts_of(path)[0]] == ["one", "two"]
    path = lines(tmp_path / "x.csv", b"\xef\xbb\xbfprompt,n\r", b'"a\r', b'b, ""c""",1\r')
    assert list(io.read_rows(path)) == [{"prompt": 'a\r\nb, "c"', "n": "1"}]


def test_megabyte_texts_are_fine(tmp_path):
    text = "word " * 200_000
    for path in (tmp_path / "x.csv", tmp_path / "x.parquet", tmp_path / "x.jsonl"):
        frame = pd.DataFrame([{"prompt": text, "response": text}])
        {".csv": frame.to_csv, ".parquet": frame.to_parquet}.get(path.suffix, lambda *a, **k: None)(path, index=False)
        if path.suffix == ".jsonl":
            io.write_jsonl(path, [{"prompt": text, "response": text}])
        [(prompt, [response])], reasons = responses_of(path)
        assert (prompt.text, response.text, reasons) == (text, text, [])


# --- what is wrong with a file: one line that names it -----------------------------------------------------------

BROKEN = {
    "missing-file": ("gone.jsonl", None, r"gone\.jsonl: no such file or folder"),
    "unknown-format": ("x.xlsx", b"PK", r"x\.xlsx: cannot tell the format; known: \.jsonl"),
    "malformed-json-line": ("x.jsonl", b'{"prompt": "a"}\n{"prompt": \n', r"x\.jsonl:2: not JSON"),
    "json-line-is-no-object": ("x.jsonl", b'["prompt"]\n', r"x\.jsonl:1: expected an object with columns, got list"),
    "json-too-deep": ("x.jsonl", b"[" * 100_000 + b"\n", r"x\.jsonl:1: .*nested too deep"),
    "malformed-array": ("x.json", b'[{"prompt": "a"},\n {"prompt": }]', r"x\.json: not JSON: .* line 2, column"),
    "not-utf-8-jsonl": ("x.jsonl", b'{"prompt": "a"}\n{"prompt": "caf\xe9"}\n', r"x\.jsonl:2: not UTF-8 \(byte 0xe9"),
    "not-utf-8-csv": ("x.csv", b"prompt\na\ncaf\xe9\n", r"x\.csv:3: not UTF-8 \(byte 0xe9 at byte 4\)"),
    "csv-row-too-long": ("x.csv", b"prompt,id\na,1\nb,2,3\n", r"x\.csv:3: 3 cells under a header of 2"),
    "csv-same-header-twice": ("x.csv", b"prompt,id,prompt\na,1,b\n", r"x\.csv:1: two columns are called 'prompt'"),
    "csv-open-quote": ("x.csv", b'prompt\n"a\nb\n', r"x\.csv:3: not CSV"),
    "not-parquet": ("x.parquet", b"prompt,id\na,1\n", r"x\.parquet: not Parquet"),
    "gzip-cut-off": ("x.jsonl.gz", gzip.compress(b'{"prompt": "a"}\n' * 99)[:-20], r"x\.jsonl\.gz: cannot read"),
    "not-gzip": ("x.jsonl.gz", b'{"prompt": "a"}\n', r"x\.jsonl\.gz: cannot read: Not a gzipped file"),
    "wrong-column": ("x.jsonl", b'{"promt": "a", "n": 1}\n', r"x\.jsonl: no column 'prompt', did you mean 'promt'"),
    "no-idea-column": ("x.jsonl", b'{"q": "a", "n": 1}\n', r"no column 'prompt'; there: q, n; name it with columns"),
    "one-id-two-texts": (
        "x.jsonl",
        b'{"id": 7, "prompt": "a"}\n{"id": 8, "prompt": "a"}\n{"id": 7, "prompt": "b"}\n',
        r"x\.jsonl:3: id '7' came with another prompt before, at .*x\.jsonl:1$",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_give_one_line(name, tmp_path):
    filename, content, message = BROKEN[name]
    if content is not None:
        (tmp_path / filename).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        prompts_of(tmp_path / filename)
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_cannot_be_reached_is_one_line(monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"^nobody/nothing-here: cannot load as a dataset: ") as caught:
        prompts_of("nobody/nothing-here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", [42, [1, 2], {"prompt": ["a"]}])
def test_things_that_hold_no_rows(source):
    with pytest.raises(DataError, match="expected a"):
        prompts_of(source)


def test_unknown_name_in_the_column_mapping():
    with pytest.raises(ConfigError, match="unknown name 'prompts', did you mean 'prompt'"):
        prompts_of(ROWS, prompts="prompt")


def test_mapped_column_that_is_not_there():
    with pytest.raises(
        DataError, match=r"no column 'questoin' \(for prompt\), did you mean 'question'\?; there: id, "
    ):
        prompts_of([{"id": 1, "question": "a"}], prompt="questoin")


# --- what is wrong with a row: it is dropped, with a reason ------------------------------------------------------

USER = {"role": "user", "content": "Why?"}
DROPPED = {
    "empty": ("", "empty_prompt"),
    "blank": (" \n\t", "empty_prompt"),
    "null": (None, "empty_prompt"),
    "no-messages": ([], "empty_prompt"),
    "blank-last-turn": ([{"role": "user", "content": " "}], "empty_prompt"),
    "ends-with-assistant": ([USER, {"role": "assistant", "content": "So."}], "not_user_turn"),
    "only-system": ([{"role": "system", "content": "Be kind."}], "not_user_turn"),
    "unknown-role": ([{"role": "human", "content": "Why?"}], "unknown_role"),
    "sharegpt": ([{"from": "human", "value": "Why?"}], "bad_message"),
    "content-in-parts": ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "bad_message"),
    "number": (7, "bad_message"),
    "lone-surrogate": ("half \ud83d", "lone_surrogate"),
}


@pytest.mark.parametrize("name", DROPPED)
def test_unusable_prompts_are_dropped_with_a_reason(name, tmp_path):
    value, reason = DROPPED[name]
    path = lines(tmp_path / "x.jsonl", json.dumps({"prompt": value}), json.dumps({"prompt": "good"}))
    dropped: list[Dropped] = []
    assert [p.text for p in io.read_prompts(path, dropped.append)] == ["good"]
    assert [(row.stage, row.reason, row.id) for row in dropped] == [("prompts", reason, f"{path}:1")]
    assert msgspec.json.encode(dropped)  # what is said about a broken text can itself be written


def test_surrogate_in_any_column_drops_the_row():
    found, reasons = prompts_of([{"prompt": "a", "note": "\ud800"}, {"prompt": "b", "id": "\udfff"}])
    assert (found, reasons) == ([], ["lone_surrogate", "lone_surrogate"])


def test_repeated_prompts_are_dropped_whether_or_not_they_have_ids():
    rows = [{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b", "id": 1}, {"prompt": "b", "id": 1}, {"prompt": "b"}]
    found, reasons = prompts_of(rows)
    assert [p.text for p in found] == ["a", "b", "b"]
    assert reasons == ["duplicate_prompt", "duplicate_prompt"]


# --- what becomes of good rows -----------------------------------------------------------------------------------


def test_columns_are_mapped_also_nested_ones_and_the_rest_is_meta():
    row = {"data": {"turns": [{"text": "Why?"}]}, "key": 5, "gold": ["x"], "topic": "t", "kept": {"deep": [1]}}
    [prompt], _ = prompts_of([row], prompt="data.turns.0.text", id="key", reference="gold", domain="topic")
    assert (prompt.id, prompt.text, prompt.reference, prompt.domain) == ("5", "Why?", '["x"]', "t")
    assert prompt.meta == {"data": row["data"], "kept": {"deep": [1]}}


def test_a_column_whose_name_holds_a_dot_wins_over_a_path():
    assert prompts_of([{"a.b": "yes", "a": {"b": "no"}}], prompt="a.b")[0][0].text == "yes"


def test_conversations_are_kept_whole():
    messages = [{"role": "system", "content": "Be kind."}, USER, {"role": "assistant", "content": "So."}, USER]
    [prompt], _ = prompts_of([{"prompt": messages}])
    assert prompt.messages == messages


def test_a_prompt_without_id_has_the_same_id_in_every_shape():
    texts, _ = prompts_of([{"prompt": "Why?"}, {"prompt": "Why? "}])
    [message], _ = prompts_of([{"prompt": [USER], "extra": 1}])
    assert texts[0].id == message.id != texts[1].id


def test_meta_survives_a_table_unchanged(tmp_path):
    strange = {
        "nan": float("nan"), "inf": float("inf"), "np": np.float32(0.5), "array": np.array([1, 2]), "huge": 2**70,
        "when": datetime.date(2026, 1, 2), "nested": {1: (1, {"x": np.int64(3)})}, "na": pd.NA, "bytes": b"ab",
    }  # fmt: skip
    found, reasons = prompts_of([{"prompt": "a", **strange}])
    assert reasons == []
    assert found[0].meta["nan"] is None and found[0].meta["inf"] is None
    assert found[0].meta["nested"] == {"1": [1, {"x": 3}]}
    assert (found[0].meta["array"], found[0].meta["when"], found[0].meta["huge"]) == (
        [1, 2],
        "2026-01-02",
        str(2**70),
    )
    io.write_table(tmp_path / "prompts.jsonl", found)
    assert list(io.read_table(tmp_path / "prompts.jsonl", Prompt)) == found


def test_nan_is_null_in_json_and_in_frames(tmp_path):
    path = lines(tmp_path / "x.jsonl", '{"prompt": "a", "score": NaN, "big": -Infinity}')
    assert list(io.read_rows(path)) == [{"prompt": "a", "score": None, "big": None}]
    frame = pd.DataFrame({"prompt": ["a", None], "n": [np.nan, 2.0], "t": [pd.NaT, pd.Timestamp("2026-01-01")]})
    assert next(io.read_rows(frame)) == {"prompt": "a", "n": None, "t": None}
    assert prompts_of(frame)[1] == ["empty_prompt"]


# --- files that already hold responses ---------------------------------------------------------------------------

LAYOUTS = {
    "list-of-texts": [{"prompt": "p", "responses": ["x", "y"]}],
    "list-of-objects": [{"prompt": "p", "responses": [{"text": "x", "source": "m"}, {"text": "y"}]}],
    "json-in-a-cell": [{"prompt": "p", "responses": '["x", "y"]'}],
    "a-and-b": [{"prompt": "p", "response_a": "x", "response_b": "y"}],
    "chosen-rejected": [{"prompt": "p", "chosen": "x", "rejected": "y"}],
    "one-a-row": [{"prompt": "p", "response": "x"}, {"prompt": "p", "response": "y"}],
    "trl-conversational": [
        {"prompt": [{"role": "user", "content": "p"}], "chosen": [{"role": "assistant", "content": "x"}],
         "rejected": [{"role": "assistant", "content": "y"}]}
    ],
    "trl-implicit-prompt": [
        {"chosen": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "x"}],
         "rejected": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "y"}]}
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_prompt_and_responses(name):
    [(prompt, responses)], reasons = responses_of(LAYOUTS[name])
    assert (prompt.text, [r.text for r in responses], reasons) == ("p", ["x", "y"], [])
    assert [r.id for r in responses] == [r.id for r in responses_of(LAYOUTS["a-and-b"])[0][0][1]]
    assert {r.prompt_id for r in responses} == {prompt.id}


def test_sources_and_columns_of_responses():
    [(_, responses)], _ = responses_of([{"prompt": "p", "responses": [{"text": "x", "source": "m", "score": 3}]}])
    assert (responses[0].source, responses[0].meta) == ("m", {"score": 3})
    [(_, responses)], _ = responses_of(LAYOUTS["a-and-b"])
    assert [r.source for r in responses] == ["response_a", "response_b"]


def test_one_response_a_row_in_any_order():
    rows = [
        {"qid": 1, "q": "p", "answer": "x", "who": "m1", "topic": "t"},
        {"qid": 2, "q": "r", "answer": "z", "who": "m1", "topic": "u"},
        {"qid": 1, "q": "p", "answer": "y", "who": "m2", "topic": "t"},
    ]
    found, _ = responses_of(rows, id="qid", prompt="q", response="answer", source="who")
    assert [(p.id, [(r.text, r.source) for r in rs]) for p, rs in found] == [
        ("1", [("x", "m1"), ("y", "m2")]),
        ("2", [("z", "m1")]),
    ]
    assert found[0][0].meta["topic"] == "t"
    assert found[0][1][1].meta == {"who": "m2"}


def test_ids_of_the_file_may_repeat_between_prompts():
    rows = [{"prompt": p, "responses": [{"id": 0, "text": "x"}, {"id": 1, "text": "y"}]} for p in "ab"]
    found, _ = responses_of(rows)
    assert len({r.id for _, rs in found for r in rs}) == 4
    with pytest.raises(DataError, match="response id 0 stands for two texts"):
        responses_of([{"prompt": "p", "responses": [{"id": 0, "text": "x"}, {"id": 0, "text": "y"}]}])


BAD_RESPONSES = {
    "same-text": (["x", "x ", "y"], ["x", "y"], ["duplicate_response"]),
    "empty": (["x", "", None, " "], ["x"], ["empty_response"] * 3),
    "none": ([], None, ["no_response"]),
    "null": (None, None, ["no_response"]),
    "number": ([7, "x"], ["x"], ["bad_message"]),
    "object-without-text": ([{"content": "x"}, "y"], ["y"], ["bad_response"]),
    "not-a-list": ("x", None, ["bad_response", "no_response"]),
    "broken-cell": ("[x", None, ["bad_response", "no_response"]),
    "surrogate": (["\ud800", "x"], ["x"], ["lone_surrogate"]),
    "ends-with-user": ([[USER], "x"], ["x"], ["bad_response"]),
    "other-prompt": ([[USER, {"role": "assistant", "content": "So."}], "x"], ["x"], ["bad_response"]),
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_unusable_responses_are_dropped_with_a_reason(name):
    value, texts, expected = BAD_RESPONSES[name]
    found, reasons = responses_of([{"prompt": "p", "responses": value}])
    assert reasons == expected
    assert [[r.text for r in responses] for _, responses in found] == ([] if texts is None else [texts])


def test_no_column_with_responses_lists_what_is_there():
    with pytest.raises(
        DataError, match=r"no column with responses \(responses; or response_a and .* there: prompt, x"
    ):
        responses_of([{"prompt": "p", "x": "y"}])
    with pytest.raises(
        DataError, match=r"no column 'b2' \(for response_b\), did you mean 'b'\?; there: prompt, a, b"
    ):
        responses_of([{"prompt": "p", "a": "x", "b": "y"}], response_a="a", response_b="b2")


def test_an_empty_file_has_no_rows(tmp_path):
    for name in ("x.jsonl", "x.csv", "x.json"):
        (tmp_path / name).touch()
        assert prompts_of(tmp_path / name) == ([], [])
        assert responses_of(tmp_path / name) == ([], [])


# --- writing -----------------------------------------------------------------------------------------------------


def response(i: int, text: str = "x") -> Response:
    return Response(id=str(i), prompt_id="p", text=text)


def test_tables_come_back_as_they_were_and_have_the_same_bytes(tmp_path):
    records = [response(i, "é\u2028\n\x00😀") for i in range(3)]
    assert io.write_table(tmp_path / "a.jsonl", records) == 3
    io.write_table(tmp_path / "b.jsonl", iter(records))
    assert list(io.read_table(tmp_path / "a.jsonl", Response)) == records
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert len((tmp_path / "a.jsonl").read_bytes().splitlines()) == 3


def test_a_reader_of_today_reads_columns_of_tomorrow(tmp_path):
    path = lines(tmp_path / "t.jsonl", '{"id": "1", "prompt_id": "p", "text": "x", "new": [1]}')
    assert list(io.read_table(path, Response)) == [response(1)]


def test_broken_tables_name_the_line(tmp_path):
    path = lines(tmp_path / "t.jsonl", '{"id": "1", "prompt_id": "p", "text": "x"}', '{"id": 2}')
    with pytest.raises(StoreError, match=r"t\.jsonl:2: not a Response"):
        list(io.read_table(path, Response))
    with pytest.raises(StoreError, match=r"gone\.jsonl: there is no such table"):
        list(io.read_table(tmp_path / "gone.jsonl", Response))


def failing(records):
    yield from records
    raise KeyboardInterrupt


@pytest.mark.parametrize("write", [io.write_table, io.write_parquet])
def test_an_interrupted_write_leaves_the_old_file(write, tmp_path):
    path = tmp_path / "t"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write(path, failing([{"a": 1}]))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_what_is_not_json_is_one_line_and_nothing_is_written(tmp_path):
    with pytest.raises(StoreError, match=r"t\.jsonl: row 2 cannot be written as JSON"):
        io.write_jsonl(tmp_path / "t.jsonl", [{"a": 1}, {"a": "\ud800"}])
    assert list(tmp_path.iterdir()) == []


def test_parquet_rows_that_do_not_fit_are_one_line(tmp_path):
    rows = [{"a": 1}] * 1000 + [{"a": "text"}]
    with pytest.raises(StoreError, match=r"t\.parquet: rows 1001 to 1001 do not fit the columns"):
        io.write_parquet(tmp_path / "t.parquet", rows)
    assert list(tmp_path.iterdir()) == []
    assert io.write_parquet(tmp_path / "t.parquet", rows[:1000]) == 1000


DISK_FULL = """
import resource, signal, sys
from rlaif import io
from rlaif.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write = {"jsonl": io.write_jsonl, "parquet": io.write_parquet}[sys.argv[2]]
try:
    write(sys.argv[1], ({"a": str(i) * 50} for i in range(100_000)))
except StoreError as error:
    sys.exit(f"one line: {error}")
"""


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_disk_that_is_full_leaves_the_old_file(kind, tmp_path):
    """A limit on file size stands in for a full disk: the same failing write, without needing a disk to fill."""
    assert hasattr(resource, "RLIMIT_FSIZE") and hasattr(signal, "SIGXFSZ")
    path = tmp_path / "t"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", DISK_FULL, path, kind], capture_output=True, text=True, check=False)
    assert done.stderr.strip().startswith(f"one line: {path}: cannot write: ")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write: "):
        io.write_jsonl(tmp_path / "file" / "t.jsonl", [{"a": 1}])
    if os.geteuid() != 0:  # nothing is read-only for root
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(StoreError, match="cannot write: Permission denied"):
            io.write_jsonl(tmp_path / "closed" / "t.jsonl", [{"a": 1}])


def test_what_a_killed_run_left_is_written_over(tmp_path):
    (tmp_path / ".t.jsonl.tmp").write_text("half a ro")
    (tmp_path / ".dataset.tmp").mkdir()
    (tmp_path / ".dataset.tmp" / "half").touch()
    io.write_jsonl(tmp_path / "t.jsonl", [{"a": 1}])
    with io.replacing_folder(tmp_path / "dataset") as temporary:
        (temporary / "whole").touch()
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")) == [
        "dataset",
        "dataset/whole",
        "t.jsonl",
    ]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "stale").touch()
    with pytest.raises(KeyboardInterrupt), io.replacing_folder(folder) as temporary:
        (temporary / "half").touch()
        raise KeyboardInterrupt
    assert [file.name for file in folder.iterdir()] == ["stale"]
    with io.replacing_folder(folder) as temporary:
        (temporary / "whole").touch()
    assert [file.name for file in folder.iterdir()] == ["whole"]
    assert [file.name for file in tmp_path.iterdir()] == ["dataset"]
