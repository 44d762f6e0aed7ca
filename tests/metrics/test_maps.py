"""Expected values are derived by hand in the comments, taken from a library, or from a published table."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from rlaif.metrics import maps
from rlaif.metrics.maps import Map, SlicedMap

unit = st.floats(0, 1)
pairs = st.lists(st.tuples(unit, st.integers(0, 1)), min_size=1, max_size=40)


def overconfident(n: int, seed: int = 0) -> tuple[list[float], list[float]]:
    """Judgments whose log-odds are three times what they should be."""
    draw = np.random.default_rng(seed)
    logit = draw.normal(0, 1, n)
    y = (draw.random(n) < 1 / (1 + np.exp(-logit))).astype(float)
    return (1 / (1 + np.exp(-3 * logit))).tolist(), y.tolist()


@given(pairs, st.sampled_from(["temperature", "isotonic", "none"]), st.lists(unit, min_size=1, max_size=20))
def test_every_map_is_symmetric_rising_and_names_nobody_else(data, kind, at):
    fitted = maps.fit(kind, [p for p, _ in data], [y for _, y in data])
    p = np.sort(np.asarray([*at, 0.0, 0.5, 1.0]))
    mapped = fitted(p)
    assert fitted(1 - p) == pytest.approx(1 - mapped, abs=1e-9)
    assert (np.diff(mapped) >= -1e-12).all() and mapped.min() >= 0 and mapped.max() <= 1
    assert ((mapped - 0.5) * (p - 0.5) >= -1e-12).all()
    assert fitted([0.5])[0] == 0.5


def test_temperature_of_a_judge_with_one_level_is_its_accuracy() -> None:
    # Always .9, right 70 times of 100. With Platt's targets 101/102 and 1/102: (70·101 + 30·1)/102/100 = .6961
    fitted = maps.fit("temperature", [0.9] * 100, [1] * 70 + [0] * 30)
    assert fitted([0.9])[0] == pytest.approx((70 * 101 + 30) / 102 / 100, abs=1e-6)
    assert fitted.n == 100


def test_temperature_is_found_again_and_is_the_librarys() -> None:
    p, y = overconfident(4000)
    fitted = maps.fit("temperature", p, y)
    assert fitted.temperature == pytest.approx(3, rel=0.1)
    logits = np.log(p) - np.log1p(-np.asarray(p))
    n = len(y)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    weights = np.where(np.r_[y, 1 - np.asarray(y)] == np.r_[y, y], (n + 1) / (n + 2), 1 / (n + 2))
    model.fit(np.r_[logits, logits][:, None], np.r_[y, 1 - np.asarray(y)], weights)
    assert 1 / fitted.temperature == pytest.approx(model.coef_[0, 0], rel=1e-4)


def test_isotonic_is_the_librarys_but_for_its_ceiling() -> None:
    p, y = overconfident(300, seed=2)
    fitted = maps.fit("isotonic", p, y)
    both = IsotonicRegression(y_min=0, y_max=1).fit(np.r_[p, 1 - np.asarray(p)], np.r_[y, 1 - np.asarray(y)])
    expected = np.clip(both.predict(p), 1 / 302, 301 / 302)
    assert fitted(p) == pytest.approx(expected, abs=1e-9)
    assert fitted([1.0])[0] <= 301 / 302  # 300 pairs are no certainty


def test_isotonic_pools_what_falls() -> None:
    # Told from both sides and above ½: .6 right 3 of 4, .8 right 1 of 4: together 4 of 8
    fitted = maps.fit("isotonic", [0.6] * 4 + [0.8] * 4 + [0.9] * 2, [1, 1, 1, 0, 0, 0, 0, 1, 1, 1])
    assert fitted([0.6, 0.8, 0.4, 0.9]) == pytest.approx([0.5, 0.5, 0.5, 11 / 12])


@pytest.mark.parametrize("kind", ["temperature", "isotonic"])
def test_a_judge_below_chance_is_never_turned_round(kind: maps.Kind) -> None:
    fitted = maps.fit(kind, [0.9] * 50, [1] * 10 + [0] * 40)
    assert 0.5 <= fitted([0.9])[0] < 0.501


def test_a_judge_that_was_always_right_is_not_certain() -> None:
    fitted = maps.fit("temperature", [1.0, 0.0] * 10, [1, 0] * 10)
    assert fitted([1.0, 0.0]) == pytest.approx([21 / 22, 1 / 22], abs=1e-4)


def test_small_slices_fall_back() -> None:
    p, y = overconfident(400)
    names = ["big"] * 200 + ["small"] * 50 + [None] * 150
    fitted = maps.fit_slices("temperature", p, y, names, by="domain", min_slice=100)
    assert list(fitted.slices) == ["big"] and fitted.overall.n == 400 and fitted.slices["big"].n == 200
    mapped = fitted([0.9, 0.9, 0.9, 0.9], ["big", "small", None, "never seen"])
    assert mapped[0] == fitted.slices["big"]([0.9])[0] != mapped[1]
    assert mapped[1] == mapped[2] == mapped[3] == fitted.overall([0.9])[0]


@pytest.mark.parametrize("kind", ["temperature", "isotonic", "none"])
def test_json_and_back_is_the_same_map(kind: maps.Kind) -> None:
    p, y = overconfident(200)
    fitted = maps.fit_slices(kind, p, y, ["a", "b"] * 100, by="domain", min_slice=50)
    again = maps.from_json(json.loads(msgspec.json.encode(fitted)))
    assert again == fitted
    assert again(p, ["a"] * 200).tolist() == fitted(p, ["a"] * 200).tolist()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"kind": "isotonic", "x": [0.5, 1.0], "y": [0.5]}, "one length"),
        ({"kind": "isotonic", "x": [0.5, 1.0], "y": [0.5, 0.4]}, "never fall"),
        ({"kind": "isotonic", "x": [0.4, 1.0], "y": [0.5, 0.6]}, "½"),
        ({"kind": "temperature", "temperature": 0}, "positive"),
        ({"kind": "spline"}, "spline"),
        ({"temprature": 2}, "temprature"),
    ],
)
def test_a_map_that_is_none_is_refused(raw: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        maps.from_json({"overall": raw})


def test_missing_rows_are_left_out_and_none_left_is_an_error() -> None:
    assert maps.fit("isotonic", [0.9, None, 0.8], [1, 1, math.nan]).n == 1
    with pytest.raises(ValueError, match="pairs with a probability"):
        maps.fit("temperature", [None], [1])
    with pytest.raises(ValueError, match="0 or 1"):
        maps.fit("temperature", [0.9], [0.5])
    assert math.isnan(Map(kind="temperature", temperature=2)([None])[0])
    assert SlicedMap(overall=Map())([0.3, 0.8]).tolist() == [0.3, 0.8]
