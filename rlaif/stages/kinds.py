"""The shapes of dataset that `export` writes. Text is joined only here.

    pair       TRL's preference format: prompt, chosen, rejected           dpo, reward
    unpaired   TRL's unpaired preference format: prompt, completion, label kto
    sft        TRL's prompt-completion format, on the chosen responses     sft
    revised    the same, on the last revision of each response             sft
    scores     a response with its score on each criterion                 a reward model with a head a criterion
    ranking    a prompt's responses, best first                            a listwise (Plackett–Luce) reward model

A kind is two functions: one turns what the run holds into items, each of one prompt; the other turns an item into a
row. An item names its responses, so that only the texts that are needed are held in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from rlaif.config import ExportSection, PairSection, Pipeline
from rlaif.config.data import dataset_folder
from rlaif.errors import UserError
from rlaif.records import Dropped, Judgment, Message, Preference, Prompt, Response, Revision
from rlaif.stages.pairing.standards import Standards
from rlaif.stages.standings import CriterionScores, criterion_scores, overall, standings
from rlaif.store import RunFolder

STAGE = "export"
Column = (
    str | tuple[str, ...]
)  # "messages", "string", "double", "bool", "ints", "strings", "doubles"; or a struct's keys
Row = dict[str, Any]
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class Texts(NamedTuple):
    """What a row is joined from: the prompts and responses that the items name, by id."""

    prompts: Mapping[str, Prompt]
    responses: Mapping[str, Response]


class Material:
    """What the kinds are made from, each part read when it is first asked for.

    `preferences`: reads those whose two texts differ.
    """

    def __init__(self, config: Pipeline, folder: RunFolder, preferences: Callable[[], list[Preference]]) -> None:
        self.section = config.export or ExportSection()
        self.config = config
        self._folder = folder
        self._preferences = preferences

    @cached_property
    def preferences(self) -> list[Preference]:
        return self._preferences()

    @cached_property
    def judgments(self) -> list[Judgment]:
        return list(self._folder.read("judgments", Judgment))

    @cached_property
    def revisions(self) -> list[Revision]:
        return list(self._folder.read("revisions", Revision))

    def scores(self, kind: str) -> dict[tuple[str, str], CriterionScores]:
        """Errors: UserError where the run has no usable pointwise judgment."""
        found = criterion_scores(self.judgments)
        if not found:
            raise UserError(f"export.kinds: {kind} needs pointwise judgments, and this run has none that is ok")
        return found


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes one row: a prompt, some of its responses, and what was said of them."""

    prompt_id: str
    response_ids: list[str]
    values: dict[str, Any]  # column → value, for the columns that are no text


class Kind(NamedTuple):
    """One shape of dataset. `items`: also what it dropped. `columns`: name → type, in order; the criteria of `scores`
    are known only with the items. `about`: what the card says of columns that have another meaning elsewhere.
    """

    name: str
    items: Callable[[Material], tuple[list[Item], list[Dropped]]]
    row: Callable[[Item, Texts], Row]
    columns: Callable[[Sequence[Item]], dict[str, Column]]
    tags: tuple[str, ...] = ()
    about: Mapping[str, str] = {}

    @property
    def folder(self) -> str:
        return dataset_folder(self.name)


def _turn(response: Response) -> list[Message]:
    return [{"role": "assistant", "content": response.text}]


def _origin(item: Item, texts: Texts) -> Row:
    """The columns that every kind ends with."""
    prompt = texts.prompts[item.prompt_id]
    return {"domain": prompt.domain, "reference": prompt.reference, "meta": _encode_sorted(prompt.meta).decode()}


_ORIGIN: dict[str, Column] = dict.fromkeys(("domain", "reference", "meta"), "string")


# -- pair -----------------------------------------------------------------------------------------------------------


def pair_item(preference: Preference) -> Item:
    return Item(
        prompt_id=preference.prompt_id,
        response_ids=[preference.chosen_id, preference.rejected_id],
        values={
            "probability": preference.probability,
            "judge_margin": preference.judge_margin,
            "prompt_id": preference.prompt_id,
            "chosen_id": preference.chosen_id,
            "rejected_id": preference.rejected_id,
            "preference_id": preference.id,
        },
    )


def _pair_items(material: Material) -> tuple[list[Item], list[Dropped]]:
    return [pair_item(preference) for preference in material.preferences], []


def pair_row(item: Item, texts: Texts) -> Row:
    chosen, rejected = (texts.responses[id_] for id_ in item.response_ids)
    return {
        "prompt": texts.prompts[item.prompt_id].messages,
        "chosen": _turn(chosen),
        "rejected": _turn(rejected),
        **item.values,
        **_origin(item, texts),
    }


PAIR_COLUMNS: dict[str, Column] = {
    **dict.fromkeys(("prompt", "chosen", "rejected"), "messages"),
    **dict.fromkeys(("probability", "judge_margin"), "double"),
    **dict.fromkeys(("prompt_id", "chosen_id", "rejected_id", "preference_id"), "string"),
    **_ORIGIN,
}


