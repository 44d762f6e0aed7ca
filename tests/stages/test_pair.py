"""Judgments → preferences: every expected number is derived by hand beside it."""

from __future__ import annotations

import pytest

from rlaif.config import PairSection, Pipeline
from rlaif.errors import ConfigError, DataError
from rlaif.records import Judgment, Preference, Response, make_id
from rlaif.stages.base import Context
from rlaif.stages.pair import pair, run
from rlaif.stages.selectors import Comparison
from rlaif.store import RunFolder

SEEN: list[list[tuple[str, str]]] = []


def judgment(shown: str, p=None, *, prompt="q", principle=None, orders="both", n=0, **fields) -> Judgment:
    """`shown`: two one-letter response ids in the order shown; `p`: P(first better), or None for no probabilities."""
    if p is not None:
        fields.setdefault("probabilities", {"first": p, "second": 1 - p})
    return Judgment(
        id=make_id(prompt, shown, principle, n),
        prompt_id=prompt,
        response_ids=list(shown),
        principle=principle,
        meta={"orders": orders} if orders else {},
        **fields,
    )


def failed(shown: str, status="unparsed", **fields) -> Judgment:
    return judgment(shown, None, status=status, **fields)


def both(shown: str, p: float, q: float, **fields) -> list[Judgment]:
    """The pair in both orders; p and q: P(shown[0] is better) in the first and in the second order."""
    return [judgment(shown, p, **fields), judgment(shown[::-1], 1 - q, **fields)]


def paired(judgments, select="all_pairs", weights=None, **section) -> tuple[list[Preference], list[str]]:
    preferences, dropped = pair(judgments, PairSection(select=select, **section), weights)
    return preferences, [row.reason for row in dropped]


def only(judgments, **options) -> Preference:
    [preference], reasons = paired(judgments, **options)
    assert reasons == []
    return preference


# --- one pair ----------------------------------------------------------------------------------------------------


def test_probabilities_are_averaged_over_orders_before_any_threshold():
    # P(a better) is .9 when a is first and .3 when it is second: mean .6. A vote of the two orders would be a tie.
    found = only(both("ab", 0.9, 0.3))
    assert (found.chosen_id, found.rejected_id) == ("a", "b")
    assert found.probability == pytest.approx(0.6)
    assert found.judge_margin == pytest.approx(0.2)
    assert found.consistent is False
    assert found.judgment_ids == [j.id for j in both("ab", 0.9, 0.3)]


def test_position_bias_cancels_exactly():
    # The judge adds .25 to whichever is first; without it P(a better) is .55.
    assert only(both("ab", 0.8, 0.3)).probability == pytest.approx(0.55)
    assert paired(both("ab", 0.8, 0.2)) == ([], ["tie"])


@pytest.mark.parametrize(
    ("verdicts", "probability", "consistent"),
    [
        (("first", "second"), 1.0, True),  # a, a
        (("first", "tie"), 0.75, False),  # a, tie
        (("tie", "second"), 0.75, False),
    ],
)
def test_text_verdicts_are_certain_and_ties_are_a_half(verdicts, probability, consistent):
    found = only([judgment("ab", verdict=verdicts[0]), judgment("ba", verdict=verdicts[1])])
    assert (found.chosen_id, found.probability, found.consistent) == ("a", probability, consistent)


@pytest.mark.parametrize("verdicts", [("first", "first"), ("second", "second"), ("tie", "tie")])
def test_orders_that_contradict_each_other_or_tie_give_no_preference(verdicts):
    assert paired([judgment("ab", verdict=verdicts[0]), judgment("ba", verdict=verdicts[1])]) == ([], ["tie"])


def test_the_probability_of_a_tie_goes_half_to_each():
    three = {"first": 0.5, "second": 0.2, "tie": 0.3}  # P(a better) = .5 + .15
    mirrored = {"first": 0.2, "second": 0.5, "tie": 0.3}
    found = only([judgment("ab", probabilities=three), judgment("ba", probabilities=mirrored)])
    assert found.probability == pytest.approx(0.65)


