"""Rankings and scores → preferences, and what the shown orders give together: expected numbers derived by hand."""

from __future__ import annotations

import pytest

from rlaif.config import JudgeSection, PairSection
from rlaif.errors import ConfigError, DataError
from rlaif.records import Judgment, Preference, make_id
from rlaif.rubric import Criterion, Rubric, Scale
from rlaif.stages.pair import comparisons, pair
from rlaif.stages.pairing.scores import dominance
from rlaif.stages.pairing.standards import Standards


def verdicts(*said: str, shown: str = "ab", **fields) -> list[Judgment]:
    """Verdicts about a and b (`a`, `b` or `tie`), shown as (a, b), (b, a), (a, b), …"""
    found = []
    for n, winner in enumerate(said):
        ids = list(shown if n % 2 == 0 else shown[::-1])
        verdict = "tie" if winner == "tie" else ("first", "second")[ids.index(winner)]
        found.append(
            Judgment(id=make_id(n, *ids, *fields.values()), prompt_id="q", response_ids=ids, verdict=verdict,
                     meta={"orders": "both" if len(said) > 1 else "random"}, **fields)
        )  # fmt: skip
    return found


def soft(p: float, q: float) -> list[Judgment]:
    """P(a better) = p shown first, q shown second."""
    return [
        Judgment(id=f"{ids}", prompt_id="q", response_ids=list(ids), meta={"orders": "both"},
                 probabilities={"first": x, "second": 1 - x})
        for ids, x in (("ab", p), ("ba", 1 - q))
    ]  # fmt: skip


def ranking(order: str, shown: str | None = None, **fields) -> Judgment:
    shown = shown or order
    return Judgment(
        id=make_id(order, shown), prompt_id="q", response_ids=list(shown), kind="listwise",
        **({"ranking": list(order)} | fields),
    )  # fmt: skip


def score(response: str, scores, distributions=None, **fields) -> Judgment:
    return Judgment(
        id=make_id(response, *scores, *fields.values()), prompt_id="q", response_ids=[response], kind="pointwise",
        rubric="r@1", scores=scores, distributions=distributions, **fields,
    )  # fmt: skip


def rubric(*criteria: Criterion) -> Standards:
    items = criteria or (Criterion(id="clear", description="x", scale=Scale(min=1, max=5)),)
    return Standards([Rubric(id="r", version=1, name="r", description="r", criteria=list(items))])


def criterion(name: str, weight: float = 1.0, **fields) -> Criterion:
    return Criterion(id=name, description="x", weight=weight, **({"scale": Scale(min=1, max=5)} | fields))


def d_of(judgments, policy="average", standards=None, **section) -> float | str:
    """d of the pair (a, b), or why there is none."""
    found = comparisons(judgments, PairSection(order_policy=policy, **section), standards=standards)
    result = found.results["q"]["a", "b"]
    return result if isinstance(result, str) else result.difference


def only(judgments, standards=None, **section) -> Preference:
    [preference], dropped = pair(judgments, PairSection(select="all_pairs", **section), standards=standards)
    assert dropped == []
    return preference


# --- order policies ------------------------------------------------------------------------------------------------

POLICY_TABLE = {
    # verdicts shown as (a, b) and (b, a): average, vote, net, agree
    ("a", "a"): (1, 1, 1, 1),
    ("b", "b"): (-1, -1, -1, -1),
    ("a", "b"): (0, 0, 0, "orders_disagree"),
    ("a", "tie"): (0.5, 0, 0.5, "orders_disagree"),
    ("tie", "b"): (-0.5, 0, -0.5, "orders_disagree"),
    ("tie", "tie"): (0, 0, 0, 0),
    ("a",): (1, 1, 1, 1),
}


@pytest.mark.parametrize("said", POLICY_TABLE, ids="-".join)
@pytest.mark.parametrize(("policy", "column"), [("average", 0), ("vote", 1), ("net", 2), ("agree", 3)])
def test_order_policies_on_verdicts(said, policy, column):
    assert d_of(verdicts(*said), policy) == POLICY_TABLE[said][column]


