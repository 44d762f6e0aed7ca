"""`rlaif rubric list | show | new | check | preview`."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.errors import ConfigError, DataError, UserError
from rlaif.rubric import Constitution, Rubric, find_frame, known, load_standard

if TYPE_CHECKING:
    from rlaif.engines.local import ChatFormat
    from rlaif.records import Dropped, Message, Prompt, Response
    from rlaif.rubric_check import Mode
    from rlaif.templates import Frame

_WIDTH = 100
_TEXT_AFTER = "  "


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("rubric", help="list, show, check, preview and start rubrics and constitutions")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = commands.add_parser("list", help="what ships with rlaif, and what lies in this folder")
    command.set_defaults(func=_list)

    command = commands.add_parser("show", help="one rubric or constitution, in full")
    command.add_argument("name", metavar="NAME", help="a shipped name or a file")
    command.set_defaults(func=_show)

    command = commands.add_parser("new", help="write NAME.yaml, a commented start")
    command.add_argument("name", metavar="NAME", help="letters, digits, - and _")
    command.add_argument("--constitution", action="store_true", help="a constitution, not a rubric")
    command.set_defaults(func=_new)

    command = commands.add_parser("check", help="say the first thing that is wrong with a file, or that nothing is")
    command.add_argument("name", metavar="FILE", help="a file or a shipped name")
    _judge_flag(command, "default: pairwise, and those for which the file names a frame")
    _frame_flag(command)
    _model_flag(command, "also test that its verdict labels and scale steps are single tokens for this model")
    command.set_defaults(func=_check)

    command = commands.add_parser("preview", help="what a judge would be sent for one row of your data")
    command.add_argument("name", metavar="FILE", help="a file or a shipped name")
    command.add_argument("--data", metavar="FILE", required=True, help="rows with a prompt and its responses")
    command.add_argument("--row", metavar="N", type=int, default=1, help="the N-th usable row, from 1")
    command.add_argument(
        "--columns", metavar="OURS=THEIRS", nargs="+", action="extend", default=[], help="map columns of the file"
    )
    command.add_argument("--principle", metavar="ID", help="of a constitution; default: the first that applies")
    _judge_flag(command, "default: pairwise")
    command.add_argument(
        "--read", choices=["logprobs", "text", "rationale"], default="logprobs", help="how the verdict is read"
    )
    _frame_flag(command)
    _model_flag(command, "also count the tokens for this model")
    command.set_defaults(func=_preview)


def _judge_flag(command: argparse.ArgumentParser, default: str) -> None:
    kinds = ["pairwise", "pointwise", "listwise", "checklist"]
    command.add_argument("--judge", choices=kinds, help=f"for which kind of judge; {default}")


def _frame_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument("--frame", metavar="F", help="another frame than the one that the file names")


def _model_flag(command: argparse.ArgumentParser, text: str) -> None:
    command.add_argument("--model", metavar="M", help=f"{text}: a folder or a hub id (only its tokenizer is loaded)")


def _list(arguments: argparse.Namespace) -> int:
    rows = [("name", "kind", "parts", "what it is")]
    here = [path for suffix in ("*.yaml", "*.yml") for path in sorted(Path().glob(suffix)) if _looks_like_one(path)]
    for kind in (Rubric, Constitution):
        rows += [_row(name, path) for name, path in known(kind).items()]
    rows += [_row(str(path), path) for path in here]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print(_TEXT_AFTER.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))
    return 0


def _looks_like_one(path: Path) -> bool:
    """Pipelines lie in the same folder; a rubric has criteria at its top level, a constitution principles."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return any(line.startswith(("criteria:", "principles:")) for line in lines)


def _row(name: str, path: Path) -> tuple[str, str, str, str]:
    try:
        standard = load_standard(str(path))
    except UserError:
        return name, "invalid", "", f"see: rlaif rubric check {path}"
    parts = standard.criteria if isinstance(standard, Rubric) else standard.principles
    text = textwrap.shorten(standard.description, _WIDTH - 40, placeholder=" …")
    return name, type(standard).__name__.lower(), str(len(parts)), text


def _show(arguments: argparse.Namespace) -> int:
    standard = load_standard(arguments.name)
    print(f"{standard.name}  ({type(standard).__name__.lower()} {standard.ref})")
    _say(standard.description)
    print(f"file   {standard.path}\nframe  {find_frame(standard.frame, standard.path)}\nsha256 {standard.sha256}")
    if isinstance(standard, Rubric):
        _show_criteria(standard)
    else:
        _show_principles(standard)
    return 0


