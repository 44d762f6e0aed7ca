"""`rlaif show RUN [ID]`: one prompt with its responses, judgments, raw replies and preference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from rlaif import io
from rlaif.errors import DataError, StoreError
from rlaif.records import Dropped, Judgment, Preference, Prompt, Response
from rlaif.store import ROUNDS, RunFolder, rounds_before

_T = TypeVar("_T", bound=msgspec.Struct)
_NAMED = 20  # prompts listed by a summary


class UnknownId(DataError):
    """No record of the run has it."""


def show(run: str, record_id: str | None) -> str:
    """Text about one prompt, found by the id (or its beginning) of any of its records; without an id, a summary.

    Errors: StoreError for a folder that is no run, DataError for an id that is not there or not unique.
    """
    folder = RunFolder(run)
    rounds = rounds_before(folder.path) if (folder.path / "rounds.json").exists() else []
    if rounds:
        return _rounds(folder, rounds, record_id)
    if not folder.table("prompts").exists():
        raise StoreError(f"{run}: not a run folder, or nothing has been read into it yet (no prompts.jsonl)")
    prompts = list(folder.read("prompts", Prompt))
    if record_id is None:
        return _summary(folder, prompts)
    prompt = _find(folder, prompts, record_id)
    return "\n".join(_lines(folder, prompt))


def _rounds(folder: RunFolder, rounds: list[Path], record_id: str | None) -> str:
    """Each round's summary, or what all rounds that know the id have. Errors: DataError where none does."""
    found, unknown = [], None
    for number in rounds:
        shown = f"{folder.path}/{ROUNDS}/{number.name}"
        try:
            found.append(f"-- round {number.name}: {shown}\n{show(shown, record_id)}")
        except UnknownId as error:
            unknown = error
    if not found and unknown is not None:
        raise DataError(f"{folder.path}: no round has an id that starts with {record_id!r}")
    return "\n\n".join(found)


def _rows(folder: RunFolder, name: str, record: type[_T]) -> Iterator[_T]:
    path = folder.table(name)
    return iter(io.read_table(path, record)) if path.exists() else iter(())


def _summary(folder: RunFolder, prompts: list[Prompt]) -> str:
    counts = [
        f"{name} {sum(1 for _ in folder.table(name).open('rb')):,}"
        for name in ("prompts", "responses", "judgments", "preferences", "dropped")
        if folder.table(name).exists()
    ]
    lines = [" · ".join(counts), ""]
    lines += [f"{prompt.id}  {' '.join(prompt.text.split())[:90]}" for prompt in prompts[:_NAMED]]
    more = len(prompts) - _NAMED
    lines += [f"… and {more:,} more"] if more > 0 else []
    return "\n".join([*lines, "", f"one of them in full: rlaif show {folder.path} ID"])


def _find(folder: RunFolder, prompts: list[Prompt], wanted: str) -> Prompt:
    owners = {prompt.id for prompt in prompts if prompt.id.startswith(wanted)}
    if wanted not in owners:
        records: Iterator[Response | Judgment | Preference] = itertools.chain(
            _rows(folder, "responses", Response),
            _rows(folder, "judgments", Judgment),
            _rows(folder, "preferences", Preference),
        )
        owners |= {row.prompt_id for row in records if row.id.startswith(wanted)}
    if len(owners) > 1 and wanted in owners:
        owners = {wanted}
    if not owners:
        raise UnknownId(
            f"{folder.path}: no prompt, response, judgment or preference has an id that starts with {wanted!r}"
        )
    if len(owners) > 1:
        raise DataError(f"{folder.path}: {wanted!r} is the beginning of {len(owners)} ids; give more of it")
    owner = owners.pop()
    return next(prompt for prompt in prompts if prompt.id == owner)


def _lines(folder: RunFolder, prompt: Prompt) -> Iterator[str]:
    yield f"prompt {prompt.id}" + (f" · domain {prompt.domain}" if prompt.domain else "")
    yield from _indented(prompt.text)
    names: dict[str, str] = {}
    responses = [row for row in _rows(folder, "responses", Response) if row.prompt_id == prompt.id]
    for number, response in enumerate(responses, 1):
        names[response.id] = f"R{number}"
        yield ""
        yield f"R{number} · response {response.id} · {response.source} · {response.finish_reason or 'given'}"
        yield from _indented(response.text)
    for preference in _rows(folder, "preferences", Preference):
        if preference.prompt_id == prompt.id:
            yield ""
            chosen, rejected = names.get(preference.chosen_id, "?"), names.get(preference.rejected_id, "?")
            yield f"preference {preference.id} · {chosen} over {rejected} · probability {preference.probability:.3f}"
    yield from _judgment_lines(folder, prompt, names)
    about = {prompt.id, *names}
    for row in _rows(folder, "dropped", Dropped):
        if row.id in about:
            yield f"dropped {row.id} · {row.stage}: {row.reason} {row.detail}"


def _judgment_lines(folder: RunFolder, prompt: Prompt, names: dict[str, str]) -> Iterator[str]:
    judgments = [row for row in _rows(folder, "judgments", Judgment) if row.prompt_id == prompt.id]
    journal = folder.read_journal() if judgments else None
    for judgment in judgments:
        shown = " then ".join(names.get(response_id, "?") for response_id in judgment.response_ids)
        yield ""
        standard = f"{judgment.rubric} {judgment.principle or ''}".strip()
        yield f"judgment {judgment.id} · {shown} shown · {standard} · {judgment.judge}"
        said = ", ".join(f"P({name}) {value:.3f}" for name, value in (judgment.probabilities or {}).items())
        yield f"    {judgment.status}: {judgment.verdict or judgment.reason}" + (f" · {said}" if said else "")
        for key in judgment.reply_keys:
            reply = journal.get(key) if journal else None
            yield f"    reply {key}: {reply.text!r}" if reply else f"    reply {key}: not in the journal"
    if journal:
        journal.close()


def _indented(text: str) -> Iterator[str]:
    for line in text.splitlines() or [""]:
        yield f"    {line}"
