"""Ids as a policy meets them, on tokenizers and templates that put things elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_data import TEMPLATE, build_model

from rlaif.training.tokens import difference, encode, fingerprint

USER = [{"role": "user", "content": "is it good"}]
# ChatML puts a line break after the end token; no policy writes it
CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# the generation prompt opens a thinking block, which a finished turn does not have
THINKING = TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|>good\n{% endif %}")
OPEN_END = TEMPLATE.replace("<|end|>", "\n")  # closes no turn with the end token


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(build_model(tmp_path_factory.mktemp("tokens") / "m"))


def text(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids))


@pytest.mark.parametrize(
    ("template", "prompt", "completion"),
    [
        (TEMPLATE, "<|user|>is it good<|end|><|assistant|>", "yes<|end|>"),
        (CHATML, "<|user|>is it good<|end|>\n<|assistant|>", "yes<|end|>"),
        (THINKING, "<|user|>is it good<|end|><|assistant|>good\n", "yes<|end|>"),
        (OPEN_END, "<|user|>is it good\n<|assistant|>", "yes\n<|end|>"),
    ],
    ids=["plain", "chatml", "thinking", "open_end"],
)
def test_conversations(tokenizer: Any, template: str, prompt: str, completion: str) -> None:
    tokenizer.chat_template = template
    for response in ("yes", [{"role": "assistant", "content": "yes"}]):
        ids = encode(tokenizer, USER, response)
        assert (text(tokenizer, ids.prompt), text(tokenizer, ids.completion)) == (prompt, completion)
    cut = encode(tokenizer, USER, "yes", finished=False)
    assert tokenizer.eos_token_id not in cut.completion and cut.prompt == encode(tokenizer, USER, "yes").prompt


def test_plain_text_does_not_merge_over_the_boundary(tokenizer: Any) -> None:
    """`go` + `od` is one token in `good`; a policy that was given `go` wrote `od`."""
    ids = encode(tokenizer, "is it go", "od")
    together = tokenizer("is it good")["input_ids"]
    assert ids.prompt == tokenizer("is it go")["input_ids"] and ids.completion[-1] == tokenizer.eos_token_id
    assert len(ids.prompt) + len(ids.completion) - 1 > len(together)


def test_an_end_token_in_the_text_is_not_doubled(tokenizer: Any) -> None:
    assert encode(tokenizer, "is it ", "yes<|end|>").completion == encode(tokenizer, "is it ", "yes").completion


def test_fingerprints(tokenizer: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.chat_template = TEMPLATE
    ours = fingerprint(tokenizer)
    tokenizer.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert fingerprint(again) == ours and difference(ours, ours) is None
    again.chat_template = TEMPLATE + "{# the same, said otherwise #}"
    assert difference(fingerprint(again), ours) is None
    again.chat_template = CHATML
    assert difference(fingerprint(again), ours) == "the chat templates render a conversation differently"
    again.add_tokens(["zebra"])
    assert difference(fingerprint(again), ours) == "the vocabularies differ"