def _show_criteria(rubric: Rubric) -> None:
    total = sum(criterion.weight for criterion in rubric.criteria)
    for criterion in rubric.criteria:
        share = f"weight {criterion.weight:g}, {criterion.weight / total:.0%}"
        print(f"\n{criterion.id}  ({share}{', hard' if criterion.hard else ''})")
        _say(criterion.description)
        if criterion.scale:
            print(f"    {criterion.scale.min} to {criterion.scale.max}")
            for step, meaning in sorted(criterion.scale.labels.items()):
                _say(f"{step} = {meaning}", indent=6)


def _show_principles(constitution: Constitution) -> None:
    total = sum(principle.weight for principle in constitution.principles)
    for principle in constitution.principles:
        scope = "; ".join(f"{field} in {', '.join(values)}" for field, values in principle.scope.items())
        share = f"weight {principle.weight:g}, {principle.weight / total:.0%}"
        print(f"\n{principle.id}  ({share}{', only where ' + scope if scope else ''})")
        for text in principle.texts:
            _say(f"- {text}")


def _say(text: str, indent: int = 4) -> None:
    print(textwrap.fill(text, _WIDTH, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2)))


def _new(arguments: argparse.Namespace) -> int:
    name = arguments.name
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise ConfigError(f"rubric new {name!r}: a name has letters, digits, - and _ only")
    if name in {**known(Rubric), **known(Constitution)}:
        raise ConfigError(f"rubric new {name!r}: this name ships with rlaif; take another, for example my-{name}")
    path = Path(f"{name}.yaml")
    start = _CONSTITUTION_START if arguments.constitution else _RUBRIC_START
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(start.replace("NAME", name))
    except FileExistsError:
        raise ConfigError(f"{path} is there already; take another name or remove it first") from None
    print(f"wrote {path}; next: edit it, then `rlaif rubric check {path}`")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from rlaif.rubric_check import MODES, check_frame, frame_of

    standard = load_standard(arguments.name)
    named: list[Mode] = [mode for mode in MODES if mode == "pairwise" or mode in standard.frames]
    modes: list[Mode] = [arguments.judge] if arguments.judge else named
    frames = {mode: frame_of(standard, arguments.frame, mode) for mode in modes}
    for mode, frame in frames.items():
        check_frame(standard, frame, mode)
    parts = standard.criteria if isinstance(standard, Rubric) else standard.principles
    what = "criteria" if isinstance(standard, Rubric) else "principles"
    print(f"{standard.path}: {type(standard).__name__.lower()} {standard.ref}, {len(parts)} {what}")
    for frame in frames.values():
        print(f"{frame.path}: compiles, and shows all of it")
    if not arguments.model:
        return 0
    return max(_check_model(standard, frame, arguments.model, mode) for mode, frame in frames.items())


def _check_model(standard: Rubric | Constitution, frame: Frame, model: str, mode: Mode) -> int:
    """One line per label, and exit code 2 where log-probs could not be read."""
    from rlaif.rubric_check import check_labels, looks, menus, sample_messages

    chat = _chat_format(model)
    messages = sample_messages(next(looks(standard)), mode, frame)
    faults = 0
    for labels, users in menus(standard, mode).items():
        print(f"{', '.join(users)}:")
        for check in check_labels(chat, messages, labels):
            faults += check.fault is not None
            print(f"  {check.label:>3}  {'no: ' + check.fault if check.fault else f'yes: token {check.token!r}'}")
    if faults:
        print(f"{faults} of these labels cannot be read from log-probs of {model}; scales of 1–5 or 0–9 usually can")
    return 2 if faults else 0


def _chat_format(model: str) -> ChatFormat:
    from rlaif.engines.local import ChatFormat, find_folder, load_tokenizer

    where = "--model"
    return ChatFormat(load_tokenizer(model, find_folder(model, where), None, where), where)


