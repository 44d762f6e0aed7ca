"""The datasets beside the pairs: unpaired responses, demonstrations, scores and rankings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from rlaif.config import ExportSection, PairSection, Pipeline
from rlaif.errors import StoreError, UserError
from rlaif.records import Dropped, Judgment, Preference, Prompt, Response, make_id
from rlaif.stages import export
from rlaif.stages.base import Context
from rlaif.stages.standings import criterion_scores, standings
from rlaif.store import RunFolder


def preferred(prompt: str, chosen: str, rejected: str, p: float) -> Preference:
    return Preference(
        id=make_id(prompt, chosen, rejected), prompt_id=prompt, chosen_id=f"{prompt}{chosen}",
        rejected_id=f"{prompt}{rejected}", probability=p, judge_margin=2 * p - 1, judgment_ids=[],
    )  # fmt: skip


def scored(prompt: str, response: str, scores: dict[str, float | None] | None, **fields: Any) -> Judgment:
    return Judgment(
        id=make_id(prompt, response, scores, fields), prompt_id=prompt, response_ids=[f"{prompt}{response}"],
        kind="pointwise", scores=scores, **fields,
    )  # fmt: skip


def ranked(prompt: str, order: str, **fields: Any) -> Judgment:
    """`order`: the responses' letters, best first; they were shown by name."""
    return Judgment(
        id=make_id(prompt, order, fields), prompt_id=prompt, response_ids=[f"{prompt}{r}" for r in sorted(order)],
        kind="listwise", ranking=[f"{prompt}{r}" for r in order], **fields,
    )  # fmt: skip


def compared(prompt: str, first: str, second: str, p: float) -> Judgment:
    return Judgment(
        id=make_id(prompt, first, second), prompt_id=prompt, response_ids=[f"{prompt}{first}", f"{prompt}{second}"],
        probabilities={"first": p, "second": 1 - p}, verdict="first" if p > 0.5 else "second",
    )  # fmt: skip


def exported(
    path: Path,
    kinds: list[str],
    *,
    preferences: list[Preference] | None = None,
    judgments: list[Judgment] = [],  # noqa: B006
    prompts: str = "pqrs",
    **section: Any,
) -> tuple[dict[str, Any], list[Dropped]]:
    """(counts, dropped rows) of export in a run whose prompts p, q, … have the responses pa, pb, pc."""
    config = Pipeline(
        run=str(path), pair=PairSection(), export=ExportSection(kinds=kinds, **{"test_fraction": 0, **section})
    )
    with RunFolder(path) as folder:
        folder.write("prompts", [Prompt(id=p, messages=[{"role": "user", "content": f"{p}?"}]) for p in prompts])
        folder.write(
            "responses", [Response(id=f"{p}{r}", prompt_id=p, text=f"{r} to {p}") for p in prompts for r in "abc"]
        )
        folder.write("judgments", judgments)
        if preferences is not None:
            folder.write("preferences", preferences)
        return export.run(Context(config, folder)), list(folder.read("dropped", Dropped))


def rows(path: Path, kind: str, split: str = "train") -> list[dict[str, Any]]:
    return pq.read_table(path / f"dataset-{kind}" / f"{split}.parquet").to_pylist()


# --- unpaired and sft --------------------------------------------------------------------------------------------

PREFERENCES = [
    preferred("p", "a", "b", 0.9),
    preferred("p", "a", "c", 0.7),
    preferred("p", "b", "c", 0.9),
    preferred("q", "b", "a", 1.0),
]


def test_a_response_of_several_preferences_is_one_unpaired_row(tmp_path: Path) -> None:
    """b of p: worse with .9, better with .9, so ½ on average: no label."""
    counts, dropped = exported(tmp_path, ["unpaired"], preferences=PREFERENCES)
    found = {
        row["response_id"]: (row["label"], pytest.approx(row["probability"])) for row in rows(tmp_path, "unpaired")
    }
    assert found == {"pa": (True, 0.8), "pc": (False, 0.2), "qb": (True, 1.0), "qa": (False, 0.0)}
    assert [(row.reason, row.id) for row in dropped] == [("no_label", "pb")]
    assert counts == {"kinds": {"unpaired": {"train": 4}}, "formats": ["parquet"], "dropped": {"no_label": 1}}
    row = next(row for row in rows(tmp_path, "unpaired") if row["response_id"] == "qb")
    assert row["prompt"] == [{"role": "user", "content": "q?"}]
    assert row["completion"] == [{"role": "assistant", "content": "b to q"}]


