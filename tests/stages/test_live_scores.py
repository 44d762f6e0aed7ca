"""Judgments of a rollout as scores, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from rlaif.config import PairSection
from rlaif.records import FIRST, SECOND, Judgment, Prompt, Response
from rlaif.rubric import Criterion, Rubric, Scale
from rlaif.stages.live.groups import Group, Known, grouped, tasks_of
from rlaif.stages.live.scores import compared, pointwise
from rlaif.stages.pairing.standards import Standards

PROMPT = Prompt(id="p", messages=[{"role": "user", "content": "q"}])
PAIR = PairSection()


def group(*texts: str, opponents: list[str] | None = None) -> Group:
    """One prompt and its completions; a response's id is its text, so equal texts are one response."""

    def response(text: str) -> Response:
        return Response(id=text, prompt_id="p", text=text)

    fixed = None if opponents is None else [response(text) for text in opponents]
    return Group(PROMPT, {place: response(text) for place, text in enumerate(texts)}, fixed)


def pairwise(first: str, second: str, p: float | None, **more: Any) -> Judgment:
    said: dict[str, Any] = {"status": "error", "reason": "no reply"}
    if p is not None:
        said = {"verdict": FIRST if p > 0.5 else SECOND, "probabilities": {FIRST: p, SECOND: 1 - p}}
    return Judgment(id=f"{first}{second}{more}", prompt_id="p", response_ids=[first, second], **said, **more)


def scores_of(made: Group, judgments: list[Judgment], section: PairSection = PAIR, **options: Any) -> list[Any]:
    found = compared([made], judgments, section, Standards(), **options)
    return [found[place] for place in range(len(made.written))]


def test_a_score_is_the_mean_probability_of_winning() -> None:
    said = [pairwise("a", "b", 0.9), pairwise("a", "c", 0.7), pairwise("b", "c", 0.2)]
    assert scores_of(group("a", "b", "c"), said) == pytest.approx([0.8, (0.1 + 0.2) / 2, (0.3 + 0.8) / 2])


def test_both_orders_are_averaged_first() -> None:
    both = {"meta": {"orders": "both"}}
    said = [pairwise("a", "b", 0.9, **both), pairwise("b", "a", 0.5, **both)]  # P(a) = .9 and .5: a bias of .2
    assert scores_of(group("a", "b"), said) == pytest.approx([0.7, 0.3])


def test_the_same_text_is_a_tie_and_an_opponent_as_often_as_it_was_written() -> None:
    found = scores_of(group("a", "a", "b"), [pairwise("a", "b", 0.9)])
    assert found == pytest.approx([(0.5 + 0.9) / 2, (0.5 + 0.9) / 2, 0.1])
    assert scores_of(group("a", "a"), []) == [0.5, 0.5], "all alike: nobody needs to be asked"
    assert scores_of(group("a"), []) == ["alone"]


def test_what_failed_is_no_score() -> None:
    said = [pairwise("a", "b", None), pairwise("a", "c", None), pairwise("b", "c", 0.6)]
    assert scores_of(group("a", "b", "c"), said) == ["no_usable_judgment", pytest.approx(0.6), pytest.approx(0.4)]
    most = [pairwise("a", "b", 0.9), pairwise("a", "c", None), pairwise("a", "d", None)]
    assert scores_of(group("a", "b", "c", "d"), most)[0] == "no_usable_judgment", "one of three is too few"
    both = {"meta": {"orders": "both"}}
    half = [pairwise("a", "b", 0.9, **both), pairwise("b", "a", None, **both)]
    assert scores_of(group("a", "b"), half) == ["one_order_failed"] * 2
    assert scores_of(group("a", "b"), []) == ["no_principle_applies"] * 2


def test_orders_that_disagree_give_nothing_where_both_must_agree() -> None:
    said = [pairwise("a", "b", 0.9), pairwise("b", "a", 0.8)]
    assert scores_of(group("a", "b"), said, PairSection(order_policy="agree")) == ["orders_disagree"] * 2
    assert scores_of(group("a", "b"), said, PairSection(order_policy="vote")) == [0.5, 0.5]


def test_principles_count_by_weight_and_members_alike() -> None:
    weights = PairSection(principle_weights={"kind": 3.0})
    said = [pairwise("a", "b", 0.9, principle="kind"), pairwise("a", "b", 0.1, principle="short")]
    assert scores_of(group("a", "b"), said, weights) == pytest.approx([0.7, 0.3])  # ½ + ½·(3·.8 − .8)/4
    said = [pairwise("a", "b", 0.9, member="x"), pairwise("a", "b", 0.5, member="y")]
    assert scores_of(group("a", "b"), said) == pytest.approx([0.7, 0.3])


def test_a_place_in_a_list_is_the_share_of_the_others_below() -> None:
    said = [Judgment(id="l", prompt_id="p", response_ids=["a", "b", "c"], kind="listwise", ranking=["b", "a", "c"])]
    assert scores_of(group("a", "b", "c"), said) == [0.5, 1.0, 0.0]


def test_fixed_opponents() -> None:
    made = group("a", "b", opponents=["x", "y"])
    said = [pairwise("a", "x", 0.9), pairwise("a", "y", 0.5), pairwise("x", "b", 0.8), pairwise("y", "b", None)]
    assert scores_of(made, said) == pytest.approx([0.7, 0.2]), "half of its comparisons are enough"
    assert scores_of(group("a", opponents=[]), []) == ["no_opponent"]


