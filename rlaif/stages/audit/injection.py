"""An attack set on the weaker response of judged pairs: how often does the judge turn to the attacked one?

The same pairs are also shown to scripted readers (readers.py) under the same frame. They ask nothing, and they say
what the attacks can do to a judge that obeys everything, what the fences hold back, and what the parser does with a
reply that quotes an attack.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from rlaif import io
from rlaif.config import InjectionSection, JudgeSection
from rlaif.driver import Job
from rlaif.errors import ConfigError, DataError
from rlaif.judges import build
from rlaif.judges.base import Judge, JudgeRun, Task, together
from rlaif.records import Dropped, Judgment, Preference, Prompt, Reply, Request, Response, make_id
from rlaif.stages.audit import readers
from rlaif.stages.audit.attacks import MARK, Attack, load_attacks
from rlaif.stages.audit.material import Found
from rlaif.stages.audit.success import Assault, Labelling, figures, measured
from rlaif.stages.base import Context

STAGE = "audit"
TABLE = "audit/judgments"
_LABELS = ("A", "B")  # of judges that do not say theirs


def run(context: Context, section: InjectionSection) -> tuple[dict[str, Found], dict[str, Any]]:
    """Attack `section.n` pairs; writes audit/judgments.jsonl. Returns figures, and what stands beside them.

    Errors: ConfigError (no judge of two responses, a bad attack set), DataError (no pair to attack).
    """
    judge_section, judge, attacks = prepared(context)
    labels = labels_of(judge)
    labelling = Labelling.of(context.config)
    todo = tasks(context, section)
    jobs = (assault(judge, task, attacks, labels, labelling) for task in todo)
    done = list(context.drive(STAGE, judge_section.roles, jobs, len(todo)))
    context.folder.write(TABLE, _kept(done))
    decided = [one for one in done if one.weaker is not None]
    controls = {
        name: measured(_controlled(judge_of, attacks, decided, reader), attacks, context.config.seed, labelling)
        for name, judge_of, reader in _readers(context, judge_section, judge, labels)
    }
    return figures(measured(decided, attacks, context.config.seed, labelling), controls, done, attacks)


def prepared(context: Context) -> tuple[JudgeSection, Judge, list[Attack]]:
    """What an attack needs, checked. Errors: ConfigError."""
    config = context.config
    section = config.audit.injection if config.audit else None
    if section is None or config.judge is None:
        raise ConfigError("audit.injection: a judge section is needed, for the judge to attack")
    members = {name: {**own, "orders": "both"} for name, own in config.judge.members.items()}
    judge_section = config.judge.model_copy(update={"orders": "both", "members": members})
    judge = build(judge_section, context.engine)
    if judge.arity != 2:
        raise ConfigError(f"audit.injection: judge {judge_section.judge!r} does not compare two responses")
    recorded = next((role for role in judge_section.roles if context.engine(role).capabilities.by_subject), None)
    if recorded is not None:
        raise ConfigError(
            f"audit.injection: engine {recorded!r} answers by what is judged, from a recording; "
            "it would not see an attack"
        )
    return judge_section, judge, load_attacks(section.attacks, section.kinds)


def labels_of(judge: Judge) -> Sequence[str]:
    """The letters under which the judge shows its responses."""
    found: Sequence[str] = getattr(getattr(judge, "choice", None), "labels", _LABELS)
    return found


def assault(
    judge: Judge, task: Task, attacks: Sequence[Attack], labels: Sequence[str], labelling: Labelling,
    weaker: str | None = None,
) -> Job[Assault]:  # fmt: skip
    """Judge a pair as it is, then with each attack on the response that lost. `weaker`: this one, whoever lost."""
    base = yield from judge(task)
    weaker = weaker or _loser(base, task, labelling)
    if weaker is None:
        return Assault(task, base, None, {})
    runs = [_lettered(judge(_attacked(task, weaker, attack)), weaker, labels) for attack in attacks]
    judgments = yield from together(runs)
    found = {attack.id: rows for attack, rows in zip(attacks, judgments, strict=True)}
    return Assault(task, base, weaker, found)


def _attacked(task: Task, weaker: str, attack: Attack) -> Task:
    """Ids stay: the judge draws the same principles and wordings as without the attack."""
    responses = [
        msgspec.structs.replace(row, text=attack.applied(row.text)) if row.id == weaker else row
        for row in task.responses
    ]
    return msgspec.structs.replace(task, responses=responses)


def _lettered(run: JudgeRun, weaker: str, labels: Sequence[str]) -> JudgeRun:
    """A judge's run in which the attack knows the letter of its response: MARK becomes that letter in each request.

    A judge that does not say what a request shows (`Request.subject`) leaves the attacker to guess the first place.
    """
    replies: list[Reply] = []
    try:
        requests = next(run)
        while True:
            replies = yield [_with_letter(request, weaker, labels) for request in requests]
            requests = run.send(replies)
    except StopIteration as stop:
        result: list[Judgment] = stop.value
        return result
    finally:
        run.close()


def _with_letter(request: Request, weaker: str, labels: Sequence[str]) -> Request:
    shown = request.subject[1:]
    letter = labels[shown.index(weaker)] if weaker in shown else labels[0]
    messages = [
        {**message, "content": message["content"].replace(MARK, letter)}
        if isinstance(message["content"], str)
        else message
        for message in request.messages
    ]
    return msgspec.structs.replace(request, messages=messages)


def _loser(judgments: Sequence[Judgment], task: Task, labelling: Labelling) -> str | None:
    """The response that loses once orders and principles are put together; None where neither does."""
    one, other = (row.id for row in task.responses)
    lead = labelling.lead(judgments, one)
    return None if not lead else other if lead > 0 else one


def stand_ins(responses: Sequence[Response], attack: Attack) -> list[Response]:
    """A pair of which one is attacked, for a plan."""
    return [*responses[:1], *(msgspec.structs.replace(row, text=attack.applied(row.text)) for row in responses[1:2])]


# -- pairs ---------------------------------------------------------------------------------------------------------


def tasks(context: Context, section: InjectionSection) -> list[Task]:
    """`n` pairs, drawn with the run's seed, in the order of the input. Errors: DataError where there is none."""
    found = list(_from_source(section) if section.pairs else _from_run(context))
    if not found:
        where = section.pairs.path if section.pairs else str(context.folder.table("preferences"))
        raise DataError(f"audit.injection: {where}: no pair of two responses to attack")
    rng = random.Random(make_id(context.config.seed, STAGE))
    picked = sorted(rng.sample(range(len(found)), min(section.n, len(found))))
    return [Task(prompt=found[i][0], responses=list(found[i][1]), seed=context.config.seed) for i in picked]


