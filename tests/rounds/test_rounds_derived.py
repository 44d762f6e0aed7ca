"""One round's pipeline, and pipelines that cannot go in rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rounds_config import changed, config

from rlaif.config import Pipeline
from rlaif.errors import ConfigError
from rlaif.rounds.derived import of_round, policy_of
from rlaif.stages.base import Context
from rlaif.stages.table import stages_of
from rlaif.store import RunFolder


def test_a_number_is_short_for_n() -> None:
    assert config(changed(rounds=2)).rounds == config(changed(rounds={"n": 2})).rounds
    assert stages_of(config(changed(rounds=2))) == ["rounds", "evaluate", "report"]


def test_the_first_round_is_the_plain_pipeline_in_a_folder_of_its_own() -> None:
    whole, first = config(), of_round(config(), 1)
    assert first.run == "out/rounds/1" and first.rounds is None and first.seed == 5
    assert stages_of(first) == ["prompts", "generate", "judge", "pair", "export", "dpo", "evaluate", "report"]
    assert (first.engines, first.train, first.judge) == (whole.engines, whole.train, whole.judge)
    assert first.report is not None and first.report.title == "Mine: round 1"


def test_a_later_round_starts_from_what_the_one_before_trained() -> None:
    third = of_round(config(), 3)
    trained = "out/rounds/2/models/dpo"
    assert policy_of(config(), 2) == Path(trained)
    policy = third.engines["policy"]
    assert policy.options() == {"engine": "transformers", "model": trained, "dtype": "float32"}, "no adapter of old"
    assert policy.price.prompt == 2
    assert third.train and third.train.dpo and third.train.dpo.model == trained
    assert third.train.dpo.args == {"beta": 0.2}
    assert third.engines["judge"] == config().engines["judge"]
    assert third.seed == 5, "held-out prompts of the export stay held out"
    planned = of_round(config(), 3, planned=True)
    assert planned.engines == config().engines and planned.train == config().train


def test_each_round_has_the_next_rows_of_the_file_or_all() -> None:
    shares = [of_round(config(), number).prompts for number in (1, 2, 3)]
    assert [(share.skip, share.limit) for share in shares if share] == [(7, 20), (27, 20), (47, 20)]
    everything = config(changed(rounds=3))
    assert of_round(everything, 3).prompts == everything.prompts


def test_a_round_compares_its_two_policies_alone() -> None:
    section = of_round(config(), 2).evaluate
    assert section is not None and section.prompts is not None
    assert (section.before, section.after, section.policies, section.each_other) == ("policy", "trained", [], False)
    assert section.prompts.limit == 9
    apart = config(changed(rounds={"n": 2, "evaluate_on": {"path": "dev.jsonl"}}))
    on = of_round(apart, 1).evaluate
    assert on is not None and on.prompts is not None and on.prompts.path == "dev.jsonl"
    assert of_round(config(changed(evaluate=None)), 1).evaluate is None


@pytest.mark.parametrize("trainer", ["sft", "kto"])
def test_any_trainer_of_one_policy_goes(trainer: str) -> None:
    found = of_round(config(changed(train={trainer: {"model": "start"}})), 2)
    section = found.train.section(trainer) if found.train else None
    assert section is not None and section.model == f"out/rounds/1/models/{trainer}"


def test_the_policy_of_a_round_is_a_role(tmp_path: Path) -> None:
    whole = config(changed(run=str(tmp_path)))
    context = Context(whole, RunFolder(tmp_path))
    assert context.engine_spec("round-2").options()["model"] == str(tmp_path / "rounds" / "2" / "models" / "dpo")
    assert context.engine_spec("trained").options()["model"] == str(tmp_path / "models" / "dpo")
    assert "adapter" not in context.engine_spec("round-2").options()
    for role in ("round-0", "round-4"):
        assert whole.trainer_of(role) is None
    assert of_round(whole, 1).trainer_of("round-1") is None


def test_the_derived_config_is_whole() -> None:
    """A stage's process reads it back from the manifest."""
    found = of_round(config(), 2)
    assert Pipeline.model_validate(found.model_dump(mode="json")) == found


POLICY = {"model": "start"}
REFUSED = [
    ({"judge": None}, "rounds: every round needs a section judge:, and there is none"),
    ({"train": None}, "rounds: every round needs a section train:"),
    ({"rounds": 0}, "rounds.n: Input should be greater than or equal to 1"),
    ({"rounds": True}, "rounds: Input should be a valid dictionary"),
    ({"train": {"sft": POLICY, "dpo": POLICY}}, "one of sft, dpo, kto goes on from round to round, there: sft, dpo"),
    ({"train": {"ppo": {**POLICY, "rewards": [{"function": "a:b"}]}}}, "there: ppo; train what comes before"),
    ({"train": {"dpo": {**POLICY, "dataset": "d"}}}, "train.dpo.dataset: a round trains on what it labelled itself"),
    ({"train": {"dpo": {"model": "run:sft"}}}, "train.dpo: run:sft: train it in a run of its own"),
    (
        {"train": {"dpo": {**POLICY, "guard": {"probes": "p", "rewards": ["run:rm"]}}}},
        "train.dpo: run:rm: train it in",
    ),
    ({"calibrate": {"gold": "g.jsonl"}}, "calibrate: do it in a run of its own, and name its calibration.json"),
    (
        {"pair": {"calibration": "run:calibration"}},
        "pair.calibration: run:calibration: calibrate in a run of its own",
    ),
    (
        {"evaluate": {"prompts": {"path": "p"}, "before": "judge"}},
        "evaluate.before: 'judge' is the policy that goes on",
    ),
    ({"evaluate": {"prompts": {"path": "p"}, "after": "judge"}}, "evaluate.after: expected trained"),
    ({"evaluate": {"prompts": {"path": "p"}, "policies": ["round-4"]}}, "no engine 'round-4'"),
    ({"evaluate": None, "rounds": {"n": 1, "evaluate_on": {"path": "p"}}}, "evaluate_on: there is no section"),
]


@pytest.mark.parametrize(("sections", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_cannot_go_in_rounds_is_one_line(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(changed(**sections))
    assert message in str(caught.value) and "\n" not in str(caught.value)
