"""From the rows of a recording's tables to prompts, responses, replies and gold labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from rlaif.config.parsing import ParseSection
from rlaif.errors import ConfigError, DataError
from rlaif.io.prompts import Drop, as_messages, messages_id, plain, refuse_surrogates
from rlaif.io.rows import Located
from rlaif.recordings.config import PromptsPart, RecordingFile, ReplyPart, ResponsePart, Table
from rlaif.recordings.expressions import Compiled, Key, Scope, Text, as_key, truthy
from rlaif.recordings.gold import GoldReader
from rlaif.recordings.outcomes import READS_SCORE, READS_VERDICTS, Outcome, clean, reads_scores
from rlaif.recordings.recording import Recording, Subject
from rlaif.recordings.tables import Tables, columns_of
from rlaif.records import Dropped, Message, Prompt, Reply, Response, make_id

LINEUPS = "lineups"  # in a prompt's meta: the pairs that were recorded, where not all were


class Builder:
    """Reads each part in turn; every table is read once."""

    def __init__(self, file: RecordingFile, path: Path, tables: Tables, root: Path) -> None:
        self._file, self._path, self._tables, self._root = file, path, tables, root
        self._shared: list[Located] | None = None  # the rows that several parts read
        self._prompts: dict[str, Prompt] = {}
        self._responses: dict[str, dict[str, Response]] = {}
        self._replies: dict[Subject, dict[int, tuple[str, Reply]]] = {}
        self._dropped: list[Dropped] = []
        self._counts: Counter[str] = Counter()
        self._where: dict[str, str] = {}  # what was said where: prompt or response id → the row

    def build(self, identity: str, files: list[Path]) -> Recording:
        self._read_prompts(self._file.prompts)
        for index, response_part in enumerate(self._file.responses):
            self._read_responses(response_part, index)
        for index, reply_part in enumerate(self._file.replies):
            self._read_replies(reply_part, f"replies[{index}]")
        reader = GoldReader(self.prompt_of, self._ids_of, self._response_id)
        for index, gold_part in enumerate(self._file.gold):
            reader.read(gold_part, f"gold[{index}]", self._rows(gold_part.data, gold_part.where, f"gold[{index}]"))
        gold = reader.found()
        self._list_lineups()
        replies = {subject: [reply for _, (_, reply) in sorted(found.items())]
                   for subject, found in self._replies.items()}  # fmt: skip
        return Recording(
            name=str(self._file.recording or self._path.stem),
            path=self._path,
            identity=identity,
            files=files,
            prompts=list(self._prompts.values()),
            responses={name: list(found.values()) for name, found in self._responses.items()},
            replies=replies,
            gold=gold,
            parse=self._parse(),
            dropped=self._dropped,
            counts=dict(self._counts + reader.counts),
        )

    def _parse(self) -> ParseSection | None:
        if self._file.parse is not None:
            return self._file.parse.inlined(self._root, f"{self._path}: parse")
        replies = self._file.replies
        criteria = {name for part in replies for name in part.scores}
        if criteria:
            return reads_scores(sorted(criteria))
        if any(part.score is not None for part in replies):
            return READS_SCORE
        said = any(part.verdict is not None or part.winner is not None for part in replies)
        return READS_VERDICTS if said else None

    # -- rows -----------------------------------------------------------------------------------------------------

    def _rows(self, table: Table | None, where: str | None, key: str) -> Iterator[Located]:
        """The rows of a part. Errors: DataError where there is none."""
        condition = Compiled(where, f"{self._path}: {key}.where") if where else None
        last: Scope = {}
        empty = True
        for at, row in self._tables.rows(table, f"{key}.data") if table else self._shared_rows():
            last = row
            if condition is None or truthy(condition(row, at)):
                empty = False
                yield at, row
        if empty:
            why = f" where {where}; columns: {columns_of(dict(last))}" if last else ": the file is empty"
            raise DataError(f"{self._path}: {key}: no row{why}")

    def _shared_rows(self) -> list[Located]:
        if self._shared is None:
            assert self._file.data is not None
            self._shared = list(self._tables.rows(self._file.data, "data"))
        return self._shared

    def _name(self, key: str) -> str:
        return f"{self._path}: {key}"

    # -- prompts --------------------------------------------------------------------------------------------------

    def _read_prompts(self, part: PromptsPart) -> None:
        read = _PromptReader(part, self._name("prompts"))
        if read.id is None and read.text is None:
            raise ConfigError(f"{self._path}: prompts: give `text`, or at least `id`")
        for at, row in self._rows(part.data, part.where, "prompts"):
            self._counts["prompt rows"] += 1
            try:
                prompt = read(row, at)
            except Drop as drop:
                self._dropped.append(Dropped(stage="prompts", reason=drop.reason, id=at, detail=drop.detail))
                continue
            known = self._prompts.setdefault(prompt.id, prompt)
            first = self._where.setdefault(prompt.id, at)
            if known.messages != prompt.messages:
                raise DataError(f"{at}: prompts.id: {prompt.id!r} came with another text before, at {first}")

    def prompt_of(self, expressions: Any, key: str) -> Callable[[Scope, str], str | None]:
        """Which prompt a row of another part is about; None for one that the recording does not hold."""
        if expressions is not None:
            find: Callable[[Scope, str], str | None] = Key(expressions, self._name(f"{key}.prompt"))
        else:
            find = _PromptReader(self._file.prompts, self._name("prompts")).id_of

        def prompt_id(row: Scope, at: str) -> str | None:
            found = find(row, at)
            if found is None:
                hint = "; say which prompt with `prompt:`" if expressions is None else ""
                raise DataError(f"{at}: {key}.prompt: null here{hint}; columns: {columns_of(dict(row))}")
            if found in self._prompts:
                return found
            self._counts[f"{key.partition('[')[0]} rows about other prompts, left out"] += 1
            return None

        return prompt_id

    # -- responses ------------------------------------------------------------------------------------------------

    def _read_responses(self, part: ResponsePart, index: int) -> None:
        key = f"responses[{index}]"
        name = Key(part.id, self._name(f"{key}.id")) if part.id is not None else None
        text = Text(part.text, self._name(f"{key}.text")) if part.text is not None else None
        source = Compiled(part.source, self._name(f"{key}.source"))
        meta = {k: Compiled(v, self._name(f"{key}.meta.{k}")) for k, v in part.meta.items()}
        prompt_of = self.prompt_of(part.prompt, key)
        for at, row in self._rows(part.data, part.where, key):
            prompt_id = prompt_of(row, at)
            if prompt_id is None:
                continue
            own = str(index + 1) if name is None else name(row, at)
            said = None if text is None else text(row, at)
            if own is None or (text is not None and said is None):
                what = "id" if own is None else "text"
                raise DataError(f"{at}: {key}.{what}: null here; columns: {columns_of(dict(row))}")
            extra = {k: plain(expression(row, at)) for k, expression in meta.items()}
            self._add_response(prompt_id, own, said, as_key(source(row, at) or ""), extra, at, key)

    def _add_response(
        self, prompt_id: str, own: str, text: Any, source: str, meta: dict[str, Any], at: str, key: str
    ) -> None:
        if isinstance(text, dict | list):
            raise DataError(f"{at}: {key}.text: expected a text, got {type(text).__name__}")
        response = Response(
            id=self._response_id(prompt_id, own),
            prompt_id=prompt_id,
            text=clean(text)
            if text is not None
            else f"(response {own} to prompt {prompt_id}: its text is not in the recording)",
            source=source,
            meta={"id": own, **meta},
        )
        known = self._responses.setdefault(prompt_id, {}).setdefault(own, response)
        first = self._where.setdefault(response.id, at)
        if known.text != response.text:
            raise DataError(
                f"{at}: {key}.id: {own!r} of prompt {prompt_id!r} came with another text before, at {first}"
            )

    def _response_id(self, prompt_id: str, own: str) -> str:
        """As `io.read_responses` makes it of the file's own id."""
        return make_id(prompt_id, own)

    def _ids_of(self, prompt_id: str) -> list[str]:
        return list(self._responses.get(prompt_id, {}))

    # -- replies --------------------------------------------------------------------------------------------------

    def _read_replies(self, part: ReplyPart, key: str) -> None:
        outcome = Outcome(part, self._name(key))
        shown_of = Shown(part.shown, self._name(f"{key}.shown"))
        swapped = Compiled(part.swapped, self._name(f"{key}.swapped"))
        sample = Compiled(part.sample, self._name(f"{key}.sample"))
        prompt_of = self.prompt_of(part.prompt, key)
        for at, row in self._rows(part.data, part.where, key):
            prompt_id = prompt_of(row, at)
            if prompt_id is None:
                continue
            shown = shown_of(row, at)
            if part.swapped is not None and as_bool(swapped(row, at), swapped.key, at):
                shown = shown[::-1]
            if outcome.n_shown is not None and len(shown) != outcome.n_shown:
                raise DataError(
                    f"{at}: {key}.shown: {len(shown)} ids, but what is recorded is about {outcome.n_shown}"
                )
            subject = self._subject(prompt_id, shown, at, key)
            reply = outcome.reply(row, shown, at)
            if reply is None:
                self._counts["rows without a reply"] += 1
                continue
            self._add_reply(subject, sample(row, at), reply, at, key)

    def _subject(self, prompt_id: str, shown: list[str], at: str, key: str) -> Subject:
        known = self._responses.setdefault(prompt_id, {})
        for own in shown:
            if own not in known:
                if self._file.responses:
                    there = ", ".join(known) or "none"
                    raise DataError(
                        f"{at}: {key}.shown: prompt {prompt_id!r} has no response {own!r}; there: {there}"
                    )
                self._add_response(prompt_id, own, None, own, {}, at, key)
        return (prompt_id, *(known[own].id for own in shown))

    def _add_reply(self, subject: Subject, sample: Any, reply: Reply, at: str, key: str) -> None:
        found = self._replies.setdefault(subject, {})
        if sample is not None and not as_key(sample).isdigit():
            raise DataError(f"{at}: {key}.sample: expected the number of a draw, got {sample!r}")
        number = int(as_key(sample)) if sample is not None else len(found) if self._file.repeats == "samples" else 0
        if number in found:
            raise DataError(
                f"{at}: {key}: a second reply to the same question, the first at {found[number][0]}; choose one "
                "judge with `where`, or say `repeats: samples` if they are draws of one"
            )
        found[number] = (at, reply)
        self._counts["replies"] += 1

    def _list_lineups(self) -> None:
        """Where the recorded lists are not what a judge would ask about by itself, the prompt says which they are:
        each once, whatever the order shown, in the order of its first reply."""
        recorded: dict[str, dict[frozenset[str], list[str]]] = {}
        for prompt_id, *ids in self._replies:
            if len(ids) > 1:
                recorded.setdefault(prompt_id, {}).setdefault(frozenset(ids), ids)
        for prompt_id, found in recorded.items():
            listed = list(found.values())
            every = [response.id for response in self._responses[prompt_id].values()]
            if listed != [list(pair) for pair in combinations(every, 2)] and listed != [every]:
                self._prompts[prompt_id].meta[LINEUPS] = listed


