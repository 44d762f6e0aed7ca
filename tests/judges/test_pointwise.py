"""The scoring judge as a pure generator: requests out, replies in, judgments back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from judge_play import ONE, PROMPT, TWO, built, play, scored, soft, task, text_of

from rlaif.errors import ConfigError
from rlaif.judges.base import planned
from rlaif.records import Prompt, Reply, Request
from rlaif.rubric import load_constitution, load_rubric

RUBRIC = "helpfulness"
CRITERIA = [criterion.id for criterion in load_rubric(RUBRIC).criteria]  # need_met, correct, usable, easy_to_read


def about(request: Request) -> str:
    return next(name for name in CRITERIA if f"“{name}” alone" in text_of(request))


# -- log-probs ------------------------------------------------------------------------------------------------------


def test_a_score_is_the_mean_of_the_steps_distribution() -> None:
    judge = built(judge="pointwise", logprobs=True, rubric=RUBRIC)
    (requests,), (judgment,) = play(judge, task(ONE), lambda request: soft(_3=0.2, _4=0.5, _5=0.3))
    assert [about(request) for request in requests] == CRITERIA, "one request a criterion"
    assert requests[0].labels == ["1", "2", "3", "4", "5"]
    assert (requests[0].max_tokens, requests[0].top_logprobs, requests[0].subject) == (1, 20, ("p", "r1"))
    assert len({tuple(m["content"] for m in r.messages[:-1]) for r in requests}) == 1, "they begin alike"
    assert (judgment.kind, judgment.response_ids, judgment.verdict) == ("pointwise", ["r1"], None)
    assert judgment.scores == pytest.approx(dict.fromkeys(CRITERIA, 4.1))
    assert judgment.distributions is not None and list(judgment.distributions) == CRITERIA
    assert judgment.distributions["correct"] == pytest.approx(
        {"1": 0, "2": 0, "3": 0.2, "4": 0.5, "5": 0.3}, abs=1e-9
    )
    assert judgment.label_mass == pytest.approx(1.0)
    assert judgment.reply_keys == ["1.0", "1.1", "1.2", "1.3"] and judgment.usage.prompt_tokens == 40
    assert judgment.rubric == load_rubric(RUBRIC).ref


def test_a_criterion_that_cannot_be_read_is_null_and_no_low_score() -> None:
    judge = built(judge="pointwise", logprobs=True, rubric=RUBRIC)
    _, (judgment,) = play(judge, task(ONE), lambda r: soft(The=0.9, _1=0.1) if about(r) == "usable" else soft(_4=1.0))
    assert judgment.status == "ok"
    assert judgment.scores == {"need_met": 4.0, "correct": 4.0, "usable": None, "easy_to_read": 4.0}
    assert "usable" not in (judgment.distributions or {})
    assert list(judgment.meta["not_judged"]) == ["usable"]
    assert judgment.label_mass == pytest.approx(0.1), "the least of them"


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(error="timeout: 60 s"), "error"),
        (soft(The=1.0), "unparsed"),
        (Reply(finish_reason="refusal"), "refused"),
    ],
    ids=["error", "unparsed", "refused"],
)
def test_a_failure_is_never_a_score(reply: Reply, status: str) -> None:
    judge = built(judge="pointwise", logprobs=True, rubric=RUBRIC)
    _, (judgment,) = play(judge, task(ONE), lambda request: reply)
    assert (judgment.status, judgment.scores, judgment.distributions) == (status, None, None)
    assert judgment.reason


def test_one_request_without_a_reply_makes_it_an_error_till_it_comes() -> None:
    judge = built(judge="pointwise", logprobs=True, rubric=RUBRIC)
    _, (judgment,) = play(
        judge, task(ONE), lambda r: Reply(error="timeout: 60 s") if about(r) == "correct" else soft(_4=1.0)
    )
    assert (judgment.status, judgment.scores) == ("error", None)


def test_principles_are_scored_one_by_one_on_the_usual_scale() -> None:
    judge = built(judge="pointwise", logprobs=True, constitution="tiny-world", principles="all")
    (requests,), judgments = play(judge, task(ONE), lambda request: soft(_2=1.0))
    names = [principle.id for principle in load_constitution("tiny-world").principles]
    assert [judgment.principle for judgment in judgments] == names
    assert [judgment.scores for judgment in judgments] == [{name: 2.0} for name in names]
    assert text_of(requests[0]).endswith("\nRate the response from 1 to 5."), "as the shipped judge was trained"


def test_all_responses_of_a_prompt_are_rated_under_the_same_principle_and_wording() -> None:
    judge = built(judge="pointwise", logprobs=True, constitution="helpful-harmless-honest")
    for seed in range(20):
        texts = set()
        for response in (ONE, TWO):
            (requests,), _ = play(judge, task(response, seed=seed), lambda request: soft(_2=1.0))
            texts.add(text_of(requests[0]).replace(response.text, ""))
        assert len(texts) == 1


# -- scales ---------------------------------------------------------------------------------------------------------

WIDE = """\
id: wide
version: 1
name: Wide
description: A scale with a step of two digits.
criteria: [{id: works, description: It works., scale: {min: 1, max: 10}}]
"""


@pytest.fixture()
def wide(tmp_path: Any) -> str:
    path = tmp_path / "wide.yaml"
    path.write_text(WIDE)
    return str(path)


def test_ten_is_refused_where_one_token_decides(wide: str) -> None:
    message = (
        r"judge\.read: logprobs, but the scale of works is 1 to 10, and only the steps 0 to 9 are one token each; "
    )
    with pytest.raises(ConfigError, match=message + r"use a scale within 0–9, such as 1–5, or `read: text`"):
        built(judge="pointwise", logprobs=True, rubric=wide, read="logprobs")


def test_ten_is_read_from_a_text(wide: str) -> None:
    judge = built(judge="pointwise", logprobs=True, rubric=wide)  # auto
    (requests,), (judgment,) = play(judge, task(ONE), lambda request: scored(works=10))
    assert not requests[0].labels
    assert judgment.scores == {"works": 10.0}
    _, (judgment,) = play(judge, task(ONE), lambda request: scored(works=1))
    assert judgment.scores == {"works": 1.0}


def test_the_scale_of_principles_can_be_set() -> None:
    judge = built(judge="pointwise", logprobs=True, constitution="helpful-harmless-honest", options={"scale": [0, 9]})
    (requests,), _ = play(judge, task(ONE), lambda request: soft(_0=1.0))
    assert requests[0].labels == [str(step) for step in range(10)]
    assert text_of(requests[0]).endswith("Rate the response from 0 to 9. Answer with one digit.")
    for bad in ([5, 1], [1], "1-5", [1.0, 5]):
        with pytest.raises(ConfigError, match=r"judge\.options\.scale: expected two whole numbers"):
            built(judge="pointwise", rubric=RUBRIC, options={"scale": bad})


# -- texts ----------------------------------------------------------------------------------------------------------


def test_all_criteria_are_in_one_structured_reply() -> None:
    judge = built(judge="pointwise", json_schema=True, rubric=RUBRIC)
    (requests,), (judgment,) = play(
        judge, task(ONE), lambda request: scored(need_met=4, correct=5, usable=3, easy_to_read=1)
    )
    (request,) = requests
    schema = request.json_schema
    assert schema is not None and list(schema["properties"]["scores"]["properties"]) == CRITERIA
    assert request.max_tokens == 512 + 4 * 16
    assert judgment.scores == {"need_met": 4.0, "correct": 5.0, "usable": 3.0, "easy_to_read": 1.0}
    assert judgment.distributions is None, "one draw says nothing of a distribution"
    assert judgment.rationale == "Because."


def test_without_structured_output_the_form_is_described() -> None:
    (request,) = next(built(judge="pointwise", rubric=RUBRIC)(task(ONE)))
    assert request.json_schema is None
    assert '"need_met": <whole number from 1 to 5>' in text_of(request)


def test_a_criterion_out_of_scale_is_null() -> None:
    judge = built(judge="pointwise", rubric=RUBRIC)
    _, (judgment,) = play(judge, task(ONE), lambda request: scored(need_met=4.5, correct=10, usable=3))
    assert judgment.scores == {"need_met": None, "correct": None, "usable": 3.0, "easy_to_read": None}
    assert judgment.meta["not_judged"] == {
        "need_met": "4.5 was not offered", "correct": "10 was not offered", "easy_to_read": "missing",
    }  # fmt: skip


def test_draws_make_an_empirical_distribution() -> None:
    judge = built(judge="pointwise", constitution="tiny-world", samples=4, temperature=1.0)
    name = next(iter(json_names(judge)))
    steps = [4, 5, 4, None]
    (requests,), (judgment,) = play(judge, task(ONE, seed=5), lambda r: scored(**{name: steps[r.sample]}))
    assert [request.sample for request in requests] == [0, 1, 2, 3] and requests[0].seed == 5
    assert judgment.scores == {name: pytest.approx(13 / 3)}
    assert judgment.distributions == {name: pytest.approx({"1": 0, "2": 0, "3": 0, "4": 2 / 3, "5": 1 / 3})}
    assert judgment.meta["samples"] == 4 and judgment.meta["failed"] == {"unparsed": 1}
    assert judgment.meta["spread"] == {name: pytest.approx((2 / 9) ** 0.5, abs=1e-6)}


def json_names(judge: Any) -> list[str]:
    _, (judgment,) = play(judge, task(ONE, seed=5), lambda request: Reply(text="{}"))
    return [str(judgment.principle)]


def test_more_than_half_of_the_draws_must_be_usable() -> None:
    judge = built(judge="pointwise", rubric=RUBRIC, samples=2, temperature=1.0)
    _, (judgment,) = play(judge, task(ONE), lambda r: scored(correct=4) if r.sample else Reply(text="Fine."))
    assert (judgment.status, judgment.scores) == ("unparsed", None)


def test_json_in_a_fence_with_a_comment_and_more_text() -> None:
    judge = built(judge="pointwise", rubric=RUBRIC)
    body = json.dumps({"scores": dict.fromkeys(CRITERIA, 3)})
    text = f"Here you are:\n```json\n// mine\n{body}\n```\nScores: 5/5"
    _, (judgment,) = play(judge, task(ONE), lambda request: Reply(text=text))
    assert judgment.scores == dict.fromkeys(CRITERIA, 3.0)


# -- what makes no sense --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"ties": True}, r"judge\.ties: the pointwise judge has no such choice"),
        ({"clamp": [0.4, 0.6]}, r"judge\.clamp: the pointwise judge has no such choice"),
        ({"read": "rationale"}, r"judge\.read: rationale is for judges that compare"),
        ({"read": "logprobs", "samples": 2, "temperature": 1.0}, r"judge\.samples: 2, but log-probs give the whole"),
        (
            {"options": {"permutations": 2}},
            r"judge\.options: pointwise: .*unexpected keyword argument 'permutations'",
        ),
    ],
    ids=["ties", "clamp", "rationale", "samples", "options"],
)
def test_keys_without_a_meaning_are_refused(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        built(judge="pointwise", logprobs=True, rubric=RUBRIC, **section)


def test_logprobs_that_the_engine_does_not_give_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"judge\.read: logprobs, but engine 'judge' gives no log-probs"):
        built(judge="pointwise", rubric=RUBRIC, read="logprobs")
    with pytest.raises(ConfigError, match="name a rubric or a constitution"):
        built(judge="pointwise")


def test_a_required_reference_and_a_plan() -> None:
    bare = Prompt(id="p", messages=PROMPT.messages)
    judge = built(judge="pointwise", rubric=RUBRIC, reference="require", samples=3, temperature=1.0)
    assert play(judge, task(ONE, prompt=bare), lambda request: scored())[1] == []
    assert len(planned(judge, task(ONE))) == 3
