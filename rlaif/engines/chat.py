"""Conversations and replies as every engine sees them: system messages folded, thinking split off. Pure."""

from __future__ import annotations

from typing import Any

from rlaif.records import Message

THINK, END_THINK = "<think>", "</think>"


def fold_system(messages: list[Message]) -> list[Message]:
    """System messages put in front of the first user turn, for chat templates that have no system role."""
    system = [str(message["content"]) for message in messages if message["role"] == "system"]
    turns = [message for message in messages if message["role"] != "system"]
    if not system:
        return turns
    head = "\n\n".join(system)
    for i, turn in enumerate(turns):
        if turn["role"] == "user":
            content = turn["content"]
            joined: Any = (
                [{"type": "text", "text": head}, *content] if isinstance(content, list) else f"{head}\n\n{content}"
            )
            return [*turns[:i], {**turn, "content": joined}, *turns[i + 1 :]]
    return [{"role": "user", "content": head}, *turns]


def split_thinking(text: str, opened: bool | None = None) -> tuple[str | None, str]:
    """(thinking, rest) of a reply that carries its thinking in `<think>…</think>`.

    `opened`: whether the prompt already ended with the opening tag; None: not known, as with a server, where a
    closing tag without an opening one says so. Thinking that never closes leaves no answer: the rest is empty.
    """
    head, closed, rest = text.partition(END_THINK)
    body = head.lstrip()
    if opened is None:
        opened = bool(closed) and THINK not in head
    if not opened and not body.startswith(THINK):
        return None, text
    return body.removeprefix(THINK).strip(), rest.lstrip("\r\n")  # spaces that follow may indent code