def test_every_chosen_response_is_one_demonstration(tmp_path: Path) -> None:
    exported(tmp_path, ["sft"], preferences=PREFERENCES)
    assert [row["response_id"] for row in rows(tmp_path, "sft")] == ["pa", "pb", "qb"]


def test_unpaired_labels_from_a_threshold_need_no_preference(tmp_path: Path) -> None:
    """The mean of the criteria that were judged: 4, 2, 3.5; none for the fourth."""
    judgments = [
        scored("p", "a", {"help": 3.0, "style": 5.0}),
        scored("p", "b", {"help": 2.0, "style": None}),
        scored("p", "c", {"help": 3.5, "style": 3.5}),
        scored("q", "a", {"help": None, "style": None}),
    ]
    counts, _ = exported(tmp_path, ["unpaired"], judgments=judgments, threshold=3.5)
    assert {row["response_id"]: row["label"] for row in rows(tmp_path, "unpaired")} == {
        "pa": True, "pb": False, "pc": True,
    }  # fmt: skip
    assert {row["probability"] for row in rows(tmp_path, "unpaired")} == {None}
    assert counts["dropped"] == {"not_judged": 1}


# --- scores ------------------------------------------------------------------------------------------------------


def test_scores_are_means_over_usable_judgments_with_every_criterion(tmp_path: Path) -> None:
    judgments = [
        scored("p", "a", {"help": 4.0, "style": None}),
        scored("p", "a", {"help": 5.0, "style": 1.0}),
        scored("p", "a", {"help": 1.0, "style": 1.0}, superseded=True),
        scored("p", "b", None, status="unparsed"),
        scored("q", "c", {"safe": 2.0}),
        scored("r", "a", {"help": None}),
    ]
    counts, dropped = exported(tmp_path, ["scores"], judgments=judgments)
    assert {row["response_id"]: row["scores"] for row in rows(tmp_path, "scores")} == {
        "pa": {"help": 4.5, "safe": None, "style": 1.0},
        "qc": {"help": None, "safe": 2.0, "style": None},
    }
    assert [(row.reason, row.id) for row in dropped] == [("not_judged", "ra")]
    assert rows(tmp_path, "scores")[0]["response"] == [{"role": "assistant", "content": "a to p"}]
    assert counts["kinds"] == {"scores": {"train": 2}}


# --- ranking -----------------------------------------------------------------------------------------------------


def test_a_ranking_is_the_mean_of_the_listwise_ones(tmp_path: Path) -> None:
    """c: 1, ½; a: ½, 1; b: 0, 0: c and a stand equal, and a comes first by id. q: one judgment, best first cab."""
    judgments = [ranked("p", "cab"), ranked("p", "acb"), ranked("q", "cab"), ranked("r", "abc", superseded=True)]
    _, dropped = exported(tmp_path, ["ranking"], judgments=judgments)
    by_prompt = {row["prompt_id"]: row for row in rows(tmp_path, "ranking")}
    assert by_prompt.keys() == {"p", "q"} and dropped == []
    assert (by_prompt["p"]["response_ids"], by_prompt["p"]["ranking"]) == (["pa", "pb"], [0, 1])
    assert (by_prompt["q"]["response_ids"], by_prompt["q"]["ranking"]) == (["qa", "qb", "qc"], [2, 0, 1])
    assert by_prompt["q"]["standings"] == [0.5, 0.0, 1.0]
    assert [turn["content"] for turn in by_prompt["q"]["responses"]] == ["a to q", "b to q", "c to q"]


def test_without_listwise_judgments_scores_rank_and_without_those_comparisons(tmp_path: Path) -> None:
    points = [scored("p", "a", {"x": 1.0}), scored("p", "b", {"x": 2.0}), scored("q", "a", {"x": 3.0})]
    _, dropped = exported(tmp_path / "scores", ["ranking"], judgments=points)
    [row] = rows(tmp_path / "scores", "ranking")
    assert (row["ranking"], row["standings"]) == ([1, 0], [1.0, 2.0])
    assert [(row.reason, row.id) for row in dropped] == [("no_ranking", "q")]  # one response cannot be ranked
    pairs = [compared("p", "a", "b", 0.8), compared("p", "c", "a", 0.9), compared("p", "b", "c", 0.6)]
    exported(tmp_path / "pairs", ["ranking"], judgments=pairs)
    [row] = rows(tmp_path / "pairs", "ranking")
    # a: (.6 − .8)/2, b: (−.6 + .2)/2, c: (.8 − .2)/2
    assert row["standings"] == pytest.approx([-0.1, -0.2, 0.3])
    assert row["ranking"] == [2, 0, 1]


