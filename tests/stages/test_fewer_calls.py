"""Cascades and tournaments as runs: recorded whole, stopped and gone on with, planned, budgeted, made into labels."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlaif import io, pipeline
from rlaif.config import JudgeSection, Pipeline, validate
from rlaif.errors import BudgetReached, ConfigError, UserError
from rlaif.plan import dry_run
from rlaif.records import Judgment, Preference, Reply, Request, TokenLogprob
from rlaif.stages.selectors import Comparison, bradley_terry

QUESTIONS, RESPONSES = 4, 6


def answer(request: Request) -> Reply:
    """Longer is better. The small judge (role cheap) is unsure of questions 0 and 1, the strong one never."""
    text = str(request.messages[-1]["content"])
    first, second = sorted((text.find(f"<{name}>"), name) for name in "abcdef" if f"<{name}>" in text)
    lead = ord(first[1]) - ord(second[1])
    unsure = request.role == "cheap" and ("Question 0" in text or "Question 1" in text)
    p = 0.55 if unsure else 0.9
    p = p if lead > 0 else 1 - p
    listed = [("A", math.log(p)), ("B", math.log(1 - p))]
    return Reply(text="A" if p > 0.5 else "B", logprobs=[TokenLogprob(*max(listed, key=lambda x: x[1]), listed)])


def config(folder: Path, judge: dict[str, Any], **sections: Any) -> Pipeline:
    folder.mkdir(exist_ok=True)
    rows = [
        {"prompt": f"Question {i}?", "responses": [f"{i} <{name}>" for name in "abcdef"[:RESPONSES]]}
        for i in range(QUESTIONS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = {"engine": "scripted", "function": f"{__name__}:answer", "logprobs": True}
    raw = {
        "run": str(folder / "run"),
        "seed": 5,
        "engines": {"cheap": {**engine, "model": "small"}, "strong": {**engine, "model": "large"}},
        "prompts": {"path": str(folder / "rows.jsonl")},
        "judge": {"rubric": "helpfulness", **judge},
        "pair": {"select": "bradley_terry"},
        **sections,
    }
    return validate(Pipeline, raw, "p.yaml")


CASCADE = {
    "judge": "cascade",
    "pairs": "adjacent",
    "members": {"quick": {"engine": "cheap"}, "thorough": {"engine": "strong"}},
    "options": {"threshold": 0.8},
}
TOURNAMENT = {"judge": "tournament", "engine": "strong"}
PAIRS = QUESTIONS * RESPONSES  # around the ring
# the judge section, requests that it sends, requests that the plan says
MODES: dict[str, tuple[dict[str, Any], int, int]] = {
    "cascade": (CASCADE, 2 * PAIRS + 2 * PAIRS // 2, 4 * PAIRS),
    "tournament": (TOURNAMENT, QUESTIONS * 2 * (RESPONSES - 1), QUESTIONS * 2 * (RESPONSES - 1)),
}


def judgments_of(folder: Path) -> list[Judgment]:
    return list(io.read_table(folder / "run" / "judgments.jsonl", Judgment))


@pytest.mark.parametrize("name", MODES)
def test_a_run_is_recorded_whole_and_another_asks_nothing(name: str, tmp_path: Path) -> None:
    judge, n_sent, _ = MODES[name]
    pipe = config(tmp_path, judge)
    first = pipeline.run(pipe, quiet=True)["stages"]
    assert first["judge"]["requests"]["sent"] == n_sent
    judgments = judgments_of(tmp_path)
    assert len({judgment.id for judgment in judgments}) == len(judgments) == n_sent
    before = (tmp_path / "run" / "judgments.jsonl").read_bytes()
    again = pipeline.run(pipe, ["judge"], quiet=True, force=True)["stages"]["judge"]
    assert again["requests"]["sent"] == 0
    assert (tmp_path / "run" / "judgments.jsonl").read_bytes() == before
    preferences = list(io.read_table(tmp_path / "run" / "preferences.jsonl", Preference))
    assert len(preferences) == QUESTIONS
    texts = {row["id"]: row["text"] for row in map(json.loads, (tmp_path / "run" / "responses.jsonl").open())}
    assert all("<f>" in texts[row.chosen_id] and "<a>" in texts[row.rejected_id] for row in preferences)


@pytest.mark.parametrize("name", MODES)
def test_a_run_that_stops_in_the_middle_goes_on_to_the_same_bytes(name: str, tmp_path: Path) -> None:
    judge, n_sent, _ = MODES[name]
    pipeline.run(config(tmp_path / "whole", judge), quiet=True)
    for most in (n_sent // 3, n_sent // 3):
        with pytest.raises(BudgetReached, match="max_requests"):
            pipeline.run(config(tmp_path / "parts", judge, budget={"max_requests": most}), quiet=True)
    last = pipeline.run(config(tmp_path / "parts", judge), quiet=True)["stages"]["judge"]
    assert last["requests"]["sent"] == n_sent - 2 * (n_sent // 3), "what was paid for is not paid for again"
    for table in ("judgments.jsonl", "preferences.jsonl"):
        parts, whole = (tmp_path / folder / "run" / table for folder in ("parts", "whole"))
        assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", MODES)
def test_the_plan_is_an_upper_bound_and_says_what_is_typical(name: str, tmp_path: Path) -> None:
    judge, n_sent, n_planned = MODES[name]
    plan = dry_run(config(tmp_path, judge))
    counted = [
        int(line.split(" requests")[0].split()[-1]) for line in plan.splitlines() if line.startswith("  judge")
    ]
    assert sum(counted) == n_planned >= n_sent
    assert {"cascade": "asked of thorough: not known before, at most all", "tournament": "at most and typically"}[
        name
    ] in plan


def test_the_cascade_escalates_what_is_unsure(tmp_path: Path) -> None:
    manifest = pipeline.run(config(tmp_path, CASCADE), quiet=True)
    judgments = judgments_of(tmp_path)
    said = Counter((judgment.member, judgment.superseded) for judgment in judgments)
    assert said == {("quick", False): PAIRS, ("quick", True): PAIRS, ("thorough", False): PAIRS}
    assert manifest["stages"]["judge"]["counts"]["superseded"] == PAIRS


def test_the_budget_of_the_strong_judge(tmp_path: Path) -> None:
    most = PAIRS // 3
    for _ in range(2):
        with pytest.raises(
            BudgetReached, match=f"max_requests_of strong {most}: {most} sent; .* run the same command"
        ):
            pipeline.run(config(tmp_path, CASCADE, budget={"max_requests_of": {"strong": most}}), quiet=True)
    done = pipeline.run(config(tmp_path, CASCADE, budget={"max_requests_of": {"strong": most}}), quiet=True)
    assert done["stages"]["judge"]["requests"]["sent"] == most, "what is in the journal is not counted again"
    with pytest.raises(ConfigError, match=r"budget\.max_requests_of\.weak: no engine 'weak'"):
        config(tmp_path, CASCADE, budget={"max_requests_of": {"weak": 1}})


def test_other_thresholds_make_the_stage_run_again(tmp_path: Path) -> None:
    path = tmp_path / "cascade.json"
    plan = {"members": ["quick", "thorough"], "agreement": 0.9, "confidence": 0.9}

    def run(level: float) -> Counter[bool]:
        thresholds = {"thresholds": {"quick": level, "thorough": 0.0}, "promised": False}
        path.write_text(json.dumps({**plan, "slices": {"*": thresholds}}))
        pipeline.run(config(tmp_path, {**CASCADE, "options": {"thresholds": str(path)}}), quiet=True)
        return Counter(judgment.superseded for judgment in judgments_of(tmp_path))

    assert run(0.5) == {False: 2 * PAIRS}
    assert run(0.8) == {False: 2 * PAIRS, True: PAIRS}


def test_a_tournament_that_cannot_pay_for_one_comparison_is_one_line(tmp_path: Path) -> None:
    pipe = config(tmp_path, {**TOURNAMENT, "orders": "both", "options": {"calls": 1}})
    for refuses in (lambda: dry_run(pipe), lambda: pipeline.run(pipe, quiet=True)):
        with pytest.raises(UserError, match="calls: 1 does not pay for one comparison, which takes 2 requests"):
            refuses()


def test_evaluation_asks_the_last_word_about_two() -> None:
    """Two policies' answers are compared by the judge whose word counts, as a plain one."""
    cascade = JudgeSection(rubric="helpfulness", **CASCADE)
    assert (cascade.last_word.judge, cascade.last_word.engine, cascade.last_word.members) == (
        "pairwise",
        "strong",
        {},
    )
    alone = JudgeSection(rubric="helpfulness", **TOURNAMENT, options={"calls": 9})
    assert (alone.last_word.judge, alone.last_word.engine, alone.last_word.options) == ("pairwise", "strong", {})
    within = JudgeSection(judge="tournament", members={"one": {"rubric": "honesty", **CASCADE}}, orders="both")
    assert (within.last_word.engine, within.last_word.rubric) == ("strong", "honesty")
    assert [leaf.engine for leaf in within.leaves] == within.roles == ["cheap", "strong"]
    plain = JudgeSection(rubric="helpfulness")
    assert plain.last_word is plain


