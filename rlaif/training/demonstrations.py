"""Demonstrations from whatever holds them: prompt and completion, conversations, or the chosen side of pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rlaif.errors import DataError
from rlaif.training.data import Row, Splits, check_rows, load_splits

Source = Literal["chosen", "revised", "demonstrations"]


def load_demonstrations(dataset: Path | str, cache: Path, on: Source) -> Splits:
    """Rows with `prompt` and `completion`, each once; the facts say how many duplicates went.

    on "chosen": of pairs, the chosen response. on "revised" or "demonstrations": prompt and completion as they are,
    or `messages`, of which every assistant turn is one row: what comes before it is its prompt, so that the loss is
    on the assistant's tokens whatever the chat template says of them. Errors: DataError.
    """

    def columns(there: list[str]) -> list[str]:
        if on == "chosen":
            return ["prompt", "chosen"]
        return ["messages"] if "messages" in there and "completion" not in there else ["prompt", "completion"]

    found = load_splits(dataset, columns, cache)
    check_rows(found, _fault, dataset)
    train, n_duplicates = _unique(_prompts_and_completions(found.train, dataset))
    test = None if found.test is None else _unique(_prompts_and_completions(found.test, dataset))[0]
    return Splits(train, test, {"duplicates": n_duplicates})


def _fault(row: Row) -> str | None:
    if "messages" in row:
        turns = row["messages"]
        if not isinstance(turns, list) or not turns or not all(_is_turn(turn) for turn in turns):
            return "messages must be turns, each with role and content"
        return None
    name = "chosen" if "chosen" in row else "completion"
    return None if row[name] else f"{name} is empty"


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, Mapping) and bool(turn.get("role")) and "content" in turn


def _prompts_and_completions(split: Any, dataset: Path | str) -> Any:
    if "chosen" in split.column_names:
        return split.rename_column("chosen", "completion")
    if "messages" not in split.column_names:
        return split
    rows = split.map(_by_turn, batched=True, remove_columns=["messages"])
    if not len(rows):
        raise DataError(f"{dataset}: no assistant turn follows another turn: there is nothing to learn")
    return rows


def _by_turn(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Columns of conversations → columns with a row for each assistant turn that follows another turn."""
    others = [name for name in batch if name != "messages"]
    rows: dict[str, list[Any]] = {"prompt": [], "completion": [], **{name: [] for name in others}}
    for number, turns in enumerate(batch["messages"]):
        for place, turn in enumerate(turns):
            if place and turn["role"] == "assistant" and turn["content"]:
                rows["prompt"].append(turns[:place])
                rows["completion"].append([turn])
                for name in others:
                    rows[name].append(batch[name][number])
    return rows


def _unique(split: Any) -> tuple[Any, int]:
    first: dict[str, int] = {}
    for number, row in enumerate(split):
        first.setdefault(json.dumps(row, sort_keys=True, ensure_ascii=False), number)
    return (split, 0) if len(first) == len(split) else (split.select(list(first.values())), len(split) - len(first))