class Shown:
    """The ids of the responses in the order shown: a list of expressions, or one that gives a list."""

    def __init__(self, expressions: Any, key: str) -> None:
        self._key = key
        self._whole = Compiled(expressions, key) if isinstance(expressions, str) else None
        self._parts = [] if self._whole else [Key(item, key) for item in expressions]

    def __call__(self, row: Scope, at: str) -> list[str]:
        found: Any = self._whole(row, at) if self._whole else [part(row, at) for part in self._parts]
        if not isinstance(found, list):
            found = [found]
        ids = [as_key(value) for value in found if value is not None]
        if not found or len(ids) < len(found):
            raise DataError(f"{at}: {self._key}: null here; columns: {columns_of(dict(row))}")
        if len(set(ids)) < len(ids):
            raise DataError(f"{at}: {self._key}: {ids[0]!r} is there twice; two responses need two ids")
        return ids


class _PromptReader:
    def __init__(self, part: PromptsPart, name: str) -> None:
        self.id = Key(part.id, f"{name}.id") if part.id is not None else None
        self.text = Text(part.text, f"{name}.text") if part.text is not None else None
        self._one = {
            field: Compiled(getattr(part, field), f"{name}.{field}") for field in ("system", "reference", "domain")
        }
        self._meta = {field: Compiled(value, f"{name}.meta.{field}") for field, value in part.meta.items()}

    def id_of(self, row: Scope, at: str) -> str | None:
        if self.id is not None:
            return self.id(row, at)
        messages = self._messages(row, at)
        return messages_id(messages) if messages else None

    def __call__(self, row: Scope, at: str) -> Prompt:
        name = self.id_of(row, at)
        messages = self._messages(row, at)
        if name is None:
            raise Drop("no_prompt_id", f"columns: {columns_of(dict(row))}")
        if not messages or not messages[-1]["content"].strip():
            raise Drop("empty_prompt")
        if messages[-1]["role"] != "user":
            raise Drop("not_user_turn", f"the last turn is the {messages[-1]['role']}'s")
        reference, domain = (self._one[field](row, at) for field in ("reference", "domain"))
        prompt = Prompt(
            id=name,
            messages=messages,
            reference=None if reference is None else as_key(reference),
            domain=None if domain is None else as_key(domain),
            meta={field: plain(value(row, at)) for field, value in self._meta.items()},
        )
        refuse_surrogates(prompt)
        return prompt

    def _messages(self, row: Scope, at: str) -> list[Message]:
        if self.text is None:
            name = self.id(row, at) if self.id is not None else None
            return [{"role": "user", "content": f"(prompt {name}: its text is not in the recording)"}]
        messages = as_messages(self.text(row, at))
        system = self._one["system"](row, at)
        return [{"role": "system", "content": as_key(system)}, *messages] if system and messages else messages


def as_bool(value: Any, key: str, at: str) -> bool:
    """Errors: DataError for what is neither true nor false."""
    said = as_key(value).lower() if value is not None else "null"
    if said in ("true", "1", "yes"):
        return True
    if said in ("false", "0", "no"):
        return False
    raise DataError(f"{at}: {key}: expected true or false, got {said[:40]!r}")