def test_probabilities_that_were_rounded_are_made_to_sum_to_one():
    rounded = {"first": 0.667, "second": 0.3335}  # sums to 1.0005
    found = only([judgment("ab", probabilities=rounded, orders="random")])
    assert found.probability == pytest.approx(0.667 / 1.0005, abs=1e-12)


def test_the_second_response_can_win():
    found = only(both("ab", 0.2, 0.4))
    assert (found.chosen_id, found.rejected_id, found.consistent) == ("b", "a", True)
    assert found.probability == pytest.approx(0.7)


def test_several_samples_weigh_the_same_in_both_orders():
    # .9, .9 and .6 when a is first (mean .8), .2 when it is second: (.8 + .2) / 2 = .5, not the mean of the four.
    judgments = [judgment("ab", p, n=n) for n, p in enumerate([0.9, 0.9, 0.6])] + [judgment("ba", 0.8)]
    assert paired(judgments) == ([], ["tie"])


@pytest.mark.parametrize(
    ("min_margin", "reasons"), [(0.0, []), (0.1, []), (0.101, ["below_margin"]), (0.5, ["below_margin"])]
)
def test_the_margin_is_the_distance_from_a_half_and_the_boundary_stays(min_margin, reasons):
    assert paired(both("ab", 0.7, 0.5), min_margin=min_margin)[1] == reasons  # |.6 − .5| = .1


def test_rounding_noise_is_a_tie_and_not_an_opinion():
    # .1 + .2 and .3 differ in the last bit
    assert paired(both("ab", 0.1 + 0.2, 1 - 0.3)) == ([], ["tie"])


# --- what failed is never a label --------------------------------------------------------------------------------

UNUSABLE = {
    "both-failed": ([failed("ab"), failed("ba", "refused")], "no_usable_judgment"),
    "one-random-order-failed": ([failed("ab", "error", orders="random")], "no_usable_judgment"),
    "second-order-failed": ([judgment("ab", 0.9), failed("ba")], "one_order_failed"),
    "first-order-failed": ([failed("ab", "truncated"), judgment("ba", 0.9)], "one_order_failed"),
    "second-order-missing": ([judgment("ab", 0.9)], "one_order_failed"),
    "same-response-twice": ([judgment("aa", 0.9)], "same_response"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_pairs_without_a_sound_judgment_are_dropped_with_a_reason(name):
    judgments, reason = UNUSABLE[name]
    for select in ("all_pairs", "best_vs_worst"):
        assert paired(judgments, select=select) == ([], [reason])


def test_one_random_order_is_enough_where_one_was_asked():
    found = only([judgment("ba", 0.8, orders="random")])
    assert (found.chosen_id, found.consistent) == ("b", None)
    assert found.probability == pytest.approx(0.8)


def test_a_failed_sample_leaves_the_others():
    assert only([judgment("ab", 0.9), failed("ab", n=1), judgment("ba", 0.3)]).probability == pytest.approx(0.8)


# --- principles --------------------------------------------------------------------------------------------------


def by_principle(**ps: float) -> list[Judgment]:
    return [j for name, p in ps.items() for j in both("ab", p, p, principle=name)]


def test_principles_are_averaged_with_their_weights():
    judgments = by_principle(kind=0.9, true=0.3)
    assert only(judgments).probability == pytest.approx(0.6)
    weighed = only(judgments, weights={"kind": 1, "true": 3})  # (.9 + 3·.3) / 4 = .45, so b wins with .55
    assert (weighed.chosen_id, weighed.probability) == ("b", pytest.approx(0.55))
    assert weighed.by_principle == {"kind": pytest.approx(0.1), "true": pytest.approx(0.7)}  # P(b better)
    overridden = only(judgments, weights={"kind": 1, "true": 3}, principle_weights={"true": 0})
    assert (overridden.chosen_id, overridden.probability) == ("a", pytest.approx(0.9))


def test_a_principle_with_a_failed_order_is_left_out_and_the_others_stay():
    judgments = [judgment("ab", 1.0, principle="kind"), failed("ba", principle="kind"), *by_principle(true=0.3)]
    found = only(judgments)
    assert (found.chosen_id, found.probability, list(found.by_principle)) == ("b", pytest.approx(0.7), ["true"])
    assert judgments[0].id not in found.judgment_ids


def test_weights_that_leave_nothing():
    assert paired(by_principle(kind=0.9), principle_weights={"kind": 0}) == ([], ["zero_weight"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"kinb": 1}, r"pair\.principle_weights: no principle 'kinb', did you mean 'kind'\?"),
        ({"zzz": 1}, r"no principle 'zzz'; known: kind, true"),
        ({"kind": -1}, r"pair\.principle_weights\.kind: a weight is 0 or more, got -1"),
    ],
)
def test_wrong_weights_are_one_line(weights, message):
    with pytest.raises(ConfigError, match=message):
        paired(by_principle(kind=0.9), weights={"kind": 1, "true": 1}, principle_weights=weights)