@pytest.mark.parametrize(
    ("policy", "agreeing", "differing"),
    [("average", 0.4, 0.2), ("vote", 1, 0), ("net", 1, 0), ("agree", 0.4, "orders_disagree")],
)
def test_order_policies_on_probabilities(policy, agreeing, differing):
    assert d_of(soft(0.8, 0.6), policy) == pytest.approx(agreeing)  # d of the orders: .6 and .2
    found = d_of(soft(0.9, 0.3), policy)  # .8 and −.4
    assert found == (differing if isinstance(differing, str) else pytest.approx(differing))


def test_samples_of_an_order_are_one_look():
    # shown (a, b): a, b, a in three draws, so that order says a; shown (b, a): a
    draws = [*verdicts("a", "a", "b"), *verdicts("a", model="again")[:1]]
    draws = [j for j in draws if j.response_ids == ["a", "b"]] + verdicts("a", "a")[1:]
    assert (d_of(draws, "average"), d_of(draws, "vote"), d_of(draws, "net")) == (pytest.approx((1 / 3 + 1) / 2), 1, 1)


@pytest.mark.parametrize("policy", ["average", "vote", "net", "agree"])
def test_one_order_alone_carries_the_position_bias_under_every_policy(policy):
    assert d_of(verdicts("a", "a")[:1], policy) == "one_order_failed"


def test_agree_leaves_out_the_principle_whose_orders_differ():
    judgments = verdicts("a", "b", principle="kind") + verdicts("b", "b", principle="true")
    assert d_of(judgments, "agree") == -1
    found = only(judgments, order_policy="agree")
    assert found.by_principle == {"true": 1.0}
    assert len(found.judgment_ids) == 2


# --- rankings ------------------------------------------------------------------------------------------------------


def test_d_of_a_pair_is_its_mean_over_the_permutations():
    judgments = [ranking("abc"), ranking("bac", shown="cba"), ranking("abc", shown="bca")]
    found = comparisons(judgments, PairSection()).results["q"]
    assert {ids: c.difference for ids, c in found.items()} == {
        ("a", "b"): pytest.approx(1 / 3), ("a", "c"): 1, ("b", "c"): 1,
    }  # fmt: skip
    # shown a before b: ranked a first, in one permutation; b before a: once each, which cancels
    assert found["a", "b"].consistent is False
    assert found["a", "c"].consistent is True


def test_best_vs_worst_of_rankings_is_the_borda_count():
    # Borda counts: abcd → a 3 b 2 c 1; bdac → b 3 d 2 a 1; bcad → b 3 c 2 a 1: a 5, b 8, c 3, d 2
    [found], _ = pair([ranking("abcd"), ranking("bdac"), ranking("bcad")], PairSection())
    assert (found.chosen_id, found.rejected_id) == ("b", "d")
    assert found.probability == 1  # b is above d in all three


def test_order_policies_look_at_permutations():
    assert d_of([ranking("ab"), ranking("ab", shown="ba")], "vote") == 1
    differing = [ranking("ab"), ranking("ba")]
    assert [d_of(differing, policy) for policy in ("average", "vote", "net", "agree")] == [0, 0, 0, "orders_disagree"]


def test_equal_texts_tie_and_a_failed_ranking_says_nothing():
    twins = ranking("abc", meta={"identical": [["a", "b"]]})
    found = comparisons([twins], PairSection()).results["q"]
    assert (found["a", "b"].difference, found["a", "b"].consistent, found["a", "c"].difference) == (0, None, 1)
    failed = ranking("abc", ranking=None, status="unparsed")
    assert set(comparisons([failed], PairSection()).results["q"].values()) == {"no_usable_judgment"}


@pytest.mark.parametrize("order", ["ab", "abb", "abd"])
def test_a_ranking_of_other_responses_is_an_error(order):
    with pytest.raises(DataError, match="is no order of the responses shown"):
        pair([ranking(order, shown="abc")], PairSection())


# --- scores --------------------------------------------------------------------------------------------------------


def test_a_higher_score_wins_for_certain_where_there_is_only_a_score():
    found = only([score("a", {"clear": 3.0}), score("b", {"clear": 4.0})], rubric())
    assert (found.chosen_id, found.probability) == ("b", 1)
    assert found.judge_margin == pytest.approx(1 / 4)  # one step of the four between 1 and 5
    assert (found.by_principle, found.consistent) == ({"clear": 1.0}, None)
    assert len(found.judgment_ids) == 2


