"""`rlaif train ppo` and `rlaif.train_ppo`: what the stage depends on, what is refused, the command, the function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import rlaif
from rlaif import cli
from rlaif.config import Pipeline
from rlaif.errors import ConfigError
from rlaif.stages.base import Context
from rlaif.stages.table import stage
from rlaif.stages.train import prepared
from rlaif.store import RunFolder

START = "shipped:data/tiny/policy"
LENGTH = "ppo_rewards:shorter"
PROGRAM = "def shorter(completions, completion_ids, **_):\n    return [-float(len(ids)) for ids in completion_ids]\n"
QUICK = {
    "max_steps": 1, "num_iterations": 1, "per_device_train_batch_size": 2, "steps_per_generation": 1,
    "max_completion_length": 4,
}  # fmt: skip


def config(run: str = "runs/x", **ppo: Any) -> Pipeline:
    return Pipeline.model_validate({"run": run, "train": {"ppo": {"model": START, **ppo}}})


def test_the_stage_depends_on_all_that_it_names() -> None:
    made = config(
        rewards=[{"model": "run:reward"}, {"function": LENGTH}], critic="runs/critic", replay={"dataset": "sft.jsonl"}
    )
    found = list(stage("ppo").files(made))
    assert found[1:] == [
        Path("runs/x/models/reward"), Path("runs/critic"), Path("sft.jsonl"), Path("runs/x/prompts.jsonl"),
    ]  # fmt: skip
    assert list(stage("ppo").code(made)) == [LENGTH]
    assert "runs/x/prompts.jsonl" not in map(str, stage("ppo").files(config(dataset="mine.jsonl")))


def test_every_model_of_the_run_is_found(tmp_path: Path) -> None:
    (tmp_path / "models" / "reward").mkdir(parents=True)
    made = config(str(tmp_path), rewards=[{"model": "run:reward"}], critic="run:reward")
    section, dataset, out = prepared(Context(made, RunFolder(tmp_path)), "ppo")
    assert section.rewards[0].model == section.critic == str(tmp_path / "models" / "reward")
    assert (dataset, out) == (tmp_path / "prompts.jsonl", tmp_path / "models" / "ppo")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"rewards": [{}]}, "either `model: FOLDER`, `function: package.module:name`, or `judge: true`"),
        ({"rewards": [{"function": "m:f", "floors": {"a": 1}}]}, "belong to a reward model"),
        ({"rewards": [{"function": "shorter"}]}, "expected package.module:name, got 'shorter'"),
        ({"one_backbone": True}, "one_backbone: the policy is an adapter then: set lora"),
        ({"one_backbone": True, "lora": {}, "critic": "x"}, "with one_backbone it is an adapter"),
        ({"args": {"ptx_coef": 1}}, "the weight of demonstrations stands in replay.weight"),
    ],
)
def test_what_the_section_refuses(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**section)


@pytest.mark.integration  # imports TRL
def test_a_plan_checks_rewards_and_the_names_of_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "ppo", str(tmp_path / "p.jsonl"), "--run", str(tmp_path / "run"), "--model", START]
    assert cli.main([*command, "--dry-run"]) == 2
    assert "train.ppo.rewards: none given; name a reward model" in capsys.readouterr().err
    assert cli.main([*command, "--dry-run", "--set", "train.ppo.rewards=[{function: 'rlaif:no_such'}]"]) == 2
    assert "train.ppo.rewards: rlaif has no 'no_such'" in capsys.readouterr().err
    command += ["--set", "train.ppo.rewards=[{model: 'run:reward'}]"]
    assert cli.main([*command, "--dry-run", "--set", "train.ppo.args.kl_coeff=1"]) == 2
    assert "train.ppo.args.kl_coeff: PPOConfig has no such argument; did you mean kl_coef" in capsys.readouterr().err
    assert cli.main([*command, "--dry-run", "--set", "train.ppo.args.kl_coef=0.1"]) == 0


@pytest.mark.integration  # trains, in a process of its own
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ppo_rewards.py").write_text(PROGRAM, encoding="utf-8")
    rows = [{"prompt": [{"role": "user", "content": f"How many legs has a cat? {i}"}]} for i in range(4)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sets = [f"train.ppo.args.{name}={value}" for name, value in QUICK.items()]
    sets += [f"train.ppo.rewards=[{{function: '{LENGTH}'}}]"]
    command = ["train", "ppo", "p.jsonl", "--run", "run", "--model", START]
    assert cli.main([*command, *(word for item in sets for word in ("--set", item))]) == 0
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["stages"]["ppo"]["counts"] == {"rows": 4, "steps": 1, "rollouts": 1}
    assert (tmp_path / "run" / "models" / "ppo" / "critic" / "model.safetensors").is_file()


@pytest.mark.integration  # trains
def test_function(tmp_path: Path) -> None:
    def shorter(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [-float(len(ids)) for ids in completion_ids]

    prompts = [{"prompt": f"How many legs has a cat? {i}"} for i in range(4)]
    record = rlaif.train_ppo(prompts, model=START, out=tmp_path / "ppo", rewards=[shorter], args=QUICK)
    assert -4 <= record["history"][0]["rewards/shorter/mean"] < 0
    with pytest.raises(ConfigError, match="cannot import 'no_such_module:f'"):
        rlaif.train_ppo(prompts, model=START, out=tmp_path / "o", rewards=[{"function": "no_such_module:f"}])