def test_standings_by_hand() -> None:
    assert standings([ranked("p", "ab"), ranked("p", "ba")], PairSection()) == {"p": {"pa": 0.5, "pb": 0.5}}
    assert criterion_scores([scored("p", "a", {"x": 1.0, "y": None})]) == {("p", "pa"): {"x": 1.0, "y": None}}


# --- folders -----------------------------------------------------------------------------------------------------


def test_kinds_that_are_not_named_any_more_go(tmp_path: Path) -> None:
    exported(tmp_path, ["pair", "unpaired", "sft"], preferences=PREFERENCES)
    assert {path.name for path in tmp_path.glob("dataset*")} == {"dataset", "dataset-unpaired", "dataset-sft"}
    exported(tmp_path, ["sft"], preferences=PREFERENCES)
    assert {path.name for path in tmp_path.glob("dataset*")} == {"dataset-sft"}


def test_a_prompt_has_the_same_side_in_every_kind(tmp_path: Path) -> None:
    names = [chr(code) for code in range(0x100, 0x128)]
    prompts = "".join(names)
    found = [preferred(name, "a", "b", 0.9) for name in names]
    judgments = [scored(name, "a", {"x": 1.0}) for name in names]
    exported(
        tmp_path, ["unpaired", "sft", "scores"], preferences=found, judgments=judgments, prompts=prompts,
        test_fraction=0.5,
    )  # fmt: skip
    sides = [{row["prompt_id"] for row in rows(tmp_path, kind, "test")} for kind in ("unpaired", "sft", "scores")]
    assert sides[0] == sides[1] == sides[2] and 8 < len(sides[0]) < 32


EVERYTHING = {
    "preferences": [preferred(prompt, "a", "b", 0.9) for prompt in "pqrs"],
    "judgments": [
        *(scored(prompt, response, {"help": 4.0, "style": None}) for prompt in "pqrs" for response in "ab"),
        *(scored(prompt, "b", {"help": 1.0, "style": None}) for prompt in "pqrs"),
    ],
}


@pytest.mark.parametrize("kind", ["unpaired", "sft", "scores", "ranking"])
@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_datasets_loads_every_kind_with_its_types(kind: str, file_format: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    exported(tmp_path / "run", [kind], formats=[file_format], **EVERYTHING)
    folder = tmp_path / "run" / f"dataset-{kind}"
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    card = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)[1]
    assert loaded.column_names == [feature["name"] for feature in yaml.safe_load(card)["dataset_info"]["features"]]
    types = {
        "unpaired": ("label", "bool"), "sft": ("response_id", "string"), "scores": ("prompt_id", "string"),
        "ranking": ("prompt_id", "string"),
    }  # fmt: skip
    name, dtype = types[kind]
    assert loaded.features[name].dtype == dtype
    if kind == "scores":
        assert loaded[0]["scores"] == {"help": 4.0, "style": None}  # a column of nulls keeps its type
        assert loaded.features["scores"]["style"].dtype == "float64"
    if kind == "ranking":
        assert loaded[0]["ranking"] == [0, 1] and loaded[0]["response_ids"] == ["pa", "pb"]


def test_jsonl_and_parquet_hold_the_same(tmp_path: Path) -> None:
    kinds = ["unpaired", "sft", "scores", "ranking"]
    exported(tmp_path, kinds, formats=["parquet", "jsonl"], **EVERYTHING)
    for kind in kinds:
        lines = (tmp_path / f"dataset-{kind}" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows(tmp_path, kind)


# --- what is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "judgments", "message"),
    [
        ("scores", [], "export.kinds: scores needs pointwise judgments, and this run has none that is ok"),
        ("scores", [scored("p", "a", {"x": None})], "export.kinds: nothing is left for scores: 1 not_judged"),
        ("ranking", [ranked("p", "a")], "export.kinds: ranking needs judgments that tell a prompt's responses apart"),
    ],
)
def test_nothing_for_a_kind_is_one_line(kind: str, judgments: list[Judgment], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        exported(tmp_path, [kind], judgments=judgments)
    assert str(error.value).startswith(message)
    assert not (tmp_path / f"dataset-{kind}").exists()


def test_a_kind_that_needs_preferences_says_which_stage_writes_them(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"preferences.jsonl: not there yet; run the stage that writes preferences"):
        exported(tmp_path, ["unpaired"])
