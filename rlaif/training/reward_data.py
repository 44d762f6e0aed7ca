"""What a reward model is trained on: of whatever kind the dataset is, groups of token sequences of one prompt.

pair      two sequences, the chosen one first, with P(chosen is better)
scores    one sequence, with a score a criterion (null: not judged)
ranking   two or more, best first
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.config import RewardSection
from rlaif.errors import DataError
from rlaif.training.data import Row, Splits, check_rows, load_splits, pair_fault, probability_fault
from rlaif.training.tokens import encode

SEQUENCES, LENGTHS = "sequences", "lengths"  # ids, prompt and response; how many of them are the response's
NEEDED = {
    "pair": ("prompt", "chosen", "rejected"),
    "scores": ("prompt", "response", "scores"),
    "ranking": ("prompt", "responses", "ranking"),
}


def load(section: RewardSection, dataset: Path | str, cache: Path) -> Splits:
    """The checked rows, as text. Errors: DataError that names the file, the split and the row."""
    needed = list(NEEDED[section.kind])
    needed += ["probability"] if section.soft_labels else []
    needed += ["margin"] if section.margin else []

    def columns(there: list[str]) -> list[str]:
        return needed + [name for name in ("probability", "domain") if name in there and name not in needed]

    splits = load_splits(dataset, columns, cache)
    check_rows(splits, _fault(section, splits.train.column_names), dataset)
    return splits


def _fault(section: RewardSection, there: Sequence[str]) -> Callable[[Row], str | None]:
    def fault(row: Row) -> str | None:
        if section.kind == "scores":
            return _scores_fault(row)
        if section.kind == "ranking":
            return _ranking_fault(row)
        found = pair_fault(row)
        if found is None and "probability" in there:
            found = probability_fault(row)
        if found is None and section.margin and not _is_number(row["margin"]):
            found = f"margin must be a number, got {row['margin']!r}"
        return found

    return fault


def _scores_fault(row: Row) -> str | None:
    if not row["response"]:
        return "response is empty"
    scores = row["scores"]
    if not isinstance(scores, Mapping):
        return f"scores must be criterion: number or null, got {scores!r}"
    bad = next((name for name, score in scores.items() if score is not None and not _is_number(score)), None)
    if bad is not None:
        return f"scores.{bad} must be a number or null, got {scores[bad]!r}"
    return None if any(score is not None for score in scores.values()) else "no criterion was judged"


def _ranking_fault(row: Row) -> str | None:
    responses, ranking = row["responses"], row["ranking"]
    if not isinstance(responses, list) or not all(responses):
        return "responses must be a list, none of them empty"
    if not isinstance(ranking, list) or sorted(ranking) != list(range(len(responses))) or len(ranking) < 2:
        return f"ranking must hold the places in responses, best first, two at least: got {ranking!r}"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def heads_of(section: RewardSection, train: Any, where: Path | str) -> list[str]:
    """The names of the model's outputs: `reward`, or for scores the criteria in the dataset's order.

    Errors: DataError for a criterion that is not there or was never judged.
    """
    if section.kind != "scores":
        return ["reward"]
    judged: dict[str, bool] = {}
    for row in train:
        for name, score in row["scores"].items():
            judged[name] = judged.get(name, False) or score is not None
    wanted = section.heads or [name for name, found in judged.items() if found]
    for name in wanted:
        if not judged.get(name):
            why = "was never judged" if name in judged else "is not there"
            raise DataError(f"{where} (train): scores.{name} {why}; criteria there: {', '.join(judged)}")
    return wanted


def encoded(dataset: Any, tokenizer: Any, section: RewardSection, heads: Sequence[str], workers: int | None) -> Any:
    """The dataset with `sequences` and `lengths` instead of texts, and what the loss reads."""

    def texts(row: Row) -> list[Any]:
        if section.kind == "pair":
            return [row["chosen"], row["rejected"]]
        if section.kind == "scores":
            return [row["response"]]
        return [_turn(row["responses"][place]) for place in row["ranking"]]

    def tokens(row: Row) -> dict[str, Any]:
        ids = [encode(tokenizer, row["prompt"], text) for text in texts(row)]
        new: dict[str, Any] = {
            SEQUENCES: [one.whole for one in ids],
            LENGTHS: [len(one.completion) for one in ids],
            "domain": row.get("domain"),
        }
        if section.kind == "pair":
            given = row.get("probability")
            new["probability"] = 1.0 if given is None else float(given)
            new["target"] = new["probability"] if section.soft_labels else 1.0
            new["margin"] = float(row["margin"]) if section.margin else 0.0
        elif section.kind == "scores":
            new["scores"] = [_float(row["scores"].get(name)) for name in heads]
        return new

    return dataset.map(tokens, remove_columns=dataset.column_names, num_proc=workers)


def _turn(response: Any) -> Any:
    return [response] if isinstance(response, Mapping) else response


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def that_fit(dataset: Any, max_length: int | None) -> Any:
    """Rows whose sequences all have at most `max_length` tokens. None is cut: its end is where it is scored."""
    if max_length is None:
        return dataset
    return dataset.filter(lambda row: max(len(ids) for ids in row[SEQUENCES]) <= max_length)


def collator(pad_token_id: int, multiple_of: int | None) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """Rows → a batch: input_ids and attention_mask (S, T) with the rows' first sequences, then their second ones,
    and so on, as TRL lays out pairs; present (B, N): whether row b has an n-th sequence; other columns (B,), (B, K).
    """
    import torch
    from trl.trainer.utils import pad

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        most = max(len(row[SEQUENCES]) for row in rows)
        flat = [torch.tensor(row[SEQUENCES][n]) for n in range(most) for row in rows if n < len(row[SEQUENCES])]
        ones = [torch.ones_like(ids) for ids in flat]
        batch = {
            "input_ids": pad(flat, pad_token_id, "right", multiple_of),
            "attention_mask": pad(ones, 0, "right", multiple_of),
            "present": torch.tensor([[n < len(row[SEQUENCES]) for n in range(most)] for row in rows]),
        }
        for name in ("target", "margin", "scores"):
            if name in rows[0]:
                batch[name] = torch.tensor([row[name] for row in rows], dtype=torch.float)
        return batch

    return collate
