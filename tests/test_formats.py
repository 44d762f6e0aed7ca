"""docs/formats.md says what the run folder holds; here it is held to the records and to the files of a real run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
from msgspec import inspect

import rlaif.io.prompts
from rlaif import pipeline
from rlaif.config import Pipeline, validate
from rlaif.records import SCHEMA_VERSION, STATUSES, Dropped, Judgment, Preference, Prompt, Response, Revision
from rlaif.stages.kinds import KINDS
from rlaif.store import Entry

ROOT = Path(__file__).parent.parent
DOC = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
RECORDS = [Prompt, Response, Revision, Judgment, Preference, Dropped]


def table(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, code ticks removed from the first column."""
    section = re.split(r"^#+ ", DOC.split(f"## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    lines = section[section.index("| ") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [[row[0].strip("`"), *row[1:]] for row in cells]


def json_type(kind: inspect.Type) -> str:
    """What a Python type is in a line of JSON, in the words of the doc."""
    if isinstance(kind, inspect.UnionType):
        return " or ".join(json_type(part) for part in kind.types)
    names = {
        inspect.StrType: "text", inspect.LiteralType: "text", inspect.IntType: "integer", inspect.FloatType: "number",
        inspect.BoolType: "true/false", inspect.NoneType: "null", inspect.DictType: "object",
        inspect.StructType: "object",
    }  # fmt: skip
    if isinstance(kind, inspect.ListType):
        return f"list of {json_type(kind.item_type)}"
    return names[type(kind)]


def default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    encoded = msgspec.json.encode(value).decode()
    return encoded if value is None else f"`{encoded}`"


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_columns_types_and_defaults_of_every_table(record):
    heading = next(h for h in re.findall(r"^## (.+)$", DOC, re.MULTILINE) if h.endswith(f": {record.__name__}"))
    types = {field.name: json_type(field.type) for field in inspect.type_info(record).fields}
    expected = [[f.name, types[f.name], default_of(f)] for f in msgspec.structs.fields(record)]
    assert [row[:3] for row in table(heading)] == expected
    assert all(row[3] for row in table(heading))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_columns_of_every_kind_of_dataset(kind):
    names = {
        "messages": "list of {role, content}", "string": "text", "double": "number", "bool": "true/false",
        "ints": "list of integer", "doubles": "list of number", "strings": "list of text", (): "object",
    }  # fmt: skip
    nullable = {"domain", "reference"} | ({"probability"} if kind.name == "unpaired" else set())
    columns = kind.columns([]).items()
    expected = [[n, names[column] + (" or null" if n in nullable else "")] for n, column in columns]
    assert [row[:2] for row in table(f"`{kind.folder}/`")] == expected


def test_columns_of_the_journal():
    assert [row[0] for row in table("`journal.jsonl`")] == [field.name for field in msgspec.structs.fields(Entry)]


def test_schema_version():
    assert f"is **{SCHEMA_VERSION}**" in DOC


def test_reasons_are_those_of_the_code():
    section = DOC.split("Reasons of the stages that make the labels:")[1].split("## ")[0]
    documented = {(stage, reason) for stage, reason in re.findall(r"^\| `(\w+)` \| `(\w+)`", section, re.MULTILINE)}
    folder = Path(rlaif.io.prompts.__file__).parent
    source = "".join((folder / name).read_text() for name in ("prompts.py", "responses.py"))
    found = {("prompts", reason) for reason in re.findall(r'(?:Drop\(|dropped\(item, |reason=)"(\w+)"', source)}
    stages = folder.parent / "stages"
    sources = [stages / "pair.py", stages / "selectors.py", *sorted((stages / "pairing").glob("*.py"))]
    pairing = "".join(path.read_text() for path in sources)
    found |= {("pair", reason) for reason in re.findall(r'(?:return|drop=|if .* else) ?"(\w+)"', pairing)}
    found.add(("pair", "tie"))
    sampling = (stages / "generate.py").read_text().split("def _fault")[1].split("\ndef ")[0]
    found |= {("generate", reason) for reason in re.findall(r'return \(?"(\w+)", ', sampling)}
    judging = (stages / "judge.py").read_text()
    named = re.findall(r'reason=?\s*=\s*"(\w+)"(?: if not responses else "(\w+)")?', judging)
    found |= {("judge", reason) for reasons in named for reason in reasons if reason}
    found |= {("judge", f"judgment_{status}") for status in STATUSES if status != "ok"}
    revising = (stages / "revise.py").read_text()
    found |= {("revise", reason) for reason in re.findall(r'reason="(\w+)"', revising)}
    found |= {("revise", f"revision_{status}") for status in STATUSES if status != "ok"}
    exporting = (stages / "export.py").read_text() + (stages / "kinds.py").read_text()
    found |= {("export", reason) for reason in re.findall(r'reason="(\w+)"', exporting)}
    assert found == {row for row in documented if row[0] != "calibrate"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A small pipeline on the scripted engine, through to its report."""
    folder = tmp_path_factory.mktemp("formats")
    rows = [{"id": f"p{i}", "prompt": f"Question {i}?", "level": i} for i in range(6)] + [{"prompt": ""}]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    raw = {
        "run": str(folder / "run"),
        "prompts": {"path": str(folder / "prompts.jsonl")},
        "engines": {
            "writer": {"engine": "scripted", "replies": [{"reply": ["Short.", "A longer answer."]}]},
            "judge": {"engine": "scripted", "replies": [{"match": "Question 1", "reply": "Who knows?"}],
                      "default": "Verdict: A"},
        },
        "generate": {"samplers": [{"engine": "writer", "n": 2}]},
        "revise": {"engine": "writer", "rubric": "helpfulness"},
        "judge": {"rubric": "helpfulness", "orders": "random"},
        "pair": {},
        "audit": {"slices": ["domain"]},
        "export": {"test_fraction": 0.0},
        "report": {},
    }  # fmt: skip
    pipeline.run(validate(Pipeline, raw, "test"), quiet=True)
    return folder / "run"


def test_every_file_of_a_run_is_in_the_doc(run):
    documented = set(re.findall(r"`([\w./-]+)`", "".join(row[0] + "` `" for row in table_of_files())))
    found = {item.name + "/" * item.is_dir() for item in run.iterdir() if not item.name.startswith(".")}
    assert found <= documented
    others = {f"{kind.folder}/" for kind in KINDS.values() if kind.name != "pair"}
    elsewhere = {"reasks.txt", "models/", "evaluation/", "calibration/", "audit/", "rounds/", "rounds.json"}
    assert documented - found == elsewhere | others


def table_of_files() -> list[list[str]]:
    lines = DOC.split("| --- | --- | --- |\n", 1)[1].split("\n\n")[0].splitlines()
    return [[line.split("|")[1].strip().replace("`, `", "` `")] for line in lines]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_rows_of_a_run_have_the_documented_columns(record, run):
    path = run / f"{record.__name__.lower().removesuffix('ped')}{'ped' if record is Dropped else 's'}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    names = {field.name for field in msgspec.structs.fields(record)}
    required = {field.name for field in msgspec.structs.fields(record) if field.required}
    assert rows
    assert all(required <= row.keys() <= names for row in rows)


def test_keys_of_the_audit(run):
    audit = json.loads((run / "audit.json").read_text(encoding="utf-8"))
    documented = {row[0]: row for row in table("`audit.json`")}
    assert [*audit, "injection"] == list(documented)
    assert list(audit["counts"]) == re.findall(r"`(\w+)`", documented["counts"][2])
    assert list(audit["slices"]["domain"][""]) == re.findall(r"`(\w+)`", documented["slices"][2])


def test_keys_of_the_manifest_and_the_journal(run):
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    documented = {row[0]: row[1] for row in table("`manifest.json`")}
    assert list(manifest) == list(documented)
    for key, inner in (("stages", manifest["stages"]["judge"]), ("engines", manifest["engines"]["judge"])):
        assert list(inner) == re.findall(r"`(\w+)`", documented[key])
    for key in ("requests", "last_run"):
        assert set(manifest[key]) == set(re.findall(r"`(\w+)`", documented[key]))
    row = json.loads((run / "journal.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert list(row) == [row[0] for row in table("`journal.jsonl`")]
