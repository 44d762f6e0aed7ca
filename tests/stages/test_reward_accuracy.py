"""Reward models on public pair sets, by configuration alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shared_data import DATA, shared

from rlaif.config import Pipeline, Source, validate
from rlaif.stages import evaluate
from rlaif.stages.base import Context
from rlaif.stages.reward_accuracy import accuracy, pairs_of
from rlaif.store import RunFolder

RM_BENCH = Path(__file__).parents[2] / "pipelines" / "recordings" / "rm_bench.yaml"


@pytest.mark.parametrize(("part", "n_prompts"), [("chat", 129), ("safety-response", 157)])
def test_a_score_by_length_on_rm_bench(part: str, n_prompts: int) -> None:
    """Every right response meets every wrong one, and what likes length is told by the figures by length."""
    shared("rm-bench")
    source = Source(path=str(RM_BENCH), params={"data": str(DATA), "part": part})
    pairs = pairs_of(source, "pairs", [])
    assert len({pair.prompt.id for pair in pairs}) == n_prompts
    assert len(pairs) == pytest.approx(9 * n_prompts, rel=0.02), "texts that stand twice are one response"
    figures = accuracy(pairs, lambda prompts, texts, finished: [float(len(text)) for text in texts], seed=0)
    wins = [
        (len(p.chosen.text) > len(p.rejected.text)) + (len(p.chosen.text) == len(p.rejected.text)) / 2 for p in pairs
    ]
    assert figures["accuracy"]["value"] == pytest.approx(sum(wins) / len(wins), abs=1e-6)
    assert figures["by_length"]["chosen_longer"]["value"] == 1.0
    assert figures["by_length"]["rejected_longer"]["value"] == 0.0


@pytest.mark.integration
def test_a_reward_model_of_its_own_folder_in_evaluate(tmp_path: Path) -> None:
    """A real classifier scores a pair set; slow: torch and transformers are imported."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    policy = Path(__file__).parents[2] / "data" / "tiny" / "judge"
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    torch.nn.init.normal_(model.score.weight)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    rows = [{"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "I do not know."} for i in range(20)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw: dict[str, Any] = {
        "run": str(tmp_path / "run"),
        "evaluate": {
            "reward_models": {"mine": str(tmp_path / "rm")},
            "pairs": {"mine": {"path": str(tmp_path / "pairs.jsonl")}},
        },
    }
    with RunFolder(tmp_path / "run") as folder:
        counts = evaluate.run(Context(validate(Pipeline, raw, "test"), folder, quiet=True))
        figures = json.loads((folder.path / "evaluation" / "evaluation.json").read_text())["reward_models"]["mine"][
            "mine"
        ]
    assert counts["reward_models"] == 1 and figures["n"] == 20
    one_at_a_time = 0
    for row in rows:
        scores = []
        for text in (row["chosen"], row["rejected"]):
            messages = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": text}]
            ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
            scores.append(model.eval()(**ids).logits.item())
        one_at_a_time += scores[0] > scores[1]
    assert figures["accuracy"]["value"] == pytest.approx(one_at_a_time / 20, abs=0.051)
