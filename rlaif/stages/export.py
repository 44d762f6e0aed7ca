"""Preferences → a dataset that `datasets.load_dataset` reads and TRL trains on unchanged. Text is joined only here.

TRL's conversational preference format: `prompt` is the conversation, `chosen` and `rejected` are its next turn. A
kind of export is one function that turns preferences into rows, with its columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rlaif import io
from rlaif.config import ExportSection
from rlaif.digests import path_sha256
from rlaif.errors import DataError, UserError
from rlaif.records import Dropped, Message, Preference, Prompt, Response, make_id
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.card import collect, render
from rlaif.store import RunFolder

STAGE = "export"
FOLDER = "dataset"
SPLITS = ("train", "test")
_HASH_RANGE = 2**64


class Texts(NamedTuple):
    """What a row is joined from: the prompts and responses that the preferences name, by id."""

    prompts: Mapping[str, Prompt]
    responses: Mapping[str, Response]


class Kind(NamedTuple):
    """One shape of dataset. `columns`: name → "messages" | "string" | "double", in order."""

    rows: Callable[[list[Preference], Texts], Iterator[dict[str, Any]]]
    columns: dict[str, str]


def run(context: Context) -> dict[str, Any]:
    """The stage: preferences.jsonl → dataset/ with its splits and its card. Returns counts.

    A preference between two equal texts teaches nothing and is dropped: same_text.
    Errors: UserError when no preference survived, DataError when a preference names what is not there.
    """
    config, folder = context.config, context.folder
    section = config.export or ExportSection()
    found = list(folder.read("preferences", Preference))
    texts = _texts(folder, found)
    preferences, dropped = _told_apart(found, texts)
    folder.drop(STAGE, dropped)
    if not preferences:
        raise UserError(_nothing_left(folder.read("dropped", Dropped) if folder.table("dropped").exists() else ()))
    kind = with_margin(PAIR) if section.trl_margin else PAIR
    splits = split(preferences, texts.prompts, section.test_fraction, config.seed)
    counts = {name: len(rows) for name, rows in splits.items()}
    facts = collect(config, folder, counts)
    with io.replacing_folder(folder.path / FOLDER) as temporary:
        for name, chosen in splits.items():
            for file_format in section.formats:
                _write(temporary / f"{name}.{file_format}", file_format, kind, chosen, texts)
        card = render(facts, list(splits), section.formats[0], kind.columns, path_sha256(temporary))
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return {
        "preferences": len(preferences),
        "splits": counts,
        "formats": section.formats,
        "dropped": count_reasons(dropped),
    }


def pair_rows(preferences: list[Preference], texts: Texts) -> Iterator[dict[str, Any]]:
    """TRL's conversational preference rows, with where each came from."""
    encode = msgspec.json.Encoder(order="sorted").encode
    for preference in preferences:
        prompt = texts.prompts[preference.prompt_id]
        yield {
            "prompt": prompt.messages,
            "chosen": [_turn(texts.responses[preference.chosen_id])],
            "rejected": [_turn(texts.responses[preference.rejected_id])],
            "probability": preference.probability,
            "judge_margin": preference.judge_margin,
            "prompt_id": preference.prompt_id,
            "chosen_id": preference.chosen_id,
            "rejected_id": preference.rejected_id,
            "preference_id": preference.id,
            "domain": prompt.domain,
            "reference": prompt.reference,
            "meta": encode(prompt.meta).decode(),
        }


PAIR = Kind(
    pair_rows,
    {
        **dict.fromkeys(("prompt", "chosen", "rejected"), "messages"),
        **dict.fromkeys(("probability", "judge_margin"), "double"),
        **dict.fromkeys(
            ("prompt_id", "chosen_id", "rejected_id", "preference_id", "domain", "reference", "meta"), "string"
        ),
    },
)


