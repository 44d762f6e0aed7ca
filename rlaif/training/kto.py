"""Kahneman-Tversky Optimization (Ethayarajh et al. 2024, 2402.01306) on single good or bad responses, with TRL's own
trainer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif.config import KTOSection
from rlaif.training.data import Row, Splits, check_rows, load_splits
from rlaif.training.fitting import Method, no_empty_dataset, train
from rlaif.training.guard.probes import ProbeJudge


def train_kto(
    section: KTOSection, dataset: Path | str, out: Path, seed: int, *, judge: ProbeJudge | None = None
) -> dict[str, Any]:
    """KTO on prompt, completion (text or conversations) and label (true: a good response, false: a bad one).

    TRL reads the rows in their order and takes each row's neighbours in the batch as its mismatched prompts, from
    which the KL term is estimated. Exported rows of one prompt stand together, which would make it no mismatch: so
    the rows are shuffled once, by the seed. What is read, written, returned and raised: `fitting.train`.
    """
    return train(KTO(), section, dataset, out, seed, judge)


class KTO(Method):
    name = "kto"
    defaults = {"precompute_ref_log_probs": True}

    def config_class(self) -> Any:
        from trl import KTOConfig

        return KTOConfig

    def load(self, section: KTOSection, dataset: Path | str, cache: Path, seed: int) -> Splits:
        splits = load_splits(dataset, ["prompt", "completion", "label"], cache)
        check_rows(splits, _fault, dataset)
        good = sum(splits.train["label"])
        facts = {"n_desirable": good, "n_undesirable": len(splits.train) - good}
        test = None if splits.test is None else splits.test.shuffle(seed=seed)
        return Splits(splits.train.shuffle(seed=seed), test, facts)

    def trainer(self, section: KTOSection, splits: Splits, **arguments: Any) -> Any:
        from trl import KTOTrainer

        return no_empty_dataset(KTOTrainer, self.where)(**arguments)

    def length(self, row: Row) -> int:
        return len(row["prompt_ids"]) + len(row["completion_ids"])


def _fault(row: Row) -> str | None:
    if not row["completion"]:
        return "completion is empty"
    return None if isinstance(row["label"], bool) else f"label must be true or false, got {row['label']!r}"
