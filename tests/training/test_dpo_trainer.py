"""Our additions to TRL's DPOTrainer, on batches of a random tiny Llama that has moved away from its reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_data import pairs

pytestmark = pytest.mark.integration  # imports TRL: six seconds

LOSSES = [
    (["sigmoid"], None),
    (["sigmoid_norm"], None),
    (["hinge"], None),
    (["ipo"], None),
    (["robust"], None),
    (["sft"], None),
    (["sigmoid", "sft"], [1.0, 0.3]),
    (["sigmoid_norm", "hinge", "sft"], [0.5, 0.2, 2.0]),
]


def swapped(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


def trainer_on(rows: list[dict[str, Any]], model: Path, tmp_path: Path, cls: Any = None, **args: Any) -> Any:
    """A trainer on `rows` whose model is the same for the same `model`, and not its reference."""
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from rlaif.training.common import load_tokenizer

    config = DPOConfig(
        output_dir=str(tmp_path / "out"), precompute_ref_log_probs=True, bf16=False, use_cpu=True, report_to="none",
        gradient_checkpointing=False, **args,
    )  # fmt: skip
    dataset = Dataset.from_list(rows)
    trainer = (cls or DPOTrainer)(
        model=str(model), args=config, train_dataset=dataset, processing_class=load_tokenizer(str(model), True)
    )
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=noise))
    return trainer


def loss_of(trainer: Any) -> float:
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    return float(trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).detach())


@pytest.mark.parametrize(("loss_type", "loss_weights"), LOSSES, ids=lambda value: "+".join(map(str, value or [])))
def test_certain_labels_give_trls_own_loss(
    tiny_model: Path, tmp_path: Path, loss_type: list[str], loss_weights: list[float] | None
) -> None:
    """probability 1: TRL's loss on the batch; probability 0: TRL's loss on the batch with its pairs swapped."""
    from trl import DPOTrainer

    from rlaif.training.dpo_trainer import Additions, extended

    smoothing = {"label_smoothing": 0.2} if "robust" in loss_type else {}
    args: dict[str, Any] = {"loss_type": loss_type, "loss_weights": loss_weights, "beta": 0.5, **smoothing}
    soft = extended(DPOTrainer, Additions(probability=True, weight=True))
    plain = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in pairs(6)]
    for p, labelled in ((1.0, plain), (0.0, swapped(plain))):
        trls = loss_of(trainer_on(plain, tiny_model, tmp_path, **args))
        rows = [{**row, "probability": p, "weight": 1.0} for row in labelled]
        if p == 0.0 and "sft" in loss_type:
            continue  # TRL's SFT term is of the response that is called chosen, whatever the label
        ours = loss_of(trainer_on(rows, tiny_model, tmp_path, soft, **args))
        assert ours == pytest.approx(trls, abs=1e-6)
        assert trls > 0.01


def test_a_weight_is_a_share_of_the_loss(tiny_model: Path, tmp_path: Path) -> None:
    """Weights 2 and 0 over two pairs: the first one's loss alone. In a batch of one a weighted mean would hide it."""
    from trl import DPOTrainer

    from rlaif.training.dpo_trainer import Additions, extended

    weighted = extended(DPOTrainer, Additions(weight=True))
    first, second = pairs(3)[1:]
    both = [{**first, "weight": 2.0}, {**second, "weight": 0.0}]
    alone = loss_of(trainer_on([first], tiny_model, tmp_path))
    assert loss_of(trainer_on(both, tiny_model, tmp_path, weighted)) == pytest.approx(alone, abs=1e-6)
    assert loss_of(trainer_on(both[:1], tiny_model, tmp_path, weighted)) == pytest.approx(2 * alone, abs=1e-6)
    assert loss_of(trainer_on(both[1:], tiny_model, tmp_path, weighted)) == 0


def test_replay_adds_the_demonstrations_mean_nll(tiny_model: Path, tmp_path: Path) -> None:
    """As SFTTrainer measures it on the same demonstrations with the same weights."""
    import torch
    from datasets import Dataset
    from trl import DPOTrainer, SFTConfig, SFTTrainer

    from rlaif.training.common import load_tokenizer
    from rlaif.training.dpo_trainer import Additions, extended

    shown = Dataset.from_list([{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs(5)[3:]])
    rows = pairs(4)
    plain = trainer_on(rows, tiny_model, tmp_path)
    replaying = trainer_on(
        rows, tiny_model, tmp_path, extended(DPOTrainer, Additions(replay=shown, replay_weight=0.25, seed=3))
    )
    sft = SFTTrainer(
        model=str(tiny_model),
        args=SFTConfig(output_dir=str(tmp_path / "sft"), bf16=False, use_cpu=True, report_to="none"),
        train_dataset=shown,
        processing_class=load_tokenizer(str(tiny_model), True),
    )
    sft.model.load_state_dict(plain.model.state_dict())
    with torch.no_grad():  # the model is as it was loaded: in eval mode
        nll = loss_of(sft)  # 2 demonstrations, each twice among 4 pairs: the same mean over tokens
        assert loss_of(replaying) == pytest.approx(loss_of(plain) + 0.25 * nll, abs=1e-5)
    assert replaying._metrics["eval"]["replay/nll"] == pytest.approx([nll], abs=1e-5)


def test_every_demonstration_comes_before_one_comes_again() -> None:
    from datasets import Dataset

    from rlaif.training.dpo_trainer import _with_replay

    shown = Dataset.from_list([{"prompt_ids": [i], "chosen_ids": [10 + i]} for i in range(3)])
    prepared = Dataset.from_list([{"chosen_ids": [0]} for _ in range(7)])
    rows = _with_replay(prepared, shown, seed=5)
    carried = [row["replay_prompt_ids"][0] for row in rows]
    assert sorted(carried[:3]) == [0, 1, 2] and carried[3:6] == carried[:3] and carried[6] == carried[0]
    assert [row["replay_completion_ids"][0] for row in rows] == [10 + i for i in carried]
    assert rows["replay_prompt_ids"][:] == _with_replay(prepared, shown, seed=5)["replay_prompt_ids"][:]
    orders = {tuple(row[0] for row in _with_replay(prepared, shown, seed=s)["replay_prompt_ids"]) for s in range(8)}
    assert len(orders) > 1
