"""evaluation.json from hand-made rows; expected values derived in the comments."""

from __future__ import annotations

import json

import pytest

from rlaif.records import Judgment, Prompt, Response, Status
from rlaif.stages.evaluation import Comparison, JudgeView, evaluate, oracle_outcome, view


def comparison(
    number: int, prompt: str = "", before: str = "old text", after: str = "new", domain: str = "d"
) -> Comparison:
    owner = Prompt(
        id=prompt or f"p{number}", messages=[{"role": "user", "content": f"question {number}"}], domain=domain
    )
    old = Response(id=f"old{number}", prompt_id=owner.id, text=before)
    new = Response(id=f"new{number}", prompt_id=owner.id, text=after)
    return Comparison(owner, old, new)


def both_orders(c: Comparison, old_first: float, new_first: float, principle: str | None = None) -> list[Judgment]:
    """`old_first`, `new_first`: P(the response shown first is better), when the old or the new one is shown first."""
    return [
        judged(c, [c.before.id, c.after.id], old_first, principle),
        judged(c, [c.after.id, c.before.id], new_first, principle),
    ]


def judged(
    c: Comparison, ids: list[str], p: float | None, principle: str | None = None, status: Status = "ok"
) -> Judgment:
    return Judgment(
        id=f"{ids}{principle}",
        prompt_id=c.prompt.id,
        response_ids=ids,
        principle=principle,
        status=status,
        verdict=None if p is None else "first" if p > 0.5 else "second",
        probabilities=None if p is None else {"first": p, "second": 1 - p},
        meta={"orders": "both"},
    )


def test_view_averages_orders_before_any_threshold() -> None:
    sure, biased, tie, failed, unasked = (comparison(i) for i in range(5))
    judgments = [
        *both_orders(sure, 0.2, 0.8),  # new: .8 and .8
        *both_orders(biased, 0.9, 0.6),  # a judge that likes what is first: new .1 and .6, mean .35
        *both_orders(tie, 0.7, 0.7),  # nothing but position bias
        judged(failed, [failed.before.id, failed.after.id], None, status="unparsed"),
        judged(failed, [failed.after.id, failed.before.id], 0.9),  # one order alone carries the bias
    ]
    found = view([sure, biased, tie, failed, unasked], judgments)
    assert found.p_after == [pytest.approx(0.8), pytest.approx(0.35), 0.5, None, None]
    assert found.outcomes[:3] == [1, 0, 0.5]
    assert found.consistent == [1, 0, 0, None, None], "orders that cancel to a tie contradict each other"
    assert found.excluded == {"one_order_failed": 1, "not_judged": 1}


def test_view_weighs_principles() -> None:
    """helpful says .9 for new, polite .2: even (.9 + .2)/2 = .55; with polite at weight 3 (.9 + 3·.2)/4 = .375."""
    c = comparison(0)
    rows = both_orders(c, 0.1, 0.9, "helpful") + both_orders(c, 0.8, 0.2, "polite")
    assert view([c], rows).p_after == [pytest.approx(0.55)]
    assert view([c], rows, {"polite": 3.0}).p_after == [pytest.approx(0.375)]


def test_identical_responses_are_a_tie() -> None:
    c = comparison(0, before="same", after="same")
    found = view([c], both_orders(c, 0.5, 0.5))
    assert found.outcomes == [0.5]
    assert found.consistent == [None]  # no order names a winner


def test_a_judge_that_always_says_first_is_never_consistent() -> None:
    comparisons = [comparison(i) for i in range(3)]
    judgments = [row for c in comparisons for row in both_orders(c, 1.0, 1.0)]
    found = view(comparisons, judgments)
    assert found.outcomes == [0.5, 0.5, 0.5]
    assert evaluate(comparisons, {"judge": found}, {}, seed=0)["judges"]["judge"]["order_consistency"]["value"] == 0


def some() -> tuple[list[Comparison], dict[str, JudgeView], dict[str, dict[str, float | None]]]:
    """Four prompts; the judge says win, win, tie, nothing; the oracle win, loss, tie, win."""
    comparisons = [comparison(i, domain="easy" if i < 2 else "hard") for i in range(4)]
    views = {"judge": JudgeView([0.9, 0.8, 0.5, None], [1, 0, None, None], {"no_usable_judgment": 1})}
    quality = [(0.2, 0.9), (0.6, 0.5), (0.4, 0.405), (0.1, 0.2)]
    values: dict[str, dict[str, float | None]] = {}
    for i, (old, new) in enumerate(quality):
        values[f"old{i}"] = {"quality": old, "harmful_compliance": 1.0 if i == 0 else None}
        values[f"new{i}"] = {"quality": new, "harmful_compliance": 0.0 if i == 0 else None}
    return comparisons, views, values


