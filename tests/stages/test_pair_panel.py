"""Members of a panel → preferences: expected numbers derived by hand, or from judges made to measure."""

from __future__ import annotations

import json
import math
import random

import msgspec
import pytest

from rlaif.config import PairSection, Pipeline
from rlaif.errors import ConfigError, DataError
from rlaif.records import Gold, Judgment, Response, make_id
from rlaif.stages.base import Context
from rlaif.stages.pair import comparisons, pair, run
from rlaif.store import RunFolder


def said(
    member: str | None, p: float, q: float | None = None, *, prompt="q", principle=None, **fields
) -> list[Judgment]:
    """The pair in both orders; P(a better) = p and q (default: the same)."""
    return [
        Judgment(id=make_id(prompt, ids, member, principle), prompt_id=prompt, response_ids=list(ids), member=member,
                 principle=principle, meta={"orders": "both"}, probabilities={"first": x, "second": 1 - x}, **fields)
        for ids, x in (("ab", p), ("ba", 1 - (p if q is None else q)))
    ]  # fmt: skip


def panel(**ps: float) -> list[Judgment]:
    return [judgment for member, p in ps.items() for judgment in said(member, p)]


def d_of(judgments, prompt="q", **section) -> float | str:
    found = comparisons(judgments, PairSection(**section)).results[prompt]["a", "b"]
    return found if isinstance(found, str) else found.difference


def gold_file(tmp_path, **counts) -> str:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"members": {name: {"n": n, "correct": c} for name, (c, n) in counts.items()}}))
    return str(path)


# --- without gold --------------------------------------------------------------------------------------------------


def test_probabilities_of_the_members_are_averaged():
    assert d_of(panel(x=0.9, y=0.6, z=0.3)) == pytest.approx((0.8 + 0.2 - 0.4) / 3)


def test_the_majority_counts_verdicts_and_says_ties():
    assert d_of(panel(x=0.9, y=0.51, z=0.1), panel="majority") == pytest.approx(1 / 3)
    assert d_of(panel(x=0.9, y=0.5, z=0.5), panel="majority") == pytest.approx(1 / 3)  # two members tie
    found = comparisons(panel(x=0.9, y=0.1), PairSection(panel="majority"))
    assert (found.results["q"]["a", "b"].difference, found.panel["ties"]) == (0, 1)


def test_orders_first_then_principles_then_members():
    judgments = [
        *said("x", 0.9, 0.5, principle="kind"),  # orders .8 and 0: d .4
        *said("x", 0.2, principle="true"),  # −.6
        *said("y", 0.7, principle="kind"),  # .4
    ]
    weights = {"kind": 3.0}
    # x: (3·.4 − .6)/4 = .15; y: .4
    assert d_of(judgments, principle_weights=weights) == pytest.approx((0.15 + 0.4) / 2)
    [found], _ = pair(judgments, PairSection(principle_weights=weights))
    assert found.by_principle == {"kind": pytest.approx(0.7), "true": pytest.approx(0.2)}
    assert (len(found.judgment_ids), found.consistent) == (6, True)


def test_a_member_that_failed_is_left_out():
    one_order = said("y", 0.1)[:1]
    assert d_of(panel(x=0.9) + one_order) == pytest.approx(0.8)
    assert d_of(one_order + said("x", 0.9)[1:]) == "one_order_failed"


def test_superseded_judgments_count_for_nothing():
    # A cascade: the cheap judge's were superseded.
    cheap = [msgspec.structs.replace(judgment, superseded=True) for judgment in said("cheap", 0.1)]
    assert d_of(cheap + said("dear", 0.9)) == pytest.approx(0.8)
    assert d_of(cheap) == "no_usable_judgment"  # the pair is not forgotten
    both = cheap + said("dear", 0.9) + said("cheap", 0.7, prompt="r")
    assert comparisons(both, PairSection()).panel == {}  # a cascade is no panel


def test_figures_of_a_panel_without_gold():
    judgments = [
        j for i in range(4) for m in "xyz" for j in said(m, 0.9 if (i % 2) == (m == "z") else 0.1, prompt=str(i))
    ]
    figures = comparisons(judgments, PairSection()).panel
    # x and y are the same, z always the opposite: correlations 1, −1, −1, mean −1/3, not below 0
    assert (figures["n_effective"], figures["n_effective_of"], figures["pairs"]) == (3.0, "verdicts", 4)
    assert figures["members"]["x"] == {"weight": 1.0, "judged": 4}
    assert (figures["flagged"], figures["ties"]) == ({}, 0)
    assert comparisons(said(None, 0.9), PairSection()).panel == {}