def test_a_tournament_is_filled_by_its_model() -> None:
    """a beats b, b beats c, who never met: a stands highest, and against c higher than against b."""
    said = [pairwise("a", "b", 0.9), pairwise("b", "c", 0.9)]
    plain = scores_of(group("a", "b", "c"), said)
    a, b, c = scores_of(group("a", "b", "c"), said, fill=True)
    assert plain == pytest.approx([0.9, 0.5, 0.1])
    assert b == pytest.approx(0.5) and a == pytest.approx(1 - c) and a > 0.5


RUBRIC = Rubric(
    id="r",
    name="r",
    description="r",
    version="1",
    criteria=[
        Criterion(id="kind", description="how kind", weight=3.0, scale=Scale(min=1, max=5)),
        Criterion(id="safe", description="safe or not", scale=Scale(min=0, max=10), hard=True, pass_at=5),
    ],
)


def scored(response: str, kind: float | None, safe: float | None, **more: Any) -> Judgment:
    scores = {"kind": kind, "safe": safe}
    return Judgment(
        id=f"{response}{more}", prompt_id="p", response_ids=[response], kind="pointwise", rubric="r@1",
        scores=scores, **more,
    )  # fmt: skip


def values(made: Group, judgments: list[Judgment], section: PairSection = PAIR) -> list[Any]:
    found = pointwise([made], judgments, section, Standards([RUBRIC]))
    return [found[place] for place in range(len(made.written))]


def test_a_pointwise_score_is_on_a_scale_of_0_to_1() -> None:
    made = group("a", "b", "a")
    said = [scored("a", 5, 5), scored("b", 2, 10)]
    assert values(made, said) == pytest.approx([(3 * 1 + 0.5) / 4, (3 * 0.25 + 1) / 4, (3 * 1 + 0.5) / 4])
    weights = PairSection(principle_weights={"kind": 0.0})
    assert values(made, said, weights) == pytest.approx([0.5, 1.0, 0.5])


def test_what_fails_a_hard_criterion_is_worth_less_than_anything_that_passes() -> None:
    fails, passes = values(group("a", "b"), [scored("a", 5, 4), scored("b", 1, 5)])
    assert fails == pytest.approx((3 * 1 + 0.4) / 4 - 1) and passes == pytest.approx(0.125) and fails < 0


def test_half_a_score_is_none() -> None:
    failed = Judgment(
        id="x", prompt_id="p", response_ids=["b"], kind="pointwise", rubric="r@1", status="unparsed", reason="?"
    )
    assert values(group("a", "b"), [scored("a", 5, None), failed]) == ["not_judged", "judgment_unparsed"]
    panel = [scored("a", 5, 10, member="x"), scored("a", 1, 10, member="y"), scored("b", 5, 10, member="x")]
    assert values(group("a", "b"), panel) == [pytest.approx((1 + 0.25) / 2), "not_judged"]
    assert values(group("a"), []) == ["no_principle_applies"]


def rows(*pairs: tuple[Any, Any], **columns: Any) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "completion": completion, **columns} for prompt, completion in pairs]


def test_a_rollout_is_grouped_by_prompt() -> None:
    turn = [{"role": "user", "content": "q", "thinking": None}]
    answer = [{"role": "assistant", "content": "a", "reasoning_content": "hm"}]
    made = grouped(rows((turn, answer), ("other", "b"), (turn, answer), ("q", "c")), Known([PROMPT]), "group")
    assert [list(one.written) for one in made] == [[0, 2, 3], [1]], "text is the user's only turn"
    assert made[0].prompt is PROMPT and made[1].prompt.id != "p", "the run's own id where it is the run's prompt"
    assert [response.text for response in made[0].distinct] == ["a", "c"]
    again = grouped(rows(("other", "b")), Known(), "group")
    assert again[0].prompt.id == made[1].prompt.id and again[0].written[0].id == made[1].written[1].id


def test_what_a_judge_looks_at() -> None:
    made = group("a", "b", "a", "c", "d")
    assert [len(tasks_of(made, arity, "all", 0)) for arity in (1, 2, 0)] == [4, 6, 1]
    assert len(tasks_of(made, 2, "adjacent", 0)) == 4
    assert tasks_of(group("a", "a"), 2, "all", 0) == []
    against = group("a", "b", "a", opponents=["x", "y"])
    assert [[r.id for r in task.responses] for task in tasks_of(against, 2, "all", 0)] == [
        ["a", "x"], ["a", "y"], ["b", "x"], ["b", "y"],
    ]  # fmt: skip
    assert [[r.id for r in task.responses] for task in tasks_of(against, 0, "all", 0)] == [
        ["a", "x", "y"], ["b", "x", "y"],
    ]  # fmt: skip
    assert tasks_of(group("a", opponents=[]), 2, "all", 0) == []


def test_a_reference_that_one_is_compared_with_is_not_shown_beside() -> None:
    row = rows(("q", "a"), reference="the truth", domain="d")
    (made,) = grouped(row, Known(), "reference")
    assert made.opponents is not None and [one.text for one in made.opponents] == ["the truth"]
    assert made.prompt.reference is None and made.prompt.domain == "d"
    (plain,) = grouped(row, Known(), "group")
    assert plain.opponents is None and plain.prompt.reference == "the truth"


def test_responses_of_the_run_are_opponents() -> None:
    own = [Response(id=f"r{i}", prompt_id="p", text=str(i)) for i in range(3)]
    (made,) = grouped(rows(("q", "a")), Known([PROMPT], own, 2), "responses")
    assert made.opponents is not None and [one.id for one in made.opponents] == ["r0", "r1"]
    (none,) = grouped(rows(("other", "a")), Known([PROMPT], own, 2), "responses")
    assert none.opponents == []
