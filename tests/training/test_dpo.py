"""DPO on a random 60k-parameter Llama: each training takes about a second, importing TRL about six."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from training_data import build_model, killed_after_step_4, pairs, same, weights

from rlaif.config import DPOSection
from rlaif.errors import ConfigError, UserError
from rlaif.training.dpo import train_dpo

pytestmark = pytest.mark.integration  # trains

Write = Callable[..., Path]
QUICK: dict[str, Any] = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3}


def section(model: Path, *, args: dict[str, Any] | None = None, **options: Any) -> DPOSection:
    return DPOSection(model=str(model), args={**QUICK, **(args or {})}, **options)


def test_learns_and_writes_a_whole_model(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=pairs(32), test=pairs(6))
    out = tmp_path / "run" / "policy"
    args = {"max_steps": -1, "num_train_epochs": 4, "learning_rate": "2e-3"}  # a string: YAML's reading of 2e-3
    result = train_dpo(section(tiny_model, args=args), data, out, seed=1)

    assert json.loads((out / "training.json").read_text()) == result
    assert [path.name for path in out.parent.iterdir()] == ["policy"]
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "generation_config.json",
    } <= {path.name for path in out.iterdir()}
    assert not list(out.glob("*.bin"))
    assert result["steps"] == 32 and len(result["history"]) == 32
    assert {"loss", "learning_rate", "rewards/accuracies", "rewards/margins", "step"} <= result["history"][0].keys()
    assert result["history"][0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2: policy and reference are equal
    assert result["history"][-1]["rewards/accuracies"] == 1
    assert result["test"]["rewards/accuracies"] == 1
    assert result["dataset"]["rows"] == 32 and len(result["dataset"]["sha256"]) == 64

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "is it good 3"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    said = model.generate(**ids, max_new_tokens=3, do_sample=False)
    assert said.shape[1] == ids["input_ids"].shape[1] + 3
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (tiny_model, out))
    assert old == new


def test_same_seed_same_weights(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=pairs(16))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train_dpo(section(tiny_model), data, tmp_path / name, seed=seed)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert same(a, b) and not same(a, c)


def test_soft_labels_of_one_are_hard_labels(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    """The same batches through TRL's sigmoid loss and through ours: equal losses, equal weights."""
    data = write_dataset(train=pairs(16, probability=1.0))
    hard = train_dpo(section(tiny_model), data, tmp_path / "hard", seed=1)
    soft = train_dpo(section(tiny_model, soft_labels=True), data, tmp_path / "soft", seed=1)
    for one, other in zip(hard["history"], soft["history"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["rewards/margins"] == pytest.approx(other["rewards/margins"], abs=1e-6)
    a, b = weights(tmp_path / "hard"), weights(tmp_path / "soft")
    assert all((a[name] - b[name]).abs().max() < 1e-6 for name in a)


def test_uncertain_pairs_pull_less(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    """At p = ½ the best margin is 0; the first step's loss is log 2 whatever p is."""
    margins = {}
    for p in (1.0, 0.75, 0.5):
        data = write_dataset(f"p{p}", train=pairs(16, probability=p))
        out = train_dpo(
            section(tiny_model, soft_labels=True, args={"max_steps": 12}), data, tmp_path / f"o{p}", seed=1
        )
        assert out["history"][0]["loss"] == pytest.approx(0.6931, abs=1e-3)
        margins[p] = out["history"][-1]["rewards/margins"]
    assert margins[1.0] > margins[0.75] > margins[0.5] + 0.1
    assert abs(margins[0.5]) < 0.05


def test_soft_labels_with_an_sft_term_weights_and_replay(
    tiny_model: Path, write_dataset: Write, tmp_path: Path
) -> None:
    rows = [{**row, "trust": i % 3} for i, row in enumerate(pairs(16))]
    shown = [{"messages": [*row["prompt"], *row["chosen"]]} for row in pairs(3)]
    data, replay = write_dataset(train=rows, test=rows[:3]), write_dataset("shown", train=shown)
    job = section(
        tiny_model,
        soft_labels=True,
        weight_column="trust",
        replay={"dataset": str(replay), "weight": 0.5},
        args={"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.1], "max_steps": 12},
    )
    result = train_dpo(job, data, tmp_path / "o", seed=1)
    assert result["mean_weight"] == pytest.approx(15 / 16)  # 0, 1, 2, 0, 1, 2, … over 16 rows
    assert result["replay_dataset"]["rows"] == 3 and len(result["replay_dataset"]["sha256"]) == 64
    nll = [row["replay/nll"] for row in result["history"]]
    assert nll[0] == pytest.approx(5.6, abs=0.5)  # log(284 tokens) = 5.65: a random model
    assert nll[-1] < nll[0] - 1
    assert result["test"]["rewards/margins"] > 0


def test_lora_is_merged_and_kept(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    out = tmp_path / "policy"
    train_dpo(
        section(tiny_model, lora=lora, args={"learning_rate": 1e-2}), write_dataset(train=pairs(16)), out, seed=1
    )
    before, after = weights(tiny_model), weights(out)
    changed = {name for name in before if not (before[name] == after[name]).all()}
    assert before.keys() == after.keys()
    assert changed == {f"model.layers.0.self_attn.{name}.weight" for name in ("q_proj", "v_proj")}
    assert (out / "adapter" / "adapter_model.safetensors").is_file()
    assert not (out / "adapter_config.json").exists()  # else the folder would load as an adapter


def test_goes_on_after_a_kill(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    """Killed after step 4 of 6, then run again: the weights of an unkilled run."""
    data = write_dataset(train=pairs(16))
    job = section(tiny_model, args={"max_steps": 6, "save_strategy": "steps", "save_steps": 2})
    train_dpo(job, data, tmp_path / "whole", seed=1)
    killed = tmp_path / "killed"
    killed_after_step_4("dpo", job, data, killed)
    result = train_dpo(job, data, killed, seed=1)
    assert result["resumed_from_step"] == 4 and result["steps"] == 6
    assert [row["step"] for row in result["history"]] == [1, 2, 3, 4, 5, 6]
    assert same(weights(tmp_path / "whole"), weights(killed))
    assert not (tmp_path / ".killed.partial").exists()


def test_long_pairs_are_counted(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    rows = pairs(8)
    rows[0]["prompt"] = [{"role": "user", "content": "good " * 100}]
    rows[1]["chosen"] = [{"role": "assistant", "content": "good " * 100}]
    result = train_dpo(
        section(tiny_model, args={"max_length": 64}), write_dataset(train=rows), tmp_path / "o", seed=1
    )
    assert (result["rows_dropped_too_long"], result["rows_truncated"]) == (1, 1)


def test_plain_text_pairs(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    rows = [{"prompt": f"is it good {i} ", "chosen": "yes", "rejected": "no"} for i in range(8)]
    assert train_dpo(section(tiny_model), write_dataset(train=rows), tmp_path / "o", seed=1)["steps"] == 4


def test_margin_column_changes_nothing(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    train_dpo(section(tiny_model), write_dataset("a", train=pairs(16)), tmp_path / "a-out", seed=1)
    train_dpo(section(tiny_model), write_dataset("b", train=pairs(16, margin=9.0)), tmp_path / "b-out", seed=1)
    assert same(weights(tmp_path / "a-out"), weights(tmp_path / "b-out"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"learning_rat": 1},
            "train.dpo.args.learning_rat: DPOConfig has no such argument; did you mean learning_rate",
        ),
        ({"output_dir": "x"}, "output_dir: cannot be set: the run folder decides"),
        ({"trust_remote_code": True}, "trust_remote_code: cannot be set"),
        ({"lr_scheduler_type": "zigzag"}, "zigzag"),
        ({"max_length": 4}, "max_length: 4: every prompt is longer"),
        ({"learning_rate": 1e30, "max_grad_norm": 0}, "training diverged"),
    ],
    ids=["unknown", "output_dir", "remote_code", "bad_value", "too_short", "nan"],
)
def test_bad_arguments(
    tiny_model: Path, write_dataset: Write, tmp_path: Path, args: dict[str, Any], message: str
) -> None:
    refused(section(tiny_model, args=args), write_dataset(train=pairs(16)), tmp_path, message)


def refused(job: DPOSection, data: Path, tmp_path: Path, message: str) -> None:
    out = tmp_path / "out" / "policy"
    with pytest.raises(UserError) as error:
        train_dpo(job, data, out, seed=1)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "args", "message"),
    [
        ({"soft_labels": True}, {"loss_type": "apo_zero"}, "args.loss_type: soft_labels, label_smoothing and weight"),
        ({"soft_labels": True}, {"ld_alpha": 0.5}, "args.ld_alpha: soft_labels, label_smoothing and weight_"),
        ({"weight_column": "judge_margin"}, {"precompute_ref_log_probs": False}, "args.precompute_ref_log_probs: "),
        ({}, {"label_smoothing": 0.1}, "args.label_smoothing: TRL's loss sigmoid does not read it; train.dpo"),
        ({"weight_column": "chosen"}, {}, "row 0: chosen must be a number of 0 or more"),
        ({"weight_column": "nothing"}, {}, "missing column nothing"),
        ({"replay": {"dataset": "no/where/at/all"}}, {}, "no/where/at/all: no such dataset folder or file"),
        ({"quantization": {"load_in_4bits": True}}, {}, "quantization.load_in_4bits: BitsAndBytesConfig has no such"),
        ({"quantization": {"load_in_4bit": True}}, {}, "train.dpo.quantization: needs bitsandbytes"),
        ({}, {"model_init_kwargs": {"trust_remote_code": True}}, "trust_remote_code: code from a model's repository"),
        ({}, {"model_init_kwargs": {"use_safetensors": False}}, "use_safetensors: pickled weights are never loaded"),
    ],
    ids=[
        "loss", "length_weights", "live_reference", "ignored_smoothing", "weights_of_text", "no_weights", "no_replay",
        "unknown_quantization", "no_bitsandbytes", "remote_code", "pickles",
    ],
)  # fmt: skip
def test_what_does_not_fit_together(
    tiny_model: Path,
    write_dataset: Write,
    tmp_path: Path,
    options: dict[str, Any],
    args: dict[str, Any],
    message: str,
) -> None:
    if "quantization" in options and "bitsandbytes" in message and util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed here")
    refused(section(tiny_model, args=args, **options), write_dataset(train=pairs(8)), tmp_path, message)


def row_without(name: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != name} for row in pairs(4)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            row_without("rejected"),
            "missing column rejected; columns there: prompt, chosen, probability, judge_margin",
        ),
        (row_without("probability"), "missing column probability"),
        (pairs(4, chosen=[]), "row 0: chosen or rejected is empty"),
        (pairs(4, probability=1.5), "row 0: probability must be a number in [0, 1], got 1.5"),
        (pairs(4, probability=None), "row 0: probability must be"),
        (pairs(4, chosen=pairs(1)[0]["rejected"]), "chosen and rejected are the same"),
    ],
    ids=["no_rejected", "no_probability", "empty_response", "probability_over_1", "null_probability", "same_text"],
)
def test_bad_rows(
    tiny_model: Path, write_dataset: Write, tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    refused(section(tiny_model, soft_labels=True), write_dataset(train=rows), tmp_path, message)


def test_bad_datasets(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    job = section(tiny_model)
    refused(job, tmp_path / "nowhere", tmp_path, "no such dataset folder or file")
    refused(job, write_dataset("other", validation=pairs(4)), tmp_path, "no split 'train'; there: validation")
    refused(job, write_dataset("empty", train=[]), tmp_path, "empty")
    torn = write_dataset("torn", train=pairs(2))
    with next(torn.glob("data/*")).open("a") as file:
        file.write('{"prompt": [')
    refused(job, torn, tmp_path, "cannot load this dataset")


def test_bad_models(write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=pairs(8))
    refused(section(tmp_path / "no" / "model"), data, tmp_path, "not a model folder: no config.json there")
    without = build_model(tmp_path / "no_template", template=None)
    refused(section(without), data, tmp_path, "no chat template")
    tokenless = build_model(tmp_path / "no_pad", pad=False, end=False)
    refused(section(tokenless), data, tmp_path, "neither a pad nor an end-of-sequence token")
    corrupt = build_model(tmp_path / "corrupt")
    (corrupt / "model.safetensors").write_bytes(b"not weights")
    refused(section(corrupt), data, tmp_path, "train.dpo: Error while deserializing header")


def test_end_token_pads_when_there_is_no_pad_token(write_dataset: Write, tmp_path: Path) -> None:
    model = build_model(tmp_path / "no_pad", pad=False)
    assert train_dpo(section(model), write_dataset(train=pairs(8)), tmp_path / "o", seed=1)["steps"] == 4


def test_bad_lora(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=pairs(8))
    refused(
        section(tiny_model, lora={"rank": 4}), data, tmp_path, "train.dpo.lora.rank: LoraConfig has no such argument"
    )
    refused(section(tiny_model, lora={"target_modules": ["qq"]}), data, tmp_path, "train.dpo")


def test_memory_errors_are_one_line() -> None:
    from rlaif.training.common import memory_errors

    for error in (
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory."),
    ):
        with (
            pytest.raises(ConfigError, match=r"out of memory.*per_device_train_batch_size"),
            memory_errors("train.dpo"),
        ):
            raise error
    with pytest.raises(RuntimeError, match="something else"), memory_errors("train.dpo"):
        raise RuntimeError("something else")


def test_dataset_hash_does_not_depend_on_the_format(write_dataset: Write, tmp_path: Path) -> None:
    import pandas

    from rlaif.training.data import dataset_sha256, load_splits

    columns = ["prompt", "chosen", "rejected", "probability"]
    jsonl = write_dataset(train=pairs(5))
    pandas.DataFrame(pairs(5)).to_parquet(tmp_path / "pairs.parquet")
    hashes = {
        dataset_sha256(load_splits(p, columns, tmp_path / "cache").train) for p in (jsonl, tmp_path / "pairs.parquet")
    }
    assert len(hashes) == 1