def _from_source(section: InjectionSection) -> Iterator[tuple[Prompt, Sequence[Response]]]:
    assert section.pairs is not None
    dropped: list[Dropped] = []
    groups = itertools.islice(io.read_responses(section.pairs, dropped.append), section.pairs.limit)
    for prompt, responses in groups:
        if len(responses) >= 2:
            yield prompt, responses[:2]


def _from_run(context: Context) -> Iterator[tuple[Prompt, Sequence[Response]]]:
    """The run's preferences: their verdicts are in the journal already."""
    folder = context.folder
    responses = {row.id: row for row in folder.read("responses", Response)}
    prompts = {row.id: row for row in folder.read("prompts", Prompt)}
    order = {response_id: place for place, response_id in enumerate(responses)}
    for row in folder.read("preferences", Preference):
        if not {row.chosen_id, row.rejected_id} <= order.keys() or row.prompt_id not in prompts:
            raise DataError(
                f"{folder.table('preferences')}: preference {row.id} is of another prompt or response than this "
                "run's; run the stage pair again"
            )
        ids = sorted((row.chosen_id, row.rejected_id), key=lambda i: order[i])  # as the judge stage showed them
        yield prompts[row.prompt_id], [responses[i] for i in ids]


def _kept(assaults: Iterable[Assault]) -> Iterator[Judgment]:
    """Every judgment of attacked pairs, under ids of its own; `meta.attack` names the attack ("" for none)."""
    for one in assaults:
        for attack, rows in {"": one.base, **one.found}.items():
            for row in rows:
                meta = {**row.meta, "attack": attack, "attacked": one.weaker}
                yield msgspec.structs.replace(row, id=make_id(row.id, attack, STAGE), meta=meta)


# -- the scripted readers ------------------------------------------------------------------------------------------

_Reader = Callable[[str, Sequence[str]], Callable[[Request], Reply]]


def _readers(
    context: Context, section: JudgeSection, judge: Judge, labels: Sequence[str]
) -> Iterator[tuple[str, Judge, _Reader]]:
    """Name, the judge that asks, and the reader that answers, given the stronger response and the labels."""
    for name, reads in (
        ("everything", readers.everything),
        ("outside_fences", readers.outside_fences),
        ("control_tokens", readers.after_control_token),
    ):
        yield name, judge, lambda stronger, known, reads=reads: readers.Obedient(stronger, known, reads)  # type: ignore[misc]
    text = build(section.model_copy(update={"read": "text", "max_tokens": None}), context.engine)
    yield "quoting", text, readers.Quoting


def _controlled(
    judge: Judge, attacks: Sequence[Attack], decided: Sequence[Assault], reader: _Reader
) -> list[Assault]:
    labels = labels_of(judge)
    found = []
    for one in decided:
        assert one.weaker is not None
        stronger = next(row.id for row in one.task.responses if row.id != one.weaker)
        job = assault(judge, one.task, attacks, labels, Labelling(), one.weaker)
        found.append(readers.answered(job, reader(stronger, labels)))
    return found