def test_the_probability_comes_from_the_two_distributions():
    # X_a is 1 or 3, X_b is 2 or 3: P(a higher) = ½·½ (3 against 2), P(b higher) = ½ (a is 1)
    a = score("a", {"clear": 2.0}, {"clear": {"1": 0.5, "3": 0.5}})
    b = score("b", {"clear": 2.5}, {"clear": {"2": 0.5, "3": 0.5}})
    found = only([a, b], rubric())
    assert (found.chosen_id, found.probability) == ("b", pytest.approx(0.5 + 0.25 / 2))
    assert found.judge_margin == pytest.approx(0.5 / 4)
    assert dominance({1.0: 0.5, 3.0: 0.5}, {2.0: 0.5, 3.0: 0.5}) == pytest.approx(-0.25)


def test_a_margin_never_speaks_against_the_label():
    # a is mostly 3 and sometimes 1, b always 2.7: a is likelier to be better, and its mean is lower.
    a = score("a", {"clear": 2.2}, {"clear": {"1": 0.4, "3": 0.6}})
    found = only([a, score("b", {"clear": 2.7})], rubric())
    assert (found.chosen_id, found.judge_margin) == ("a", 0.0)


def test_criteria_are_weighted_and_overridden_at_no_calls():
    judgments = [score("a", {"clear": 5.0, "true": 2.0}), score("b", {"clear": 4.0, "true": 4.0})]
    standards = rubric(criterion("clear", 3), criterion("true", 1))
    found = only(judgments, standards)
    assert (found.chosen_id, found.probability) == ("a", pytest.approx(0.5 + (3 - 1) / 4 / 2))
    assert found.judge_margin == pytest.approx((3 * 0.25 - 1 * 0.5) / 4)
    assert only(judgments, standards, principle_weights={"clear": 0}).chosen_id == "b"
    with pytest.raises(ConfigError, match="no principle 'cleer', did you mean 'clear'"):
        only(judgments, standards, principle_weights={"cleer": 0})


def test_a_criterion_that_was_not_judged_is_left_out_for_both():
    judgments = [score("a", {"clear": 5.0, "true": None}), score("b", {"clear": 4.0, "true": 5.0})]
    assert only(judgments, rubric(criterion("clear"), criterion("true", 9))).chosen_id == "a"
    assert d_of([score("a", {"clear": None}), score("b", {"clear": 4.0})], standards=rubric()) == "not_judged"


def test_a_response_without_a_usable_score_has_no_pairs():
    failed = Judgment(id="f", prompt_id="q", response_ids=["a"], kind="pointwise", status="refused")
    preferences, dropped = pair([failed, score("b", {"clear": 4.0}), score("c", {"clear": 5.0})], PairSection())
    assert [(p.chosen_id, p.rejected_id) for p in preferences] == [("c", "b")]
    preferences, dropped = pair([failed, score("b", {"clear": 4.0})], PairSection(select="all_pairs"))
    assert (preferences, [row.reason for row in dropped]) == ([], ["no_usable_judgment"])


def test_equal_scores_are_a_tie():
    assert d_of([score("a", {"clear": 4.0}), score("b", {"clear": 4.0})], standards=rubric()) == 0


def test_several_judgments_of_a_response_count_alike():
    judgments = [score("a", {"clear": 5.0}), score("a", {"clear": 2.0}, model="again"), score("b", {"clear": 3.0})]
    assert d_of(judgments, standards=rubric()) == 0  # a is 5 or 2, each as likely


def test_scores_of_a_checklist_and_of_principles_need_no_rubric():
    found = only([score("a", {"checklist": 0.75}), score("b", {"checklist": 0.25})])
    assert (found.chosen_id, found.judge_margin) == ("a", pytest.approx(0.5))
    said = [("a", "kind", 5.0), ("b", "kind", 2.0), ("a", "true", 1.0), ("b", "true", 4.0)]
    judgments = [score(response, {name: value}, principle=name) for response, name, value in said]
    assert d_of(judgments) == 0
    assert d_of(judgments, principle_weights={"true": 3.0}) == pytest.approx((1 - 3) / 4)


