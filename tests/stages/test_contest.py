"""More policies than two, best-of-n by a reward model, and reward models on pair sets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_evaluate import config, metrics_module, run  # noqa: F401 - a fixture of its own

from rlaif.config import EvaluateSection, Source
from rlaif.errors import ConfigError, DataError
from rlaif.records import Dropped, Prompt, Response
from rlaif.stages import contest
from rlaif.stages.reward_accuracy import accuracy, longer, pairs_of

PROMPT = Prompt(id="p", messages=[{"role": "user", "content": "?"}])


def response(text: str, sample: int = 0, **more: Any) -> Response:
    return Response(id=f"{sample}:{text}", prompt_id="p", text=text, sample=sample, **more)


def by_length(prompts: Sequence[Any], responses: Sequence[str], finished: Sequence[bool]) -> list[float]:
    return [len(text) - 100.0 * (not ended) for text, ended in zip(responses, finished, strict=True)]


def test_several_policies_meet_the_starting_one_and_each_other(tmp_path: Path) -> None:
    pipeline = config(tmp_path, ["one", "two"], evaluate__policies=["third"], evaluate__each_other=True, engines={
        **config(tmp_path, ["one"]).model_dump(mode="json")["engines"],
        "third": {"engine": "scripted", "replies": ["BAD too"], "model": "third"},
    })  # fmt: skip
    counts, result, folder = run(pipeline)
    assert result["win_rate"]["judge"]["value"] == 1, "the main comparison stays at the top"
    others = {(m["baseline"], m["policy"]): m["win_rate"]["judge"] for m in result["matches"]}
    assert others.keys() == {("before", "third"), ("after", "third")}
    assert others["after", "third"]["value"] == 0, "the better policy wins against the third"
    assert others["before", "third"] is None, "the judge has no word on two bad ones"
    assert counts["comparisons"] == 6
    assert {row.source for row in folder.read("evaluation/responses", Response)} == {"before", "after", "third"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policies": ["nobody"]}, "no engine 'nobody'"),
        ({"policies": ["new", "new"]}, "'new' is there twice"),
        ({"pairs": {"p": {"path": "p.jsonl"}}}, "name some under reward_models"),
        ({"prompts": None}, "held-out prompts are needed"),
        ({"best_of": {"reward": "x", "n": 1}}, "best_of.n"),
    ],
)
def test_a_wrong_contest_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline = config(tmp_path, ["one"], **{f"evaluate__{key}": value for key, value in changes.items()})
        contest.contestants_of(pipeline, "old")


def test_the_best_of_each_group_is_what_the_reward_model_likes_most() -> None:
    rows = [response("aa", 0), response("a", 1), response("b", 2), response("bbbb", 3, finish_reason="length")]
    (found,) = contest.best_of([PROMPT], [[*rows]], 2, by_length)
    assert [row.text for row in found] == ["aa", "b"], "one that was cut off is scored as such"


def test_a_failed_sample_is_never_the_best() -> None:
    fault = Dropped(stage="evaluate", reason="empty_response", id="x")
    (found,) = contest.best_of([PROMPT], [[fault, response(""), fault, fault]], 2, by_length)
    assert isinstance(found[0], Response) and found[1] == fault


def test_equals_are_decided_by_the_order_of_sampling() -> None:
    (found,) = contest.best_of([PROMPT], [[response("xy", 0), response("ab", 1)]], 2, by_length)
    assert found[0].text == "xy"


def write_pairs(path: Path, rows: list[dict[str, Any]]) -> Source:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Source(path=str(path))


def test_accuracy_by_domain_and_length(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a?", "domain": "x", "chosen": "long enough", "rejected": "short"},
        {"prompt": "b?", "domain": "x", "chosen": "short", "rejected": "long enough"},
        {"prompt": "c?", "domain": "y", "chosen": "one way", "rejected": "another"},
        {"prompt": "d?", "domain": "y", "chosen": "longer one here", "rejected": "no"},
    ]
    pairs = pairs_of(write_pairs(tmp_path / "p.jsonl", rows), "pairs", [])
    figures = accuracy(pairs, by_length, seed=0)
    # a and d right, b wrong, c a tie: (1 + 0 + ½ + 1) / 4
    assert figures["accuracy"]["value"] == pytest.approx(0.625) and figures["ties"] == 1
    assert figures["by_domain"]["x"]["value"] == 0.5 and figures["by_domain"]["y"]["value"] == 0.75
    lengths = {kind: found and found["value"] for kind, found in figures["by_length"].items()}
    assert lengths == {"chosen_longer": 1.0, "alike": 0.5, "rejected_longer": 0.0}
    # differences of length: +6, −6, 0, +13
    assert figures["margin"] == pytest.approx(
        3.25 / (sum((x - 3.25) ** 2 for x in (6, -6, 0, 13)) / 4) ** 0.5, abs=1e-6
    )


def test_every_chosen_meets_every_rejected(tmp_path: Path) -> None:
    styles = [{"text": f"{kind} {i}", "source": kind} for kind in ("chosen", "rejected") for i in range(3)]
    pairs = pairs_of(write_pairs(tmp_path / "p.jsonl", [{"prompt": "a?", "responses": styles}]), "pairs", [])
    assert len(pairs) == 9 and {(p.chosen.source, p.rejected.source) for p in pairs} == {("chosen", "rejected")}


def test_no_pair_is_said(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "p.jsonl", [{"prompt": "a?", "responses": ["x", "y"]}])
    with pytest.raises(DataError, match=r"evaluate.pairs.p: .*no prompt has a chosen and a rejected response"):
        pairs_of(source, "evaluate.pairs.p", [])


@pytest.mark.parametrize(
    ("a", "b", "kind"), [(12, 10, "chosen_longer"), (11, 10, "alike"), (10, 12, "rejected_longer")]
)
def test_a_length_differs_from_a_fifth_on(a: int, b: int, kind: str) -> None:
    from rlaif.stages.reward_accuracy import Pair

    assert longer(Pair(PROMPT, response("c" * a), response("r" * b))) == kind


def test_reward_models_alone_need_no_prompts() -> None:
    section = EvaluateSection(reward_models={"rm": "x"}, pairs={"p": Source(path="p.jsonl")})
    assert section.prompts is None
