"""The ranking judge as a pure generator: requests out, replies in, judgments back."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from judge_play import ONE, THREE, TWO, built, play, task, text_of

from rlaif.errors import ConfigError
from rlaif.judges.listwise import permuted
from rlaif.records import Reply, Request, Response

ALL = (ONE, TWO, THREE)
QUALITY = {ONE.text: 3, THREE.text: 2, TWO.text: 1}  # r1, r3, r2


def shown(request: Request) -> dict[str, str]:
    """Label → text."""
    found = re.findall(r"## Response (\w+)\n\n```\n(.*?)\n```", text_of(request), re.DOTALL)
    return dict(found)


def by_quality(request: Request) -> Reply:
    texts = shown(request)
    order = sorted(texts, key=lambda label: -QUALITY[texts[label]])
    return Reply(text="Some are better.\n\nRanking: " + " > ".join(order))


def test_one_judgment_for_each_order_with_the_ids_in_the_order_shown() -> None:
    judge = built(judge="listwise", rubric="helpfulness", options={"permutations": 4})
    (requests,), judgments = play(judge, task(*ALL, seed=1), by_quality)
    assert len(judgments) == 4
    for request, judgment in zip(requests, judgments, strict=True):
        texts = {response.id: response.text for response in ALL}
        assert [texts[i] for i in judgment.response_ids] == list(shown(request).values())
        assert request.subject == ("p", *judgment.response_ids)
        assert judgment.ranking == ["r1", "r3", "r2"], "ids, whatever the place"
        assert judgment.kind == "listwise" and judgment.rationale
    orders = [judgment.response_ids for judgment in judgments]
    assert orders[1] == orders[0][::-1] and orders[3] == orders[2][::-1]
    assert len({tuple(order) for order in orders}) == 4
    assert [judgment.meta["permutation"] for judgment in judgments] == [0, 1, 2, 3]


def test_the_seed_decides_the_orders() -> None:
    judge = built(judge="listwise", rubric="helpfulness")
    found = {tuple(next(judge(task(*ALL, seed=seed)))[0].subject) for seed in range(40)}
    assert len(found) == 6, "all 3! orders come up first"


@pytest.mark.parametrize(("orders", "n"), [("both", 2), ("random", 1)])
def test_orders_say_how_many_where_nothing_else_does(orders: str, n: int) -> None:
    assert len(next(built(judge="listwise", rubric="helpfulness", orders=orders)(task(*ALL)))) == n


def test_there_are_no_more_orders_than_there_are() -> None:
    orders = permuted(list(ALL), 100, random.Random(0))
    assert len(orders) == 6 and len({tuple(r.id for r in order) for order in orders}) == 6
    assert len(permuted([ONE, TWO], 100, random.Random(0))) == 2


def test_a_part_of_a_ranking_is_none() -> None:
    judge = built(judge="listwise", rubric="helpfulness")
    _, judgments = play(judge, task(*ALL), lambda request: Reply(text="Ranking: A > B"))
    assert {(j.status, j.ranking, j.reason) for j in judgments} == {("unparsed", None, "the ranking leaves out C")}


def test_the_same_text_is_shown_once_and_stands_next_to_its_twin() -> None:
    twin = Response(id="r9", prompt_id="p", text=ONE.text)
    judge = built(judge="listwise", rubric="helpfulness")
    (requests,), judgments = play(judge, task(ONE, TWO, twin, THREE), by_quality)
    assert len(shown(requests[0])) == 3
    assert judgments[0].ranking == ["r1", "r9", "r3", "r2"]
    assert sorted(judgments[0].response_ids[:3]) == ["r1", "r2", "r3"] and judgments[0].response_ids[3] == "r9"
    assert judgments[0].meta["identical"] == [["r1", "r9"]]


def test_only_one_text_is_a_tie_and_nobody_is_asked() -> None:
    twin = Response(id="r9", prompt_id="p", text=ONE.text)
    rounds, (judgment,) = play(built(judge="listwise", rubric="helpfulness"), task(ONE, twin), by_quality)
    assert rounds == [] and judgment.reply_keys == []
    assert (judgment.ranking, judgment.meta["identical"]) == (["r1", "r9"], [["r1", "r9"]])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"read": "logprobs"}, r"judge\.read: logprobs: a ranking is many tokens"),
        ({"samples": 2, "temperature": 1.0}, r"judge\.samples: the listwise judge has no such choice"),
        ({"ties": True}, r"judge\.ties: the listwise judge has no such choice"),
        (
            {"options": {"permutations": 0}},
            r"judge\.options\.permutations: expected a whole number of at least 1, got 0",
        ),
    ],
    ids=["logprobs", "samples", "ties", "permutations"],
)
def test_keys_without_a_meaning_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(judge="listwise", logprobs=True, rubric="helpfulness", **section)
