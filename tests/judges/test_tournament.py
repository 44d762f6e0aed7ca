"""Tournaments as generators: how many calls, who meets whom, who is shown first, and that the ends are found."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from judge_play import PROMPT, Able, built, play, soft, task

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges import build
from rlaif.judges.base import Judge, planned
from rlaif.judges.tournament import TournamentJudge
from rlaif.records import Judgment, Reply, Request, Response


def responses(n: int) -> list[Response]:
    return [Response(id=f"r{i}", prompt_id="p", text=f"answer number {i}") for i in range(n)]


def tournament(**section: Any) -> TournamentJudge:
    judge = built(logprobs=True, **{"judge": "tournament", "rubric": "helpfulness", **section})
    assert isinstance(judge, TournamentJudge)
    return judge


def by_number(request: Request) -> Reply:
    """The higher number is better, seen clearly, and the place shown first is worth something."""
    _, first, second = request.subject
    lead = int(first[1:]) - int(second[1:])
    return soft(A=min(0.95, max(0.05, 0.5 + 0.2 * lead + 0.05)), B=1 - min(0.95, max(0.05, 0.5 + 0.2 * lead + 0.05)))


def pairs_of(judgments: list[Judgment]) -> list[tuple[str, str]]:
    return [(j.response_ids[0], j.response_ids[1]) for j in judgments]


@pytest.mark.parametrize("scheme", ["best_worst", "swiss", "random"])
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_the_default_is_two_knockouts_worth_of_calls(scheme: str, n: int) -> None:
    rounds, judgments = play(tournament(options={"scheme": scheme}), task(*responses(n)), by_number)
    assert sum(len(requests) for requests in rounds) == len(judgments) == 2 * (n - 1)
    assert len(set(pairs_of(judgments))) == len(judgments), "no question is asked twice"
    assert {id_ for pair in pairs_of(judgments) for id_ in pair} == {f"r{i}" for i in range(n)}, "nobody is left out"


def test_both_orders_cost_twice_and_are_asked_together() -> None:
    rounds, judgments = play(tournament(orders="both"), task(*responses(8)), by_number)
    assert sum(len(requests) for requests in rounds) == 14
    met = Counter(frozenset(pair) for pair in pairs_of(judgments))
    assert len(met) == 7 and set(met.values()) == {2}
    assert all(judgment.meta["orders"] == "both" for judgment in judgments)


@pytest.mark.parametrize(
    ("calls", "orders", "asked"), [(5, "random", 5), (5, "both", 4), (1000, "random", 56), (1000, "both", 56)]
)
def test_calls_are_a_limit_that_is_never_passed(calls: int, orders: str, asked: int) -> None:
    judge = tournament(orders=orders, options={"calls": calls})
    rounds, _ = play(judge, task(*responses(8)), by_number)
    assert sum(len(requests) for requests in rounds) == asked
    assert len(planned(judge, task(*responses(8)))) == asked, "the plan says as many"


def test_every_request_counts_also_one_that_gives_no_verdict() -> None:
    def refuses(request: Request) -> Reply:
        return Reply(text="", finish_reason="refusal")

    rounds, judgments = play(tournament(options={"calls": 9}), task(*responses(6)), refuses)
    assert sum(len(requests) for requests in rounds) == 9
    assert {judgment.status for judgment in judgments} == {"refused"}


def test_principles_are_counted() -> None:
    many = {"rubric": None, "constitution": "helpful-harmless-honest", "principles": "all"}
    rounds, judgments = play(tournament(**many, options={"calls": 100}), task(*responses(6)), by_number)
    a_comparison = len({judgment.principle for judgment in judgments})
    assert a_comparison > 1
    assert sum(len(requests) for requests in rounds) == 100 - 100 % a_comparison
    too_few = tournament(**many, options={"calls": a_comparison - 1})
    says = f"calls: {a_comparison - 1} does not pay for one comparison, which takes {a_comparison} requests"
    with pytest.raises(ConfigError, match=says):
        play(too_few, task(*responses(6)), by_number)
    with pytest.raises(ConfigError, match=says):
        planned(too_few, task(*responses(6)))


def test_a_judge_in_two_steps_is_counted_whole() -> None:
    def reasons_first(request: Request) -> Reply:
        return by_number(request) if request.labels else Reply(text="Because.")

    rounds, judgments = play(tournament(read="rationale", options={"calls": 13}), task(*responses(6)), reasons_first)
    assert sum(len(requests) for requests in rounds) == 12, "the 13th call would not pay for a comparison"
    assert len(judgments) == 6


def test_equal_texts_cost_nothing() -> None:
    same = [Response(id=f"s{i}", prompt_id="p", text="the same") for i in range(4)]
    rounds, judgments = play(tournament(), task(*same), by_number)
    assert sum(len(requests) for requests in rounds) == 0
    assert all(judgment.verdict == "tie" for judgment in judgments)


def test_each_is_shown_first_about_as_often_as_second() -> None:
    for seed in range(5):
        _, judgments = play(tournament(), task(*responses(8), seed=seed), by_number)
        lean = Counter(first for first, _ in pairs_of(judgments))
        lean.subtract(second for _, second in pairs_of(judgments))
        assert all(abs(value) <= 3 for value in lean.values()), lean
        assert all(judgment.meta["orders"] == "random" for judgment in judgments), "one order, drawn"


def test_who_is_shown_first_is_drawn() -> None:
    first = Counter(
        play(tournament(), task(*responses(2), seed=s), by_number)[1][0].response_ids[0] for s in range(60)
    )
    assert 15 < first["r0"] < 45


def test_best_and_worst_meet_most_and_the_middle_least() -> None:
    meetings: Counter[str] = Counter()
    for seed in range(20):
        _, judgments = play(tournament(), task(*responses(8), seed=seed), by_number)
        meetings.update(id_ for pair in pairs_of(judgments) for id_ in pair)
    ends = min(meetings["r0"], meetings["r7"], meetings["r1"], meetings["r6"])
    assert ends > max(meetings["r3"], meetings["r4"])


def test_a_swiss_round_gives_everybody_one_comparison() -> None:
    _, judgments = play(tournament(options={"scheme": "swiss"}), task(*responses(8)), by_number)
    by_round: dict[int, list[str]] = {}
    for judgment in judgments:
        by_round.setdefault(judgment.meta["round"], []).extend(judgment.response_ids)
    assert [len(ids) for ids in by_round.values()] == [8, 8, 8, 4]
    assert all(len(set(ids)) == len(ids) for ids in by_round.values())


def test_an_odd_one_sits_out_and_not_always_the_same() -> None:
    _, judgments = play(tournament(options={"scheme": "swiss", "calls": 10}), task(*responses(5)), by_number)
    met = Counter(id_ for pair in pairs_of(judgments) for id_ in pair)
    assert set(met.values()) == {4}


def test_another_seed_is_another_tournament() -> None:
    drawn = {tuple(pairs_of(play(tournament(), task(*responses(6), seed=s), by_number)[1])) for s in range(6)}
    assert len(drawn) == 6


def test_the_member_is_the_judge_inside() -> None:
    engines: dict[str, Any] = {"cheap": Able(logprobs=True)}
    section = JudgeSection(judge="tournament", rubric="helpfulness", members={"one": {"engine": "cheap"}})
    judge = build(section, lambda role: engines[role])
    _, judgments = play(judge, task(*responses(4)), by_number)
    assert {judgment.judge for judgment in judgments} == {"cheap"}
    assert judge.arity == 0


class Listing:
    """A judge of one's own that compares nothing."""

    arity = 0

    def __call__(self, task: Any) -> Any:
        return []
        yield []


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"options": {"scheme": "swis"}}, r"judge\.options\.scheme: unknown scheme 'swis'; known: best_worst"),
        ({"options": {"calls": 0}}, r"judge\.options\.calls: a whole number of requests, 1 or more, got 0"),
        ({"options": {"call": 3}}, r"judge\.options: tournament: .*'call'"),
        ({"members": {"a": {}, "b": {}}}, r"judge\.members: a tournament has one judge inside, not 2"),
        ({"members": {"a": {"judge": "pointwise"}}}, r"judge\.orders: random: .* orders: both for pointwise"),
        (
            {"members": {"a": {"judge": "listwise"}}, "orders": "both"},
            r"judge\.members: a tournament needs a judge of two responses",
        ),
        ({"rubric": None}, r"judge: name a rubric or a constitution"),
    ],
)
def test_what_is_wrong_is_said(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        tournament(**section)


def test_a_constructor_that_is_given_no_judge_of_two_says_so() -> None:
    own: Judge = Listing()
    with pytest.raises(ConfigError, match="not Listing"):
        TournamentJudge(judge=own)
    assert PROMPT.id == "p"
