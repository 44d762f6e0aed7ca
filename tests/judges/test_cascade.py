"""Cascades as generators: when the next judge is asked, what becomes of what was overruled, and what is promised."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from judge_play import ONE, TWO, Able, play, soft, task

from rlaif.config import JudgeSection, PairSection
from rlaif.errors import ConfigError
from rlaif.judges import build, find_files_of
from rlaif.judges.base import Judge, planned
from rlaif.judges.cascade import for_calibration, opinion
from rlaif.records import Judgment, Prompt, Reply, Request
from rlaif.stages.pair import pair

MEMBERS = {"cheap": {"engine": "small"}, "strong": {"engine": "large"}}


def cascade(*, members: Mapping[str, Any] = MEMBERS, **section: Any) -> Judge:
    keys = {"judge": "cascade", "rubric": "helpfulness", "members": members, "options": {"threshold": 0.8}, **section}
    engine: Any = Able(logprobs=True)
    return build(JudgeSection(**keys), lambda role: engine)


def answers(small: Mapping[str, Reply], large: Mapping[str, Reply] | None = None) -> Callable[[Request], Reply]:
    """Role → who is shown first → reply."""

    def answer(request: Request) -> Reply:
        return {"small": small, "large": large or {}}[request.role][request.subject[1]]

    return answer


def agreeing(p: float) -> dict[str, Reply]:
    """P(r1 better) = p in either order."""
    return {"r1": soft(A=p, B=1 - p), "r2": soft(A=1 - p, B=p)}


def summary(judgments: list[Judgment]) -> list[tuple[str | None, bool, Any]]:
    return [(j.member, j.superseded, j.meta.get("escalated") or j.meta.get("withheld")) for j in judgments]


def test_a_sure_judge_is_the_only_one_asked() -> None:
    rounds, judgments = play(cascade(), task(ONE, TWO), answers(agreeing(0.85)))
    assert [len(requests) for requests in rounds] == [2]
    assert summary(judgments) == [("cheap", False, None)] * 2
    assert [judgment.meta["promised"] for judgment in judgments] == [False, False], "one threshold is no promise"


def test_an_unsure_judge_is_overruled_and_kept() -> None:
    rounds, judgments = play(cascade(), task(ONE, TWO), answers(agreeing(0.75), agreeing(0.1)))
    assert [len(requests) for requests in rounds] == [2, 2]
    assert summary(judgments) == [("cheap", True, "unsure")] * 2 + [("strong", False, None)] * 2
    (preference,), dropped = pair(judgments, PairSection())
    assert (preference.chosen_id, dropped) == ("r2", []), "what was overruled counts for nothing"
    assert preference.probability == pytest.approx(0.9)
    assert set(preference.judgment_ids) == {judgment.id for judgment in judgments[2:]}


def test_orders_that_name_different_winners_are_a_doubt_however_sure_each_is() -> None:
    """First place always wins: the mean is ½ or near it, and near 1 where one order is surer than the other."""
    small = {"r1": soft(A=0.999, B=0.001), "r2": soft(A=0.51, B=0.49)}
    section = {"options": {"threshold": 0.7}}
    _, judgments = play(cascade(**section), task(ONE, TWO), answers(small, agreeing(0.9)))
    assert (0.999 + 0.49) / 2 > 0.7
    assert summary(judgments)[:2] == [("cheap", True, "orders_disagree")] * 2


@pytest.mark.parametrize(
    "failed",
    [Reply(error="timeout: 60 s"), Reply(text="A", finish_reason="refusal"), Reply(text="hm")],
    ids=["error", "refused", "unparsed"],
)
def test_what_cannot_be_read_is_a_doubt(failed: Reply) -> None:
    small = {"r1": soft(A=0.99, B=0.01), "r2": failed}
    _, judgments = play(cascade(), task(ONE, TWO), answers(small, agreeing(0.9)))
    assert summary(judgments) == [("cheap", True, "no_verdict")] * 2 + [("strong", False, None)] * 2


def test_without_a_promise_the_last_word_stands_as_it_is() -> None:
    _, judgments = play(cascade(), task(ONE, TWO), answers(agreeing(0.5), agreeing(0.52)))
    assert summary(judgments)[2:] == [("strong", False, None)] * 2
    assert pair(judgments, PairSection())[0][0].probability == pytest.approx(0.52)


def test_two_members_on_one_model_have_judgments_of_their_own() -> None:
    same = {"one": {"engine": "small"}, "two": {"engine": "small"}}
    _, judgments = play(cascade(members=same), task(ONE, TWO), answers(agreeing(0.6)))
    assert len(judgments) == len({judgment.id for judgment in judgments}) == 4


def test_a_random_order_has_no_orders_that_disagree() -> None:
    rounds, judgments = play(cascade(orders="random"), task(ONE, TWO), answers(agreeing(0.95)))
    assert [len(requests) for requests in rounds] == [1]
    assert summary(judgments) == [("cheap", False, None)]


def test_weights_of_principles_are_those_of_pair() -> None:
    """0.9 under one principle and 0.2 under the other: the mean is .55, and .725 if the first weighs three times."""
    one, two = (
        Judgment(id=name, prompt_id="p", response_ids=["r1", "r2"], principle=name, verdict="first",
                 probabilities={"first": p, "second": 1 - p})
        for name, p in (("x", 0.9), ("y", 0.2))
    )  # fmt: skip
    assert opinion([one, two]).probability == pytest.approx(0.55)
    assert opinion([one, two], {"x": 3.0}).probability == pytest.approx(0.725)
    assert opinion([one.swap(), two]).confidence == pytest.approx(0.55)
    assert opinion([one, two], {"x": 0.0, "y": 0.0}).doubt == "no_verdict"


def test_calibration_sees_what_the_cascade_goes_by() -> None:
    def one(p: float, *shown: str, **fields: Any) -> Judgment:
        return Judgment(id="j", prompt_id="p", response_ids=list(shown),
                        probabilities={"first": p, "second": 1 - p}, **fields)  # fmt: skip

    both = [one(0.9, "r1", "r2"), one(0.4, "r2", "r1")]
    assert for_calibration(both, "r1") == pytest.approx(0.75)
    assert for_calibration(both, "r2") == pytest.approx(0.25)
    assert for_calibration([one(0.9, "r1", "r2"), one(0.8, "r2", "r1")], "r1") == 0.5, "the orders disagree"
    failed = Judgment(id="f", prompt_id="p", response_ids=["r2", "r1"], status="refused")
    assert math.isnan(for_calibration([one(0.9, "r1", "r2"), failed], "r1"))
    assert math.isnan(for_calibration([], "r1"))


# -- thresholds from a file ------------------------------------------------------------------------------------------


def plan_file(folder: Path, **slices: Any) -> Path:
    asked_nothing = {
        "thresholds": {"cheap": None, "strong": 0.0},
        "promised": False,
        "reason": "no gold of this slice",
    }
    content = {
        "members": ["cheap", "strong"],
        "agreement": 0.9,
        "confidence": 0.9,
        "slice_by": "domain",
        "slices": {"*": asked_nothing, **slices},
    }
    path = folder / "cascade.json"
    path.write_text(json.dumps(content))
    return path


def promised(cheap: float | None, strong: float) -> dict[str, Any]:
    return {"thresholds": {"cheap": cheap, "strong": strong}, "promised": True, "asked": {"cheap": 1, "strong": 0.3}}


def of_domain(domain: str | None) -> Prompt:
    return Prompt(id="p", messages=[{"role": "user", "content": "Why?"}], domain=domain)


def test_the_slice_decides_and_the_promise_is_noted(tmp_path: Path) -> None:
    judge = cascade(options={"thresholds": str(plan_file(tmp_path, easy=promised(0.7, 0.6)))})
    everything = answers(agreeing(0.75), agreeing(0.9))
    _, easy = play(judge, task(ONE, TWO, prompt=of_domain("easy")), everything)
    assert summary(easy) == [("cheap", False, None)] * 2
    assert all(judgment.meta["promised"] for judgment in easy)
    rounds, hard = play(judge, task(ONE, TWO, prompt=of_domain("hard")), everything)
    assert summary(hard) == [("strong", False, None)] * 2, "nothing is promised: the cheap judge is not even asked"
    assert not hard[0].meta["promised"] and len(rounds) == 1
    assert play(judge, task(ONE, TWO, prompt=of_domain(None)), everything)[1][0].member == "strong"


def test_rows_without_a_value_are_a_slice_of_their_own(tmp_path: Path) -> None:
    """What was seen of rows without a domain says nothing of a domain that gold does not have."""
    judge = cascade(options={"thresholds": str(plan_file(tmp_path, **{"": promised(0.7, 0.6)}))})
    everything = answers(agreeing(0.75), agreeing(0.9))
    assert play(judge, task(ONE, TWO, prompt=of_domain(None)), everything)[1][0].meta["promised"]
    assert not play(judge, task(ONE, TWO, prompt=of_domain("new")), everything)[1][0].meta["promised"]


@pytest.mark.parametrize(
    ("key", "seen"), [("models", "m"), ("rubrics", "helpfulness@1"), ("templates", "[0-9a-f]+"), ("orders", "both")]
)
def test_a_promise_is_for_the_judges_that_were_calibrated(tmp_path: Path, key: str, seen: str) -> None:
    path = plan_file(tmp_path, easy=promised(0.7, 0.6))
    content = json.loads(path.read_text())
    about, by = task(ONE, TWO, prompt=of_domain("easy")), answers(agreeing(0.75))
    path.write_text(json.dumps({**content, "what": {"cheap": {"models": ["m"], "rubrics": ["helpfulness@1"]}}}))
    assert play(cascade(options={"thresholds": str(path)}), about, by)[1][0].meta["promised"]
    path.write_text(json.dumps({**content, "what": {"cheap": {key: ["another"]}}}))
    with pytest.raises(ConfigError, match=f"'cheap' was calibrated with {key} another, but .* is by {seen}"):
        play(cascade(options={"thresholds": str(path)}), about, by)


def test_what_nobody_is_sure_of_is_withheld_where_there_is_a_promise(tmp_path: Path) -> None:
    judge = cascade(options={"thresholds": str(plan_file(tmp_path, easy=promised(0.95, 0.9)))})
    _, judgments = play(judge, task(ONE, TWO, prompt=of_domain("easy")), answers(agreeing(0.7), agreeing(0.8)))
    assert summary(judgments) == [("cheap", True, "unsure")] * 2 + [("strong", True, "unsure")] * 2
    assert judgments[-1].meta["withheld"] == "unsure"
    preferences, dropped = pair(judgments, PairSection())
    assert preferences == []
    assert [row.reason for row in dropped] == ["no_usable_judgment"], "withheld, and not forgotten"


def test_exactly_one_half_is_nobodys_winner(tmp_path: Path) -> None:
    judge = cascade(options={"thresholds": str(plan_file(tmp_path, easy=promised(0.5, 0.5)))})
    _, judgments = play(judge, task(ONE, TWO, prompt=of_domain("easy")), answers(agreeing(0.5), agreeing(0.5)))
    assert [judgment.superseded for judgment in judgments] == [True] * 4


def test_the_plan_asks_whom_the_slice_asks(tmp_path: Path) -> None:
    judge = cascade(options={"thresholds": str(plan_file(tmp_path, easy=promised(0.7, 0.6)))})
    roles = [request.role for request in planned(judge, task(ONE, TWO, prompt=of_domain("easy")))]
    assert roles == ["small", "small", "large", "large"]
    assert [r.role for r in planned(judge, task(ONE, TWO, prompt=of_domain("hard")))] == ["large", "large"]
    outlook = judge.outlook()  # type: ignore[attr-defined]
    assert any("typically 30%" in line and "promised: 0.9 agreement at 0.9" in line for line in outlook)
    assert any("no promise (no gold of this slice)" in line for line in outlook)


def test_the_file_is_among_what_the_judge_reads(tmp_path: Path) -> None:
    path = plan_file(tmp_path)
    section = JudgeSection(judge="cascade", members={"a": {"rubric": "helpfulness"}, "b": {"rubric": "honesty"}},
                           options={"thresholds": str(path)})  # fmt: skip
    names = {found.name for found in find_files_of(section)}
    assert {"cascade.json", "helpfulness.yaml", "pairwise.jinja"} <= names


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"members": {"one": {}}}, r"judge\.members: a cascade has two members or more, cheap first"),
        ({"options": {}}, r"judge\.options: a cascade needs threshold .* or thresholds"),
        ({"options": {"threshold": 0.8, "thresholds": "x.json"}}, r"one of them"),
        ({"options": {"threshold": 0.3}}, r"judge\.options\.threshold: a number from 0\.5 to 1, got 0\.3"),
        ({"options": {"threshold": "high"}}, r"a number from 0\.5 to 1, got 'high'"),
        ({"options": {"threshold": 0.8, "budget": 1}}, r"threshold or thresholds, not budget"),
        ({"options": {"thresholds": "nowhere.json"}}, r"thresholds: nowhere\.json: cannot read: No such file"),
        (
            {"members": {"a": {"judge": "pointwise"}, "b": {}}},
            r"judge\.members\.a: a cascade needs judges of two responses",
        ),
        ({"members": {"a": {"rubric": "nothing-like-it"}, "b": {}}}, r"nothing-like-it"),
    ],
)
def test_what_is_wrong_is_said(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        cascade(**section)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"members": ["strong", "cheap"]}, "is for the members strong, cheap, the config has cheap, strong"),
        ({"slices": {}}, r"slice '\*': needs a threshold or null for every member"),
        ({"slices": {"*": {"thresholds": {"cheap": 1}, "promised": True}}}, r"slice '\*': needs a threshold"),
        ({"slices": {"*": {"thresholds": {"cheap": "x"}, "promised": True}}}, "not a file of thresholds"),
        ("{", "not a file of thresholds"),
        ({"version": 2}, "version 2, this rlaif reads 1"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, change: Any, says: str) -> None:
    path = plan_file(tmp_path)
    path.write_text(change if isinstance(change, str) else json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigError, match=says):
        cascade(options={"thresholds": str(path)})
