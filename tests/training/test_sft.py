"""SFT on a random 60k-parameter Llama: each training takes about a second, importing TRL about six."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_data import build_model, killed_after_step_4, pairs, same, weights

from rlaif.config import SFTSection
from rlaif.errors import UserError
from rlaif.training.sft import train_sft

pytestmark = pytest.mark.integration  # trains

Write = Callable[..., Path]
QUICK: dict[str, Any] = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3}


def section(model: Path, *, args: dict[str, Any] | None = None, **options: Any) -> SFTSection:
    return SFTSection(model=str(model), args={**QUICK, **(args or {})}, **options)


def demonstrations(n: int) -> list[dict[str, Any]]:
    return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs(n)]


def refused(job: SFTSection, data: Path, tmp_path: Path, message: str) -> None:
    out = tmp_path / "out" / "policy"
    with pytest.raises(UserError) as error:
        train_sft(job, data, out, seed=1)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list(out.parent.iterdir()) == []


def test_learns_the_chosen_responses(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    out = tmp_path / "models" / "sft"
    data = write_dataset(train=pairs(16) + pairs(2), test=pairs(4))
    result = train_sft(section(tiny_model, args={"max_steps": 60, "learning_rate": 1e-2}), data, out, seed=1)
    assert json.loads((out / "training.json").read_text()) == result
    assert (result["method"], result["on"]) == ("sft", "chosen")
    assert (result["n_train"], result["duplicates"]) == (16, 2)
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in out.iterdir()
    }
    assert result["history"][0]["loss"] == pytest.approx(5.65, abs=0.3)  # log(284 tokens)
    assert result["history"][-1]["loss"] < 1 and result["test"]["loss"] < 1
    assert (json.loads((tiny_model / "config.json").read_text())) == json.loads((out / "config.json").read_text())

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    ids = tokenizer.apply_chat_template(
        pairs(4)[3]["prompt"], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(said).startswith("yes")


def test_only_the_completion_is_in_the_loss(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    """The same completions after other prompts: the prompt's tokens get no gradient, though its text is another."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows = demonstrations(4)
    result = train_sft(section(tiny_model, on="demonstrations"), write_dataset(train=rows), tmp_path / "o", seed=1)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    total, n_tokens = 0.0, 0
    for row in rows:
        ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"])["input_ids"]
        n_prompt = len(tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"])
        with torch.no_grad():
            logps = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        total -= float(sum(logps[place - 1, ids[place]] for place in range(n_prompt, len(ids))))
        n_tokens += len(ids) - n_prompt
    assert result["history"][0]["loss"] == pytest.approx(total / n_tokens, abs=1e-4)


def test_conversations_are_learnt_turn_by_turn(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    turns = [("user", "is it good"), ("assistant", "yes"), ("user", "very"), ("assistant", "very good")]
    chat = [{"role": role, "content": text} for role, text in turns]
    split = [{"prompt": chat[:1], "completion": chat[1:2]}, {"prompt": chat[:3], "completion": chat[3:]}]
    job = section(tiny_model, on="demonstrations")
    a = train_sft(job, write_dataset("a", train=[{"messages": chat}]), tmp_path / "a-out", seed=1)
    b = train_sft(job, write_dataset("b", train=split), tmp_path / "b-out", seed=1)
    assert a["n_train"] == b["n_train"] == 2
    assert same(weights(tmp_path / "a-out"), weights(tmp_path / "b-out"))


def test_plain_text(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    rows = [{"prompt": f"is it good {i} ", "completion": "yes"} for i in range(8)]
    data = write_dataset(train=rows)
    assert train_sft(section(tiny_model, on="demonstrations"), data, tmp_path / "o", seed=1)["steps"] == 4


def test_goes_on_after_a_kill_and_only_where_it_is_the_same_training(
    tiny_model: Path, write_dataset: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Killed after step 4 of 6. Run again: the weights of an unkilled run. Run with another setting: from the start,
    which is said."""
    data = write_dataset(train=pairs(16))
    args = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2}
    job = section(tiny_model, args=args)
    train_sft(job, data, tmp_path / "whole", seed=1)
    killed_after_step_4("sft", job, data, tmp_path / "killed")
    shutil.copytree(tmp_path / ".killed.partial", tmp_path / ".other.partial")
    result = train_sft(job, data, tmp_path / "killed", seed=1)
    assert result["resumed_from_step"] == 4 and result["steps"] == 6
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    with caplog.at_level(logging.WARNING, "rlaif.training"):
        other = section(tiny_model, args={**args, "learning_rate": 1e-4})
        result = train_sft(other, data, tmp_path / "other", seed=1)
    assert result["resumed_from_step"] is None and result["steps"] == 6
    assert "starts afresh: the checkpoints of another training are there, which differs in given_args" in caplog.text


def test_lora_is_merged_into_the_starting_model(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    """The folder answers as the adapter on the starting model does."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = tmp_path / "policy"
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    train_sft(
        section(tiny_model, lora=lora, args={"learning_rate": 1e-1}), write_dataset(train=pairs(16)), out, seed=1
    )
    ids = torch.tensor([[5, 6, 7, 8]])
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        before = base(ids).logits
        adapted = PeftModel.from_pretrained(base, out / "adapter")(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(out)(ids).logits
    assert (merged - adapted).abs().max() < 1e-4 < (merged - before).abs().max()
    assert not (out / "adapter_config.json").exists()


def test_long_rows_are_counted(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    rows = pairs(8)
    rows[0]["prompt"] = [{"role": "user", "content": "good " * 100}]
    rows[1]["chosen"] = [{"role": "assistant", "content": "good " * 100}]
    job = section(tiny_model, args={"max_length": 64})
    result = train_sft(job, write_dataset(train=rows), tmp_path / "o", seed=1)
    assert (result["rows_dropped_too_long"], result["rows_truncated"]) == (1, 1)


@pytest.mark.parametrize(
    ("rows", "options", "args", "message"),
    [
        (demonstrations(4), {}, {}, "missing column chosen; columns there: prompt, completion"),
        (pairs(4), {"on": "demonstrations"}, {}, "missing column completion; columns there: prompt, chosen"),
        (pairs(4, chosen=[]), {}, {}, "row 0: chosen is empty"),
        ([{"messages": [{"content": "hm"}]}], {"on": "demonstrations"}, {}, "row 0: messages must be turns"),
        ([{"messages": pairs(1)[0]["prompt"]}], {"on": "demonstrations"}, {}, "no assistant turn follows"),
        ([], {}, {}, "a split has no rows"),
        (pairs(4), {}, {"learning_rat": 1}, "train.sft.args.learning_rat: SFTConfig has no such argument"),
        (pairs(4), {}, {"max_length": 4}, "train.sft.args.max_length: 4: every prompt is longer, no row of train"),
        (pairs(4), {}, {"dataset_kwargs": {"skip_prepare_dataset": True}}, "skip_prepare_dataset needs tokens"),
        (pairs(4), {}, {"learning_rate": 1e30, "max_grad_norm": 0}, "train.sft: training diverged"),
    ],
    ids=["chosen", "completion", "empty", "no_roles", "no_answer", "no_rows", "name", "too_short", "tokens", "nan"],
)  # fmt: skip
def test_bad_input(
    tiny_model: Path,
    write_dataset: Write,
    tmp_path: Path,
    rows: list[dict[str, Any]],
    options: dict[str, Any],
    args: dict[str, Any],
    message: str,
) -> None:
    refused(section(tiny_model, args=args, **options), write_dataset(train=rows), tmp_path, message)


def test_no_chat_template(write_dataset: Write, tmp_path: Path) -> None:
    model = build_model(tmp_path / "no_template", template=None)
    refused(section(model), write_dataset(train=pairs(8)), tmp_path, "no chat template")
