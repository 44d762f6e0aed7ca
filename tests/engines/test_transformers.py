"""The transformers engine on random tiny models: real weights, tokenizer and chat template."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_model

from rlaif.engines.transformers import TransformersEngine
from rlaif.errors import EngineError, RequestFailed
from rlaif.records import Reply, Request

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.integration  # imports torch and runs models: seconds, not milliseconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("models") / "tiny")


def ask(content: str, **changes: Any) -> Request:
    return Request(role="judge", messages=[{"role": "user", "content": content}], **{"max_tokens": 1, **changes})


def run(folder: Path, work: Callable[[TransformersEngine], Any], **options: Any) -> Any:
    async def main() -> Any:
        engine = TransformersEngine(str(folder), **options)
        await engine.start()
        try:
            return await work(engine)
        finally:
            await engine.close()

    return asyncio.run(main())


def answers(folder: Path, requests: list[Request], seeds: list[int] | None = None, **options: Any) -> list[Reply]:
    async def work(engine: TransformersEngine) -> list[Reply]:
        each = zip(requests, seeds or range(len(requests)), strict=True)
        return list(await asyncio.gather(*(engine.complete(request, seed) for request, seed in each)))

    result: list[Reply] = run(folder, work, **options)
    return result


def reference(folder: Path, content: str) -> tuple[Any, Any]:
    """Next-token log-probs (V,) by transformers alone, and the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = f"<|user|>{content}<|end|><|assistant|>"
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder)(ids).logits[0, -1].log_softmax(-1), tokenizer


PROMPTS = ["the cat", "the cat sat on the mat", "no", "how is the dog on the red log " * 5]


def test_label_log_probs_are_exact_for_every_variant_in_a_padded_batch(folder: Path) -> None:
    replies = answers(folder, [ask(p, labels=["A", "B"], temperature=0.0) for p in PROMPTS])
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        expected, tokenizer = reference(folder, prompt)
        assert reply.logprobs is not None
        (position,) = reply.logprobs
        assert {text for text, _ in position.top} == {"A", " A", "B", " B"}
        for text, logprob in position.top:
            (token_id,) = tokenizer(text, add_special_tokens=False).input_ids
            assert logprob == pytest.approx(float(expected[token_id]), abs=1e-4)
        assert position.logprob == pytest.approx(float(expected.max()), abs=1e-4)
        assert reply.usage.completion_tokens == 1


def test_what_prompts_share_is_computed_once_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    forward = TransformersEngine._forward

    def counting(self: TransformersEngine, blocks: list[list[int]], state: Any) -> Any:
        passes.append(sum(map(len, blocks)))
        return forward(self, blocks, state)

    monkeypatch.setattr(TransformersEngine, "_forward", counting)
    prompts = [
        f"the {animal} sat on the mat {end}" for animal in ("cat", "dog") for end in ("", "yes", "no why", "log")
    ]
    prompts.append("how")
    replies = answers(folder, [ask(p, labels=["A", "B"], temperature=0.0) for p in prompts])
    for prompt, reply in zip(prompts, replies, strict=True):
        expected, tokenizer = reference(folder, prompt)
        assert reply.logprobs is not None
        for text, logprob in reply.logprobs[0].top:
            (token_id,) = tokenizer(text, add_special_tokens=False).input_ids
            assert logprob == pytest.approx(float(expected[token_id]), abs=1e-4)
    assert len(passes) == 2
    assert sum(passes) < sum(reply.usage.prompt_tokens for reply in replies) * 0.8


def test_top_logprobs_are_the_best_in_order(folder: Path) -> None:
    (reply,) = answers(folder, [ask("the cat", top_logprobs=5, temperature=0.0)])
    assert reply.logprobs is not None
    top = [logprob for _, logprob in reply.logprobs[0].top]
    expected, _ = reference(folder, "the cat")
    assert top == sorted(top, reverse=True)
    # Tokens that are parts of a character read alike and share an entry, so compare what they have together.
    together = sum(math.exp(logprob) for logprob in top)
    assert together == pytest.approx(float(expected.topk(5).values.exp().sum()), abs=1e-4)


