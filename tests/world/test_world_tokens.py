"""The judge's prompt and its tokens: training must show what the engines will send."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rlaif.paths import shipped
from rlaif.templates import load_frame
from rlaif.world import frame, grammar, principles, prompts
from rlaif.world.oracle import PRINCIPLES

pytest.importorskip("transformers")

from rlaif.world.judge_data import Encoder, PairPlan, drill, judged
from rlaif.world.packing import Packed, collate


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shipped("data") / "tiny" / "judge")


def _examples(n: int) -> list[tuple[str, str, str, str]]:
    rng = random.Random(3)
    rows = []
    for _ in range(n):
        prompt = prompts.sample_prompt(rng, "heldout")
        a, b = (grammar.write_response(rng, prompt, "train", grammar.JUDGE_MIX) for _ in range(2))
        rows.append((prompt.text, a, b, rng.choice(principles.wordings("train")[rng.choice(PRINCIPLES)])))
    return rows


def test_the_fast_frame_is_the_shipped_frame() -> None:
    shipped_frame = load_frame(shipped("prompts") / "judges" / "pairwise_compact.jinja")
    for question, a, b, wording in _examples(50):
        context = {
            "conversation": question,
            "responses": [{"label": "A", "text": a}, {"label": "B", "text": b}],
            "principle": {"id": "any", "text": wording},
            "instruction": frame.INSTRUCTION,
        }
        expected = [{"role": "user", "content": frame.pairwise(question, a, b, wording)}]
        assert shipped_frame.render(context) == expected


def test_the_constitution_names_the_frame_and_the_principles() -> None:
    constitution = principles.constitution()
    assert constitution["frame"] == "pairwise_compact.jinja"
    assert tuple(entry["id"] for entry in constitution["principles"]) == PRINCIPLES


@pytest.mark.parametrize("text", ["A", "B", "1", "5"])
def test_a_label_is_one_token_right_after_the_generation_prompt(tokenizer: Any, text: str) -> None:
    chat = [{"role": "user", "content": "x"}]
    before = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    after = tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": text}], return_dict=False)
    assert len(after) == len(before) + 2 and after[:-2] == before
    assert tokenizer.decode(after[-2]) == text


def test_a_system_message_is_refused(tokenizer: Any) -> None:
    with pytest.raises(Exception, match="user and assistant"):
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}], tokenize=False)


@pytest.mark.parametrize("text", ["Grüße, 世界! 🙂", "a  b\n\n\tc```` <|", "x" * 50, "It costs 4.50."])
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_fences_are_cheap(tokenizer: Any) -> None:
    empty = frame.pairwise("", "", "", "")
    assert len(tokenizer(empty, add_special_tokens=False)["input_ids"]) <= 24


def _branch(tree: Packed, number: int) -> list[int]:
    return [i for i, segment in zip(tree.ids, tree.segments, strict=True) if segment in (0, number)]


def test_a_packed_branch_is_the_plain_prompt(tokenizer: Any) -> None:
    encoder, rng = Encoder(tokenizer), random.Random(0)
    for _ in range(60):
        tree = judged(rng, encoder, PairPlan())
        for number in range(1, max(tree.segments) + 1):
            ids = _branch(tree, number)
            text = tokenizer.decode(ids)
            assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
            assert text.startswith("<|user|>Question:\n```\n") and text.endswith("<|end|><|assistant|>")


def test_examples_are_deterministic(tokenizer: Any) -> None:
    def draw() -> list[Packed]:
        encoder, rng = Encoder(tokenizer), random.Random("x")
        return [drill(rng, encoder) for _ in range(10)] + [judged(rng, encoder, PairPlan()) for _ in range(10)]

    assert draw() == draw()


def test_a_branch_sees_the_prefix_and_itself_only() -> None:
    tree = Packed.of([1, 2])
    tree.branch([3, 4])
    tree.branch([5])
    batch = collate([tree], pad_id=0)
    seen = [[column for column in range(5) if batch.mask[0, 0, row, column] == 0] for row in range(5)]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]
    assert batch.positions[0, :5].tolist() == [0, 1, 2, 3, 2]
