"""`rlaif calibrate` on recorded judgments of real models, by configuration alone, against published figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shared_data import recording, shared

from rlaif import cli

pytestmark = pytest.mark.integration  # reads recordings of thousands of replies


def calibrated(folder: Path, name: str, *arguments: str) -> dict[str, Any]:
    """What `rlaif calibrate RECORDING` writes; without --engine it replays."""
    run = folder / "run"
    assert cli.main(["calibrate", str(recording(name)), "--run", str(run), "--quiet", *arguments]) == 0
    found: dict[str, Any] = json.loads((run / "calibration" / "calibration.json").read_text())
    return found


def share(text: str) -> float:
    """ "95 / 100 = 95.0%" or "95.5%" """
    return float(text.rpartition("= ")[2].removesuffix("%")) / 100


@pytest.mark.parametrize("evaluator", ["GPT-4/Vanilla", "ChatGPT/Metrics_Reference"])
def test_llmbar_is_as_published(tmp_path: Path, evaluator: str, capsys: pytest.CaptureFixture[str]) -> None:
    published = json.loads((shared("llmbar") / "llmbar_statistics.json").read_text())
    found = calibrated(tmp_path, "llmbar", "--params", f"evaluator={evaluator}", "--set", "calibrate.slices=[domain]")
    judge = found["judges"]["judge"]
    for subset, figures in judge["slices"]["domain"].items():
        expected = published[f"{subset}|{evaluator}"]
        assert figures["unusable"] == 0
        assert figures["accuracy_one_order"]["value"] == pytest.approx(share(expected["correct_average"]), abs=1e-6)
        assert figures["accuracy_both_orders"]["value"] == pytest.approx(share(expected["correct_both"]), abs=1e-6)
        assert figures["order_consistency"]["value"] == pytest.approx(share(expected["equal"]), abs=1e-6)
    # The publisher's κ against the gold label of the Natural set is .27 at 95.5 % right on two balanced labels, which
    # no κ can be; Cohen's is near 2 · accuracy − 1, here of the label made of both orders.
    out = capsys.readouterr().out
    if evaluator == "GPT-4/Vanilla":
        natural = judge["slices"]["domain"]["LLMBar/Natural"]
        assert published[f"LLMBar/Natural|{evaluator}"]["kappa_average"] < 0.3 < 0.85 < natural["kappa"]["value"]
        assert "choose judge" in out
    else:  # most of the pairs are adversarial
        assert "choose none: no judge is better than chance with confidence" in out


def test_pandalms_annotators(tmp_path: Path) -> None:
    """Cohen's κ of the three annotators: .85, .86 and .88 (Wang et al. 2023)."""
    found = calibrated(tmp_path, "pandalm", "--set", "judge.orders=given", "--set", "calibrate.map=isotonic")
    between = found["people"]["between"]
    kappas = sorted(round(k["value"], 2) for others in between.values() for k in others.values())
    assert kappas == [0.85, 0.86, 0.88]
    judge = found["judges"]["judge"]
    assert judge["order_consistency"] is None and judge["n"] > 970  # shown in one order; "garbage" is no answer
    assert judge["map_test"]["after"]["brier"]["value"] < judge["map_test"]["before"]["brier"]["value"]


def test_a_reward_models_scores_on_judgebench(tmp_path: Path) -> None:
    found = calibrated(tmp_path, "judgebench", "--set", "judge.judge=pointwise", "--set", "calibrate.slices=[domain]",
                       "--set", "calibrate.map=none")  # fmt: skip
    judge = found["judges"]["judge"]
    assert judge["what"]["kind"] == "pointwise" and judge["accuracy_both_orders"] is None
    assert [row["policy"] for row in found["comparison"]] == ["average"]  # nothing was shown in two orders
    # published: 64.29 % (Tan et al. 2024, table 3), equal scores counted as wrong; accuracy counts them as ½
    assert judge["agreement"]["value"] == pytest.approx(0.6429, abs=5e-5) and judge["accuracy"]["value"] > 0.6429