# -- the selector


def met(first: str, second: str, difference: float, *ids: str) -> Comparison:
    return Comparison(prompt_id="p", first_id=first, second_id=second, difference=difference,
                      judgment_ids=list(ids or (f"{first}{second}",)))  # fmt: skip


def test_strength_of_opponents_counts() -> None:
    """By mean P(win) d, who beat the weak e only, is nearly as good as a, who beat b and c."""
    comparisons = [met("a", "b", 1), met("a", "c", 1), met("b", "e", 1), met("d", "e", 0.9), met("b", "c", -0.2)]
    (found,) = bradley_terry(comparisons)
    assert (found.first_id, found.second_id) == ("a", "e")
    assert 0 < found.difference < 1, "they did not meet: the model's own probability"
    assert set(found.judgment_ids) == {"ab", "ac", "be", "de"}


def test_those_who_met_are_labelled_by_their_own_comparison() -> None:
    (found,) = bradley_terry([met("a", "b", 0.4), met("b", "c", 0.3), met("a", "c", 0.9)])
    assert (found.first_id, found.second_id, found.difference, found.drop) == ("a", "c", 0.9, None)
    upset = [met("a", "b", 1), met("a", "c", 1), met("b", "d", 1), met("c", "d", 1), met("a", "d", -0.1)]
    (found,) = bradley_terry(upset)
    assert (found.first_id, found.second_id, found.drop) == ("a", "d", "contradiction")


def test_a_comparison_in_both_orders_counts_twice() -> None:
    """b and c each lost to a by the same; b's loss was seen in both orders, so b is the surer worst."""
    (found,) = bradley_terry([met("a", "b", 0.8, "j1", "j2"), met("a", "c", 0.8, "j3")])
    assert (found.first_id, found.second_id) == ("a", "b")


def test_equals_are_told_apart_by_id_alone() -> None:
    comparisons = [met("b", "c", 0.0), met("a", "b", 0.0)]
    assert [(c.first_id, c.second_id) for c in bradley_terry(comparisons)] == [("a", "c")]
    assert list(bradley_terry(comparisons)) == list(bradley_terry(comparisons[::-1]))
