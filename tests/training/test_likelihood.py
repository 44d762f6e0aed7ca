"""Log-probs of given ids against one row and one token at a time, and what KL is made of them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from rlaif.errors import ConfigError
from rlaif.training import likelihood
from rlaif.training.likelihood import Texts, kl, log_likelihoods
from rlaif.training.tokens import Ids, written

ROWS = [Ids([5, 9, 7], [20, 21, 1]), Ids([6], [30]), Ids([8, 8], [40, 41, 42, 43, 44, 45, 1]), Ids([5, 4], [50, 51])]


@pytest.fixture(scope="module")
def moved(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with its weights shaken."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("models") / "moved"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.manual_seed(7)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return folder


def by_hand(folder: Path, row: Ids, temperature: float = 1.0) -> list[float]:
    """Token by token, each from a forward pass over what came before it alone."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for at in range(len(row.prompt), len(row.whole)):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.whole[:at]])).logits[0, -1].double().numpy() / temperature
        found.append(float(logits[row.whole[at]] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()))
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("batch_tokens", [1, 12, 4096], ids=["one row a batch", "some", "all in one"])
def test_log_probs_are_those_of_one_token_at_a_time(
    tiny_model: Path, temperature: float, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(likelihood, "_BATCH_TOKENS", batch_tokens)
    found = log_likelihoods(tiny_model, {"x": Texts(ROWS, temperature), "none": Texts([])})
    assert found["none"] == []
    for row, values in zip(ROWS, found["x"], strict=True):
        assert values == pytest.approx(by_hand(tiny_model, row, temperature), abs=1e-5)


def test_kl_is_the_brute_force_sum_over_tokens(tiny_model: Path, moved: Path) -> None:
    ours, start = (log_likelihoods(folder, {"x": Texts(ROWS)})["x"] for folder in (moved, tiny_model))
    found = kl(ours, start)
    for i, row in enumerate(ROWS):
        d = [a - b for a, b in zip(by_hand(moved, row), by_hand(tiny_model, row), strict=True)]
        assert max(map(abs, d)) > 0.1, "the two models differ"
        assert found.k1[i] == pytest.approx(sum(d), abs=1e-4)
        assert found.k3[i] == pytest.approx(sum(math.exp(-x) - 1 + x for x in d), rel=1e-3)
    assert found.tokens == [3, 1, 7, 2]


def test_kl_of_a_policy_with_itself_is_exactly_zero(tiny_model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_model, tmp_path / "copy")  # another folder: loaded by itself
    found = kl(*(log_likelihoods(Path(folder), {"x": Texts(ROWS)})["x"] for folder in (tiny_model, copy)))
    assert found.k1 == [0.0] * 4 and found.k3 == [0.0] * 4


def test_what_does_not_fit_or_load_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a prompt and completion of 301 tokens, this model takes 256"):
        log_likelihoods(tiny_model, {"x": Texts([Ids([1], [2] * 300)])})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="cannot load this policy"):
        log_likelihoods(tmp_path, {"x": Texts(ROWS)})


def test_text_becomes_the_ids_that_were_written(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = list(tokenizer("is it good", add_special_tokens=False)["input_ids"])
    assert written(tokenizer, "is it good", finished=True) == [*ids, tokenizer.eos_token_id]
    assert written(tokenizer, "is it good", finished=False) == ids