def test_a_sample_depends_on_its_seed_and_not_on_its_batch_mates(folder: Path) -> None:
    requests = [ask(PROMPTS[i % 4], max_tokens=12) for i in range(24)]
    together = answers(folder, requests)
    for i in (0, 7, 23):
        (alone,) = answers(folder, [requests[i]], [i])
        assert alone.text == together[i].text
    assert len({reply.text for reply in together}) > 20
    (other,) = answers(folder, [requests[0]], [999])
    assert other.text != together[0].text


def test_greedy_decoding_agrees_with_transformers_generate(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    replies = answers(folder, [ask(p, max_tokens=10, temperature=0.0) for p in PROMPTS])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for prompt, reply in zip(PROMPTS, replies, strict=True):
        ids = tokenizer(f"<|user|>{prompt}<|end|><|assistant|>", return_tensors="pt", add_special_tokens=False)
        out = model.generate(**ids, do_sample=False, max_new_tokens=10)[0, ids.input_ids.shape[1] :]
        assert reply.text == tokenizer.decode(out, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_sampling_follows_the_distribution(folder: Path) -> None:
    n = 4000
    replies = answers(folder, [ask("the cat", top_logprobs=1) for _ in range(n)], list(range(n)))
    expected, _ = reference(folder, "the cat")
    p = float(expected.exp().max())
    share = sum(abs(reply.logprobs[0].logprob - math.log(p)) < 1e-4 for reply in replies if reply.logprobs) / n
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_top_p_keeps_only_the_nucleus(folder: Path) -> None:
    expected, _ = reference(folder, "the cat")
    p_best = float(expected.exp().max())
    replies = answers(folder, [ask("the cat", top_p=p_best * 0.9, top_logprobs=1) for _ in range(50)])
    drawn = [reply.logprobs[0].logprob for reply in replies if reply.logprobs]
    assert drawn == pytest.approx([math.log(p_best)] * 50, abs=1e-4)


def test_temperature_sharpens(folder: Path) -> None:
    replies = answers(folder, [ask("the cat", temperature=0.01, max_tokens=6) for _ in range(8)])
    (greedy,) = answers(folder, [ask("the cat", temperature=0.0, max_tokens=6)])
    assert {reply.text for reply in replies} == {greedy.text}


def test_stop_strings_and_lengths(folder: Path) -> None:
    (full,) = answers(folder, [ask("the cat", max_tokens=12, temperature=0.0)])
    assert full.finish_reason == "length"
    assert full.usage.completion_tokens == 12
    stop = full.text[5:7]
    (cut,) = answers(folder, [ask("the cat", max_tokens=12, temperature=0.0, stop=[stop, "never there"])])
    assert cut.finish_reason == "stop"
    assert cut.text == full.text[: full.text.index(stop)]
    assert cut.usage.completion_tokens < 12


def test_log_probs_of_a_longer_reply_have_one_entry_per_token(folder: Path) -> None:
    (reply,) = answers(folder, [ask("the cat", max_tokens=7, temperature=0.0, labels=["A"], top_logprobs=2)])
    assert reply.logprobs is not None
    assert len(reply.logprobs) == reply.usage.completion_tokens == 7
    for position in reply.logprobs:
        texts = [text for text, _ in position.top]
        assert {"A", " A"} <= set(texts)
        assert len(texts) == len(set(texts))
        assert position.token in texts


def test_a_prompt_beyond_the_context_is_refused_not_cut(folder: Path) -> None:
    with pytest.raises(RequestFailed, match="prompt tokens") as caught:
        answers(folder, [ask("the cat " * 200)])
    assert caught.value.kind == "prompt_too_long"
    with pytest.raises(RequestFailed):
        answers(folder, [ask("the cat", max_tokens=20)], context_tokens=22)


def test_a_template_that_refuses_system_gets_it_in_the_user_turn(tmp_path: Path) -> None:
    folder = tiny_model.build(tmp_path / "nosystem", template=tiny_model.NO_SYSTEM + tiny_model.TEMPLATE)
    system = {"role": "system", "content": "be good"}
    user, folded = {"role": "user", "content": "why"}, {"role": "user", "content": "be good\n\nwhy"}
    requests = [Request(role="j", messages=m, max_tokens=8, temperature=0.0) for m in ([system, user], [folded])]
    first, second = answers(folder, requests)
    assert first == second


def test_thinking_that_the_template_opened_is_kept_apart(folder: Path) -> None:
    request = ask("why", max_tokens=4, temperature=0.0, labels=["A"], extra={"chat_template_kwargs": {"think": True}})
    (reply,) = answers(folder, [request])
    assert reply.thinking
    assert reply.text == ""
    assert reply.logprobs == []


def test_a_conversation_that_ends_with_the_assistant_is_continued(folder: Path) -> None:
    messages = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "the dog sat"}]

    async def work(engine: TransformersEngine) -> tuple[Reply, int | None]:
        reply = await engine.complete(Request(role="j", messages=messages, max_tokens=1, temperature=0.0), 0)
        return reply, engine.count_tokens(messages)

    reply, n_tokens = run(folder, work)
    assert reply.usage.prompt_tokens == n_tokens


