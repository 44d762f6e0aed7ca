"""KTO on a random 60k-parameter Llama: each training takes about a second, importing TRL about six."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from training_data import killed_after_step_4, pairs, same, weights

from rlaif.config import KTOSection
from rlaif.errors import UserError
from rlaif.training.kto import train_kto

pytestmark = pytest.mark.integration  # trains

Write = Callable[..., Path]
QUICK: dict[str, Any] = {"max_steps": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-3}


def section(model: Path, *, args: dict[str, Any] | None = None, **options: Any) -> KTOSection:
    return KTOSection(model=str(model), args={**QUICK, **(args or {})}, **options)


def unpaired(n: int) -> list[dict[str, Any]]:
    """As export writes them: the two responses of a prompt stand together."""
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in pairs(n)
        for side in ("chosen", "rejected")
    ]


def test_learns_from_single_responses(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=unpaired(16)[:-1], test=unpaired(4))
    result = train_kto(section(tiny_model, args={"max_steps": 40}), data, tmp_path / "o", seed=1)
    assert (result["n_train"], result["n_desirable"], result["n_undesirable"]) == (31, 16, 15)
    first, last = result["history"][0], result["history"][-1]
    assert first["loss"] == pytest.approx(0.5, abs=1e-3)  # 1 − σ(0): policy and reference are equal
    assert last["rewards/margins"] > first.get("rewards/margins", 0) + 0.05
    assert result["test"]["rewards/chosen"] > result["test"]["rewards/rejected"]


def test_the_kl_prompts_are_mismatched(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    """A batch of two responses of one prompt, as exported, has no other prompt to pair a response with."""
    from rlaif.training.kto import KTO

    data = write_dataset(train=unpaired(32))
    splits = KTO().load(section(tiny_model), data, tmp_path / "cache", 1)
    prompts = [row[0]["content"] for row in splits.train["prompt"]]
    matched = sum(a == b for a, b in pairwise(prompts))
    assert matched <= 5  # 32 as exported; about 1 by chance
    again = KTO().load(section(tiny_model), data, tmp_path / "cache", 1)
    assert [row[0]["content"] for row in again.train["prompt"]] == prompts


def test_goes_on_after_a_kill(tiny_model: Path, write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(train=unpaired(12))
    job = section(tiny_model, args={"max_steps": 6, "save_strategy": "steps", "save_steps": 2})
    train_kto(job, data, tmp_path / "whole", seed=1)
    killed_after_step_4("kto", job, data, tmp_path / "killed")
    assert train_kto(job, data, tmp_path / "killed", seed=1)["resumed_from_step"] == 4
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


@pytest.mark.parametrize(
    ("rows", "args", "message"),
    [
        (pairs(4), {}, "missing column completion, label; columns there: prompt, chosen, rejected"),
        ([{**row, "label": 1} for row in unpaired(2)], {}, "row 0: label must be true or false, got 1"),
        ([{**row, "completion": []} for row in unpaired(2)], {}, "row 0: completion is empty"),
        (unpaired(4), {"per_device_train_batch_size": 1}, "train.kto: Actual (not effective) batch size must be > 1"),
        (
            unpaired(4),
            {"desirable": 2},
            "train.kto.args.desirable: KTOConfig has no such argument; did you mean desir",
        ),
    ],
    ids=["pairs", "label", "empty", "batch_of_one", "name"],
)
def test_bad_input(
    tiny_model: Path,
    write_dataset: Write,
    tmp_path: Path,
    rows: list[dict[str, Any]],
    args: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(UserError) as error:
        train_kto(section(tiny_model, args=args), write_dataset(train=rows), tmp_path / "out" / "policy", seed=1)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []
