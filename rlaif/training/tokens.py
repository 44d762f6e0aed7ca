"""A prompt and its response as token ids, the way a policy meets them: the ids it was given, then the ids it wrote.

A reward model must be trained on the ids that it will be asked about. TRL renders whole conversations, where
templates put text after the end token (a line break in ChatML) that no policy ever writes; and cutting a prompt and
its response into tokens in one go may merge some over the boundary between them. So everything here is prompt ids,
response ids and the end token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

Messages = Sequence[dict[str, Any]]
_PROBES = (
    "The quick brown fox, 12345 times:\n\n  'jumps' over — naïve 日本語 ﬀ?!",
    " \t leading and trailing  \n",
    "def f(x): return x**2  # <|end|> </s> [INST]",
)


class Ids(NamedTuple):
    """What a policy was given and what it wrote; a finished response ends with the end token."""

    prompt: list[int]
    completion: list[int]

    @property
    def whole(self) -> list[int]:
        return self.prompt + self.completion


def encode(tokenizer: Any, prompt: str | Messages, response: str | Messages, *, finished: bool = True) -> Ids:
    """Text or a conversation with its next turn as ids. `finished=False`: cut off, so without an end token.

    Where the template closes an assistant's turn otherwise than a policy that answers the generation prompt would
    (it leaves thinking out, say), the ids are those that the policy would have written.
    """
    end = tokenizer.eos_token_id
    if isinstance(prompt, str):
        text = response if isinstance(response, str) else str(response[-1]["content"])
        start = list(tokenizer(prompt)["input_ids"])
        if start and start[-1] == end:  # some tokenizers close every text
            start.pop()
        return Ids(start, _closed(_bare(tokenizer, text), end, finished))
    turns: Messages = [{"role": "assistant", "content": response}] if isinstance(response, str) else response
    start = _rendered(tokenizer, prompt, add_generation_prompt=True)
    whole = _rendered(tokenizer, [*prompt, *turns], add_generation_prompt=False)
    if len(turns) == 1 and whole[: len(start)] != start:
        return Ids(start, _closed(_bare(tokenizer, str(turns[0]["content"])), end, finished))
    return Ids(start, _closed(whole[len(start) :], end, finished))


def written(tokenizer: Any, text: str, *, finished: bool) -> list[int]:
    """A policy's own text as the ids that it most likely wrote, with the end token where it came to its end. It may
    have sampled another cut of the same text: the text does not say."""
    return _closed(_bare(tokenizer, text), tokenizer.eos_token_id, finished)


def _closed(ids: list[int], end: int | None, finished: bool) -> list[int]:
    """`ids` up to the last end token, which is there if and only if the response is finished."""
    if end in ids:
        ids = ids[: len(ids) - ids[::-1].index(end) - 1]
    return [*ids, end] if finished and end is not None else ids


def _bare(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _rendered(tokenizer: Any, messages: Messages, *, add_generation_prompt: bool) -> list[int]:
    rendered = tokenizer.apply_chat_template(
        [dict(message) for message in messages], add_generation_prompt=add_generation_prompt, return_dict=True
    )
    return list(rendered["input_ids"])


def fingerprint(tokenizer: Any) -> dict[str, str]:
    """Two tokenizers with the same fingerprint give the same ids: of the vocabulary, of the way it cuts texts, of the
    end token, and of the chat template by what it renders ("" where there is none)."""
    vocabulary = sorted(tokenizer.get_vocab().items())
    return {
        "vocabulary": _digest(vocabulary),
        "cutting": _digest([_bare(tokenizer, text) for text in _PROBES]),
        "end_token": str(tokenizer.eos_token_id),
        "template": _digest(_rendered_probes(tokenizer)) if tokenizer.chat_template else "",
    }


def _rendered_probes(tokenizer: Any) -> list[list[int]]:
    user, assistant = {"role": "user", "content": _PROBES[0]}, {"role": "assistant", "content": "Yes."}
    return [
        _rendered(tokenizer, [user], add_generation_prompt=True),
        _rendered(tokenizer, [user, assistant], add_generation_prompt=False),
        _rendered(tokenizer, [user, assistant, user], add_generation_prompt=True),
    ]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def difference(ours: dict[str, str], theirs: dict[str, str]) -> str | None:
    """In words, what makes ids of the one mean something else to the other; None where nothing does."""
    words = {
        "vocabulary": "the vocabularies differ",
        "cutting": "the same text is cut into other tokens",
        "end_token": "the end tokens differ",
        "template": "the chat templates render a conversation differently",
    }
    return next((text for name, text in words.items() if ours.get(name) != theirs.get(name)), None)
