"""The dataset that comes out: its rows, its split, its card, and that `datasets` and TRL take it as it is."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
import yaml

from rlaif.config import ExportSection, PairSection, Pipeline
from rlaif.errors import DataError, UserError
from rlaif.records import Dropped, Judgment, Preference, Prompt, Response, make_id
from rlaif.stages import export, pair
from rlaif.stages.base import Context
from rlaif.stages.card import judge_figures
from rlaif.store import RunFolder

COLUMNS = [
    "prompt", "chosen", "rejected", "probability", "judge_margin", "prompt_id", "chosen_id", "rejected_id",
    "preference_id", "domain", "reference", "meta",
]  # fmt: skip


def prompt(i: int, text: str | None = None, **fields) -> Prompt:
    fields.setdefault("meta", {"row": i, "née": [1.5, None]})
    return Prompt(id=f"p{i}", messages=[{"role": "user", "content": text or f"Question {i}?"}], **fields)


def tables(folder: RunFolder, prompts: list[Prompt], p: float = 0.8) -> None:
    """Two responses a prompt; the judge finds the second one better with probability p in both orders."""
    responses, judgments = [], []
    for q in prompts:
        a, b = (Response(id=f"{q.id}-{name}", prompt_id=q.id, text=f"{name} to {q.id}") for name in ("bad", "good"))
        responses += [a, b]
        for shown, first in (([a.id, b.id], 1 - p), ([b.id, a.id], p)):
            judgments.append(
                Judgment(
                    id=make_id(*shown), prompt_id=q.id, response_ids=shown, model="some-judge",
                    rubric="helpfulness@1", template_sha256="ab" * 32, label_mass=0.9,
                    verdict="first" if first > 0.5 else "second",
                    probabilities={"first": first, "second": 1 - first}, meta={"orders": "both"},
                )
            )  # fmt: skip
    folder.write("prompts", prompts)
    folder.write("responses", responses)
    folder.write("judgments", judgments)


def exported(path: Path, prompts: list[Prompt], *, seed: int = 0, p: float = 0.8, **section):
    """(counts, dataset folder) of a run through pair and export."""
    config = Pipeline(run=str(path), seed=seed, pair=PairSection(), export=ExportSection(**section))
    with RunFolder(path) as folder:
        tables(folder, prompts, p)
        context = Context(config, folder)
        pair.run(context)
        return export.run(context), path / "dataset"


def rows(dataset: Path, split: str = "train") -> list[dict]:
    return pq.read_table(dataset / f"{split}.parquet").to_pylist()


def card(dataset: Path) -> tuple[dict, str]:
    _, front, body = (dataset / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


# --- rows --------------------------------------------------------------------------------------------------------


def test_a_row_is_trls_conversational_preference_with_its_provenance(tmp_path):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why? 😀"}]
    one = Prompt(id="p1", messages=messages, domain="sky", reference="Rayleigh", meta={"b": 1, "a": "é"})
    counts, dataset = exported(tmp_path / "run", [one], test_fraction=0)
    assert counts == {"preferences": 1, "splits": {"train": 1}, "formats": ["parquet"], "dropped": {}}
    [row] = rows(dataset)
    assert list(row) == COLUMNS
    assert row["prompt"] == messages
    assert row["chosen"] == [{"role": "assistant", "content": "good to p1"}]
    assert row["rejected"] == [{"role": "assistant", "content": "bad to p1"}]
    assert (row["probability"], row["judge_margin"]) == (pytest.approx(0.8), pytest.approx(0.6))
    assert (row["prompt_id"], row["chosen_id"], row["rejected_id"]) == ("p1", "p1-good", "p1-bad")
    assert (row["domain"], row["reference"], json.loads(row["meta"])) == ("sky", "Rayleigh", {"b": 1, "a": "é"})


def test_margin_is_written_only_when_asked_for(tmp_path):
    _, dataset = exported(tmp_path / "run", [prompt(1)], trl_margin=True)
    [row] = rows(dataset)
    assert row["margin"] == row["judge_margin"] == pytest.approx(0.6)
    assert list(row) == [*COLUMNS, "margin"]


def test_jsonl_and_parquet_hold_the_same(tmp_path):
    prompts = [prompt(i) for i in range(20)]
    _, dataset = exported(tmp_path / "run", prompts, formats=["jsonl", "parquet"], test_fraction=0.3)
    for split in ("train", "test"):
        lines = (dataset / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows(dataset, split)


def test_the_same_run_gives_the_same_bytes_and_old_files_go(tmp_path):
    prompts = [prompt(i) for i in range(20)]
    _, dataset = exported(tmp_path / "run", prompts, formats=["jsonl"])
    first = {file.name: file.read_bytes() for file in dataset.iterdir()}
    exported(tmp_path / "run", prompts, formats=["jsonl"])
    assert {file.name: file.read_bytes() for file in dataset.iterdir()} == first
    exported(tmp_path / "run", prompts, formats=["parquet"], test_fraction=0)
    assert sorted(file.name for file in dataset.iterdir()) == ["README.md", "train.parquet"]


# --- the split ---------------------------------------------------------------------------------------------------


def test_no_text_is_in_both_splits_whatever_its_id(tmp_path):
    texts = [f"Question {i % 100}?" if i < 200 else f" question  {i % 100}?" for i in range(300)]
    _, dataset = exported(tmp_path / "run", [prompt(i, text) for i, text in enumerate(texts)], test_fraction=0.3)
    train, test = ({row["prompt"][0]["content"].strip() for row in rows(dataset, s)} for s in ("train", "test"))
    assert len(train | test) == 200
    assert not {" ".join(t.lower().split()) for t in train} & {" ".join(t.lower().split()) for t in test}


def test_the_fraction_is_of_prompts_and_about_what_was_asked(tmp_path):
    counts, _ = exported(tmp_path / "run", [prompt(i) for i in range(2000)], test_fraction=0.1)
    assert 150 < counts["splits"]["test"] < 250  # 200 expected, deviation 13
    assert sum(counts["splits"].values()) == 2000


def test_a_prompt_keeps_its_side_when_others_come_and_changes_it_with_the_seed(tmp_path):
    def tested(n: int, seed: int = 0) -> set[str]:
        _, dataset = exported(tmp_path / "run", [prompt(i) for i in range(n)], test_fraction=0.5, seed=seed)
        return {row["prompt_id"] for row in rows(dataset, "test")}

    few, many = tested(50), tested(100)
    assert few == {id_ for id_ in many if int(id_[1:]) < 50}
    assert tested(50, seed=1) != few


def test_a_single_prompt_is_always_there_to_train_on(tmp_path):
    for seed in range(8):
        counts, dataset = exported(tmp_path / "run", [prompt(1)], seed=seed, test_fraction=0.9)
        assert counts["splits"] == {"train": 1}
        assert [f["split"] for f in card(dataset)[0]["configs"][0]["data_files"]] == ["train"]


# --- the card ----------------------------------------------------------------------------------------------------


def test_the_card_says_where_every_label_came_from(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.save_manifest(
            {
                "engines": {"judge": {"identity": "sha256:0123", "model": "some-judge"}},
                "stages": {"judge": {"counts": {"comparisons": 20, "judgments": 40, "statuses": {"ok": 40}}}},
            }
        )
        folder.write("dropped", [Dropped(stage="generate", reason="empty_response", id="x")])
    _, dataset = exported(tmp_path / "run", [prompt(i) for i in range(20)], seed=7)
    front, body = card(dataset)
    assert [feature["name"] for feature in front["dataset_info"]["features"]] == COLUMNS
    for fact in (
        "seed 7", "some-judge", "sha256:0123", "helpfulness@1", "ab" * 32, "40 ok", "20 comparisons, 40 judgments",
        "| generate: empty_response | 1 |", "shown first) | 1.000", "position bias) | 0.500", "labels | 0.900",
    ):  # fmt: skip
        assert fact in body, fact
    assert str(tmp_path) not in body


def test_judge_figures_by_hand():
    def judged(i, shown, verdict=None, **fields):
        return Judgment(id=str(i), prompt_id="p", response_ids=list(shown), verdict=verdict, model="m", **fields)

    [figures] = judge_figures(
        [
            judged(0, "ab", "first"), judged(1, "ba", "second"),  # a, a: consistent
            judged(2, "ac", "first"), judged(3, "ca", "first"),  # a, c: not
            judged(4, "bc", "tie", label_mass=0.8), judged(5, "cb", status="unparsed", label_mass=0.2),
            judged(6, "dd", "tie", meta={"identical": True}),  # nobody was asked: says nothing about the judge
        ]
    )  # fmt: skip
    assert figures.statuses == {"ok": 6, "unparsed": 1}
    assert figures.order_consistency == 1 / 2
    assert figures.first_position_rate == (3 + 0.5) / 5
    assert figures.mean_label_mass == pytest.approx(0.5)


def test_a_models_name_cannot_break_the_cards_tables(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        folder.save_manifest({"engines": {"judge": {"identity": "a|b\n| c |", "model": "m"}}})
    _, dataset = exported(tmp_path / "run", [prompt(1)])
    assert "| judge | m | a\\|b \\| c \\| |" in card(dataset)[1]


# --- what is wrong -----------------------------------------------------------------------------------------------


def test_nothing_that_survived_is_one_line_with_the_reasons(tmp_path):
    with pytest.raises(UserError, match=r"^no preference survived: 3 tie$"):
        exported(tmp_path / "run", [prompt(i) for i in range(3)], p=0.5)
    assert not (tmp_path / "run" / "dataset").exists()


def with_same_texts(path: Path, same: set[str]) -> tuple[Context, RunFolder]:
    """A paired run of three prompts; the responses to `same` then differ in white space around them alone."""
    context = Context(Pipeline(run=str(path), export=ExportSection(test_fraction=0)), RunFolder(path))
    tables(context.folder, [prompt(i) for i in range(3)])
    pair.run(context)
    changed = []
    for response in context.folder.read("responses", Response):
        text = "Yes." if response.id.endswith("bad") else " Yes.\n"
        changed.append(msgspec.structs.replace(response, text=text) if response.prompt_id in same else response)
    context.folder.write("responses", changed)
    return context, context.folder


def test_a_preference_between_the_same_texts_is_never_written(tmp_path):
    context, folder = with_same_texts(tmp_path, {"p1"})
    with folder:
        assert export.run(context)["dropped"] == {"same_text": 1}
        assert [row["prompt_id"] for row in rows(tmp_path / "dataset")] == ["p0", "p2"]
        assert "| export: same_text | 1 |" in card(tmp_path / "dataset")[1]
        assert export.run(context)["preferences"] == 2
        [row] = folder.read("dropped", Dropped)
        assert (row.stage, row.reason) == ("export", "same_text") and "p1-good" in row.detail


def test_nothing_but_same_texts_is_one_line(tmp_path):
    context, folder = with_same_texts(tmp_path, {"p0", "p1", "p2"})
    with folder, pytest.raises(UserError, match=r"^no preference survived: 3 same_text$"):
        export.run(context)
    assert not (tmp_path / "dataset").exists()


PREFERENCE = {"id": "x", "prompt_id": "p1", "chosen_id": "p1-good", "rejected_id": "p1-bad"}
WRONG = {
    "prompt": ({"prompt_id": "p9"}, "preference x: its prompt p9 is not among the prompts"),
    "response": ({"rejected_id": "p1-worst"}, "preference x: its response p1-worst is not among the responses"),
    "other-prompts-response": ({"rejected_id": "p2-bad"}, "preference x: response p2-bad answers prompt p2, not p1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_ids_that_do_not_match_are_errors(name, tmp_path):
    change, message = WRONG[name]
    wrong = Preference(**{**PREFERENCE, **change}, probability=0.9, judge_margin=0.8, judgment_ids=[])
    with RunFolder(tmp_path / "run") as folder:
        tables(folder, [prompt(1), prompt(2)])
        folder.write("preferences", [wrong])
        with pytest.raises(DataError, match=message):
            export.run(Context(Pipeline(run=str(tmp_path / "run")), folder))


# --- the libraries it is made for --------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_datasets_loads_the_folder_with_its_splits_and_types(file_format, tmp_path):
    datasets = pytest.importorskip("datasets")
    # every domain of one split is null, which untyped JSON lines would give another type
    prompts = [prompt(i, domain="d" if i % 2 else None) for i in range(20)]
    counts, folder = exported(tmp_path / "run", prompts, formats=[file_format], test_fraction=0.3)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == counts["splits"]
    assert loaded["train"].features == loaded["test"].features
    assert loaded["train"].column_names == COLUMNS
    assert loaded["train"].features["domain"].dtype == "string"
    assert loaded["train"][0]["chosen"][0]["role"] == "assistant"


def test_another_export_is_never_served_from_the_cache_of_datasets(tmp_path):
    """Its cache of a local folder is named after the card's header: same shape, other labels must differ there."""
    datasets = pytest.importorskip("datasets")
    prompts = [prompt(i) for i in range(4)]

    def loaded(folder: Path) -> set[float]:
        return set(datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]["probability"])

    _, first = exported(tmp_path / "a", prompts, p=0.8)
    assert loaded(first) == {0.8}
    _, elsewhere = exported(tmp_path / "b", prompts, p=0.6)
    assert loaded(elsewhere) == {0.6}
    _, again = exported(tmp_path / "a", prompts, p=0.7)
    assert loaded(again) == {0.7}