def with_margin(kind: Kind) -> Kind:
    """The same kind with the column `margin`, which TRL's reward trainer subtracts in its loss."""

    def rows(preferences: list[Preference], texts: Texts) -> Iterator[dict[str, Any]]:
        for row in kind.rows(preferences, texts):
            yield {**row, "margin": row["judge_margin"]}

    return Kind(rows, {**kind.columns, "margin": "double"})


def _turn(response: Response) -> Message:
    return {"role": "assistant", "content": response.text}


def split(
    preferences: list[Preference], prompts: Mapping[str, Prompt], test_fraction: float, seed: int
) -> dict[str, list[Preference]]:
    """train and test, by a hash of the prompt's text: no text is in both, whatever ids it has.

    A prompt keeps its side when others come or go, so the fraction is met on average only. A test split that would
    be empty is left out, and if nothing were left to train on, everything is.
    """
    sides: dict[str, list[Preference]] = {name: [] for name in SPLITS}
    side_of: dict[str, str] = {}
    for preference in preferences:
        prompt_id = preference.prompt_id
        if prompt_id not in side_of:
            in_test = _position(prompts[prompt_id], seed) < test_fraction
            side_of[prompt_id] = "test" if in_test else "train"
        sides[side_of[prompt_id]].append(preference)
    if not sides["train"]:
        return {"train": preferences}
    return {name: rows for name, rows in sides.items() if rows}


def _position(prompt: Prompt, seed: int) -> float:
    """A place in [0, 1) that depends on the seed and the prompt's text, not on its case or white space."""
    text = " ".join(prompt.text.casefold().split())
    return int(make_id("split", seed, text), 16) / _HASH_RANGE


def _texts(folder: RunFolder, preferences: list[Preference]) -> Texts:
    """Only the texts that are needed. Errors: DataError for an id that is not there or belongs elsewhere."""
    wanted = {id_ for row in preferences for id_ in (row.chosen_id, row.rejected_id)}
    responses = {r.id: r for r in folder.read("responses", Response) if r.id in wanted}
    prompt_ids = {row.prompt_id for row in preferences}
    prompts = {p.id: p for p in folder.read("prompts", Prompt) if p.id in prompt_ids}
    for row in preferences:
        if row.prompt_id not in prompts:
            raise DataError(f"preference {row.id}: its prompt {row.prompt_id} is not among the prompts")
        for id_ in (row.chosen_id, row.rejected_id):
            if id_ not in responses:
                raise DataError(f"preference {row.id}: its response {id_} is not among the responses")
            if responses[id_].prompt_id != row.prompt_id:
                owner = responses[id_].prompt_id
                raise DataError(f"preference {row.id}: response {id_} answers prompt {owner}, not {row.prompt_id}")
    return Texts(prompts, responses)


def _told_apart(preferences: list[Preference], texts: Texts) -> tuple[list[Preference], list[Dropped]]:
    """The preferences whose two texts differ by more than white space around them, and the others."""
    kept: list[Preference] = []
    dropped: list[Dropped] = []
    for row in preferences:
        if texts.responses[row.chosen_id].text.strip() != texts.responses[row.rejected_id].text.strip():
            kept.append(row)
        else:
            detail = f"prompt {row.prompt_id}: {row.chosen_id}, {row.rejected_id}"
            dropped.append(Dropped(stage=STAGE, reason="same_text", id=row.id, detail=detail))
    return kept, dropped


def _nothing_left(dropped: Any) -> str:
    reasons = Counter(row.reason for row in dropped if row.stage in ("judge", "pair", STAGE))
    counted = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common()) or "no pair was judged"
    return f"no preference survived: {counted}"


def _write(path: Path, file_format: str, kind: Kind, preferences: list[Preference], texts: Texts) -> None:
    rows = kind.rows(preferences, texts)
    if file_format == "jsonl":
        io.write_jsonl(path, rows)
    else:
        io.write_parquet(path, rows, _schema(kind.columns))


def _schema(columns: Mapping[str, str]) -> Any:
    import pyarrow as pa

    types = {
        "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        "string": pa.string(),
        "double": pa.float64(),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])
