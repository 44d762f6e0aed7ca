"""The scorer: what it makes of heads and members (pure), and that it sees the ids that it is given (a tiny model)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_data import TEMPLATE, build_model

from rlaif.errors import ConfigError
from rlaif.training.scoring import Weights, combine, load_reward

TWO = ["helpful", "harmless"]


def one_member(rows: list[list[float]], weights: Weights, **options: Any) -> Any:
    mean, sd = np.array([[1.0, 2.0]]), np.array([[2.0, 0.5]])
    return combine(np.array([rows]), mean, sd, TWO, weights, **options)


def test_heads_are_standardised_and_weighed() -> None:
    rows = [[3.0, 2.5], [1.0, 1.0]]  # z: (1, 1) and (0, −2)
    assert one_member(rows, Weights()).reward.tolist() == [2.0, -2.0]
    assert one_member(rows, Weights({"helpful": 2.0, "harmless": 0.5})).reward.tolist() == [2.5, -1.0]
    assert one_member(rows, Weights({"harmless": 1.0})).reward.tolist() == [1.0, -2.0]  # helpful counts 0
    assert one_member(rows, Weights(), normalise=False).reward.tolist() == [5.5, 2.0]
    assert one_member(rows, Weights()).heads.tolist() == rows
    assert one_member(rows, Weights()).disagreement.tolist() == [0.0, 0.0]


def test_a_floor_goes_before_everything() -> None:
    rows = [[101.0, 1.75], [-99.0, 2.0], [3.0, 1.0]]  # z of helpful: 50, −50, 1
    found = one_member(rows, Weights({"helpful": 1.0}, {"harmless": 2.0}))
    assert found.violated.tolist() == [True, False, True]
    assert found.reward.tolist() == [-10.5, -10.0, -12.0]  # −10 − (2 − 1.75) / .5; held at −10; −10 − (2 − 1) / .5
    alone = one_member(rows[:1], Weights({"helpful": 1.0}, {"harmless": 2.0}))
    assert alone.reward[0] == found.reward[0]  # whatever it is scored with


def test_members_that_disagree() -> None:
    heads = np.array([[[1.0], [4.0]], [[3.0], [4.0]]])  # (2 members, 2 responses, 1 head)
    mean, sd = np.zeros((2, 1)), np.ones((2, 1))
    found = combine(heads, mean, sd, ["reward"], Weights(), pessimism=0.5)
    assert found.disagreement.tolist() == pytest.approx([2**0.5, 0.0])  # sd of (1, 3) with n − 1
    assert found.reward.tolist() == pytest.approx([2 - 0.5 * 2**0.5, 4.0])
    floored = combine(heads, mean, sd, ["reward"], Weights({}, {"reward": 1.5}), pessimism=0.5)
    assert floored.violated.tolist() == [True, False]  # 2 − .71 is below 1.5: the floor is pessimistic too


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier with a random head on the tiny Llama, without reward.json: a foreign one."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base, out = build_model(tmp_path_factory.mktemp("scoring") / "base"), tmp_path_factory.mktemp("scoring") / "rm"
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, id2label={0: "quality"})
    torch.nn.init.normal_(model.score.weight)
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(base).save_pretrained(out)
    return out


def test_ids_are_scored_as_they_are(folder: Path) -> None:
    """Batched with longer ones and alone, and as transformers itself scores them; the end token counts."""
    import torch
    from transformers import AutoModelForSequenceClassification

    scorer = load_reward(folder, batch_size=2)
    assert scorer.heads == ["quality"]
    end = scorer.tokenizer.eos_token_id
    prompts, completions = [[2, 30, 31, 1], [2, 40, 1], [2, 50, 51, 52, 53, 1]], [[60, end], [60, 61, 62], [70]]
    found = scorer.score_ids(prompts, completions).reward
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for prompt, completion, reward in zip(prompts, completions, found, strict=True):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([prompt + completion])).logits.item()
        assert reward == pytest.approx(alone, abs=1e-5)
    cut = scorer.score_ids(prompts[:1], [[60]]).reward[0]
    assert abs(cut - found[0]) > 1e-3
    assert scorer.score_ids([], []).reward.shape == (0,)


def test_text_becomes_the_ids_that_a_policy_would_have_written(folder: Path) -> None:
    scorer = load_reward(folder)
    prompt = [{"role": "user", "content": "is it good"}]
    given = scorer.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    written = scorer.tokenizer("yes very", add_special_tokens=False)["input_ids"]
    by_text = scorer.score([prompt, prompt], ["yes very", "yes very"], finished=[True, False]).reward
    by_ids = scorer.score_ids([given, given], [[*written, scorer.tokenizer.eos_token_id], written]).reward
    assert by_text == pytest.approx(by_ids)


def test_too_long_is_refused_and_never_cut(folder: Path) -> None:
    with pytest.raises(ConfigError, match="a prompt and response of 300 tokens, this reward model takes 256"):
        load_reward(folder).score_ids([[5] * 200], [[5] * 100])


def test_policies_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    scorer = load_reward(folder)
    scorer.check_policy(AutoTokenizer.from_pretrained(folder))
    scorer.check_policy(build_model(tmp_path / "same"))
    other = build_model(tmp_path / "other", template=TEMPLATE.replace("<|user|>", "").replace("<|end|>", "!"))
    with pytest.raises(ConfigError, match=r"does not fit the policy: the chat templates render .*score text"):
        scorer.check_policy(other)
    grown = AutoTokenizer.from_pretrained(folder)
    grown.add_tokens(["zebra"])
    with pytest.raises(ConfigError, match="does not fit the policy: the vocabularies differ"):
        scorer.check_policy(grown)


def test_folders_that_are_no_reward_models(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a reward model: its config names LlamaForCausalLM"):
        load_reward(build_model(tmp_path / "policy"))
    with pytest.raises(ConfigError, match="nowhere"):
        load_reward(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no head 'kind'; there are: quality"):
        load_reward(folder, weights=Weights({"kind": 1.0}))
    newer = tmp_path / "newer"
    newer.mkdir()
    (newer / "reward.json").write_text(json.dumps({"version": 99}))
    with pytest.raises(ConfigError, match="version 99; this rlaif reads 1"):
        load_reward(newer)