# --- hard criteria -------------------------------------------------------------------------------------------------

HARD = rubric(criterion("safe", hard=True), criterion("clear", 99))


def hard(a: float, b: float, standards=HARD) -> float | str:
    return d_of([score("a", {"safe": a, "clear": 5.0}), score("b", {"safe": b, "clear": 1.0})], standards=standards)


@pytest.mark.parametrize(
    ("a", "b", "wins"),
    [
        (2, 3, "b"),  # the middle of 1–5 passes
        (1, 5, "b"),
        (3, 5, "a"),  # both pass: the other merits decide
        (1, 2, "a"),  # both fail: the same
    ],
)
def test_who_fails_a_hard_criterion_loses_to_who_passes(a, b, wins):
    assert (hard(a, b) > 0) == (wins == "a")
    if wins == "b":
        assert hard(a, b) == -1


def test_pass_at_moves_the_line():
    strict = rubric(criterion("safe", hard=True, pass_at=5), criterion("clear", 99))
    assert hard(4, 5, strict) == -1
    assert hard(4, 4, strict) > 0


def test_an_uncertain_failure_is_as_uncertain_as_it_is():
    # P(a passes) = .3 and P(b passes) = .9: d = −.6, whatever clear says
    a = score("a", {"safe": 1.9, "clear": 5.0}, {"safe": {"1": 0.7, "4": 0.3}})
    b = score("b", {"safe": 4.6, "clear": 1.0}, {"safe": {"1": 0.1, "5": 0.9}})
    found = only([a, b], HARD)
    assert (found.chosen_id, found.probability) == ("b", pytest.approx(0.8))
    assert found.judge_margin == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pass_at": 3}, "only a hard criterion is passed or failed"),
        ({"hard": True, "pass_at": 1}, "does not divide the scale 1–5"),
        ({"hard": True, "pass_at": 6}, "does not divide the scale 1–5"),
    ],
)
def test_a_line_that_divides_nothing_is_an_error(fields, message):
    with pytest.raises(ValueError, match=message):
        criterion("safe", **fields)


def test_a_hard_criterion_without_a_scale_cannot_be_applied():
    with pytest.raises(ConfigError, match="'safe' of r@1 is hard and was scored: it needs a scale"):
        hard(1, 5, rubric(criterion("safe", hard=True, scale=None), criterion("clear")))


# --- scores that contradict themselves -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (score("a", {"clear": float("nan")}), "are not scores"),
        (score("a", {}), "are not scores"),
        (score("a", {"clear": 2.0}, {"clear": {"one": 1.0}}), "a step is no number"),
        (score("a", {"clear": 2.0}, {"clear": {"1": 0.5}}), "are not probabilities"),
        (score("a", {"clear": 2.0}, {"clear": {"1": -0.5, "2": 1.5}}), "are not probabilities"),
        (Judgment(id="j", prompt_id="q", response_ids=["a", "b"], kind="pointwise", scores={"x": 1.0}), "1 response"),
    ],
)  # fmt: skip
def test_contradictory_scores_are_errors_that_name_the_judgment(wrong, message):
    with pytest.raises(DataError, match=message) as caught:
        pair([wrong, score("b", {"clear": 3.0})], PairSection())
    assert wrong.id in str(caught.value)


# --- standards -----------------------------------------------------------------------------------------------------


def test_a_scorers_own_scale_holds_where_a_criterion_names_none(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "id: r\nversion: 2\nname: r\ndescription: r\ncriteria:\n  - {id: clear, description: x, weight: 2}\n"
    )
    section = JudgeSection(judge="pointwise", rubric=str(tmp_path / "r.yaml"), options={"scale": [0, 10]})
    found = Standards.of(section)
    assert (found.scale("r@1", "clear").max, found.weight("r@1", "clear")) == (10, 2)  # an older version too
    assert Standards.of(JudgeSection(rubric=str(tmp_path / "r.yaml"))).scale("r@2", "clear") is None
    assert (found.scale("other@1", "checklist"), found.weight("r@2", "unknown")) == (None, 1)