def _preview(arguments: argparse.Namespace) -> int:
    from rlaif.rubric_check import frame_of, look_at

    mode: Mode = arguments.judge or "pairwise"
    if arguments.read == "rationale" and mode != "pairwise":
        raise ConfigError("--read rationale: only a pairwise judge gives its reasons in a reply of their own")
    standard = load_standard(arguments.name)
    frame = frame_of(standard, arguments.frame, mode)
    least = 1 if mode in ("pointwise", "checklist") else 2
    prompt, responses = _row_of(arguments.data, arguments.row, _columns(arguments.columns), least)
    look = look_at(standard, prompt, arguments.principle)
    requests = look.requests(mode, frame, prompt, responses, arguments.read)
    asks_again = mode == "checklist" or arguments.read == "rationale"
    for request in [requests[0], requests[-1]] if asks_again else requests[:1]:
        for message in request.messages:
            print(f"──── {message['role']} " + "─" * (_WIDTH - 6 - len(message["role"])))
            print(message["content"])
        print("─" * _WIDTH)
        _say_about(prompt, look.principle.id if look.principle else None, request.messages, arguments.model)
    if mode != "pairwise" or asks_again:
        print(
            f"one of {len(requests)} requests, at most, for this"
            + (", and one that follows it" if asks_again else "")
        )
    return 0


def _say_about(prompt: Prompt, principle_id: str | None, messages: list[Message], model: str | None) -> None:
    facts = [f"prompt {prompt.id}", f"{sum(len(message['content']) for message in messages)} characters"]
    if principle_id:
        facts.insert(1, f"principle {principle_id}")
    if model:
        facts.append(f"{len(_chat_format(model).encode_messages(messages, {}))} tokens for {model}")
    print(" · ".join(facts))


def _columns(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"--columns {pair!r}: expected OURS=THEIRS, for example prompt=question")
    return dict(pair.split("=", 1) for pair in pairs)


def _row_of(path: str, number: int, columns: dict[str, str], least: int) -> tuple[Prompt, list[Response]]:
    """The `number`-th row that can be judged: it has at least so many responses."""
    from rlaif.io import read_responses

    if number < 1:
        raise ConfigError(f"--row {number}: rows count from 1")
    dropped: list[Dropped] = []
    seen = 0
    for prompt, responses in read_responses(path, dropped.append, columns):
        if len(responses) >= least:
            seen += 1
            if seen == number:
                return prompt, responses
    why = f"; {len(dropped)} dropped, the first: {dropped[0].reason} ({dropped[0].id})" if dropped else ""
    wanted = "two responses" if least == 2 else "a response"
    raise DataError(f"{path}: --row {number}, but only {seen} rows have a prompt and {wanted}{why}")


_RUBRIC_START = """\
# A rubric: what a judge looks at when it compares or scores responses. Name it in a pipeline (judge: rubric:) or on
# the command line (rlaif judge --rubric). Try it: rlaif rubric check NAME.yaml
id: NAME
version: 1  # raise it when you change what the rubric means; judgments record NAME@1
name: A short title, which the judge sees
description: One or two sentences on what a good response is. The judge sees them.
# frame: my_frame.jinja  # a template beside this file; left out: the shipped pairwise.jinja
criteria:
  - id: first_thing  # letters, digits, - and _
    weight: 2  # relative to the other criteria
    description: What to look at, and what counts against a response. One thing per criterion.
    # scale:  # for judges that score; a judge that compares needs none. 1–5 or 0–9: each step is then one token
    #   min: 1
    #   max: 5
    #   labels: {1: what the worst looks like, 3: what the middle looks like, 5: what the best looks like}
  - id: second_thing
    weight: 1
    description: Another thing to look at.
    # hard: true  # a response that fails this is worse than any that meets it
"""

_CONSTITUTION_START = """\
# A constitution: principles of which a judge applies one at a time. Name it in a pipeline (judge: constitution:) or
# on the command line (rlaif judge --constitution). Try it: rlaif rubric check NAME.yaml
id: NAME
version: 1  # raise it when you change what a principle means; judgments record NAME@1
name: A short title
description: One or two sentences on what the principles are for.
# frame: my_frame.jinja  # a template beside this file; left out: the shipped pairwise.jinja
principles:
  - id: first_principle  # letters, digits, - and _
    weight: 2  # relative to the other principles
    texts:  # several wordings of the same thing, each a full instruction; one is drawn per comparison
      - Choose the response that does more of the one thing this principle is about.
      - Which response does that one thing better? Choose that one.
      - Prefer the response that falls less short of it.
  - id: second_principle
    texts:
      - Choose the response that is better in another way.
    # scope:  # apply it only where a field of the row has one of these values; left out: always
    #   domain: [health, legal]
"""