def test_requests_that_it_cannot_serve_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="extra has unknown top_k; allowed: chat_template_kwargs"):
        answers(folder, [ask("the cat", extra={"top_k": 3})])
    with pytest.raises(EngineError, match="JSON schema"):
        answers(folder, [ask("the cat", json_schema={"type": "object"})])
    picky = tiny_model.build(tmp_path / "picky", template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RequestFailed, match="chat template refuses this conversation: roles must alternate"):
        answers(picky, [ask("the cat")])


def test_tokens_are_counted_without_loading_the_model(folder: Path) -> None:
    engine = TransformersEngine(str(folder))
    (reply,) = answers(folder, [ask("the cat sat")])
    assert engine.count_tokens([{"role": "user", "content": "the cat sat"}]) == reply.usage.prompt_tokens


def test_a_broken_model_is_one_line(folder: Path, tmp_path: Path) -> None:
    broken = tiny_model.build(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(EngineError, match="cannot load") as caught:
        answers(broken, [ask("the cat")])
    assert "\n" not in str(caught.value)


def test_an_adapter_changes_the_replies_and_the_identity(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    adapter = tiny_model.build_adapter(folder, tmp_path / "adapter")
    request = ask("the cat", labels=["A", "B"], temperature=0.0)
    (plain,), (adapted,) = answers(folder, [request]), answers(folder, [request], adapter=str(adapter))
    assert plain.logprobs != adapted.logprobs
    assert TransformersEngine(str(folder)).identity != TransformersEngine(str(folder), adapter=str(adapter)).identity


def test_out_of_memory_halves_the_batch_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = TransformersEngine._decode
    sizes: list[int] = []

    def limited(limit: int) -> Callable[[TransformersEngine, list[Any]], None]:
        def fake_limit(self: TransformersEngine, rows: list[Any]) -> None:
            sizes.append(len(rows))
            if len(rows) > limit:
                raise torch.OutOfMemoryError("no room")
            decode(self, rows)

        return fake_limit

    requests = [ask("the cat", max_tokens=3, temperature=0.0) for _ in range(8)]
    monkeypatch.setattr(TransformersEngine, "_decode", limited(4))
    assert len({reply.text for reply in answers(folder, requests)}) == 1
    assert max(sizes) == 8
    monkeypatch.setattr(TransformersEngine, "_decode", limited(1))
    with pytest.raises(EngineError, match="out of memory with 4 prompts"):
        answers(folder, requests)