# --- gold as counts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["mean", "majority", "weighted", "dawid_skene"])
def test_a_member_below_chance_has_weight_0_and_is_not_inverted(policy, tmp_path):
    gold = gold_file(tmp_path, x=(45, 50), y=(5, 50))
    judgments = [j for i in range(6) for j in said("x", 0.9, prompt=str(i)) + said("y", 0.8 * (i % 2), prompt=str(i))]
    found = comparisons(judgments, PairSection(panel=policy, panel_gold=gold))
    assert found.panel["members"]["y"]["weight"] == 0
    assert found.panel["flagged"] == {"y": "below_chance"}
    expected = {"mean": 0.8, "weighted": 0.8, "majority": 1}.get(policy)
    for i in range(6):
        d = found.results[str(i)]["a", "b"].difference
        assert d > 0 if expected is None else d == pytest.approx(expected)
        assert all("y" not in j for j in found.results[str(i)]["a", "b"].judgment_ids)


def test_who_is_not_above_chance_counts_only_where_weights_do_not_come_from_gold(tmp_path):
    gold = gold_file(tmp_path, x=(45, 50), y=(24, 50))
    judgments = [j for i in range(6) for j in said("x", 0.9, prompt=str(i)) + said("y", i % 2, prompt=str(i))]
    mean, weighted = (
        comparisons(judgments, PairSection(panel=p, panel_gold=gold)).panel for p in ("mean", "weighted")
    )
    assert mean["flagged"] == weighted["flagged"] == {"y": "not_above_chance"}
    assert (mean["members"]["y"]["weight"], weighted["members"]["y"]["weight"]) == (1, 0)


def test_weights_are_those_of_the_normal_equations(tmp_path):
    # Verdicts of x and y are the same as often as not: E[s s'] = 0, so weights are their μ = 2·(c + 1)/(n + 2) − 1.
    gold = gold_file(tmp_path, x=(43, 48), y=(33, 48))
    judgments = []
    for i in range(40):
        judgments += said("x", 1.0 if i % 2 else 0.0, prompt=str(i)) + said(
            "y", 0.8 if i % 4 > 1 else 0.2, prompt=str(i)
        )
    found = comparisons(judgments, PairSection(panel="weighted", panel_gold=gold))
    mu, nu = 2 * 44 / 50 - 1, 2 * 34 / 50 - 1
    weights = {name: row["weight"] for name, row in found.panel["members"].items()}
    assert weights == {"x": pytest.approx(mu, abs=1e-5), "y": pytest.approx(nu, abs=1e-5)}
    assert found.results["1"]["a", "b"].difference == pytest.approx((mu * 1 - nu * 0.6) / (mu + nu), abs=1e-5)


def test_gold_that_leaves_nobody_is_one_line(tmp_path):
    gold = gold_file(tmp_path, x=(20, 50), y=(25, 50))
    with pytest.raises(DataError, match=r"no member is better than chance on gold: x 20/50, y 25/50"):
        comparisons(panel(x=0.9, y=0.8), PairSection(panel="weighted", panel_gold=gold))


# --- gold as records -----------------------------------------------------------------------------------------------


def run_of(accuracies: dict[str, float], n: int, seed=0) -> tuple[list[Judgment], dict[str, int]]:
    """Judges that are right with these probabilities, and the truth: 1 where a is better."""
    rng = random.Random(seed)
    truth = {f"{i:03d}": rng.choice([1, -1]) for i in range(n)}
    judgments = []
    for prompt, sign in truth.items():
        for member, accuracy in accuracies.items():
            right = rng.random() < accuracy
            judgments += said(member, 0.5 + 0.4 * sign * (1 if right else -1), prompt=prompt)
    return judgments, truth


def gold_records(tmp_path, truth: dict[str, int], n: int) -> str:
    """The first `n`, every second told from the other side, one of them a tie between two raters."""
    rows = []
    for i, (prompt, sign) in enumerate(list(truth.items())[:n]):
        gold = Gold(prompt_id=prompt, response_ids=["a", "b"], labels=["first" if sign > 0 else "second", None])
        rows.append(gold if i % 2 else gold.swap())
    rows.append(Gold(prompt_id="999", response_ids=["a", "b"], labels=["first", "second"]))
    path = tmp_path / "gold.jsonl"
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return str(path)


