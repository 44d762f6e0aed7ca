"""What the in-process engines share, without loading any model."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from rlaif.engines import local
from rlaif.engines.batching import MicroBatcher
from rlaif.errors import EngineError, RequestFailed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"max_position_embeddings": 64}))
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "tokenizer.json").write_text("{}")
    (model / "chat_template.jinja").write_text("{{ messages }}")
    return model


def identity(folder: Path, **changes: object) -> str:
    return local.model_identity(str(folder), folder, None, changes)


def test_identity_is_of_the_contents_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    before = identity(folder)
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    (moved / "README.md").write_text("a card changes no reply")
    assert identity(moved) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"])
def test_identity_changes_with_every_file_that_changes_replies(folder: Path, name: str) -> None:
    before = identity(folder)
    path = folder / name
    path.write_bytes(path.read_bytes()[::-1] + b" ")
    os.utime(path, ns=(1, 1))
    assert identity(folder) != before


def test_identity_of_a_hub_id_names_its_revision_and_whatever_else_changes_replies(folder: Path) -> None:
    assert local.model_identity("org/name", None, None, {}) == "org/name@main"
    assert local.model_identity("org/name", None, "abc", {"dtype": ""}) == "org/name@abc"
    plain, changed = identity(folder), identity(folder, dtype="bfloat16")
    assert changed == plain + ' {"dtype": "bfloat16"}'


def test_folders_and_hub_ids_are_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert local.find_folder("model", "engine") == folder
    assert local.find_folder(str(folder), "engine") == folder
    assert local.find_folder("org/name", "engine") is None
    for wrong in ("./absent", "/no/such/model", "a/b/c", "shipped:data/absent"):
        with pytest.raises(EngineError, match="no such folder"):
            local.find_folder(wrong, "engine")


def test_a_folder_that_is_no_model_is_one_clear_line(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(EngineError, match="is no model folder"):
        local.find_folder(str(folder), "engine")


def test_pickled_weights_are_refused_by_name(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match=r"must be \*.safetensors, found only pytorch_model.bin"):
        local.check_folder(folder, "engine")


def test_a_missing_chat_template_is_found_before_loading(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(EngineError, match="has no chat template"):
        local.check_folder(folder, "engine")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    local.check_folder(folder, "engine")


def test_the_context_comes_from_the_config(folder: Path) -> None:
    assert local.context_of(folder) == 64
    (folder / "config.json").write_text(json.dumps({"text_config": {"max_position_embeddings": 32}}))
    assert local.context_of(folder) == 32
    assert local.context_of(None) is None


def test_an_adapter_must_be_one(folder: Path) -> None:
    with pytest.raises(EngineError, match="expected a folder with adapter_config"):
        local.adapter_identity(str(folder), "engine")
    (folder / "adapter_config.json").write_text("{}")
    path, digest = local.adapter_identity(str(folder), "engine")
    assert path == folder
    assert digest is not None and len(digest) == 32


def test_a_long_prompt_is_refused_with_its_counts() -> None:
    local.check_length(10, 6, 16)
    local.check_length(10**9, 1, None)
    with pytest.raises(RequestFailed, match=r"11 prompt tokens \+ 6 for the reply > context of 16") as caught:
        local.check_length(11, 6, 16)
    assert caught.value.kind == "prompt_too_long"


def test_micro_batches_answer_each_caller_and_fail_only_their_own() -> None:
    sizes = []

    def run(jobs: list[int]) -> list[object]:
        sizes.append(len(jobs))
        if 13 in jobs:
            raise RequestFailed("unlucky", "13")
        return [job * 10 for job in jobs]

    async def main() -> list[object]:
        batcher = MicroBatcher(lambda jobs: [sorted(jobs)[i : i + 4] for i in range(0, len(jobs), 4)], run)
        answers = await asyncio.gather(*(batcher.submit(i) for i in range(16)), return_exceptions=True)
        await batcher.close()
        return list(answers)

    answers = asyncio.run(main())
    assert answers[:12] == [i * 10 for i in range(12)]
    assert all(isinstance(answer, RequestFailed) for answer in answers[12:])
    assert sizes == [4, 4, 4, 4]


def test_a_cancelled_request_never_reaches_the_model() -> None:
    seen: list[int] = []

    def run(jobs: list[int]) -> list[int]:
        seen.extend(jobs)
        return jobs

    async def main() -> None:
        batcher = MicroBatcher(lambda jobs: [jobs], run)
        keep, drop = (asyncio.ensure_future(batcher.submit(i)) for i in (1, 2))
        await asyncio.sleep(0)
        drop.cancel()
        assert await keep == 1
        await batcher.close()

    asyncio.run(main())
    assert seen == [1]


def test_closing_leaves_nobody_waiting() -> None:
    async def main() -> list[object]:
        batcher = MicroBatcher(lambda jobs: [[job] for job in jobs], lambda jobs: time.sleep(0.2) or jobs)
        waiting = [asyncio.ensure_future(batcher.submit(i)) for i in range(3)]
        await asyncio.sleep(0.1)
        await batcher.close()
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    first, *rest = asyncio.run(main())
    assert first == 0
    assert [str(error) for error in rest] == ["the engine was closed"] * 2
