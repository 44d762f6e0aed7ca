"""Rubrics and constitutions: what loads, what they say about a prompt, and faults with file, line and key."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import ConfigError
from rlaif.records import Prompt, Response
from rlaif.rubric import (
    Constitution,
    Principle,
    Rubric,
    find_frame,
    known,
    load_constitution,
    load_rubric,
    load_standard,
    pairwise_context,
)
from rlaif.rubric_check import check_frame, frame_of, looks

ROOT = Path(__file__).parent.parent
RUBRIC = """\
id: mine
version: 2
name: Mine
description: What I want.
criteria:
  - id: one
    weight: 2
    description: The first.
    scale: {min: 1, max: 3, labels: {1: bad, 3: good}}
  - id: two
    description: The second.
    hard: true
"""
CONSTITUTION = """\
id: ours
version: draft-1
name: Ours
description: What we want.
principles:
  - id: kind
    weight: 3
    texts: [Choose the kinder one., The kinder one wins.]
  - id: safe_code
    texts: [Choose the safer code.]
    scope: {domain: [code, sql], level: [expert]}
"""


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def prompt(domain: str | None = None, **meta: object) -> Prompt:
    return Prompt(id="p", messages=[{"role": "user", "content": "Hi"}], domain=domain, meta=meta)


# ---- loading


def test_a_rubric_loads_with_its_defaults(tmp_path: Path) -> None:
    rubric = load_rubric(written(tmp_path, RUBRIC))
    assert (rubric.ref, rubric.frame, rubric.path) == ("mine@2", "pairwise.jinja", tmp_path / "mine.yaml")
    first, second = rubric.criteria
    assert first.scale is not None and list(first.scale.steps) == [1, 2, 3] and first.scale.labels[3] == "good"
    assert (second.weight, second.scale, second.hard) == (1.0, None, True)


def test_a_constitution_loads_with_its_defaults(tmp_path: Path) -> None:
    constitution = load_constitution(written(tmp_path, CONSTITUTION))
    assert constitution.ref == "ours@draft-1"
    assert [(p.id, p.weight, p.scope) for p in constitution.principles] == [
        ("kind", 3.0, {}),
        ("safe_code", 1.0, {"domain": ["code", "sql"], "level": ["expert"]}),
    ]


def test_names_paths_and_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, RUBRIC)
    written(tmp_path, RUBRIC.replace("id: mine", "id: yml"), "other.yml")
    written(tmp_path, RUBRIC, "helpfulness.yaml")
    assert load_rubric("mine").id == load_rubric("mine.yaml").id == load_rubric("./mine").id == "mine"
    assert load_rubric("other").id == "yml"
    assert load_rubric("helpfulness").id == "helpfulness", "a shipped name is the shipped rubric"
    assert load_rubric("./helpfulness").id == "mine"
    assert load_rubric("shipped:prompts/rubrics/honesty.yaml").id == "honesty"
    assert isinstance(load_standard("mine"), Rubric)
    assert isinstance(load_standard("helpful-harmless-honest"), Constitution)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no rubric 'helpfullness'.*did you mean 'helpfulness'\?.*conciseness"):
        load_rubric("helpfullness")
    with pytest.raises(ConfigError, match=r"no constitution 'zzz'.*known: helpful-harmless-honest"):
        load_constitution("zzz")
    with pytest.raises(ConfigError, match="no rubric ''"):
        load_rubric("")
    with pytest.raises(ConfigError, match=r"^frame: 'pairwize\.jinja' not found; did you mean 'pairwise\.jinja'\?"):
        find_frame("pairwize.jinja", None)


def test_a_frame_that_is_not_there_is_named_with_its_line(tmp_path: Path) -> None:
    rubric = load_rubric(written(tmp_path, RUBRIC + "frame: nope.jinja\n"))
    with pytest.raises(ConfigError, match=r"mine\.yaml:13: frame: 'nope\.jinja' not found"):
        find_frame(rubric.frame, rubric.path)
    with pytest.raises(ConfigError, match=r"^frame: 'nope\.jinja' not found"):
        find_frame("nope.jinja", tmp_path)


def test_the_two_kinds_are_not_mixed_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this is a constitution"):
        load_rubric(written(tmp_path, CONSTITUTION))
    with pytest.raises(ConfigError, match="this is a rubric"):
        load_constitution(written(tmp_path, RUBRIC))


# ---- the hash is of the content


def test_sha256_changes_with_the_content_and_with_nothing_else(tmp_path: Path) -> None:
    base = load_rubric(written(tmp_path, RUBRIC)).sha256
    same = "# a comment\n" + RUBRIC.replace("id: mine\nversion: 2", "version: 2\nid: mine")
    same = same.replace("description: The second.", "description: 'The second.'\n    weight: 1.0")
    assert load_rubric(written(tmp_path, same, "elsewhere.yaml")).sha256 == base
    for old, new in (
        ("The first.", "The 1st."),
        ("weight: 2", "weight: 3"),
        ("hard: true", "hard: false"),
        ("3: g", "2: g"),
    ):
        assert old in RUBRIC
        assert load_rubric(written(tmp_path, RUBRIC.replace(old, new))).sha256 != base


# ---- faults: (text, line, what the message says)

FAULTS = {
    "unknown_key": (RUBRIC.replace("hard:", "herd:"), 12, "criteria.1.herd: unknown key; allowed here: id"),
    "unknown_key_in_scale": (RUBRIC.replace("min:", "low:"), 9, "criteria.0.scale"),
    "missing_key": (RUBRIC.replace("name: Mine\n", ""), 1, "name: Field required"),
    "missing_in_criterion": (RUBRIC.replace("    description: The second.\n", ""), 10, "criteria.1.description"),
    "no_criteria": (RUBRIC.split("criteria")[0] + "criteria: []\n", 5, "criteria"),
    "twice_the_same_id": (RUBRIC.replace("id: two", "id: one"), 5, "'one' is there twice"),
    "twice_the_same_key": (RUBRIC + "name: Again\n", 13, "name: key given twice, first on line 3"),
    "weight_zero": (RUBRIC.replace("weight: 2", "weight: 0"), 7, "criteria.0.weight"),
    "weight_infinite": (RUBRIC.replace("weight: 2", "weight: .inf"), 7, "criteria.0.weight"),
    "weight_text": (RUBRIC.replace("weight: 2", "weight: heavy"), 7, "got 'heavy'"),
    "blank_description": (RUBRIC.replace("The second.", "'  '"), 11, "criteria.1.description"),
    "id_with_dot": (RUBRIC.replace("id: two", "id: t.wo"), 10, "criteria.1.id"),
    "id_that_yaml_reads_as_bool": (RUBRIC.replace("id: two", "id: no"), 10, "got 'False'"),
    "version_number": (RUBRIC.replace("version: 2", "version: 1.5"), 2, "a whole number or quoted text, got 1.5"),
    "scale_upside_down": (RUBRIC.replace("min: 1, max: 3", "min: 3, max: 1"), 9, "min must be below max"),
    "label_off_the_scale": (RUBRIC.replace("3: good", "4: good"), 9, "step 4 is outside 1–3"),
    "lone_surrogate": (RUBRIC.replace("The second.", '"\\ud800"'), 11, "criteria.1.description"),
    "criterion_is_text": (RUBRIC.split("  - id: one")[0] + "  - be nice\n", 6, "criteria.0"),
    "no_principles": (CONSTITUTION.split("principles")[0] + "principles: []\n", 5, "principles"),
    "no_wording": (CONSTITUTION.replace("[Choose the safer code.]", "[]"), 10, "principles.1.texts"),
    "scope_not_a_list": (CONSTITUTION.replace("[code, sql]", "code"), 11, "principles.1.scope.domain"),
    "same_principle": (CONSTITUTION.replace("safe_code", "kind"), 5, "'kind' is there twice"),
}


@pytest.mark.parametrize(("text", "line", "message"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_names_file_line_and_key(tmp_path: Path, text: str, line: int, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_standard(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[1, 2]", "", "a: [", "a: &x [*x, *nope]", "\ttab: 1", "!!python/object:os.system {}"]
)
def test_a_file_that_is_no_mapping_is_one_clear_line(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_rubric(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_aliases_that_refer_to_themselves_do_not_hang(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_rubric(written(tmp_path, RUBRIC + "extra: &x\n  again: *x\n"))


# ---- principles


@pytest.mark.parametrize(
    ("given", "applies"),
    [
        (prompt("code", level="expert"), True),
        (prompt("sql", level=["novice", "expert"]), True),
        (prompt("code", level="novice"), False),
        (prompt("code"), False),
        (prompt("poetry", level="expert"), False),
        (prompt(None, level="expert"), False),
        (prompt("code", level=None), False),
        (prompt("code", level=[]), False),
    ],
)
def test_scope_needs_every_field_to_match(tmp_path: Path, given: Prompt, applies: bool) -> None:
    constitution = load_constitution(written(tmp_path, CONSTITUTION))
    ids = [principle.id for principle in constitution.applicable(given)]
    assert ids == (["kind", "safe_code"] if applies else ["kind"])


def test_scope_compares_numbers_and_booleans_as_yaml_writes_them() -> None:
    principle = Principle(id="x", texts=["t"], scope={"turns": ["1"], "safe": ["true"]})
    assert principle.applies(prompt(turns=1, safe=True))
    assert not principle.applies(prompt(turns=10, safe=True))
    assert not principle.applies(prompt(turns=1, safe=False))


@given(st.integers())
def test_wordings_are_drawn_by_the_rng_alone(seed: int) -> None:
    principle = Principle(id="x", texts=["a", "b", "c"])
    assert principle.wording(random.Random(seed)) == principle.wording(random.Random(seed))


def test_every_wording_comes_up_about_equally() -> None:
    principle, rng = Principle(id="x", texts=["a", "b", "c"]), random.Random(0)
    drawn = [principle.wording(rng) for _ in range(3000)]
    assert all(900 < drawn.count(text) < 1100 for text in principle.texts)


# ---- what frames see


def test_the_context_always_has_every_variable(tmp_path: Path) -> None:
    rubric = load_rubric(written(tmp_path, RUBRIC))
    responses = [Response(id=i, prompt_id="p", text=i.upper(), source="someone") for i in ("x", "y")]
    full = pairwise_context(prompt("d", topic="t"), responses, ["A", "B", "C"], rubric, "Be kind.", "kind", "Go.")
    bare = pairwise_context(prompt(), responses[::-1], ["A", "B"], None, None, None, "Go.")
    names = {"conversation", "reference", "responses", "rubric", "principle", "instruction", "labels", "meta"}
    assert set(full) == set(bare) == names
    assert full["responses"] == [{"label": "A", "text": "X"}, {"label": "B", "text": "Y"}]
    assert bare["responses"] == [{"label": "A", "text": "Y"}, {"label": "B", "text": "X"}]
    assert full["labels"] == ["A", "B", "C"] and full["meta"] == {"topic": "t"}
    assert full["principle"] == {"id": "kind", "text": "Be kind."} and bare["principle"] is None
    assert bare["rubric"] is None and full["rubric"]["criteria"][0] == {
        "id": "one",
        "description": "The first.",
        "weight": 2,
        "scale": {"min": 1, "max": 3, "labels": {1: "bad", 3: "good"}},
        "hard": False,
    }


# ---- what ships

SHIPPED = {**known(Rubric), **known(Constitution)}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_loads_renders_and_is_called_as_its_file(name: str) -> None:
    standard = load_standard(name)
    assert standard.id == name
    check_frame(standard, frame_of(standard))
    assert len(list(looks(standard))) >= 1


def test_the_promised_rubrics_ship_with_scales_of_single_digits() -> None:
    wanted = {
        "helpfulness",
        "harmlessness",
        "honesty",
        "conciseness",
        "summary-quality",
        "customer-service",
        "content-safety",
    }
    assert wanted <= set(known(Rubric))
    for name in wanted:
        for criterion in load_rubric(name).criteria:
            assert criterion.scale is not None, f"{name}: {criterion.id}"
            assert 0 <= criterion.scale.min < criterion.scale.max <= 9
            assert {criterion.scale.min, criterion.scale.max} <= set(criterion.scale.labels)


def test_the_general_constitution_has_its_principles_in_several_wordings() -> None:
    principles = load_constitution("helpful-harmless-honest").principles
    assert len(principles) >= 12
    assert all(len(set(principle.texts)) >= 3 for principle in principles)
    texts = [text for principle in principles for text in principle.texts]
    assert len(set(texts)) == len(texts)
    assert {principle.id for principle in principles if principle.scope} >= {"advice_with_stakes", "code_that_works"}
    in_general = [p.id for p in load_constitution("helpful-harmless-honest").applicable(prompt())]
    assert {"helpful", "harmless", "honest"} <= set(in_general) and "code_that_works" not in in_general
