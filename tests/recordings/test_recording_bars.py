"""Published figures made again from recorded judgments. Skipped where the data is not beside the repository."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from itertools import combinations
from statistics import mean
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from shared_data import benchmark, recording, shared

from rlaif.judges.patterns import pattern_choice, pattern_form
from rlaif.metrics.ranking import bradley_terry, elo
from rlaif.recordings import Recording, load, read_gold

SHARES = ("correct_False", "correct_True", "correct_average", "correct_both", "equal")
# accuracy in percent as published (Tan et al., arXiv 2410.12784, table 3): knowledge, reasoning, math, coding, all
JUDGEBENCH = {
    "Skywork_Skywork-Reward-Gemma-2-27B": (59.74, 66.33, 83.93, 50.00, 64.29),
    "Skywork_Skywork-Reward-Llama-3.1-8B": (59.09, 64.29, 76.79, 50.00, 62.29),
    "internlm_internlm2-20b-reward": (62.34, 69.39, 66.07, 50.00, 63.43),
    "internlm_internlm2-7b-reward": (56.49, 61.22, 71.43, 50.00, 59.43),
    "Ray2333_GRM-Gemma-2B-rewardmodel-ft": (62.99, 53.06, 64.29, 54.76, 59.43),
}


def rows(name: str) -> list[dict[str, Any]]:
    with gzip.open(shared(name), "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def scores(recording: Recording) -> dict[tuple[str, str], float]:
    """(prompt, the response's own id) → score."""
    assert recording.parse is not None
    form = pattern_form(recording.parse)
    own = {r.id: str(r.meta["id"]) for found in recording.responses.values() for r in found}
    return {(p, own[r]): form.parse(replies[0]).values["score"] for (p, r), replies in recording.replies.items()}  # type: ignore[misc]


# -- LLMBar ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llmbar() -> tuple[ModuleType, dict[str, Any]]:
    shared("llmbar")
    module = benchmark("llmbar_replay")
    return module, module.replay()


def test_every_text_of_llmbar_is_read_as_its_publisher_read_it(llmbar: tuple[ModuleType, dict[str, Any]]) -> None:
    assert (llmbar[1]["replies"], llmbar[1]["mismatches"]) == (52_882, 0)


def test_llmbars_published_accuracy_and_consistency(llmbar: tuple[ModuleType, dict[str, Any]]) -> None:
    module, found = llmbar
    published = module.published()
    assert len(published) == 325
    for key, said in published.items():
        ours = found["outcomes"].shares(key)
        assert [ours[name] for name in SHARES] == pytest.approx([said[name] for name in SHARES], abs=1e-6), key


def test_llmbars_published_kappa_is_wrong(llmbar: tuple[ModuleType, dict[str, Any]]) -> None:
    """95 of 100 right with balanced labels is no κ of .27: by hand, with 52/48 labels and 49/51 winners it is near
    (.95 − .50) / (1 − .50) = .90."""
    module, found = llmbar
    key = ("LLMBar/Natural", "GPT-4/Vanilla")
    ours, theirs = found["outcomes"].kappas(key), module.published()[key]
    assert theirs["correct_False"] == pytest.approx(95)
    assert ours["kappa_False"] == pytest.approx(0.9, abs=0.005)
    assert theirs["kappa_False"] == pytest.approx(0.268, abs=0.001)


def test_what_our_default_rule_makes_of_the_same_texts(llmbar: tuple[ModuleType, dict[str, Any]]) -> None:
    """317 texts match both patterns, two of which are cut off: these and the other cut-off ones are no verdicts."""
    assert llmbar[1]["why"] == {
        "strict: both patterns match": 315,
        "strict: cut off by the token limit": 6,
        "our own form (“Verdict: A”)": 0,
    }


# -- QLoRA -----------------------------------------------------------------------------------------------------------


def test_every_text_of_qloras_tournament_is_read_as_its_publisher_read_it() -> None:
    found = load(recording("qlora_pairs"))
    assert found.parse is not None
    choice = pattern_choice(found.parse)
    own = {r.id: str(r.meta["id"]) for responses in found.responses.values() for r in responses}
    read = {(p, own[a], own[b]): choice.parse(replies[0]).label for (p, a, b), replies in found.replies.items()}
    score = {1: "A", 2: "B", 3: "C", -1: None}
    recorded = {
        (str(row["q"]), row["a1"], row["a2"]): score[row["score"]]
        for row in rows("qlora/vicuna_pairwise_gpt4.jsonl.gz")
    }
    assert len(read) == 4480 and read == recorded


def test_qloras_elo_is_within_a_point() -> None:
    shared("qlora")
    module = benchmark("qlora_elo")
    names = list(module.TABLE_1)
    first, second, won = module.games()
    assert len(won) == 4467
    # 13 points of standard deviation over orders: with 1,000 of them the mean is known to 0.4
    ratings = elo(first, second, won, len(names), np.random.default_rng(0), k=4, n_orders=1000).mean(axis=0)
    assert dict(zip(names, ratings, strict=True)) == pytest.approx(module.TABLE_1, abs=1.0)
    fitted = bradley_terry(first, second, won, len(names), order_effect=True)
    assert list(np.argsort(-fitted.strengths)) == list(range(len(names))), "Bradley–Terry ranks them alike"
    assert fitted.order * 400 / np.log(10) > 100, "GPT-4 favours the answer that it sees first"


def test_qloras_ratios_of_totals() -> None:
    """Table 6: 20 systems, both orders and the mean, to the digit that was published."""
    shared("qlora")
    module = benchmark("qlora_elo")
    found = module.ratios()
    assert len(found) == 36
    for name, published in module.TABLE_6.items():
        assert module.max_difference(found[name], published) <= 0.05 + 1e-9, (name, found[name], published)


def test_the_ids_and_not_the_file_names_say_who_was_shown_first() -> None:
    found = load(recording("qlora_relative"))
    shown = Counter()  # type: ignore[var-annotated]
    own = {r.id: str(r.meta["id"]) for responses in found.responses.values() for r in responses}
    for _, first, _ in found.replies:
        shown[own[first] == "gpt-3.5"] += 1
    assert shown == {True: 2880, False: 2880}
    names = [row["file"] for row in rows("qlora/vicuna_relative_gpt4.jsonl.gz")]
    assert sum(name.startswith("gpt-3.5-vs-") for name in names) == 2880
    ids = [row["answer_id"] for row in rows("qlora/generations_vicuna/answer_gpt35.jsonl.gz")]
    misnamed = sum(
        row["file"].startswith("gpt-3.5-vs-") != (row["a1"] in ids)
        for row in rows("qlora/vicuna_relative_gpt4.jsonl.gz")
    )
    assert misnamed == 5280, "the names would tell most of them the wrong way round"


# -- the others ------------------------------------------------------------------------------------------------------


def test_pandalms_annotators_agree_as_published() -> None:
    from sklearn.metrics import cohen_kappa_score

    gold = list(read_gold(recording("pandalm")))
    assert len(gold) == 999 and gold[0].raters == ["annotator1", "annotator2", "annotator3"]
    pairs = combinations(range(3), 2)
    found = [round(cohen_kappa_score([g.labels[i] for g in gold], [g.labels[j] for g in gold]), 2) for i, j in pairs]
    assert found == [0.85, 0.88, 0.86]


def test_wildbenchs_published_scores() -> None:
    """The mean over prompts, and (mean − 5)·2, of the systems in the data that the published table has."""
    by_system = defaultdict(list)
    for (_, system), score in scores(load(recording("wildbench"))).items():
        by_system[system].append(score)
    published = json.loads(shared("wildbench/score.json").read_text(encoding="utf-8"))
    compared = [system for system in by_system if system in published]
    assert len(by_system) == 8 and len(compared) == 7
    for system in compared:
        found = mean(by_system[system])
        said = published[system]
        assert (len(by_system[system]), found, (found - 5) * 2) == pytest.approx(
            (said["total"], said["score"], said["adjusted_score"]), abs=1e-12
        ), system


@pytest.mark.parametrize("model", JUDGEBENCH)
def test_judgebenchs_table_of_reward_models(model: str) -> None:
    """Compared with the paper's table, and each decision with the recorded one. Four pairs have equal scores: the
    publisher's B>A, ours a tie, wrong by either."""
    path = recording("judgebench")
    params = {"model": model}
    score = scores(load(path, params))
    decided = {
        row["pair_id"]: row["decision"]
        for row in rows("judgebench/reward_models_single_order.jsonl.gz")
        if row["judge_model"] == model
    }
    right: dict[str, list[bool]] = defaultdict(list)
    for gold in read_gold(path, params):
        a, b = score[gold.prompt_id, "A"], score[gold.prompt_id, "B"]
        verdict = "first" if a > b else "second" if b > a else "tie"
        assert decided[gold.prompt_id] == {"first": "A>B", "second": "B>A", "tie": "B>A"}[verdict]
        right[kind_of(gold.slices["source"])].append(verdict == gold.labels[0])
        right["all"].append(verdict == gold.labels[0])
    kinds = ("knowledge", "reasoning", "math", "coding", "all")
    assert tuple(round(100 * mean(right[kind]), 2) for kind in kinds) == JUDGEBENCH[model]


def kind_of(source: str) -> str:
    if source.startswith("mmlu-pro"):
        return "knowledge"
    return next(kind for kind in ("reasoning", "math", "coding") if kind[:4] in source or kind == "coding")