def with_margin(kind: Kind) -> Kind:
    """The same kind with the column `margin`, which TRL's reward trainer subtracts in its loss."""

    def row(item: Item, texts: Texts) -> Row:
        return {**kind.row(item, texts), "margin": item.values["judge_margin"]}

    return kind._replace(row=row, columns=lambda items: {**kind.columns(items), "margin": "double"})


# -- unpaired and sft: one response a row ---------------------------------------------------------------------------


def _completion_row(item: Item, texts: Texts) -> Row:
    return {
        "prompt": texts.prompts[item.prompt_id].messages,
        "completion": _turn(texts.responses[item.response_ids[0]]),
        **item.values,
        **_origin(item, texts),
    }


def _unpaired_items(material: Material) -> tuple[list[Item], list[Dropped]]:
    """A response of several preferences is one row: its label is that of its mean probability of being the better."""
    dropped: list[Dropped] = []
    judged: dict[tuple[str, str], tuple[bool | None, float | None]] = {}
    threshold = material.section.threshold
    if threshold is not None:
        for key, scores in material.scores("unpaired").items():
            mean = overall(scores)
            judged[key] = (None if mean is None else mean >= threshold, None)
    else:
        better: dict[tuple[str, str], list[float]] = {}
        for row in material.preferences:
            better.setdefault((row.prompt_id, row.chosen_id), []).append(row.probability)
            better.setdefault((row.prompt_id, row.rejected_id), []).append(1 - row.probability)
        for key, values in better.items():
            p = round(sum(values) / len(values), 12)
            judged[key] = (None if p == 0.5 else p > 0.5, p)
    items = []
    for (prompt_id, response_id), (label, probability) in judged.items():
        if label is not None:
            items.append(_of_one(prompt_id, response_id, label=label, probability=probability))
        elif probability is None:
            dropped.append(_drop("unpaired", prompt_id, response_id, reason="not_judged"))
        else:
            dropped.append(_drop("unpaired", prompt_id, response_id, reason="no_label"))
    return items, dropped


def _of_one(prompt_id: str, response_id: str, **values: Any) -> Item:
    """An item about one response."""
    ids = {"prompt_id": prompt_id, "response_id": response_id}
    return Item(prompt_id=prompt_id, response_ids=[response_id], values={**values, **ids})


def _drop(kind: str, prompt_id: str, id_: str, *, reason: str) -> Dropped:
    return Dropped(stage=STAGE, reason=reason, id=id_, detail=f"{kind}: prompt {prompt_id}")


def _sft_items(material: Material) -> tuple[list[Item], list[Dropped]]:
    """Each response that was ever chosen, once."""
    chosen = dict.fromkeys((row.prompt_id, row.chosen_id) for row in material.preferences)
    return [_of_one(prompt_id, response_id) for prompt_id, response_id in chosen], []


def _revised_items(material: Material) -> tuple[list[Item], list[Dropped]]:
    """The last revision of each response; a response whose chain broke off in its first round has none. Where rounds
    changed nothing, the text is the response's own: it met the standard."""
    last: dict[tuple[str, str], Revision] = {}
    broken: dict[tuple[str, str], Revision] = {}
    for revision in material.revisions:
        key = (revision.prompt_id, revision.response_id)
        (last if revision.status == "ok" else broken)[key] = revision
    dropped = [
        _drop("revised", prompt_id, row.response_id, reason="no_revision")
        for (prompt_id, _), row in broken.items()
        if (prompt_id, row.response_id) not in last
    ]
    seen: set[tuple[str, str]] = set()
    items = []
    for (prompt_id, response_id), row in last.items():
        text = (row.text or "").strip()
        if (prompt_id, text) in seen:
            dropped.append(_drop("revised", prompt_id, response_id, reason="duplicate_response"))
            continue
        seen.add((prompt_id, text))
        turn = [{"role": "assistant", "content": text}]
        ids = {"prompt_id": prompt_id, "response_id": response_id, "revision_id": row.id}
        values = {"completion": turn, "rounds": float(row.round), **ids}
        items.append(Item(prompt_id=prompt_id, response_ids=[response_id], values=values))
    return items, dropped


def _revised_row(item: Item, texts: Texts) -> Row:
    return {
        "prompt": texts.prompts[item.prompt_id].messages,
        "completion": item.values["completion"],
        "original": _turn(texts.responses[item.response_ids[0]]),
        **{name: value for name, value in item.values.items() if name != "completion"},
        **_origin(item, texts),
    }


# -- scores ---------------------------------------------------------------------------------------------------------