# --- selecting ---------------------------------------------------------------------------------------------------


def round_robin(prompt="q", **ps: float) -> list[Judgment]:
    return [j for shown, p in ps.items() for j in both(shown, p, p, prompt=prompt)]


def test_all_pairs_in_the_order_judged():
    found, _ = paired(round_robin(ab=0.9, ac=0.2, bc=0.1))
    assert [(p.chosen_id, p.rejected_id) for p in found] == [("a", "b"), ("c", "a"), ("c", "b")]


def test_best_vs_worst_takes_the_direct_comparison():
    # P(win): a (.9 + .7)/2 = .8, b (.1 + .4)/2 = .25, c (.3 + .6)/2 = .45: a against b, which met with .9
    found = only(round_robin(ab=0.9, ac=0.7, bc=0.4), select="best_vs_worst")
    assert (found.chosen_id, found.rejected_id, found.probability) == ("a", "b", pytest.approx(0.9))


def test_best_vs_worst_infers_a_pair_that_did_not_meet():
    # A ring a-b-c-d: a (.9 + .9)/2 = .9, b (.1 + .6)/2 = .35, c (.4 + .2)/2 = .3, d (.8 + .1)/2 = .45
    found = only(round_robin(ab=0.9, bc=0.6, cd=0.2, da=0.1), select="best_vs_worst")
    assert (found.chosen_id, found.rejected_id) == ("a", "c")
    assert found.probability == pytest.approx(0.5 + 0.5 * (0.9 - 0.3))
    assert found.consistent is None
    assert len(found.judgment_ids) == len(set(found.judgment_ids)) == 8


def test_a_direct_comparison_that_says_the_opposite_is_dropped():
    # a: (.45 + 1)/2 = .725, b: (.55 + .1)/2 = .325, c: (0 + .9)/2 = .45; but b won against a
    assert paired(round_robin(ab=0.45, ac=1.0, bc=0.1), select="best_vs_worst") == ([], ["contradiction"])


def test_a_best_and_worst_whose_own_judgment_failed_are_not_inferred():
    judgments = [*round_robin(ac=0.9, bc=0.1), judgment("ab", 0.9), failed("ba")]
    assert paired(judgments, select="best_vs_worst") == ([], ["one_order_failed"])


def test_equal_scores_go_by_id_and_equal_all_round_is_a_tie():
    found = only(round_robin(ac=0.9, ad=0.9, bc=0.9, bd=0.9, ab=0.5, cd=0.5), select="best_vs_worst")
    assert (found.chosen_id, found.rejected_id) == ("a", "d")
    assert paired(round_robin(ab=0.5, ac=0.5, bc=0.5), select="best_vs_worst") == ([], ["tie"])


def keep_confident(comparisons):
    """A user's own selector."""
    SEEN.append([(c.first_id, c.second_id) for c in comparisons])
    assert all(isinstance(c, Comparison) for c in comparisons)
    return [c for c in comparisons if abs(c.difference) > 0.5]


