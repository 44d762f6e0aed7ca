"""What a run holds → datasets that `datasets.load_dataset` reads and TRL trains on unchanged.

One folder a kind (rlaif/stages/kinds.py): dataset/ for pairs, dataset-KIND/ for the others.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from rlaif import io
from rlaif.config import ExportSection
from rlaif.config.data import KINDS as KIND_NAMES
from rlaif.config.data import dataset_folder
from rlaif.digests import path_sha256
from rlaif.errors import DataError, UserError
from rlaif.records import Dropped, Preference, Prompt, Response, make_id
from rlaif.stages.base import Context, count_reasons
from rlaif.stages.card import collect, render
from rlaif.stages.kinds import KINDS, STAGE, Column, Item, Kind, Material, Texts, rows, with_margin
from rlaif.store import RunFolder

SPLITS = ("train", "test")
_HASH_RANGE = 2**64


def run(context: Context) -> dict[str, Any]:
    """The stage: a folder with its splits and its card for each of `export.kinds`; those of other kinds go.

    A preference between two equal texts teaches nothing and is dropped: same_text. Returns counts.
    Errors: UserError when nothing is left for a kind, DataError when something names what is not there.
    """
    config, folder = context.config, context.folder
    section = config.export or ExportSection()
    dropped: list[Dropped] = []

    def preferences() -> list[Preference]:
        found = list(folder.read("preferences", Preference))
        texts = _texts(folder, [(f"preference {row.id}", row.prompt_id, _sides(row)) for row in found])
        kept, same = _told_apart(found, texts)
        dropped.extend(same)
        if not kept:
            folder.drop(STAGE, dropped)
            raise UserError(
                _nothing_left(folder.read("dropped", Dropped) if folder.table("dropped").exists() else ())
            )
        return kept

    material = Material(config, folder, preferences)
    items: dict[str, list[Item]] = {}
    for name in section.kinds:
        items[name], without = KINDS[name].items(material)
        dropped.extend(without)
        if not items[name]:
            reasons = ", ".join(f"{n} {reason}" for reason, n in count_reasons(without).items())
            raise UserError(f"export.kinds: nothing is left for {name}: {reasons or 'nothing was judged'}")
    folder.drop(STAGE, dropped)
    splits = {name: _write(context, section, _as_asked(KINDS[name], section), found) for name, found in items.items()}
    for left in set(KIND_NAMES) - set(section.kinds):  # other labels than these would train unnoticed
        shutil.rmtree(folder.path / dataset_folder(left), ignore_errors=True)
    others = {name: counts for name, counts in splits.items() if name != "pair"}
    pairs = {"preferences": len(items["pair"]), "splits": splits["pair"]} if "pair" in splits else {}
    return {
        **pairs,
        **({"kinds": others} if others else {}),
        "formats": section.formats,
        "dropped": count_reasons(dropped),
    }


def _as_asked(kind: Kind, section: ExportSection) -> Kind:
    return with_margin(kind) if kind.name == "pair" and section.trl_margin else kind


def _write(context: Context, section: ExportSection, kind: Kind, items: list[Item]) -> dict[str, int]:
    """One kind's folder. Returns rows per split."""
    config, folder = context.config, context.folder
    texts = _texts(folder, [(f"export ({kind.name})", item.prompt_id, item.response_ids) for item in items])
    splits = split(items, texts.prompts, section.test_fraction, config.seed)
    counts = {name: len(chosen) for name, chosen in splits.items()}
    columns = kind.columns(items)
    with io.replacing_folder(folder.path / kind.folder) as temporary:
        for name, chosen in splits.items():
            for file_format in section.formats:
                path = temporary / f"{name}.{file_format}"
                if file_format == "jsonl":
                    io.write_jsonl(path, rows(kind, chosen, texts))
                else:
                    io.write_parquet(path, rows(kind, chosen, texts), _schema(columns))
        card = render(
            collect(config, folder, counts), kind, list(splits), section.formats[0], columns, path_sha256(temporary)
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return counts


class _OfAPrompt(Protocol):
    @property
    def prompt_id(self) -> str: ...


_Row = TypeVar("_Row", bound=_OfAPrompt)


def split(
    found: Sequence[_Row], prompts: Mapping[str, Prompt], test_fraction: float, seed: int
) -> dict[str, list[_Row]]:
    """train and test, by a hash of the prompt's text: no text is in both, whatever ids it has.

    A prompt keeps its side when others come or go, and has the same one in every kind, so the fraction is met on
    average only. A test split that would be empty is left out, and if nothing were left to train on, everything is.
    """
    sides: dict[str, list[_Row]] = {name: [] for name in SPLITS}
    side_of: dict[str, str] = {}
    for row in found:
        prompt_id = row.prompt_id
        if prompt_id not in side_of:
            in_test = _position(prompts[prompt_id], seed) < test_fraction
            side_of[prompt_id] = "test" if in_test else "train"
        sides[side_of[prompt_id]].append(row)
    if not sides["train"]:
        return {"train": list(found)}
    return {name: chosen for name, chosen in sides.items() if chosen}


def _position(prompt: Prompt, seed: int) -> float:
    """A place in [0, 1) that depends on the seed and the prompt's text, not on its case or white space."""
    text = " ".join(prompt.text.casefold().split())
    return int(make_id("split", seed, text), 16) / _HASH_RANGE


def _sides(preference: Preference) -> list[str]:
    return [preference.chosen_id, preference.rejected_id]


def _texts(folder: RunFolder, wanted: list[tuple[str, str, list[str]]]) -> Texts:
    """Only the texts that are needed. wanted: (who wants it, prompt id, response ids).

    Errors: DataError for an id that is not there or belongs elsewhere.
    """
    response_ids = {id_ for _, _, ids in wanted for id_ in ids}
    responses = {r.id: r for r in folder.read("responses", Response) if r.id in response_ids}
    prompt_ids = {prompt_id for _, prompt_id, _ in wanted}
    prompts = {p.id: p for p in folder.read("prompts", Prompt) if p.id in prompt_ids}
    for who, prompt_id, ids in wanted:
        if prompt_id not in prompts:
            raise DataError(f"{who}: its prompt {prompt_id} is not among the prompts")
        for id_ in ids:
            if id_ not in responses:
                raise DataError(f"{who}: its response {id_} is not among the responses")
            if responses[id_].prompt_id != prompt_id:
                owner = responses[id_].prompt_id
                raise DataError(f"{who}: response {id_} answers prompt {owner}, not {prompt_id}")
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


def _schema(columns: Mapping[str, Column]) -> Any:
    import pyarrow as pa

    types = {
        "messages": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
        "string": pa.string(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "ints": pa.list_(pa.int64()),
        "doubles": pa.list_(pa.float64()),
        "strings": pa.list_(pa.string()),
    }
    return pa.schema(
        [
            (name, types[kind] if isinstance(kind, str) else pa.struct([(key, pa.float64()) for key in kind]))
            for name, kind in columns.items()
        ]
    )
