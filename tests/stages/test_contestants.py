"""What is measured of each policy of an evaluation: pure figures by hand, reasons for what cannot be had, and local
policies against their own log-probs."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_evaluate import config, metrics_module, run  # noqa: F401 - a fixture of its own

from rlaif.checks import check
from rlaif.config import Pipeline, Sampler, validate
from rlaif.errors import ConfigError, DataError
from rlaif.records import Dropped, Prompt, Reply, Response
from rlaif.stages.contest import Contestant
from rlaif.stages.forgetting import skill_figures
from rlaif.stages.local_policies import _no_samples, kl_figures
from rlaif.stages.paired import Paired, Row, rows_of
from rlaif.store import RunFolder
from rlaif.training.likelihood import KL

sys.path.append(str(Path(__file__).parents[1] / "training"))
from training_data import build_model

PROMPTS = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"is it good {i}"}]) for i in range(3)]
CLUSTERS = {(i, k): f"p{i}" for i in range(3) for k in range(2)}


def response(i: int, k: int, text: str = "yes", **more: Any) -> Response:
    return Response(id=f"{i}-{k}", prompt_id=f"p{i}", text=text, sample=k, **more)


# -- pure ----------------------------------------------------------------------------------------------------------


def test_a_difference_is_over_the_places_that_both_have() -> None:
    start = {(0, 0): 1.0, (0, 1): 2.0, (1, 0): 5.0}
    ours = {(0, 0): 2.0, (0, 1): None, (1, 0): 9.0, (2, 0): 100.0}
    found = Paired(CLUSTERS, 0).side(ours, start)
    assert found["mean"]["value"] == 37 and found["mean"]["n"] == 3
    assert found["difference"]["value"] == pytest.approx((1 + 4) / 2) and found["difference"]["n"] == 2
    assert Paired(CLUSTERS, 0).side(ours, None)["difference"] is None


def test_a_ratio_is_of_sums_and_its_interval_over_prompts() -> None:
    nats = {(0, 0): 1.0, (0, 1): 3.0, (1, 0): 8.0}
    tokens = {(0, 0): 10.0, (0, 1): 10.0, (1, 0): 20.0}
    found = Paired(CLUSTERS, 0).ratio(nats, tokens)
    assert found is not None and found["value"] == pytest.approx(12 / 40)
    # of two prompts a resample draws one twice or both: 4/20, 12/40 or 8/20
    assert (found["low"], found["high"]) == (pytest.approx(0.2), pytest.approx(0.4))


def test_faults_leave_gaps_and_move_nobody() -> None:
    fault = Dropped(stage="evaluate", reason="empty_response", id="x")
    found = rows_of(PROMPTS[:2], [[fault, response(0, 1)], [response(1, 0), fault]])
    assert [row.place for row in found] == [(0, 1), (1, 0)]


def test_skill_figures_are_over_tokens() -> None:
    start = [np.log([0.5, 0.5]), np.log([0.25])]
    ours = [np.log([0.25, 0.5]), np.log([0.125])]
    found = skill_figures(ours, start, {(0, 0): 1.0, (1, 0): 0.0}, {(0, 0): 1.0, (1, 0): 1.0}, seed=0)
    two = math.log(2)
    assert found["nll"]["mean"]["value"] == pytest.approx((2 + 1 + 3) * two / 3, abs=1e-6)
    assert found["nll"]["difference"]["value"] == pytest.approx((1 + 0 + 1) * two / 3, abs=1e-6)
    assert found["perplexity"] == pytest.approx(4.0)
    assert found["accuracy"]["mean"]["value"] == 0.5 and found["accuracy"]["difference"]["value"] == -0.5
    other_tokens = skill_figures(ours, [start[0], start[0]], None, None, seed=0)
    assert other_tokens["nll"]["difference"] is None, "tokens of another tokenizer are not paired"
    assert skill_figures(None, None, None, None, seed=0) == {"nll": None, "perplexity": None, "accuracy": None}


POLICY = Contestant("p", Sampler(engine="e", n=1))


@pytest.mark.parametrize(
    ("changes", "thinking", "message"),
    [
        ({"temperature": 0.0}, None, "greedy replies"),
        ({"top_p": 0.9}, None, r"top_p 0.9 cuts the distribution"),
        ({"stop": ["\n"]}, None, "stop strings"),
        ({"extra": {"top_k": 5}}, None, "extra.top_k: which distribution"),
        ({}, "hm", "without the thinking"),
    ],
)
def test_what_was_not_drawn_from_the_policy_has_no_kl(
    changes: dict[str, Any], thinking: str | None, message: str
) -> None:
    rows = [Row((0, 0), PROMPTS[0], response(0, 0, thinking=thinking))]
    contestant = POLICY._replace(sampler=POLICY.sampler.model_copy(update=changes))
    assert message in str(_no_samples(contestant, rows))
    kept = POLICY._replace(sampler=Sampler(engine="e", n=1, extra={"chat_template_kwargs": {"x": 1}}))
    assert _no_samples(kept, [Row((0, 0), PROMPTS[0], response(0, 0))]) is None


def test_best_of_n_has_a_bound_where_it_is_of_the_start() -> None:
    best = Contestant("best_of_4", Sampler(engine="e", n=1), 4, "rm")
    paired = Paired(CLUSTERS, 0)
    found = kl_figures("chosen among several samples", best, POLICY, {}, paired)
    assert found["per_response"] is None and found["upper_bound"] == pytest.approx(math.log(4) - 0.75, abs=1e-6)
    other = POLICY._replace(sampler=Sampler(engine="other", n=1))
    assert "upper_bound" not in kl_figures("chosen", best, other, {}, paired)


def test_kl_figures_by_hand() -> None:
    values = KL([1.0, 3.0], [2.0, 2.0], [4, 4])
    found = kl_figures(values, POLICY, POLICY, {(0, 0): 4.0, (1, 0): 5.0}, Paired(CLUSTERS, 0))
    assert found["per_response"]["value"] == 2 and found["per_token"]["value"] == 0.5
    assert found["k3_per_response"]["value"] == 2 and found["k3_per_token"]["value"] == 0.5
    assert found["temperature"] == 1.0 and found["as_written"] == 0.5


def test_the_doc_has_every_key() -> None:
    doc = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = doc.split("### `contestants` of `evaluation.json`")[1].split("\n## ")[0]
    whole, kl = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    documented = [re.findall(r"^\| `(\w+)` ", table, re.MULTILINE) for table in (whole, kl)]
    assert documented[0] == ["n", "length", "finished", "reward", "distinct", "kl", "skills"]
    rows = {(0, 0): 4.0}
    had = kl_figures(KL([1.0], [1.0], [4]), POLICY, POLICY, rows, Paired(CLUSTERS, 0))
    bound = kl_figures("why", POLICY._replace(best_of=2, reward="rm"), POLICY, {}, Paired(CLUSTERS, 0))
    assert documented[1] == list(dict.fromkeys([*had, *bound]))


# -- the stage, on scripted engines --------------------------------------------------------------------------------


def write_skill(tmp_path: Path) -> str:
    path = tmp_path / "skill.jsonl"
    rows = [{"prompt": "say GOOD", "completion": "GOOD", "answer": "good"}, {"prompt": "empty", "completion": "x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_policies_that_are_no_folders_give_a_reason_and_the_rest(tmp_path: Path) -> None:
    skills = {"words": {"dataset": write_skill(tmp_path), "greedy": True}}
    pipeline = config(tmp_path, ["one", "two two"], evaluate__kl=True, evaluate__skills=skills)
    _, result, _ = run(pipeline)
    start, after = result["contestants"]["before"], result["contestants"]["after"]
    assert start["length"]["words"] == {"mean": {"value": 3.0, "low": 3.0, "high": 3.0, "n": 2}, "difference": None}
    assert after["length"]["words"]["difference"]["value"] == 0  # "the BAD one", "a GOOD one"
    assert after["distinct"] == {"1": 0.5, "2": 0.5}
    reason = "it is served by scripted: there is no model folder to load"
    assert after["kl"] == {"per_response": None, "per_token": None, "reason": reason}
    words = after["skills"]["words"]
    assert words["nll"] is None and words["reason"] == reason and words["n"] == 2
    # "say GOOD" gets "a GOOD one": right; "empty" gets " ": not the completion
    assert words["accuracy"]["mean"]["value"] == 0.5 and words["accuracy"]["difference"]["value"] == 0.5


def test_nothing_is_loaded_or_asked_that_was_not_asked_for(tmp_path: Path) -> None:
    counts, result, _ = run(config(tmp_path, ["one"]))
    assert counts["comparisons"] == 1
    assert result["contestants"].keys() == {"before", "after"}
    assert list(result["contestants"]["after"]) == ["n", "length", "finished", "distinct"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"skills": {"x": {"dataset": "nowhere.jsonl"}}},
            r"evaluate.skills.x.dataset: nowhere.jsonl: no such dataset",
        ),
        ({"skills": {"x": {}}}, "evaluate.skills.x.dataset"),
        ({"skills": {"x": {"dataset": "a", "answers": True}}}, "answers"),
        ({"kl": "maybe"}, "evaluate.kl"),
        ({"pairs": {"p": {"path": "p.jsonl"}}}, "name some under reward_models"),
    ],
)
def test_a_wrong_section_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        pipeline = config(tmp_path, ["one"], **{f"evaluate__{key}": value for key, value in changes.items()})
        check(pipeline, RunFolder(pipeline.run), ["evaluate"])
    assert len(str(error.value).splitlines()) == 1


def test_a_skill_without_rows_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "skill.jsonl").write_text('{"prompt": "?", "completion": ""}\n')
    pipeline = config(tmp_path, ["one"], evaluate__skills={"x": {"dataset": str(tmp_path / "skill.jsonl")}})
    with pytest.raises(DataError, match="row 0: prompt or completion is empty"):
        run(pipeline)
    assert not (tmp_path / "run" / "journal.jsonl").exists()


# -- the stage, on models ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A random policy, and the same with its weights shaken."""
    import torch
    from transformers import AutoModelForCausalLM

    one = build_model(tmp_path_factory.mktemp("policies") / "one")
    other = shutil.copytree(one, one.parent / "other")
    model = AutoModelForCausalLM.from_pretrained(one)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(other)
    return one, other


