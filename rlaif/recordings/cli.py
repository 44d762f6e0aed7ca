"""`rlaif recording check FILE`: what a recording holds, so that a person can see whether its mapping is right."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from rlaif.errors import ConfigError
from rlaif.recordings.recording import Recording, Subject, load
from rlaif.records import Gold, Reply, Response

_WIDTH = 96


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("recording", help="check a recording of other people's judgments")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = commands.add_parser("check", help="counts, what is read in the replies, and one prompt in full")
    command.add_argument("file", metavar="FILE", help="a recording (.yaml); docs/recordings.md says how to write one")
    command.add_argument(
        "--params", metavar="NAME=VALUE", nargs="+", action="extend", default=[], help="over the file's own params"
    )
    command.add_argument("--prompt", metavar="ID", help="show this prompt; default: the first that has replies")
    command.set_defaults(func=_check)


def _check(arguments: argparse.Namespace) -> int:
    params = {}
    for pair in arguments.params:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--params {pair!r}: expected NAME=VALUE")
        params[name] = value
    print("\n".join(described(load(arguments.file, params), arguments.prompt)))
    return 0


def described(recording: Recording, prompt_id: str | None = None) -> Iterator[str]:
    """Lines for a person. Errors: ConfigError for a prompt that is not there."""
    n_responses = sum(map(len, recording.responses.values()))
    yield f"{recording.path}: {len(recording.prompts):,} prompts, {n_responses:,} responses"
    if recording.models:
        yield f"  models: {', '.join(recording.models[:8])}{' …' if len(recording.models) > 8 else ''}"
    yield from _replies(recording)
    yield from _gold(recording.gold)
    for what, count in recording.counts.items():
        if what not in ("prompt rows", "replies", "gold labels"):
            yield f"  {what}: {count:,}"
    first = {row.reason: row.id for row in reversed(recording.dropped)}
    for reason, count in Counter(row.reason for row in recording.dropped).items():
        yield f"  dropped, {reason}: {count:,} (the first: {first[reason]})"
    yield from _example(recording, prompt_id)


def _replies(recording: Recording) -> Iterator[str]:
    if not recording.replies:
        yield "  replies: none"
        return
    n_replies = sum(map(len, recording.replies.values()))
    shown = Counter(len(subject) - 1 for subject in recording.replies)
    yield f"  replies: {n_replies:,}, to {len(recording.replies):,} questions about {_list(shown)} responses"
    if shown[2]:
        yield f"  pairs: {shown[2] - recording.n_both:,}, of them in both orders: {recording.n_both:,}"
    read = [outcome(recording, reply) for replies in recording.replies.values() for reply in replies]
    yield f"  read as: {_counted(read)}"
    section = {"rubric": "as-recorded", **recording.judge}
    yield f"  to replay it: judge: {{{', '.join(f'{key}: {value}' for key, value in section.items())}}}"


def outcome(recording: Recording, reply: Reply) -> str:
    """What a judge would make of the reply, in a word or two."""
    from rlaif.judges.patterns import pattern_choice, pattern_form
    from rlaif.judges.verdicts import Choice

    if reply.logprobs is not None:
        return "log-probs"
    how = recording.parse
    if how is not None and (how.score or how.scores):
        form = pattern_form(how).parse(reply)
        return "scores" if form.status == "ok" else f"{form.status} ({form.reason})"
    choice = pattern_choice(how) if how is not None else Choice(labels=("A", "B", "C"), read="text", tie="C")
    parsed = choice.parse(reply)
    names = dict(zip(choice.labels, ("first", "second", "tie"), strict=False))
    return names[str(parsed.label)] if parsed.status == "ok" else f"{parsed.status} ({(parsed.reason or '')[:60]})"


def _gold(gold: list[Gold]) -> Iterator[str]:
    if not gold:
        yield "  gold: none"
        return
    kinds = Counter(len(row.response_ids) for row in gold)
    labels = [label for row in gold for label in row.labels]
    raters = Counter(len(row.labels) for row in gold)
    about = "pairs" if kinds[2] else "single responses"
    yield f"  gold: {len(gold):,} {about}, {_list(raters)} labels each"
    words = [label if isinstance(label, str) else "none" if label is None else "a score" for label in labels]
    yield f"  gold labels: {_counted(words)}"


def _example(recording: Recording, prompt_id: str | None) -> Iterator[str]:
    asked = prompt_id or next((subject[0] for subject in recording.replies), None)
    prompt = next((p for p in recording.prompts if asked is None or p.id == asked), None)
    if prompt is None:
        raise ConfigError(f"{recording.path}: no prompt {asked!r}; there, for example: {_some(recording)}")
    yield f"\nprompt {prompt.id}" + (f" ({prompt.domain})" if prompt.domain else "")
    yield f"  {_short(prompt.text)}"
    own = {}
    for response in recording.responses.get(prompt.id, []):
        own[response.id] = _name(response)
        yield f"response {own[response.id]}: {_short(response.text)}"
    for subject, replies in recording.replies.items():
        if subject[0] == prompt.id:
            yield from _shown(recording, subject, replies, own)
    for row in recording.gold:
        if row.prompt_id == prompt.id:
            said = ", ".join(f"{rater}: {label}" for rater, label in zip(row.raters, row.labels, strict=False))
            yield f"gold on {' | '.join(own[i] for i in row.response_ids)}: {said or ', '.join(map(str, row.labels))}"


def _shown(recording: Recording, subject: Subject, replies: list[Reply], own: dict[str, str]) -> Iterator[str]:
    shown = " | ".join(own[name] for name in subject[1:])
    for reply in replies:
        yield f"shown {shown} → {outcome(recording, reply)}: {_short(reply.text)}"


def _name(response: Response) -> str:
    return str(response.meta["id"]) + (f" ({response.source})" if response.source else "")


def _some(recording: Recording) -> str:
    return ", ".join(prompt.id for prompt in recording.prompts[:3]) or "none"


def _list(counts: Counter[int]) -> str:
    return " or ".join(str(number) for number in sorted(counts))


def _counted(values: Iterable[str]) -> str:
    counts = Counter(values).most_common()
    rest = sum(count for _, count in counts[8:])
    return ", ".join(f"{value} {count:,}" for value, count in counts[:8]) + (f", others {rest:,}" if rest else "")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH // 2]} … {line[-_WIDTH // 2 + 3 :]}"
