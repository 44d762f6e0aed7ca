"""Pairwise verdicts after reasons, from several draws, clamped, with ties, references and several principles."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from judge_play import ONE, PROMPT, TWO, built, play, soft, task, text_of
from pydantic import ValidationError

from rlaif.config import JudgeSection
from rlaif.errors import ConfigError
from rlaif.judges.base import planned
from rlaif.judges.pairwise import clamped
from rlaif.records import Prompt, Reply, Request
from rlaif.rubric import load_constitution
from rlaif.store import content_key

TASK = task(ONE, TWO, seed=3)


def says_a(request: Request) -> Reply:
    return Reply(text="Verdict: A")


# -- what was asked before is asked in the same words ---------------------------------------------------------------

GOLDEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "rubric_logprobs": (
        {"rubric": "helpfulness", "read": "logprobs"},
        ["281be0acf1b38f49318aaa386d6fcef8", "5a73ee7b63f238cc8903f54a84a2fc2d"],
    ),
    "rubric_text": (
        {"rubric": "helpfulness", "read": "text"},
        ["3c7b7ba78859699ef8a4cb8fb005f740", "7770b0cea16e795c6eade67d55dba3cc"],
    ),
    "rubric_text_sampled": (
        {"rubric": "summary-quality", "read": "text", "temperature": 0.7},
        ["a5620215559727bcab156316fc1d1450", "b4b4df14a31ae6fdba59e5c5a44f7d83"],
    ),
    "rubric_ties": (
        {"rubric": "harmlessness", "read": "text", "ties": True},
        ["ffcafa856ba31953bdb9295f98dbb97f", "3b6adec9ddd09083b031e6453d9d001c"],
    ),
    "one_principle": (
        {"constitution": "helpful-harmless-honest", "read": "logprobs"},
        ["b757c34fb397d7a8630dbbb0a56e50e0", "1ff433d0e3ff17da224abbbdb64bae49"],
    ),
    "all_principles": (
        {"constitution": "tiny-world", "principles": "all", "orders": "random"},
        ["855ba0385e0e0a5035b88fb8cbceee15", "5b61f6da4c1a91238ea7bbfb20744c94"],
    ),
    "more_tokens": (
        {
            "rubric": "helpfulness",
            "read": "logprobs",
            "max_tokens": 2,
            "extra": {"chat_template_kwargs": {"enable_thinking": False}},
        },
        ["83b6e0e3f6e500f501cb45e98a4d050c", "d015204944561aea10d3468e9f1987c3"],
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_changed_key_would_bill_everyone_again(name: str) -> None:
    section, keys = GOLDEN[name]
    requests = next(built(logprobs=True, **section)(TASK))
    assert [content_key(request) for request in requests][:2] == keys


# -- reasons first --------------------------------------------------------------------------------------------------


def reasons_then(reply: Reply, reasons: str = "A names the cause.") -> Any:
    return lambda request: reply if request.labels else Reply(text=reasons)


def test_the_verdict_is_read_after_the_reasons() -> None:
    judge = built(logprobs=True, rubric="helpfulness", read="rationale")
    rounds, judgments = play(judge, TASK, reasons_then(soft(A=0.9, B=0.1)))
    first, second = rounds
    assert [request.labels for request in first] == [[], []] and first[0].max_tokens == 512
    assert "Give no verdict yet" in text_of(first[0])
    for asked, then in zip(first, second, strict=True):
        assert then.messages[:-2] == asked.messages
        assert then.messages[-2] == {"role": "assistant", "content": "A names the cause."}
        assert then.messages[-1]["content"] == "Answer with one letter: A or B."
        assert (then.max_tokens, then.temperature, then.labels) == (1, 0.0, ["A", "B"])
        assert then.subject == asked.subject
    assert [j.response_ids for j in judgments] == [["r1", "r2"], ["r2", "r1"]]
    assert judgments[0].probabilities == pytest.approx({"first": 0.9, "second": 0.1})
    assert judgments[0].rationale == "A names the cause."
    assert [j.reply_keys for j in judgments] == [["1.0", "2.0"], ["1.1", "2.1"]]
    assert judgments[0].usage.prompt_tokens == 20


@pytest.mark.parametrize(
    ("reasons", "status"),
    [
        (Reply(error="timeout: 60 s"), "error"),
        (Reply(text="A names the", finish_reason="length"), "truncated"),
        (Reply(text=" "), "unparsed"),
        (Reply(text="<think>A names"), "unparsed"),
        (Reply(text="I'm sorry, but I can't help with that."), "refused"),
        (Reply(text="A", finish_reason="content_filter"), "refused"),
    ],
    ids=["error", "truncated", "empty", "thinking_never_closed", "refusal", "filtered"],
)
def test_without_whole_reasons_no_verdict_is_asked(reasons: Reply, status: str) -> None:
    judge = built(logprobs=True, rubric="helpfulness", read="rationale", orders="random")
    rounds, (judgment,) = play(judge, TASK, lambda request: reasons)
    assert [len(requests) for requests in rounds] == [1, 0]
    assert (judgment.status, judgment.verdict, judgment.probabilities) == (status, None, None)
    assert (judgment.reason or "").startswith("the reasons: ")
    assert judgment.reply_keys == ["1.0"]


def test_a_verdict_that_cannot_be_read_after_reasons_is_none() -> None:
    judge = built(logprobs=True, rubric="helpfulness", read="rationale", orders="random")
    _, (judgment,) = play(judge, TASK, reasons_then(soft(The=0.9, A=0.1)))
    assert (judgment.status, judgment.verdict) == ("unparsed", None)
    assert judgment.label_mass == pytest.approx(0.1)
    assert judgment.reply_keys == ["1.0", "2.0"] and judgment.rationale == "A names the cause."


def test_a_plan_counts_both_rounds() -> None:
    judge = built(logprobs=True, rubric="helpfulness", read="rationale", samples=3, temperature=0.7)
    requests = planned(judge, TASK)
    assert len(requests) == 2 * 3 * 2
    assert Counter(request.max_tokens for request in requests) == {512: 6, 1: 6}


# -- several draws --------------------------------------------------------------------------------------------------


def drawn(*texts: str) -> Any:
    return lambda request: Reply(text=texts[request.sample])


def test_draws_are_votes() -> None:
    judge = built(rubric="helpfulness", samples=5, temperature=0.8, ties=True, orders="random")
    votes = ["A", "A", "B", "C", "A"]
    (requests,), (judgment,) = play(judge, TASK, drawn(*(f"Reason {i}.\nVerdict: {v}" for i, v in enumerate(votes))))
    assert [request.sample for request in requests] == [0, 1, 2, 3, 4]
    assert len({content_key(request) for request in requests}) == 5
    assert {request.seed for request in requests} == {3} and {request.temperature for request in requests} == {0.8}
    assert judgment.probabilities == {"first": 0.6, "second": 0.2, "tie": 0.2}
    assert judgment.verdict == "first" and (judgment.rationale or "").startswith("Reason 0.")
    assert judgment.reply_keys == ["1.0", "1.1", "1.2", "1.3", "1.4"]
    # values 1, 1, 0, ½, 1: mean .7, squared distances .09·3 + .49 + .04 = .8, over 5, root of .16
    assert judgment.meta == {
        "orders": "random", "samples": 5, "votes": {"first": 3, "second": 1, "tie": 1}, "spread": 0.4,
    }  # fmt: skip


def test_an_even_split_is_a_tie_whoever_came_first() -> None:
    judge = built(rubric="helpfulness", samples=4, temperature=0.8, orders="random")
    _, (judgment,) = play(judge, TASK, drawn(*(f"Verdict: {label}" for label in "ABBA")))
    assert (judgment.verdict, judgment.probabilities) == ("tie", {"first": 0.5, "second": 0.5})


def test_a_draw_without_a_verdict_is_no_vote() -> None:
    judge = built(rubric="helpfulness", samples=3, temperature=0.8, orders="random")
    _, (judgment,) = play(judge, TASK, drawn("Verdict: A", "Hm.", "Verdict: A"))
    assert judgment.probabilities == {"first": 1.0, "second": 0.0}
    assert judgment.meta["votes"] == {"first": 2} and judgment.meta["failed"] == {"unparsed": 1}


def test_a_few_draws_do_not_speak_for_all() -> None:
    judge = built(rubric="helpfulness", samples=4, temperature=0.8, orders="random")
    _, (judgment,) = play(judge, TASK, drawn("Verdict: A", "Hm.", "Hm.", "Verdict: A"))
    assert (judgment.status, judgment.verdict, judgment.probabilities) == ("unparsed", None, None)
    assert judgment.reason == "2 of 4 draws gave no verdict: no line “Verdict: …”"
    assert judgment.meta["votes"] == {"first": 2}, "what was said is kept"


def test_a_draw_that_never_came_is_an_error_and_no_missing_vote() -> None:
    judge = built(rubric="helpfulness", samples=3, temperature=0.8, orders="random")
    _, (judgment,) = play(judge, TASK, lambda r: Reply(error="timeout: 60 s") if r.sample == 1 else says_a(r))
    assert (judgment.status, judgment.probabilities) == ("error", None)


def test_draws_of_reasons_have_the_mean_of_their_probabilities() -> None:
    judge = built(logprobs=True, rubric="helpfulness", read="rationale", samples=2, temperature=0.8, orders="random")

    def answer(request: Request) -> Reply:
        if not request.labels:
            return Reply(text=f"Reasons {request.sample}.")
        return soft(A=0.9, B=0.1) if "Reasons 0." in text_of(request) else soft(A=0.3, B=0.7)

    _, (judgment,) = play(judge, TASK, answer)
    assert judgment.probabilities == pytest.approx({"first": 0.6, "second": 0.4})
    assert judgment.verdict == "first" and judgment.rationale == "Reasons 0."
    assert judgment.meta["votes"] == {"first": 1, "second": 1} and judgment.meta["spread"] == pytest.approx(0.3)
    assert judgment.reply_keys == ["1.0", "2.0", "1.1", "2.1"]


def test_draws_want_a_temperature_and_no_logprobs() -> None:
    with pytest.raises(ValidationError, match="samples: 3 at temperature 0"):
        JudgeSection(rubric="helpfulness", samples=3)
    with pytest.raises(ConfigError, match=r"judge\.samples: 3, but log-probs give the whole distribution"):
        built(logprobs=True, rubric="helpfulness", read="logprobs", samples=3, temperature=1.0)
    assert built(logprobs=True, rubric="helpfulness", samples=3, temperature=1.0).choice.read == "text"  # type: ignore[attr-defined]


def test_reasons_want_logprobs() -> None:
    with pytest.raises(ConfigError, match=r"judge\.read: rationale, but engine 'judge' gives no log-probs"):
        built(rubric="helpfulness", read="rationale")


# -- clamp, ties ----------------------------------------------------------------------------------------------------


def test_a_clamp_keeps_the_verdict_and_what_was_before() -> None:
    judge = built(logprobs=True, rubric="helpfulness", clamp=[0.4, 0.6])
    _, judgments = play(judge, TASK, lambda request: soft(A=0.95, B=0.05))
    assert judgments[0].probabilities == pytest.approx({"first": 0.6, "second": 0.4})
    assert judgments[0].verdict == "first"
    assert judgments[0].meta["unclamped"] == pytest.approx({"first": 0.95, "second": 0.05})


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"first": 0.55, "second": 0.45}, {"first": 0.55, "second": 0.45}),
        ({"first": 0.0, "second": 1.0}, {"first": 0.4, "second": 0.6}),
        ({"first": 0.8, "second": 0.0, "tie": 0.2}, {"first": 0.48, "second": 0.32, "tie": 0.2}),
        ({"first": 0.0, "second": 0.0, "tie": 1.0}, {"first": 0.0, "second": 0.0, "tie": 1.0}),
    ],
    ids=["within", "certain", "a_tie_keeps_its_share", "only_a_tie"],
)
def test_clamped(before: dict[str, float], after: dict[str, float]) -> None:
    assert clamped(before, 0.6) == pytest.approx(after)


def test_clamping_mirrors_to_the_bit() -> None:
    for hundredth in range(101):
        p = {"first": hundredth / 100, "second": 1 - hundredth / 100}
        mirrored = clamped({"first": p["second"], "second": p["first"]}, 0.6)
        assert clamped(p, 0.6) == {"first": mirrored["second"], "second": mirrored["first"]}


@pytest.mark.parametrize("clamp", [[0.6, 0.4], [0.4, 0.7], [-0.1, 1.1], [0.5, 0.5]])
def test_a_clamp_that_is_not_fair_is_refused(clamp: list[float]) -> None:
    with pytest.raises(ValidationError, match="two probabilities that sum to 1, low first"):
        JudgeSection(rubric="helpfulness", clamp=clamp)


def test_a_tie_from_logprobs_is_the_label_c() -> None:
    judge = built(logprobs=True, rubric="helpfulness", ties=True)
    (requests,), judgments = play(judge, TASK, lambda request: soft(A=0.2, B=0.1, C=0.7))
    assert requests[0].labels == ["A", "B", "C"]
    assert text_of(requests[0]).endswith("Answer with one letter: A, B, or C for a tie.")
    assert judgments[0].verdict == "tie"
    assert judgments[0].probabilities == pytest.approx({"first": 0.2, "second": 0.1, "tie": 0.7})
    forced = built(logprobs=True, rubric="helpfulness")
    _, judgments = play(forced, TASK, lambda request: soft(A=0.6, B=0.1, C=0.3))
    assert judgments[0].probabilities == pytest.approx({"first": 6 / 7, "second": 1 / 7}), "C was not offered"


# -- references, principles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reference", "shown"), [("use", True), ("require", True), ("ignore", False)])
def test_references(reference: str, shown: bool) -> None:
    (requests,), _ = play(built(rubric="helpfulness", reference=reference), TASK, says_a)
    assert ("Rayleigh scattering." in text_of(requests[0])) == shown


def test_a_prompt_without_the_required_reference_is_not_judged() -> None:
    bare = Prompt(id="p", messages=PROMPT.messages)
    rounds, judgments = play(built(rubric="helpfulness", reference="require"), task(ONE, TWO, prompt=bare), says_a)
    assert (rounds, judgments) == ([[]], [])


def test_k_principles_are_drawn_alike_and_both_orders_share_them() -> None:
    judge = built(constitution="helpful-harmless-honest", principles=3)
    names: Counter[str] = Counter()
    for seed in range(80):
        _, judgments = play(judge, task(ONE, TWO, seed=seed), says_a)
        drawn_ids = [judgment.principle for judgment in judgments]
        assert len(judgments) == 6 and len(set(drawn_ids)) == 3 and drawn_ids[::2] == drawn_ids[1::2]
        names.update(str(name) for name in set(drawn_ids))
    known = len(load_constitution("helpful-harmless-honest").applicable(PROMPT))
    assert len(names) == known, "every one comes up"
    assert max(names.values()) < 2.5 * 80 * 3 / known, "a weight of 3 is not drawn three times as often"


def test_more_principles_than_there_are_is_all_of_them() -> None:
    judge = built(constitution="helpful-harmless-honest", principles=99)
    everything = built(constitution="helpful-harmless-honest", principles="all")
    assert [content_key(r) for r in next(judge(TASK))] == [content_key(r) for r in next(everything(TASK))]


def test_a_custom_judge_is_not_handed_a_choice_that_it_does_not_know() -> None:
    import sys
    import types

    module = types.ModuleType("judge_of_its_own")

    class Own:
        arity = 2

        def __init__(self, *, frame: Any, choice: Any, rubric: Any, constitution: Any, role: str, model: str,
                     principles: Any, orders: Any, max_tokens: Any, temperature: Any, extra: Any):  # fmt: skip
            self.role = role

    module.Own = Own  # type: ignore[attr-defined]
    sys.modules["judge_of_its_own"] = module
    assert built(judge="judge_of_its_own:Own", rubric="helpfulness").role == "judge"  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="unexpected keyword argument 'samples'"):
        built(judge="judge_of_its_own:Own", rubric="helpfulness", samples=2, temperature=1.0)
    with pytest.raises(ConfigError, match=re.escape("judge.read: rationale")):
        built(judge="judge_of_its_own:Own", rubric="helpfulness", read="rationale", logprobs=True)