@pytest.fixture(scope="module")
def evaluated(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """An evaluation of both and of the first once more, in this process: its figures, and the run folder."""
    tmp_path = tmp_path_factory.mktemp("run")
    (tmp_path / "held.jsonl").write_text("".join(f'{{"prompt": "is it good {i}"}}\n' for i in range(6)))
    (tmp_path / "skill.jsonl").write_text('{"prompt": "is it good", "completion": "yes"}\n')
    engines: dict[str, Any] = {
        name: {"engine": "transformers", "model": str(folder)}
        for name, folder in (("one", folders[0]), ("other", folders[1]), ("again", folders[0]))
    }
    pipeline = {
        "run": str(tmp_path / "run"),
        "engines": engines | {"judge": {"engine": "scripted", "replies": [{"reply": "Verdict: A"}]}},
        "judge": {"rubric": "helpfulness"},
        "evaluate": {
            "prompts": {"path": str(tmp_path / "held.jsonl")}, "before": "one", "after": "other",
            "policies": ["again"], "judges": ["judge"], "n": 2, "max_tokens": 8, "kl": True, "temperature": 0.7,
            "skills": {"yes": {"dataset": str(tmp_path / "skill.jsonl")}},
        },
    }  # fmt: skip
    _, result, folder = run(validate(Pipeline, pipeline, "test"))
    return result["contestants"], folder.path


def test_a_policy_has_no_distance_from_itself(evaluated: tuple[dict[str, Any], Path]) -> None:
    found, _ = evaluated
    for name in ("before", "again"):
        for figure in ("per_response", "per_token", "k3_per_response", "k3_per_token"):
            assert found[name]["kl"][figure]["value"] == 0.0
    assert found["again"]["skills"]["yes"]["nll"]["difference"]["value"] == 0.0


def test_kl_to_another_policy_is_what_its_responses_give_one_by_one(
    evaluated: tuple[dict[str, Any], Path], folders: tuple[Path, Path]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders[0])
    start, ours = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval() for folder in folders)
    rows = [json.loads(line) for line in (evaluated[1] / "evaluation" / "responses.jsonl").read_text().splitlines()]
    asked = {row["id"]: row for row in map(json.loads, (evaluated[1] / "evaluation" / "prompts.jsonl").open())}
    k1, n_tokens = [], 0
    for row in (row for row in rows if row["source"] == "after"):
        messages = asked[row["prompt_id"]]["messages"]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        text = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        text = text if row["finish_reason"] == "length" else [*text, tokenizer.eos_token_id]
        ids = torch.tensor([[*prompt, *text]])
        with torch.no_grad():
            a, b = ((model(ids).logits[0, :-1] / 0.7).log_softmax(-1) for model in (ours, start))
        k1.append(sum(float((a - b)[at - 1, ids[0, at]]) for at in range(len(prompt), ids.shape[1])))
        n_tokens += len(text)
    found = evaluated[0]["after"]["kl"]
    assert len(k1) == evaluated[0]["after"]["n"] > 6 and max(k1) > 0.1
    assert found["per_response"]["value"] == pytest.approx(sum(k1) / len(k1), abs=1e-4)
    assert found["per_token"]["value"] == pytest.approx(sum(k1) / n_tokens, abs=1e-5)
    assert found["temperature"] == 0.7 and found["k3_per_response"]["low"] >= 0
    assert found["as_written"] < 1, "random bytes are cut otherwise when they are read as text"


def test_a_skill_is_measured_under_each_policy(evaluated: tuple[dict[str, Any], Path]) -> None:
    skill = evaluated[0]["after"]["skills"]["yes"]
    assert skill["nll"]["difference"]["value"] != 0 and skill["accuracy"] is None
    assert skill["perplexity"] == pytest.approx(math.exp(skill["nll"]["mean"]["value"]), rel=1e-5)


def test_a_reply_that_failed_is_neither_right_nor_wrong() -> None:
    from rlaif.config import EvaluateSection
    from rlaif.stages.forgetting import marked
    from rlaif.training.skills import Demonstration

    section = EvaluateSection.model_validate(
        {"prompts": {"path": "x"}, "skills": {"a": {"dataset": "x", "greedy": True}, "b": {"dataset": "x"}}}
    )
    skills = {"a": [Demonstration([], "yes")] * 3, "b": [Demonstration([], "yes")]}
    replies = [Reply(text="yes"), Reply(text="", error="refused: no"), Reply(text="no")]
    assert marked(section, skills, replies) == {"a": {(0, 0): 1.0, (1, 0): None, (2, 0): 0.0}}
