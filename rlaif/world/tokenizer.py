"""The byte-level BPE tokenizer that the tiny models share, and its chat template."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlaif.world import frame
from rlaif.world.grammar import JUDGE_MIX, write_response
from rlaif.world.phrases import CLASSES, Split, phrases
from rlaif.world.principles import wordings
from rlaif.world.prompts import all_prompts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
VOCAB_SIZE = 2048
MAX_LENGTH = 512
# Fences first, so that each is one piece; then words with the space before them, single digits, sentence ends.
_PIECES = r":?\n```\n| ?\p{L}+| ?\p{N}|[.?!]| ?[^\s\p{L}\p{N}.?!]+|\s"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant'] %}"
    "{{ raise_exception('only the roles user and assistant are supported') }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _corpus() -> Iterator[str]:
    rng = random.Random("tokenizer")
    splits: tuple[Split, ...] = ("train", "dev", "heldout")
    for prompt in all_prompts():
        yield prompt.text
        for _ in range(4):
            a, b = (write_response(rng, prompt, "train", JUDGE_MIX) for _ in range(2))
            yield a
            name = rng.choice(sorted(wordings("train")))
            yield frame.pairwise(prompt.text, a, b, rng.choice(wordings("train")[name]))
            yield frame.pointwise(prompt.text, a, rng.choice(wordings("train")[name]))
    for split in splits:
        for texts in wordings(split).values():
            yield from texts
    for name in CLASSES:
        yield from phrases(name)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train the tokenizer on rendered prompts. No seed: the corpus is fixed, the same call gives the same files."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
