"""A panel asks all its members at once, and keeps what they say apart."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif.config import JudgeSection, validate
from rlaif.engines.scripted import ScriptedEngine
from rlaif.errors import ConfigError
from rlaif.judges import build, find_files_of
from rlaif.judges.base import Task, planned
from rlaif.records import Judgment, Prompt, Reply, Response

PROMPT = Prompt(id="q", messages=[{"role": "user", "content": "Why is the sky blue?"}])
RESPONSES = [Response(id=i, prompt_id="q", text=f"Answer {i}.") for i in "ab"]
MEMBERS = {
    "plain": {"engine": "small"},
    "strict": {"engine": "small", "rubric": "honesty", "orders": "random"},
    "large": {"engine": "large", "constitution": "helpful-harmless-honest", "principles": "all"},
}


def section(members: dict[str, Any] = MEMBERS, **changes: Any) -> JudgeSection:
    raw = {"judge": "panel", "rubric": "helpfulness", "read": "text", "members": members, **changes}
    return validate(JudgeSection, raw, "judge")


def engine_of(role: str) -> ScriptedEngine:
    return ScriptedEngine(default="", model=role)


def judged(found: JudgeSection, answer=lambda request: Reply(text="Verdict: A", key=request.role)):
    """Judgments, and what was asked in each round."""
    run = build(found, engine_of)(Task(prompt=PROMPT, responses=RESPONSES))
    rounds = []
    try:
        requests = next(run)
        while True:
            rounds.append(requests)
            requests = run.send([answer(request) for request in requests])
    except StopIteration as end:
        judgments: list[Judgment] = end.value
        return judgments, rounds


def test_members_are_asked_at_once_and_told_apart():
    judgments, rounds = judged(section())
    n_principles = len({j.principle for j in judgments if j.member == "large"})
    assert n_principles > 1
    assert len(rounds) == 1 and len(rounds[0]) == 2 + 1 + 2 * n_principles
    by_member = {name: [j for j in judgments if j.member == name] for name in MEMBERS}
    assert [len(found) for found in by_member.values()] == [2, 1, 2 * n_principles]
    assert {name: {j.judge for j in found} for name, found in by_member.items()} == {
        "plain": {"small"}, "strict": {"small"}, "large": {"large"},
    }  # fmt: skip
    assert {j.rubric.split("@")[0] for j in by_member["strict"]} == {"honesty"}
    assert all(j.verdict == "first" for j in judgments)


def test_two_members_that_ask_the_same_have_different_judgments():
    judgments, rounds = judged(section({"one": {"engine": "small"}, "two": {"engine": "small"}}))
    assert len({j.id for j in judgments}) == 4
    assert rounds[0][:2] == rounds[0][2:], "the driver sends it once"


def test_the_same_task_asks_the_same_twice():
    assert judged(section()) == judged(section())


def test_a_fault_of_a_member_names_it():
    members = {"quick": {"engine": "small"}, "slow": {"engine": "small", "read": "rationale"}}
    found = section(members)
    with pytest.raises(
        ConfigError, match=r"judge\.members\.slow\.read: rationale, but engine 'small' gives no log-pr"
    ):
        build(found, engine_of)


def test_a_member_that_fails_leaves_the_others():
    judgments, _ = judged(
        section({"one": {"engine": "small"}, "two": {"engine": "large"}}),
        lambda request: Reply(error="connection: gone") if request.role == "large" else Reply(text="Verdict: B"),
    )
    assert [(j.member, j.status) for j in judgments] == [("one", "ok")] * 2 + [("two", "error")] * 2


def test_members_that_score_make_a_panel_that_scores():
    panel = build(section({"x": {"judge": "pointwise"}, "y": {"judge": "pointwise", "rubric": "honesty"}}), engine_of)
    assert panel.arity == 1


def test_a_plan_counts_each_member():
    panel = build(section({"x": {"engine": "small"}, "y": {"engine": "large", "orders": "random"}}), engine_of)
    requests = planned(panel, Task(prompt=PROMPT, responses=RESPONSES))
    assert [request.role for request in requests] == ["small", "small", "large"]


@pytest.mark.parametrize(
    ("members", "changes", "message"),
    [
        ({}, {}, r"judge\.members: a panel has two members or more, this one has 0"),
        ({"x": {}}, {}, "this one has 1"),
        (
            {"x": {}, "y": {"judge": "pointwise"}},
            {},
            "x looks at pairs of responses and y at single responses; the members of a panel look at the same",
        ),
        (
            {"x": {}, "y": {"judge": "panel", "members": {"z": {}, "w": {}}}},
            {},
            r"members\.y: a member .* asks one engine",
        ),
        ({"x": {}, "y": {"judge": "pairwize"}}, {}, r"judge\.members\.y\.judge: unknown judge 'pairwize'"),
        ({"x": {}, "y": {}}, {"options": {"size": 3}}, r"judge\.options: a panel has none"),
        ({"x": {}, "y": {}}, {"rubric": None}, r"judge\.members\.x: name a rubric or a constitution"),
        ({"x": {}, "y": {"rubrik": "honesty"}}, {}, "members.y.rubrik"),
    ],
)
def test_what_is_wrong_names_the_member(members, changes, message):
    with pytest.raises(ConfigError, match=message):
        build(section(members, **changes), engine_of)


def test_every_members_files_are_known():
    names = {path.name for path in find_files_of(section())}
    assert {"helpfulness.yaml", "honesty.yaml", "helpful-harmless-honest.yaml", "pairwise.jinja"} <= names