def test_a_selector_of_ones_own_by_import_path():
    SEEN.clear()
    judgments = round_robin("q", ab=0.9, ac=0.6) + round_robin("r", xy=0.95)
    found, reasons = paired(judgments, select=f"{__name__}:keep_confident")
    assert [(p.prompt_id, p.chosen_id) for p in found] == [("q", "a"), ("r", "x")]
    assert (SEEN, reasons) == ([[("a", "b"), ("a", "c")], [("x", "y")]], [])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best_vs_wurst", "unknown selector 'best_vs_wurst'; did you mean 'best_vs_worst'"),
        ("no.module:f", "pair.select: cannot import"),
    ],
)
def test_unknown_selectors_are_one_line(name, message):
    with pytest.raises(ConfigError, match=message):
        paired([], select=name)


# --- judgments that contradict themselves ------------------------------------------------------------------------

CONTRADICTIONS = {
    "foreign-verdict": (judgment("ab", verdict="A"), "verdict 'A' is none of first, second, tie"),
    "no-verdict": (judgment("ab"), "verdict None is none of"),
    "foreign-labels": (judgment("ab", probabilities={"A": 0.6, "B": 0.4}), "are not probabilities of"),
    "extra-label": (judgment("ab", probabilities={"first": 0.5, "second": 0.5, "x": 0.0}), "are not probabilities"),
    "not-one": (judgment("ab", probabilities={"first": 0.6, "second": 0.1}), "are not probabilities"),
    "negative": (judgment("ab", probabilities={"first": 1.2, "second": -0.2}), "are not probabilities"),
    "nan": (judgment("ab", probabilities={"first": float("nan"), "second": 0.5}), "are not probabilities"),
    "three-responses": (judgment("abc", 0.5), "has 2 responses, not"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictory_judgments_are_errors_that_name_them(name):
    wrong, message = CONTRADICTIONS[name]
    with pytest.raises(DataError, match=message) as caught:
        paired([wrong])
    assert wrong.id in str(caught.value)


def test_pointwise_judgments_of_one_response_make_no_pair():
    alone = Judgment(id="j", prompt_id="q", response_ids=["a"], kind="pointwise", scores={"clear": 3.0})
    assert paired([alone]) == ([], [])


# --- the stage ---------------------------------------------------------------------------------------------------


def stage(folder: RunFolder, judgments: list[Judgment], responses: dict[str, str], **section):
    folder.write("responses", [Response(id=i, prompt_id=p, text=i) for i, p in responses.items()])
    folder.write("judgments", judgments)
    return run(Context(Pipeline(run=str(folder.path), pair=PairSection(**section)), folder))


def test_the_stage_accounts_for_every_comparison(tmp_path):
    judgments = [*round_robin(ab=0.9, ac=0.7, bc=0.4), *round_robin("r", xy=0.5), failed("uv", prompt="s")]
    owners = {**dict.fromkeys("abc", "q"), **dict.fromkeys("xy", "r"), **dict.fromkeys("uv", "s")}
    with RunFolder(tmp_path / "run") as folder:
        counts = stage(folder, judgments, owners)
        assert counts == {
            "judgments": 9,
            "comparisons": 5,
            "preferences": 1,
            "not_selected": 2,
            "dropped": {"no_usable_judgment": 1, "tie": 1},
        }
        first = (folder.path / "preferences.jsonl").read_bytes(), (folder.path / "dropped.jsonl").read_bytes()
        assert stage(folder, judgments, owners) == counts
        assert (
            (folder.path / "preferences.jsonl").read_bytes(),
            (folder.path / "dropped.jsonl").read_bytes(),
        ) == first


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        ({"a": "q", "b": "r"}, "its response b belongs to prompt r"),
        ({"a": "q"}, "its response b is not in the responses"),
    ],
)
def test_ids_of_prompts_and_responses_always_match(owners, message, tmp_path):
    with RunFolder(tmp_path / "run") as folder, pytest.raises(DataError, match=message):
        stage(folder, both("ab", 0.9, 0.9), owners)