@pytest.mark.parametrize("policy", ["weighted", "dawid_skene"])
def test_gold_about_this_run_sets_the_weights(policy, tmp_path):
    judgments, truth = run_of({"good": 0.9, "fair": 0.75, "bad": 0.3}, 300)
    found = comparisons(judgments, PairSection(panel=policy, panel_gold=gold_records(tmp_path, truth, 60)))
    members = found.panel["members"]
    assert members["good"]["weight"] > members["fair"]["weight"] > members["bad"]["weight"] == 0
    assert {name: row["n"] for name, row in members.items()} == dict.fromkeys(members, 60)
    good = sum(truth[p] * r["a", "b"].difference > 0 for p, r in found.results.items()) / 300
    assert good >= 0.88
    assert found.panel["n_effective"] == pytest.approx(3, abs=0.3)


def test_dawid_skene_probabilities_are_log_odds_of_votes(tmp_path):
    judgments, truth = run_of({"x": 0.85, "y": 0.8}, 400, seed=1)
    found = comparisons(judgments, PairSection(panel="dawid_skene", panel_gold=gold_records(tmp_path, truth, 80)))
    x, y = (found.panel["members"][name]["weight"] for name in "xy")
    for pairs in found.results.values():
        d = pairs["a", "b"].difference
        assert min(abs(abs(d) - math.tanh(abs(odds) / 2)) for odds in (x + y, x - y)) < 1e-5
    # log-odds of a vote near log(p / (1 − p)): the members are independent
    assert (x, y) == (pytest.approx(math.log(0.85 / 0.15), abs=0.4), pytest.approx(math.log(0.8 / 0.2), abs=0.4))


# --- what is wrong is one line -------------------------------------------------------------------------------------


def test_weights_need_gold():
    with pytest.raises(ValueError, match="panel: weighted needs panel_gold"):
        PairSection(panel="weighted")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "[1]", r"expected \{\"members\""),
        ("x.json", '{"x": {"n": 3}}', r"expected \{\"members\""),
        ("x.json", '{"x": {"n": 3, "correct": 4}}', "member 'x': 4 correct of 3"),
        ("x.json", '{"y": {"n": 3, "correct": 2}}', "nothing about member 'x'; it has: y"),
        ("x.jsonl", "{}", "each line is a Gold record"),
        ("x.jsonl", '{"prompt_id":"z","response_ids":["a","b"],"labels":["first"]}', "it has 1 pairs with a winner"),
    ],
)  # fmt: skip
def test_gold_that_cannot_be_used(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises((ConfigError, DataError), match=message):
        comparisons(panel(x=0.9), PairSection(panel_gold=str(tmp_path / name)))


def test_gold_without_a_panel_and_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="no usable judgment names a member of a panel"):
        comparisons(said(None, 0.9), PairSection(panel_gold=gold_file(tmp_path, x=(1, 2))))
    with pytest.raises(ConfigError, match=r"nowhere\.json: cannot read: No such file"):
        comparisons(panel(x=0.9), PairSection(panel_gold="nowhere.json"))


# --- the stage -----------------------------------------------------------------------------------------------------


def test_the_manifest_tells_of_the_panel(tmp_path):
    gold = gold_file(tmp_path, x=(45, 50), y=(5, 50))
    with RunFolder(tmp_path / "run") as folder:
        folder.write("responses", [Response(id=i, prompt_id="q", text=i) for i in "ab"])
        folder.write("judgments", panel(x=0.9, y=0.2))
        counts = run(Context(Pipeline(run=str(folder.path), pair=PairSection(panel_gold=gold)), folder))
    assert counts["panel"]["flagged"] == {"y": "below_chance"}
    assert counts["panel"]["members"]["x"] == {
        "weight": 1.0, "judged": 1, "n": 50, "correct": 45, "accuracy": round(46 / 52, 6), "flag": None,
        "low": pytest.approx(0.781865), "high": pytest.approx(0.966725, abs=2e-6),
    }  # fmt: skip
    assert (counts["comparisons"], counts["preferences"]) == (1, 1)