@pytest.mark.integration  # imports torch and TRL and takes one optimiser step: 20 seconds
@pytest.mark.parametrize("trl_margin", [False, True])
def test_trl_trains_on_it_unchanged(trl_margin, tmp_path):
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    _, folder = exported(
        tmp_path / "run", [prompt(i) for i in range(12)], formats=["jsonl"], test_fraction=0.3, trl_margin=trl_margin
    )
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    model, tokenizer = tiny_llama(tmp_path / "model", [f"good bad to Question {i}? p{i}" for i in range(12)])
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=4, report_to=[], bf16=False,
        use_cpu=True, save_strategy="no", logging_steps=1, eval_strategy="steps", eval_steps=1,
    )  # fmt: skip
    trainer = trl.DPOTrainer(
        model=model, args=arguments, train_dataset=loaded["train"], eval_dataset=loaded["test"],
        processing_class=tokenizer,
    )  # fmt: skip
    result = trainer.train()
    assert result.global_step == 1
    assert 0.6 < result.training_loss < 0.8  # the policy starts as its reference: log 2
    first = trainer.train_dataset[0]
    assert "good" in tokenizer.decode(first["chosen_ids"]) and "bad" in tokenizer.decode(first["rejected_ids"])


def tiny_llama(folder: Path, texts: list[str]):
    """A Llama with random weights, saved since TRL reloads it as the reference, and a tokenizer of words."""
    import tokenizers
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = ["<unk>", "<pad>", "<eos>", "user", "assistant"]
    tokenizer.train_from_iterator(texts, tokenizers.trainers.WordLevelTrainer(special_tokens=special))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="<eos>"
    )
    fast.chat_template = (
        "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {{ eos_token }} {% endfor %}"
        "{% if add_generation_prompt %}assistant {% endif %}"
    )
    shape = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=128, pad_token_id=fast.pad_token_id,
        eos_token_id=fast.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(shape).save_pretrained(folder)
    return transformers.LlamaForCausalLM.from_pretrained(folder), fast
