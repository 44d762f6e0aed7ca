"""What online trainers read: prompts, and demonstrations to replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif.errors import DataError
from rlaif.training import tokens
from rlaif.training.data import Row, Splits, check_rows, load_splits

BESIDE = ("reference", "domain")  # columns that reward functions may want


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
    columns = {name: [row.get(name) for row in rows] for name in BESIDE if any(row.get(name) for row in rows)}
    prompts = [_messages(row["messages"]) for row in rows]
    return Splits(datasets.Dataset.from_dict({"prompt": prompts, **columns}), None)


def _messages(messages: Any) -> Any:
    return [{"role": turn["role"], "content": turn["content"]} for turn in messages]


def _wanted(there: list[str]) -> list[str]:
    return ["prompt", *(name for name in BESIDE if name in there)]


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


def demonstration(row: Row, tokenizer: Any) -> dict[str, list[int]]:
    """prompt and completion (text or messages) as {"input_ids", "labels"}, −100 on the prompt."""
    ids = tokens.encode(tokenizer, row["prompt"], row["completion"])
    return {"input_ids": ids.whole, "labels": [-100] * len(ids.prompt) + ids.completion}
