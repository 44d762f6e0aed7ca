"""Direct Preference Optimization (Rafailov et al. 2023, 2305.18290) on TRL's own trainer."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rlaif.config import DPOSection
from rlaif.errors import ConfigError, DataError
from rlaif.training.data import (
    Row,
    Splits,
    check_rows,
    dataset_sha256,
    load_splits,
    located,
    pair_fault,
    probability_fault,
)
from rlaif.training.demonstrations import load_demonstrations
from rlaif.training.dpo_trainer import PROBABILITY, WEIGHT, Additions, extended
from rlaif.training.fitting import Method, no_empty_dataset, train
from rlaif.training.guard.probes import ProbeJudge
from rlaif.training.losses import PAIRWISE

_NEEDED_BY_OWN_LOSS = {
    "f_divergence_type": "reverse_kl",
    "use_weighting": False,
    "ld_alpha": None,
    "precompute_ref_log_probs": True,
}
_SMOOTHED_BY_TRL = ("robust", "exo_pair", "aot", "aot_unpaired")


def train_dpo(
    section: DPOSection, dataset: Path | str, out: Path, seed: int, *, judge: ProbeJudge | None = None
) -> dict[str, Any]:
    """DPO on pairs: prompt, chosen, rejected (text or conversations), for soft labels probability, and what
    `section.weight_column` names.

    Weights are divided by their mean over the training pairs, so they say how much a pair counts beside another and
    leave the learning rate alone. What is read, written, returned and raised: `fitting.train`.
    """
    return train(DPO(), section, dataset, out, seed, judge)


class DPO(Method):
    name = "dpo"
    defaults = {"precompute_ref_log_probs": True}

    def __init__(self) -> None:
        self.additions = Additions()

    def config_class(self) -> Any:
        from trl import DPOConfig

        return DPOConfig

    def load(self, section: DPOSection, dataset: Path | str, cache: Path, seed: int) -> Splits:
        named = [PROBABILITY] if section.soft_labels else []
        named += [section.weight_column] if section.weight_column else []
        columns = dict.fromkeys(["prompt", "chosen", "rejected", *named])
        splits = load_splits(dataset, list(columns), cache)
        check_rows(splits, pair_fault, dataset)
        if section.soft_labels:
            check_rows(splits, probability_fault, dataset)
        if section.weight_column:
            splits = _weighted(splits, section, dataset)
        self.additions = Additions(
            probability=section.soft_labels,
            weight=section.weight_column is not None,
            label_smoothing=section.label_smoothing,
            seed=seed,
        )
        return self._with_replay(splits, section, cache) if section.replay else splits

    def _with_replay(self, splits: Splits, section: DPOSection, cache: Path) -> Splits:
        assert section.replay is not None
        source = section.replay.dataset
        rows = load_demonstrations(located(source), cache, "demonstrations").train
        if self.conversational(rows[0]) and not self.conversational(splits.train[0]):
            raise DataError(f"{source}: conversations, but the pairs are plain text: the model saw no chat template")
        self.additions = self.additions._replace(replay=rows, replay_weight=section.replay.weight)
        facts = {"source": source, "sha256": dataset_sha256(rows), "rows": len(rows)}
        return splits._replace(facts={**splits.facts, "replay_dataset": facts})

    def check(self, section: DPOSection, config: Any) -> None:
        where = f"{self.where}.args"
        if config.label_smoothing and not set(config.loss_type) & set(_SMOOTHED_BY_TRL):
            raise ConfigError(
                f"{where}.label_smoothing: TRL's loss {', '.join(config.loss_type)} does not read it; "
                f"{self.where}.label_smoothing is conservative DPO's, loss_type: robust has its own"
            )
        if not self.additions.own_loss:
            return
        which = "soft_labels, label_smoothing and weight_column"
        allowed = [*PAIRWISE, "sft"]
        if not set(config.loss_type) <= set(allowed):
            raise ConfigError(f"{where}.loss_type: {which} fit {', '.join(allowed)}, got {config.loss_type!r}")
        for name, needed in _NEEDED_BY_OWN_LOSS.items():
            if getattr(config, name) != needed:
                raise ConfigError(f"{where}.{name}: {which} need {needed!r}, got {getattr(config, name)!r}")

    def trainer(self, section: DPOSection, splits: Splits, **arguments: Any) -> Any:
        from trl import DPOTrainer

        base = no_empty_dataset(DPOTrainer, self.where)
        plain = not self.additions.own_loss and self.additions.replay is None
        return (base if plain else extended(base, self.additions))(**arguments)

    def length(self, row: Row) -> int:
        return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _weighted(splits: Splits, section: DPOSection, dataset: Path | str) -> Splits:
    """The column `weight`, its mean over the training pairs 1. Errors: DataError."""
    column = str(section.weight_column)

    def fault(row: Row) -> str | None:
        value = row[column]
        ok = isinstance(value, int | float) and math.isfinite(value) and value >= 0
        return None if ok else f"{column} must be a number of 0 or more, got {value!r}"

    check_rows(splits, fault, dataset)
    mean = math.fsum(splits.train[column]) / len(splits.train)
    if mean == 0:
        raise DataError(f"{dataset} (train): every {column} is 0: there is nothing to train on")

    def weighted(split: Any) -> Any:
        weights = [value / mean for value in split[column]]
        unused = [column] if column != PROBABILITY or not section.soft_labels else []
        return split.remove_columns(unused).add_column(WEIGHT, weights)

    test = None if splits.test is None else weighted(splits.test)
    return splits._replace(train=weighted(splits.train), test=test, facts={**splits.facts, "mean_weight": mean})
