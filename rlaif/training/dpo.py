"""Direct Preference Optimization (Rafailov et al. 2023, 2305.18290) on TRL's own trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.config import DPOSection
from rlaif.errors import ConfigError
from rlaif.training.data import Row, Splits, check_rows, load_splits, pair_fault, probability_fault
from rlaif.training.fitting import Method, no_empty_dataset, train

_NEEDED_BY_SOFT_LABELS = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "f_divergence_type": "reverse_kl",
    "use_weighting": False,
    "ld_alpha": None,
    "precompute_ref_log_probs": True,
}


def train_dpo(section: DPOSection, dataset: Path | str, out: Path, seed: int) -> dict[str, Any]:
    """DPO on pairs: prompt, chosen, rejected (text or conversations) and, for soft labels, probability.

    What is read, written, returned and raised: `fitting.train`.
    """
    return train(DPO(), section, dataset, out, seed)


class DPO(Method):
    name = "dpo"
    defaults = {"precompute_ref_log_probs": True}

    def config_class(self) -> Any:
        from trl import DPOConfig

        return DPOConfig

    def load(self, section: DPOSection, dataset: Path | str, cache: Path, seed: int) -> Splits:
        columns = ["prompt", "chosen", "rejected"] + (["probability"] if section.soft_labels else [])
        splits = load_splits(dataset, columns, cache)
        check_rows(splits, pair_fault, dataset)
        if section.soft_labels:
            check_rows(splits, probability_fault, dataset)
        return splits

    def check(self, section: DPOSection, config: Any) -> None:
        for name, needed in _NEEDED_BY_SOFT_LABELS.items() if section.soft_labels else ():
            if getattr(config, name) != needed:
                raise ConfigError(
                    f"{self.where}.args.{name}: soft_labels need {needed!r}, got {getattr(config, name)!r}"
                )

    def trainer(self, section: DPOSection, splits: Splits, **arguments: Any) -> Any:
        from trl import DPOTrainer

        base = no_empty_dataset(DPOTrainer, self.where)
        return (soft_label_trainer(base) if section.soft_labels else base)(**arguments)

    def length(self, row: Row) -> int:
        return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def soft_label_trainer(base: Any) -> type[Any]:
    """DPOTrainer whose loss is `losses.soft_dpo_loss` with the column `probability`.

    Everything else, its logged metrics among it, stays TRL's: the forward pass is TRL's own, and its per-token
    log-probabilities are read from it as it returns.
    """
    import torch

    from rlaif.training.losses import soft_dpo_loss

    class SoftLabelDPOTrainer(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)  # precomputes the reference with TRL's collator
            collate: Any = vars(self)["data_collator"]

            def with_probability(rows: list[dict[str, Any]]) -> dict[str, Any]:
                batch: dict[str, Any] = collate(rows)
                batch["probability"] = torch.tensor([float(row["probability"]) for row in rows])
                return batch

            self.data_collator = with_probability

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            self._signature_columns: list[str] = [*{*self._signature_columns, "probability"}]

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            probability = inputs["probability"]
            batch = {key: value for key, value in inputs.items() if key != "probability"}
            seen: list[Any] = []

            def recording(**kwargs: Any) -> Any:
                seen.append(model(**kwargs))
                return seen[-1]

            super().compute_loss(recording, batch)
            chosen, rejected = seen[0].log_probs.sum(dim=1).chunk(2)  # (B,) each; 0 outside the responses
            ratio = (chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"])
            loss = soft_dpo_loss(self.beta * ratio, probability.to(ratio.device)).mean()
            return (loss, seen[0]) if return_outputs else loss

    return SoftLabelDPOTrainer
