"""The figures of a round by name, and bounds on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.config import Gate
from rlaif.errors import ConfigError
from rlaif.io import write_table
from rlaif.metrics import Estimate
from rlaif.records import Preference, Prompt
from rlaif.rounds.figures import check_names, figures_of, judged
from rlaif.stages.audit.gates import failure
from rlaif.stages.audit.material import Missing


def estimate(value: float, half: float = 0.05) -> dict[str, Any]:
    return {"value": value, "low": round(value - half, 4), "high": round(value + half, 4), "n": 40, "ties": 3}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four prompts of which two gave three preferences, an evaluation, an audit and a trainer's log."""
    prompts = [Prompt(id=f"p{i}", messages=[{"role": "user", "content": f"Q{i}?"}]) for i in range(4)]
    preferences = [
        Preference(id=f"{owner}{i}", prompt_id=owner, chosen_id="a", rejected_id="b", judgment_ids=[],
                   probability=0.9, judge_margin=0.4, consistent=consistent)
        for i, (owner, consistent) in enumerate([("p0", True), ("p0", False), ("p2", None)])
    ]  # fmt: skip
    write_table(tmp_path / "prompts.jsonl", prompts)
    write_table(tmp_path / "preferences.jsonl", preferences)
    (tmp_path / "evaluation").mkdir()
    evaluation = {
        "win_rate": {"judge": estimate(0.6), "my.judge": None},
        "metrics": {"quality": {"before": estimate(0.5), "after": estimate(0.58), "difference": estimate(0.08, 0.1)}},
        "length": {"unit": "characters", "before": estimate(80.0), "after": estimate(120.0)},
        "judges": {"judge": {"length_controlled_win_rate": 0.55, "excluded": {"tie": 2}}},
        "oracle_win_rate": None,
        "contestants": {
            "before": {"n": 40, "finished": {"mean": estimate(0.9), "difference": None}},
            "after": {
                "finished": {"mean": estimate(0.8), "difference": estimate(-0.1, 0.2)},
                "kl": {"per_response": estimate(3.5, 1.0), "k3_per_token": None, "reason": None},
                "skills": {"facts": {"n": 9, "accuracy": {"mean": estimate(0.7), "difference": estimate(-0.02)}}},
            },
        },
    }
    (tmp_path / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
    audit = {"figures": {"label_mass": {"value": None, "reason": "no log-probs"}, "tie_rate": estimate(0.2)}}
    (tmp_path / "audit.json").write_text(json.dumps(audit))
    (tmp_path / "models" / "dpo").mkdir(parents=True)
    history = [{"step": 1, "loss": 0.7, "rewards/margins": 0.1}, {"step": 2, "loss": 0.5, "grad_norm": None}]
    probe = {"step": 8, "kl": 0.4, "win_rate": 0.6, "intervals": {"win_rate": estimate(0.6, 0.1)}}
    guard = {"kept_step": 8, "history": [{**probe, "step": 4, "kl": 0.1}, probe, {**probe, "step": 12, "kl": 2.0}]}
    (tmp_path / "models" / "dpo" / "training.json").write_text(json.dumps({"history": history, "guard": guard}))
    return tmp_path


def test_every_figure_has_a_dotted_name(folder: Path) -> None:
    found = figures_of(folder)
    values = {name: one.value for name, one in found.items() if isinstance(one, Estimate)}
    assert values == {
        "preferences": 3.0,
        "labelled": 0.5,  # p0 and p2 of four
        "consistent": 0.5,  # one of the two that were judged in both orders
        "win_rate.judge": 0.6,
        "judges.judge.length_controlled_win_rate": 0.55,
        "judges.judge.excluded.tie": 2.0,
        "length.before": 80.0,
        "length.after": 120.0,
        "length_ratio": 1.5,
        "metrics.quality.before": 0.5,
        "metrics.quality.after": 0.58,
        "metrics.quality.difference": 0.08,
        "policy.finished.mean": 0.8,
        "policy.finished.difference": -0.1,
        "policy.kl.per_response": 3.5,
        "policy.skills.facts.n": 9.0,
        "policy.skills.facts.accuracy.mean": 0.7,
        "policy.skills.facts.accuracy.difference": -0.02,
        "audit.tie_rate": 0.2,
        "training.loss": 0.5,  # the last point that has it
        "training.rewards/margins": 0.1,
        "guard.kl": 0.4,  # of the step whose weights were kept
        "guard.win_rate": 0.6,
    }
    assert found["guard.win_rate"] == Estimate(0.6, 0.5, 0.7, 40)
    assert found["audit.label_mass"] == Missing("no log-probs")


def test_a_round_without_evaluation_has_the_figures_of_its_labels(folder: Path) -> None:
    (folder / "evaluation" / "evaluation.json").unlink()
    (folder / "audit.json").unlink()
    assert [name for name in figures_of(folder) if not name.startswith(("training", "guard"))] == [
        "preferences", "labelled", "consistent",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "bounds", "reason"),
    [
        ("win_rate.judge", {"min": 0.5}, None),
        ("win_rate.judge.low", {"min": 0.55}, None),  # .6 − .05: on the bound is inside
        ("win_rate.judge.low", {"min": 0.56}, "below min 0.56"),
        ("metrics.quality.difference.high", {"max": 0.1}, "above max 0.1"),
        ("length_ratio", {"max": 1.2}, "above max 1.2"),
        ("length_ratio.low", {"min": 0.1}, "could not be computed: it has no interval"),
        ("win_rate.jugde", {"min": 0.5}, "could not be computed: not measured; close to it: win_rate.judge"),
        ("audit.label_mass.low", {"min": 0.5}, "could not be computed: no log-probs"),
        ("metrics.qualty.after", {"min": 0.5, "missing": "pass"}, None),
    ],
)
def test_gates(folder: Path, name: str, bounds: dict[str, Any], reason: str | None) -> None:
    (row,) = judged({name: Gate.model_validate(bounds)}, figures_of(folder))
    assert row["passed"] == (reason is None)
    assert reason is None or reason in row["reason"]
    assert (failure([row]) is None) == (reason is None)


@pytest.mark.parametrize(
    ("name", "judges", "message"),
    [
        ("winrate.judge", ["judge"], "no figure 'winrate.judge'; did you mean 'win_rate'?"),
        ("win_rate.other", ["judge", "b"], "win_rate.other: expected win_rate.JUDGE, judges here: judge, b"),
        ("win_rate", ["judge"], "expected win_rate.JUDGE"),
        ("win_rate.judge2", ["judge"], "expected win_rate.JUDGE"),
        ("metrics.quality.after", None, "there is no section evaluate: that would measure it"),
    ],
)
def test_a_name_that_can_be_no_figure_is_refused_at_once(name: str, judges: list[str] | None, message: str) -> None:
    with pytest.raises(ConfigError, match=r"rounds\.gates: ") as caught:
        check_names([name], judges)
    assert message in str(caught.value)


def test_names_that_may_be_figures_are_let_through() -> None:
    check_names(["win_rate.my.judge.low", "judges.a.order_consistency", "training.kl", "labelled"], ["my.judge", "a"])
    check_names(["labelled", "audit.tie_rate", "training.loss"], None)