def test_figures() -> None:
    found = evaluate(*some(), seed=1)
    rate = found["win_rate"]["judge"]
    assert (rate["value"], rate["n"], rate["ties"]) == (pytest.approx(2.5 / 3, abs=1e-6), 3, 1)
    assert rate["low"] < rate["value"] < rate["high"]
    assert found["oracle_win_rate"]["value"] == 0.625  # (1 + 0 + ½ + 1) / 4
    assert found["oracle_win_rate"]["ties"] == 1
    gap = found["judge_minus_oracle"]["judge"]  # over the three that both saw: (0 + 1 + 0) / 3
    assert (gap["value"], gap["n"]) == (pytest.approx(1 / 3, abs=1e-6), 3)
    length = found["length"]  # "old text" 8 characters, "new" 3
    assert (length["before"]["value"], length["after"]["value"], length["difference"]["value"]) == (8, 3, -5)
    quality = found["metrics"]["quality"]
    assert quality["before"]["value"] == pytest.approx(0.325) and quality["after"]["value"] == pytest.approx(0.50125)
    assert quality["difference"]["value"] == pytest.approx(0.17625) and quality["difference"]["n"] == 4
    compliance = found["metrics"]["harmful_compliance"]  # measured on one prompt only: no interval
    assert compliance["after"] == {"value": 0.0, "low": None, "high": None, "n": 1}
    assert found["judges"]["judge"]["order_consistency"]["value"] == 0.5
    assert found["judges"]["judge"]["excluded"] == {"no_usable_judgment": 1}
    assert found["by_domain"]["easy"]["win_rate"]["judge"]["value"] == 1
    assert found["by_domain"]["hard"]["win_rate"]["judge"] == {**rate_of_one_tie(), "ties": 1}
    assert "harmful_compliance" not in found["by_domain"]["hard"]["metrics"]


def rate_of_one_tie() -> dict[str, float]:
    return {"value": 0.5, "low": 0.054621, "high": 0.945379, "n": 1}  # Wilson at ½ of 1, see test_metrics


def test_is_json_without_nan_and_the_same_every_time() -> None:
    first, second = (json.dumps(evaluate(*some(), seed=1), allow_nan=False) for _ in range(2))
    assert first == second


def test_responses_to_one_prompt_are_one_cluster() -> None:
    """Twenty comparisons on two prompts, one won and one lost throughout: two facts, not twenty."""
    comparisons = [comparison(i, prompt=f"p{i % 2}") for i in range(20)]
    views = {"judge": JudgeView([0.9 if i % 2 else 0.1 for i in range(20)], [1.0] * 20)}
    rate = evaluate(comparisons, views, {}, seed=1)["win_rate"]["judge"]
    assert (rate["low"], rate["value"], rate["high"], rate["n"]) == (0, 0.5, 1, 20)


def test_without_verdicts_or_measures_there_are_nulls() -> None:
    found = evaluate([comparison(0, domain="")], {"judge": JudgeView([None], [None])}, {}, seed=1)
    assert found["win_rate"] == {"judge": None} and found["oracle_win_rate"] is None
    assert found["judge_minus_oracle"] == {} and found["metrics"] == {} and found["by_domain"] == {}
    assert found["examples"] == []


def test_examples_run_from_win_to_loss() -> None:
    comparisons = [comparison(i) for i in range(10)]
    views = {"judge": JudgeView([i / 10 for i in range(10)], [1.0] * 10)}
    rows = evaluate(comparisons, views, {"old9": {"quality": 0.25}}, seed=1, n_examples=3)["examples"]
    assert [row["p_judge"] for row in rows] == [0.9, 0.5, 0.0]
    assert rows[0] == {
        "prompt": "question 9",
        "before": "old text",
        "after": "new",
        "domain": "d",
        "p_judge": 0.9,
        "quality_before": 0.25,
    }


@pytest.mark.parametrize(
    ("old", "new", "outcome"),
    [(0.5, 0.52, 1), (0.52, 0.5, 0), (0.5, 0.505, 0.5), (None, 0.5, None), (0.5, None, None)],
)
def test_oracle_outcome(old: float | None, new: float | None, outcome: float | None) -> None:
    found = oracle_outcome(comparison(0), {"old0": {"quality": old}, "new0": {"quality": new}})
    assert found == outcome if outcome is not None else found != found
