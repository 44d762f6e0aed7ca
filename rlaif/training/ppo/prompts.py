"""What PPO reads: prompts, and demonstrations to replay."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rlaif.errors import DataError
from rlaif.training import tokens
from rlaif.training.data import Row, Splits, check_rows, load_splits, located

_BESIDE = ("reference", "domain")  # columns that reward functions may want
_TURNS = {"completion": "prompt", "chosen": "prompt", "messages": None}  # of a demonstration → the column before it


def load_prompts(source: Path | str, cache: Path) -> Splits:
    """Each prompt once: column `prompt` (text or messages), or `messages` as in a run's prompts.jsonl.

    facts: `prompts_repeated`, rows left out because an earlier one asks the same. Errors: DataError.
    """
    splits = _of_a_run(Path(source)) or load_splits(source, _wanted, cache)
    check_rows(splits, _fault, source)
    train, repeated = _once(splits.train)
    test = _once(splits.test)[0] if splits.test is not None else None
    return Splits(train, test, {"prompts_repeated": repeated})


def _of_a_run(path: Path) -> Splits | None:
    """A file of `Prompt` records; read here, since their `meta` may hold anything."""
    import datasets

    if path.suffix != ".jsonl" or not path.is_file():
        return None
    with path.open(encoding="utf-8") as lines:
        try:
            rows = [json.loads(line) for line in lines if line.strip()]
        except ValueError as error:
            raise DataError(f"{path}: not JSON lines: {error}") from None
    if not rows or not all(isinstance(row, dict) and "messages" in row and "prompt" not in row for row in rows):
        return None
    columns = {name: [row.get(name) for row in rows] for name in _BESIDE if any(row.get(name) for row in rows)}
    prompts = [_messages(row["messages"]) for row in rows]
    return Splits(datasets.Dataset.from_dict({"prompt": prompts, **columns}), None)


def _messages(messages: Any) -> Any:
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages]


def _wanted(there: list[str]) -> list[str]:
    return ["prompt", *(name for name in _BESIDE if name in there)]


def _fault(row: Row) -> str | None:
    prompt = row["prompt"]
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        return "prompt is empty"
    if isinstance(prompt, list) and prompt[-1]["role"] == "assistant":
        return "prompt ends with an answer: its last turn is the assistant's"
    return None


def _once(split: Any) -> tuple[Any, int]:
    seen: set[str] = set()
    kept = []
    for at, prompt in enumerate(split["prompt"]):
        key = json.dumps(prompt, sort_keys=True)
        if key not in seen:
            seen.add(key)
            kept.append(at)
    return (split.select(kept) if len(kept) < len(split) else split), len(split) - len(kept)


def prompt_length(tokenizer: Any, prompt: str | tokens.Messages) -> int:
    return len(tokens.encode(tokenizer, prompt, "", finished=False).prompt)


def demonstrations(
    source: str, tokenizer: Any, cache: Path, limit: int | None
) -> tuple[list[dict[str, list[int]]], int]:
    """Rows {"input_ids", "labels"}, −100 on the prompt, and how many were left out as longer than `limit` tokens.

    A dataset with prompt and completion (or chosen), or messages that end with an answer. Errors: DataError.
    """
    splits = load_splits(located(source), lambda there: _demonstration_columns(there, source), cache)
    rows = [_demonstration(row, tokenizer) for row in splits.train]
    kept = [row for row in rows if limit is None or len(row["input_ids"]) <= limit]
    if not kept:
        raise DataError(f"{source}: no demonstration to replay fits in {limit} tokens")
    return kept, len(rows) - len(kept)


def _demonstration_columns(there: Iterable[str], source: str) -> list[str]:
    there = list(there)
    for answer, before in _TURNS.items():
        wanted = [name for name in (before, answer) if name]
        if all(name in there for name in wanted):
            return wanted
    raise DataError(
        f"{source}: nothing to replay: expected columns prompt and completion, prompt and chosen, or messages; "
        f"there: {', '.join(there)}"
    )


def _demonstration(row: Row, tokenizer: Any) -> dict[str, list[int]]:
    if "messages" in row:
        prompt, answer = row["messages"][:-1], row["messages"][-1:]
    else:
        prompt, answer = row["prompt"], row.get("completion") or row["chosen"]
    ids = tokens.encode(tokenizer, prompt, answer)
    return {"input_ids": ids.whole, "labels": [-100] * len(ids.prompt) + ids.completion}
