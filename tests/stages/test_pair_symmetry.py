"""For every kind of judgment and every policy: sides mean nothing, and neither does the order of rows."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from rlaif.config import PairSection
from rlaif.errors import ConfigError
from rlaif.records import Judgment, make_id
from rlaif.rubric import Criterion, Rubric, Scale
from rlaif.stages.pair import comparisons, pair
from rlaif.stages.pairing.standards import Standards
from rlaif.stages.selectors import Comparison

checked = settings(max_examples=40, deadline=None, derandomize=True)
KINDS = ["pairwise", "pointwise", "listwise"]
ORDER_POLICIES = ["average", "vote", "net", "agree"]
PANELS = ["mean", "majority", "weighted", "dawid_skene"]
IDS = "abcd"
OTHER = dict(zip(IDS, "zyxw", strict=True))  # new names that sort the other way round: every pair changes sides
STANDARDS = Standards(
    [
        Rubric(
            id="r", version=1, name="r", description="r",
            criteria=[
                Criterion(id="safe", description="x", hard=True, scale=Scale(min=1, max=3)),
                Criterion(id="clear", description="x", weight=2, scale=Scale(min=1, max=5)),
            ],
        )
    ]
)  # fmt: skip

probability = st.one_of(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]), st.floats(0, 1, allow_subnormal=False))


@st.composite
def distributions(draw, high: int) -> dict[str, float]:
    weights = draw(st.lists(st.integers(0, 3), min_size=high, max_size=high).filter(any))
    return {str(i + 1): weight / sum(weights) for i, weight in enumerate(weights)}


@st.composite
def scored(draw) -> dict:
    scores: dict[str, float | None] = {}
    found: dict[str, dict[str, float]] = {}
    for name, high in (("safe", 3), ("clear", 5)):
        how = draw(st.sampled_from(["null", "score", "distribution"]))
        scores[name] = None if how == "null" else float(draw(st.integers(1, high)))
        if how == "distribution":
            found[name] = draw(distributions(high))
            scores[name] = sum(int(step) * p for step, p in found[name].items())
    return {"scores": scores, "distributions": found or None}


@st.composite
def said(draw, kind: str, shown: list[str]) -> dict:
    if draw(st.integers(0, 5)) == 0:
        return {"status": "unparsed"}
    if kind == "listwise":
        return {"ranking": draw(st.permutations(shown))}
    if kind == "pointwise":
        return draw(scored())
    if draw(st.booleans()):
        return {"verdict": draw(st.sampled_from(["first", "second", "tie"]))}
    p = draw(probability)
    return {"probabilities": {"first": p, "second": 1 - p}}


@st.composite
def runs(draw, kind: str, members: tuple[str | None, ...] = (None, "x", "y")) -> list[Judgment]:
    """One to three prompts, each with two to four responses, by one judge or by two members of a panel."""
    who = draw(st.sampled_from([members[:1], members[1:]])) if None in members else members
    found = []
    for prompt in range(draw(st.integers(1, 3))):
        ids = list(IDS[: draw(st.integers(2, 4))])
        principles = [None] if kind == "pointwise" else draw(st.sampled_from([[None], ["kind", "true"]]))
        for member in who:
            for principle in principles:
                for n, shown in enumerate(_shown(kind, ids)):
                    found.append(
                        Judgment(
                            id=make_id(prompt, member, principle, n, *shown), prompt_id=str(prompt), kind=kind,
                            response_ids=shown, member=member, principle=principle, rubric="r@1",
                            meta={"orders": "both"} if kind == "pairwise" else {}, **draw(said(kind, shown)),
                        )
                    )  # fmt: skip
    return found


def _shown(kind: str, ids: list[str]) -> list[list[str]]:
    if kind == "pointwise":
        return [[i] for i in ids]
    if kind == "listwise":
        return [ids, ids[::-1], [*ids[1:], ids[0]]]
    return [[a, b] for a in ids for b in ids if a != b]


def renamed(judgment: Judgment) -> Judgment:
    return msgspec.structs.replace(
        judgment,
        response_ids=[OTHER[i] for i in judgment.response_ids],
        ranking=judgment.ranking and [OTHER[i] for i in judgment.ranking],
    )


def mirrored(judgment: Judgment) -> Judgment:
    """The judge says the opposite of everything: the other one is better by as much."""
    if judgment.kind == "pairwise":
        return msgspec.structs.replace(judgment.swap(), response_ids=judgment.response_ids)
    return msgspec.structs.replace(judgment, ranking=judgment.ranking and judgment.ranking[::-1])


def results(judgments, **section) -> dict[tuple, float | str]:
    """(prompt, the pair) → d of the first in the alphabet of IDS, with everything else that a label says."""
    back = {new: old for old, new in OTHER.items()}
    found: dict[tuple, float | str] = {}
    for prompt, pairs in comparisons(judgments, PairSection(**section), standards=STANDARDS).results.items():
        for ids, c in pairs.items():
            names = tuple(back.get(i, i) for i in ids)
            sign = 1 if names[0] < names[1] else -1
            found[prompt, *sorted(names)] = _told(c, sign)
    return found


def _told(c: Comparison | str, sign: int) -> tuple | str:
    if isinstance(c, str):
        return c
    margin = None if c.margin is None else sign * c.margin
    principles = {name: sign * d for name, d in c.by_principle.items()}
    return (sign * c.difference, margin, c.consistent, principles)


def opposite(told: tuple | str) -> tuple | str:
    if isinstance(told, str):
        return told
    d, margin, consistent, principles = told
    return (-d, None if margin is None else -margin, consistent, {name: -d for name, d in principles.items()})


# --- one judge, and members that count alike ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ORDER_POLICIES)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@checked
def test_names_and_the_order_of_rows_mean_nothing(kind, policy, data):
    judgments = data.draw(runs(kind))
    section = {"order_policy": policy, "panel": data.draw(st.sampled_from(["mean", "majority"]))}
    expected = results(judgments, **section)
    assert results([renamed(judgment) for judgment in judgments], **section) == expected
    shuffled = data.draw(st.permutations(judgments))
    assert results(shuffled, **section) == expected
    if kind == "pairwise":
        assert results([judgment.swap() for judgment in judgments], **section) == expected


@pytest.mark.parametrize("policy", ORDER_POLICIES)
@pytest.mark.parametrize("kind", ["pairwise", "listwise"])
@given(data=st.data())
@checked
def test_the_opposite_judgments_give_exactly_the_opposite(kind, policy, data):
    judgments = data.draw(runs(kind))
    section = {"order_policy": policy, "panel": data.draw(st.sampled_from(["mean", "majority"]))}
    expected = {pair: opposite(told) for pair, told in results(judgments, **section).items()}
    assert results([mirrored(judgment) for judgment in judgments], **section) == expected


@given(data=st.data())
@checked
def test_exchanged_scores_give_exactly_the_opposite(data):
    judgments = [j for j in data.draw(runs("pointwise")) if j.response_ids[0] in "ab"]
    other = {"a": "b", "b": "a"}
    exchanged = [msgspec.structs.replace(j, response_ids=[other[j.response_ids[0]]]) for j in judgments]
    expected = {pair: opposite(told) for pair, told in results(judgments).items()}
    assert results(exchanged) == expected


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@checked
def test_every_label_is_sound_and_every_pair_has_one_fate(kind, data):
    judgments = data.draw(runs(kind))
    section = PairSection(
        select=data.draw(st.sampled_from(["all_pairs", "best_vs_worst"])),
        order_policy=data.draw(st.sampled_from(ORDER_POLICIES)),
    )
    preferences, dropped = pair(judgments, section, standards=STANDARDS)
    usable = {judgment.id for judgment in judgments if judgment.status == "ok"}
    for p in preferences:
        assert 0.5 < p.probability <= 1 and 0 <= p.judge_margin <= 1
        assert p.judgment_ids and set(p.judgment_ids) <= usable
        assert len(p.judgment_ids) == len(set(p.judgment_ids))
    accounted = [p.id for p in preferences] + [row.id for row in dropped]
    assert len(accounted) == len(set(accounted))
    if section.select == "all_pairs":
        found = comparisons(judgments, section, standards=STANDARDS).results
        assert len(accounted) == sum(len(pairs) for pairs in found.values())


# --- members weighed by gold ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gold(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gold") / "calibration.json"
    counts = {"x": (40, 50), "y": (33, 50), "z": (12, 50)}
    path.write_text(json.dumps({name: {"n": n, "correct": correct} for name, (correct, n) in counts.items()}))
    return path


@pytest.mark.parametrize("panel", PANELS)
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(checked, max_examples=20)
def test_sides_and_rows_mean_nothing_to_a_panel_either(kind, panel, gold, data):
    judgments = data.draw(runs(kind, ("x", "y", "z")))
    section = {"panel": panel, "panel_gold": str(gold)}
    assume(any(judgment.status == "ok" for judgment in judgments))
    try:
        expected = results(judgments, **section)
    except ConfigError:  # no usable opinion: there is no panel
        reject()
    assert results(data.draw(st.permutations(judgments)), **section) == expected
    if kind != "pointwise":
        opposed = {pair: opposite(told) for pair, told in expected.items()}
        assert results([mirrored(judgment) for judgment in judgments], **section) == opposed
    # other names sort the pairs in another order, so that the weights may move in their last digits
    for pair_, told in results([renamed(judgment) for judgment in judgments], **section).items():
        if isinstance(told, str):
            assert told == expected[pair_]
        else:
            assert told[0] == pytest.approx(expected[pair_][0], abs=1e-6)
