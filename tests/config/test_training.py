"""The trainers' sections: what they read, and that they survive the trip through YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.config import Pipeline, load
from rlaif.config.base import read_yaml
from rlaif.errors import ConfigError

YAML = """\
run: runs/mine
train:
  sft: {model: m, on: demonstrations, args: {bf16: yes, loss_type: nll}}
  dpo: {model: "run:sft", weight_column: trust, replay: {dataset: mine/demos}}
  kto: {model: "run:sft"}
"""


def test_a_key_named_on_is_a_key(tmp_path: Path) -> None:
    """YAML 1.1 reads it as true; values keep their meaning."""
    (tmp_path / "p.yaml").write_text(YAML)
    config = load(tmp_path / "p.yaml")
    assert config.train is not None and config.train.sft is not None
    assert config.train.sft.on == "demonstrations"
    assert config.train.sft.args == {"bf16": True, "loss_type": "nll"}
    again = load(tmp_path / "p.yaml", ["train.sft={model: m, on: revised}"])  # a value of --set likewise
    assert again.train is not None and again.train.sft is not None and again.train.sft.on == "revised"
    (tmp_path / "odd.yaml").write_text("off: {yes: no, 1: 2}\n")
    assert read_yaml(tmp_path / "odd.yaml") == {"off": {"yes": False, 1: 2}}


def test_what_a_trainer_reads(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(YAML)
    train = load(tmp_path / "p.yaml").train
    assert train is not None and train.sft is not None and train.dpo is not None and train.kto is not None
    assert [train.sft.exported, train.dpo.exported, train.kto.exported] == [
        "dataset-sft",
        "dataset",
        "dataset-unpaired",
    ]
    assert train.sft.model_copy(update={"on": "chosen"}).exported == "dataset"
    assert train.sft.model_copy(update={"on": "revised"}).exported == "dataset-revised"
    assert train.dpo.read == ["run:sft", "mine/demos"]
    assert train.policy == "kto"


@pytest.mark.parametrize("role", ["sft", "dpo", "kto"])
def test_every_policy_that_was_trained_can_be_evaluated(role: str) -> None:
    raw = {
        "run": "r",
        "engines": {"start": {"engine": "transformers", "model": "m"}},
        "judge": {"engine": "start", "rubric": "helpfulness"},
        "train": {name: {"model": "m"} for name in ("sft", "dpo", "kto")},
        "evaluate": {"before": "start", "after": role, "prompts": {"path": "p.jsonl"}},
    }
    config = Pipeline.model_validate(raw)
    assert config.trainer_of(role) == role
    with pytest.raises(ValueError, match="no engine 'ppo'"):
        Pipeline.model_validate({**raw, "evaluate": {**raw["evaluate"], "after": "ppo"}})  # type: ignore[dict-item]


def test_bad_keys_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("run: r\ntrain:\n  dpo: {model: m, replay: {dataset: d, weight: 0}}\n")
    with pytest.raises(ConfigError, match=r"train.dpo.replay.weight: Input should be greater than 0"):
        load(tmp_path / "p.yaml")