def _scores_items(material: Material) -> tuple[list[Item], list[Dropped]]:
    found = material.scores("scores")
    criteria = sorted({criterion for scores in found.values() for criterion in scores})
    items, dropped = [], []
    for (prompt_id, response_id), scores in found.items():
        if all(score is None for score in scores.values()):
            dropped.append(_drop("scores", prompt_id, response_id, reason="not_judged"))
        else:
            of_all = {criterion: scores.get(criterion) for criterion in criteria}
            items.append(_of_one(prompt_id, response_id, scores=of_all))
    return items, dropped


def _scores_row(item: Item, texts: Texts) -> Row:
    return {
        "prompt": texts.prompts[item.prompt_id].messages,
        "response": _turn(texts.responses[item.response_ids[0]]),
        **item.values,
        **_origin(item, texts),
    }


def _scores_columns(items: Sequence[Item]) -> dict[str, Column]:
    criteria = tuple(items[0].values["scores"]) if items else ()
    return {
        **dict.fromkeys(("prompt", "response"), "messages"),
        "scores": criteria,
        **dict.fromkeys(("prompt_id", "response_id"), "string"),
        **_ORIGIN,
    }


# -- ranking --------------------------------------------------------------------------------------------------------


def _ranking_items(material: Material) -> tuple[list[Item], list[Dropped]]:
    """Of responses that stand equal, the first by id is kept: either order of them would be made up."""
    config = material.config
    found = standings(material.judgments, config.pair or PairSection(), Standards.of(config.judge))
    items, dropped = [], []
    for prompt_id, standing in found.items():
        ids = sorted(standing)
        kept = list({standing[id_]: id_ for id_ in reversed(ids)}.values())
        if len(kept) < 2:
            dropped.append(_drop("ranking", prompt_id, prompt_id, reason="no_ranking"))
            continue
        kept = [id_ for id_ in ids if id_ in kept]
        best_first = sorted(range(len(kept)), key=lambda index: -standing[kept[index]])
        values: dict[str, Any] = {
            "ranking": best_first,
            "standings": [standing[id_] for id_ in kept],
            "prompt_id": prompt_id,
            "response_ids": kept,
        }
        items.append(Item(prompt_id=prompt_id, response_ids=kept, values=values))
    if not items:
        raise UserError(
            "export.kinds: ranking needs judgments that tell a prompt's responses apart; this run has none"
        )
    return items, dropped


def _ranking_row(item: Item, texts: Texts) -> Row:
    return {
        "prompt": texts.prompts[item.prompt_id].messages,
        "responses": [turn for id_ in item.response_ids for turn in _turn(texts.responses[id_])],
        **item.values,
        **_origin(item, texts),
    }


# -- all ------------------------------------------------------------------------------------------------------------


def _fixed(columns: dict[str, Column]) -> Callable[[Sequence[Item]], dict[str, Column]]:
    return lambda items: columns


_COMPLETION: dict[str, Column] = dict.fromkeys(("prompt", "completion"), "messages")
_ONE_RESPONSE: dict[str, Column] = dict.fromkeys(("prompt_id", "response_id"), "string")

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("pair", _pair_items, pair_row, _fixed(PAIR_COLUMNS), ("preference", "rlaif", "trl", "dpo")),
        Kind(
            "unpaired",
            _unpaired_items,
            _completion_row,
            _fixed({**_COMPLETION, "label": "bool", "probability": "double", **_ONE_RESPONSE, **_ORIGIN}),
            ("preference", "rlaif", "trl", "kto"),
            {"probability": "mean P(this response is the better one) over its preferences; null with a threshold"},
        ),
        Kind(
            "sft",
            _sft_items,
            _completion_row,
            _fixed({**_COMPLETION, **_ONE_RESPONSE, **_ORIGIN}),
            ("rlaif", "trl", "sft"),
            {"completion": "a response that the judge chose over another"},
        ),
        Kind(
            "revised",
            _revised_items,
            _revised_row,
            _fixed(
                {
                    **_COMPLETION,
                    "original": "messages",
                    "rounds": "double",
                    **_ONE_RESPONSE,
                    "revision_id": "string",
                    **_ORIGIN,
                }
            ),
            ("rlaif", "trl", "sft"),
            {
                "completion": "the last revision of a response",
                "original": "the response as it was first written",
                "rounds": "how many rounds of critique and revision it went through",
                "revision_id": "the revision's id in revisions.jsonl",
            },
        ),
        Kind("scores", _scores_items, _scores_row, _scores_columns, ("rlaif", "reward-model")),
        Kind(
            "ranking",
            _ranking_items,
            _ranking_row,
            _fixed(
                {
                    **dict.fromkeys(("prompt", "responses"), "messages"),
                    "ranking": "ints",
                    "standings": "doubles",
                    "prompt_id": "string",
                    "response_ids": "strings",
                    **_ORIGIN,
                }
            ),
            ("rlaif", "reward-model"),
        ),
    )
}


def rows(kind: Kind, items: Sequence[Item], texts: Texts) -> Iterator[Row]:
    for item in items:
        yield kind.row(item, texts)
