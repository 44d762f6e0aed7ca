"""The Python API on every kind of data, inside and outside an event loop, against the stub server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from stub_server import StubHandle

import rlaif
from rlaif.errors import ConfigError, DataError
from rlaif.rubric import load_rubric

ROWS = [
    {
        "id": "p1",
        "prompt": "Why is the sky blue?",
        "responses": ["Scattering.", "The sea.", "No idea."],
        "topic": "x",
    },
    {"id": "p2", "prompt": "Name a prime.", "responses": ["Seven.", "Nine."]},
]


@pytest.fixture
def engine(server: StubHandle) -> dict[str, Any]:
    return {"engine": "openai", "model": "stub", "base_url": server.url}


def test_judge_returns_the_judgments_of_every_pair_in_both_orders(engine: dict[str, Any]) -> None:
    judgments = rlaif.judge(ROWS, engine=engine, rubric="helpfulness")
    assert isinstance(judgments, list)
    assert len(judgments) == 2 * (3 + 1)
    assert {row["prompt_id"] for row in judgments} == {"p1", "p2"}
    assert all(row["status"] == "ok" for row in judgments)
    pairs = [tuple(row["response_ids"]) for row in judgments if row["prompt_id"] == "p2"]
    assert pairs[0] == pairs[1][::-1]


def test_a_data_frame_gives_a_data_frame(engine: dict[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    found = rlaif.preferences(pandas.DataFrame(ROWS), engine=engine, rubric="helpfulness")
    assert isinstance(found, pandas.DataFrame)
    assert {"prompt", "chosen", "rejected", "probability", "judge_margin"} <= set(found.columns)
    assert (found["probability"] > 0.5).all()
    assert (found["chosen"].map(str) != found["rejected"].map(str)).all()


def test_a_dataset_gives_a_dataset(engine: dict[str, Any]) -> None:
    datasets = pytest.importorskip("datasets")
    found = rlaif.judge(datasets.Dataset.from_list(ROWS), engine=engine, rubric="helpfulness")
    assert isinstance(found, datasets.Dataset)
    assert len(found) == 8


def test_it_works_inside_a_running_loop(engine: dict[str, Any]) -> None:
    async def notebook() -> tuple[int, int]:
        blocking = rlaif.judge(ROWS, engine=engine, rubric="helpfulness")
        awaited = await rlaif.ajudge(ROWS, engine=engine, rubric="helpfulness")
        return len(blocking), len(awaited)

    assert asyncio.run(notebook()) == (8, 8)


def test_a_run_folder_keeps_what_was_paid_for(engine: dict[str, Any], server: StubHandle, tmp_path: Path) -> None:
    first = rlaif.judge(ROWS, engine=engine, rubric="helpfulness", run=tmp_path / "run")
    sent = server.stats()["requests"]
    assert sent == 8
    again = rlaif.judge(ROWS, engine=engine, rubric="helpfulness", run=tmp_path / "run")
    assert again == first
    assert server.stats()["requests"] == sent


def test_generate_then_judge_then_pair(engine: dict[str, Any]) -> None:
    prompts = [{"id": row["id"], "prompt": row["prompt"]} for row in ROWS]
    answers = rlaif.generate(prompts, engine=engine, n=3, max_tokens=32)
    assert {row["id"] for row in answers} == {"p1", "p2"}
    judgments = rlaif.judge(answers, engine=engine, constitution="helpful-harmless-honest", principles="one")
    preferences = rlaif.pair(judgments, select="all_pairs")
    assert preferences
    assert all(row["chosen_id"] != row["rejected_id"] for row in preferences)
    assert all(0.5 < row["probability"] <= 1 for row in preferences)


def test_judgments_of_any_kind_are_paired_under_a_rubric() -> None:
    hard = next(c.id for c in load_rubric("harmlessness").criteria if c.hard)
    judgment = {"prompt_id": "q", "kind": "pointwise", "rubric": "harmlessness@1"}
    rows = [
        {**judgment, "id": "1", "response_ids": ["a"], "scores": {hard: 1.0, "other": 5.0}},
        {**judgment, "id": "2", "response_ids": ["b"], "scores": {hard: 5.0, "other": 1.0}},
    ]
    weights = {"other": 9.0}
    assert rlaif.pair(rows, principle_weights=weights)[0]["chosen_id"] == "a"
    [weighed] = rlaif.pair(rows, principle_weights=weights, rubric="harmlessness", order_policy="net")
    assert weighed["chosen_id"] == "b", "a fails a hard criterion of the rubric"
    with pytest.raises(ConfigError, match="panel: weighted needs panel_gold"):
        rlaif.pair(rows, panel="weighted")


def test_a_wrong_argument_is_one_line(engine: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="unknown key; allowed here"):
        rlaif.judge(ROWS, engine=engine, rubric="helpfulness", order="both")
    with pytest.raises(ConfigError, match="name a rubric or a constitution"):
        rlaif.judge(ROWS, engine=engine)
    with pytest.raises(DataError, match="prompt"):
        rlaif.judge([{"question": "?", "responses": ["a", "b"]}], engine=engine, rubric="helpfulness")


def test_run_takes_a_mapping(engine: dict[str, Any], tmp_path: Path) -> None:
    import json

    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    manifest = rlaif.run(
        {
            "run": str(tmp_path / "run"),
            "engines": {"judge": engine},
            "prompts": {"path": str(path)},
            "judge": {"rubric": "helpfulness"},
            "pair": {},
        },
        overrides=["pair.select=all_pairs"],
    )
    assert manifest["stages"]["pair"]["status"] == "finished"
    assert manifest["stages"]["judge"]["requests"]["sent"] == 8
    assert (tmp_path / "run" / "preferences.jsonl").is_file()


def test_export_and_report_of_a_run_folder(engine: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    rlaif.preferences(ROWS, engine=engine, rubric="helpfulness", run=folder)
    dataset = rlaif.export(folder, formats=["parquet"])
    assert (dataset / "train.parquet").is_file()
    assert rlaif.report(folder, title="mine")["counts"]["preferences"] == 2
    assert "mine" in (folder / "report.html").read_text(encoding="utf-8")


def test_evaluate_two_policies(engine: dict[str, Any]) -> None:
    prompts = [{"prompt": f"What is {number} plus one?"} for number in range(12)]
    other = {**engine, "name": "another"}
    found = rlaif.evaluate(prompts, before=engine, after=other, judge=engine, rubric="helpfulness", max_tokens=32)
    assert found["n"] == 12
    assert 0 <= found["win_rate"]["judge"]["value"] <= 1


@pytest.mark.integration  # loads torch and TRL
def test_train_dpo_on_rows(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"How can I bake bread {n}?", "chosen": "Mix flour.", "rejected": "Go away."} for n in range(8)
    ]
    conversations = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["chosen"]}],
            "rejected": [{"role": "assistant", "content": row["rejected"]}],
        }
        for row in rows
    ]
    out = tmp_path / "policy"
    training = rlaif.train_dpo(conversations, model="shipped:data/tiny/policy", out=out, args={"max_steps": 1})
    assert training["steps"] == 1
    assert (out / "model.safetensors").is_file()
    with pytest.raises(ConfigError, match="no such argument"):
        rlaif.train_dpo(conversations, model="shipped:data/tiny/policy", out=out, args={"max_stepz": 1})


@pytest.mark.integration  # loads torch and TRL
def test_train_sft_and_kto_on_rows(tmp_path: Path) -> None:
    rows = [
        {"prompt": [{"role": "user", "content": f"How can I bake bread {n}?"}],
         "completion": [{"role": "assistant", "content": "Mix flour."}], "label": n % 2 == 0}
        for n in range(8)
    ]  # fmt: skip
    args = {"max_steps": 1}
    first = rlaif.train_sft(
        rows, model="shipped:data/tiny/policy", out=tmp_path / "sft", on="demonstrations", args=args
    )
    then = rlaif.train_kto(rows, model=str(tmp_path / "sft"), out=tmp_path / "kto", args=args)
    assert (first["method"], first["steps"], then["method"], then["steps"]) == ("sft", 1, "kto", 1)
    with pytest.raises(ConfigError, match="train_sft: on: Input should be 'chosen', 'revised' or 'demonstrations'"):
        rlaif.train_sft(rows, model="m", out=tmp_path / "x", on="rejected")


def test_the_engine_in_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "echo_engine.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = rlaif.generate([{"prompt": "Hello?"}], engine={"engine": "echo_engine:EchoEngine"}, n=1)
    assert [row["response"] for row in rows] == ["Hello?"]
