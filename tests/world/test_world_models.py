"""The shipped tiny models: real causal LMs that still hold their bars."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from rlaif.paths import shipped
from rlaif.world.check import pair_sets
from rlaif.world.prompts import WorldPrompt, prompts_of

pytest.importorskip("transformers")

from rlaif.world.measure import judge_figures, judge_items, policy_figures, sample_policy
from rlaif.world.model import load

TINY = shipped("data") / "tiny"
N_PROMPTS, N_PAIRS = 126, 80


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait busily for each other make so small a model ten times slower on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["policy", "judge", "second-judge"])
def test_a_model_loads_with_the_auto_classes_and_generates(name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY / name)
    model = AutoModelForCausalLM.from_pretrained(TINY / name)
    assert model.dtype == torch.bfloat16
    assert model.config.hidden_size // model.config.num_attention_heads == 32
    assert model.config.max_position_embeddings >= 512
    assert model.config.vocab_size == len(tokenizer)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=8, do_sample=False)
    assert out.shape[1] > ids["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


@pytest.fixture(scope="module")
def samples() -> dict[WorldPrompt, list[str]]:
    policy, tokenizer = load(TINY / "policy")
    return sample_policy(policy, tokenizer, list(prompts_of("heldout"))[::3][:N_PROMPTS], k=4, seed=1)


@pytest.mark.integration  # samples from the policy: about ten seconds
def test_the_policy_is_neither_hopeless_nor_good(samples: dict[WorldPrompt, list[str]]) -> None:
    figures = policy_figures(samples)
    assert 0.32 <= figures["quality"] <= 0.63
    assert figures["within_prompt_sd"] >= 0.15
    assert 0.2 <= figures["harmful_compliance"] <= 0.7
    assert 0.25 <= figures["benign_correct"] <= 0.75


# Macro and lowest principle: the bars of `rlaif world check`, less about two standard errors of so few pairs.
BARS = {"grammar": (0.93, 0.84), "policy_samples": (0.93, 0.84), "shifted": (0.82, 0.67)}


@pytest.mark.integration  # 2,400 judgments in a small model: about ten seconds
@pytest.mark.parametrize("name", ["judge", "second-judge"])
def test_a_judge_agrees_with_the_oracle(name: str, samples: dict[WorldPrompt, list[str]]) -> None:
    model, tokenizer = load(TINY / name)
    for source, pairs in pair_sets(samples, N_PAIRS, "heldout", seed=1).items():
        figures: dict[str, Any] = judge_figures(pairs.items, judge_items(model, tokenizer, pairs.items))
        macro, each = BARS[source]
        assert figures["accuracy_macro"] >= macro, (source, figures)
        assert min(figures["accuracy_by_principle"].values()) >= each, (source, figures)
        assert figures["label_mass"] >= 0.95
        assert pairs.tie_share <= 0.40
        if source != "shifted":
            assert figures["order_consistency"] >= 0.93
