"""A guard on tiny trainings: the trainer does not feel it, and what is written is what it kept. Slow: trains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from training_data import pairs, same, weights  # noqa: E402

from rlaif.config import DPOSection, PPOSection, SFTSection  # noqa: E402
from rlaif.config.guarding import DEFAULT_LIMITS  # noqa: E402
from rlaif.errors import ConfigError, DataError  # noqa: E402
from rlaif.training.dpo import train_dpo  # noqa: E402
from rlaif.training.ppo.method import train_ppo  # noqa: E402
from rlaif.training.sft import train_sft  # noqa: E402

ARGS: dict[str, Any] = {
    "max_steps": 6, "per_device_train_batch_size": 4, "learning_rate": 3e-3, "lr_scheduler_type": "constant",
    "bf16": False, "seed": 1,
}  # fmt: skip
NO_LIMITS: dict[str, Any] = dict.fromkeys(DEFAULT_LIMITS)


@pytest.fixture
def probes(tmp_path: Path) -> Path:
    path = tmp_path / "probes.jsonl"
    rows = [{"prompt": f"is it good {i}?", "domain": "odd" if i % 2 else "even"} for i in range(8)]
    rows.append({"prompt": "is it good 0", "domain": "even"})  # which is trained on
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pairs(24)), encoding="utf-8")
    return path


def guard(probes: Path, **options: Any) -> dict[str, Any]:
    return {"probes": str(probes), "every": 2, "max_tokens": 8, "limits": NO_LIMITS, **options}


def test_the_trainer_does_not_feel_it(tiny_model: Path, data: Path, probes: Path, tmp_path: Path) -> None:
    """Bit for bit, with dropout of an adapter, which draws from the global generator."""
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.2}
    for name, watched in (("plain", None), ("guarded", guard(probes, keep="last"))):
        section = DPOSection(model=str(tiny_model), args=ARGS, lora=lora, guard=watched)
        train_dpo(section, data, tmp_path / name, 1)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "guarded"))
    record = json.loads((tmp_path / "guarded" / "training.json").read_text())["guard"]
    assert [row["step"] for row in record["history"]] == [0, 2, 4, 6]
    assert record["stopped_at_step"] is None and record["kept_step"] == 6
    first, *_, last = record["history"]
    assert first["kl"] == first["kl_k3"] == 0.0
    assert last["kl"] != 0.0 and last["kl_k3"] > 0.0
    assert last["by_domain"]["odd"]["length"] > 0


PPO_ARGS: dict[str, Any] = {
    "per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2, "max_completion_length": 8,
    "learning_rate": 1e-2, "lr_scheduler_type": "constant", "bf16": False, "max_steps": 12,
}  # fmt: skip


def test_nor_does_ppo_with_its_critic(tiny_model: Path, data: Path, probes: Path, tmp_path: Path) -> None:
    for name, watched in (("plain", None), ("guarded", guard(probes, every=4, keep="last"))):
        _ppo(tiny_model, data, tmp_path / name, watched, max_steps=8)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "guarded"))
    assert same(weights(tmp_path / "plain" / "critic"), weights(tmp_path / "guarded" / "critic"))
    histories = [json.loads((tmp_path / n / "training.json").read_text())["history"] for n in ("plain", "guarded")]
    timed = ("step_time", "train_runtime")
    plain, guarded = ([{k: v for k, v in row.items() if k not in timed} for row in rows] for rows in histories)
    assert plain == guarded  # the logged metrics too


def _ppo(
    model: Path, data: Path, out: Path, watched: Any, judge: Any = None, reward: Any = None, **args: Any
) -> dict[str, Any]:
    section = PPOSection.model_validate(
        {
            "model": str(model), "rewards": [{"function": "tests:no_yes"}], "args": {**PPO_ARGS, **args},
            "guard": watched,
        }
    )  # fmt: skip
    return train_ppo(section, data, out, 1, functions={"tests:no_yes": reward or short}, judge=judge)


def short(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    return [-float(len(ids)) for ids in completion_ids]


def test_what_is_written_is_the_best_probe(tiny_model: Path, data: Path, probes: Path, tmp_path: Path) -> None:
    """The judge falls out of love after the first probe: over-optimised. The written weights are those of the step
    before, as a training that ends there has them, and not the last ones."""
    asked: list[int] = []

    def judge(prompts: Sequence[Any], starts: Sequence[str], texts: Sequence[str]) -> list[float]:
        asked.append(len(texts))
        return [0.9 if len(asked) == 1 else 0.1] * len(texts)

    watched = guard(probes, every=4, judge="second")
    record = _ppo(tiny_model, data, tmp_path / "guarded", watched, judge)
    assert record["steps"] == 8
    told = record["guard"]
    assert told["stopped_at_step"] == 8 and told["kept_step"] == told["best_step"] == 4
    assert "win_rate has fallen by" in told["why"] and "since step 4" in told["why"]
    assert told["history"][0]["win_rate"] == 0.5  # against itself, nobody asked
    _ppo(tiny_model, data, tmp_path / "until-4", None, max_steps=4)
    assert same(weights(tmp_path / "guarded"), weights(tmp_path / "until-4"))
    assert same(weights(tmp_path / "guarded" / "critic"), weights(tmp_path / "until-4" / "critic"))


# dies by SIGKILL once it has written the checkpoint of step 8, whose probe is not the best one
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests/training/guard")
sys.path.insert(0, "tests/training")
from transformers import Trainer
import test_guard_training as t

save = Trainer._save_checkpoint
def save_and_die(self, *args, **kwargs):
    save(self, *args, **kwargs)
    if self.state.global_step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._save_checkpoint = save_and_die
model, data, probes, out = map(Path, sys.argv[1:])
watched = t.guard(probes, every=4, by="reward")
t._ppo(model, data, out, watched, reward=t.rises_once, save_strategy="steps", save_steps=4)
"""


def rises_once(completion_ids: Sequence[Sequence[int]], trainer_state: Any, **_: Any) -> list[float]:
    """In the guard's eyes step 4 is the best, whatever is written there."""
    return [float(trainer_state.global_step == 4)] * len(completion_ids)


def test_killed_and_resumed_it_goes_on_with_its_probes(
    tiny_model: Path, data: Path, probes: Path, tmp_path: Path
) -> None:
    import signal
    import subprocess
    import sys

    arguments = [str(path) for path in (tiny_model, data, probes, tmp_path / "killed")]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[3], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-800:]
    left = tmp_path / ".killed.partial" / "guard"
    assert {path.name for path in left.glob("*.safetensors")} == {"step-0.safetensors", "step-4.safetensors"}
    options: dict[str, Any] = {"reward": rises_once, "save_strategy": "steps", "save_steps": 4}
    watched = guard(probes, every=4, by="reward")
    resumed = _ppo(tiny_model, data, tmp_path / "killed", watched, **options)
    whole = _ppo(tiny_model, data, tmp_path / "whole", watched, **options)
    assert resumed["resumed_from_step"] == 8
    assert resumed["guard"]["kept_step"] == whole["guard"]["kept_step"] == 4
    assert resumed["guard"]["history"] == whole["guard"]["history"]
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
    assert not (tmp_path / ".killed.partial").exists()


def test_a_limit_stops_and_the_start_can_be_what_is_kept(
    tiny_model: Path, data: Path, probes: Path, tmp_path: Path
) -> None:
    """SFT teaches "yes", which this test calls a refusal: the first probe breaks the limit, so the start is kept."""
    watched = guard(probes, refusals=["yes"], limits={**NO_LIMITS, "refusal_rate": {"max_rise": 0.1}})
    section = SFTSection(model=str(tiny_model), args={**ARGS, "max_steps": 20, "learning_rate": 1e-2}, guard=watched)
    told = train_sft(section, data, tmp_path / "sft", 1)["guard"]
    assert told["why"].startswith("refusal_rate is ") and told["kept_step"] == 0
    start, written = load_file(tiny_model / "model.safetensors"), weights(tmp_path / "sft")
    assert same(start, written)
    assert told["history"][-1]["refusal_rate"] > told["history"][0]["refusal_rate"] + 0.1


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"every": 3}, "train.ppo.guard.every: 3: a probe must fall on the end of a rollout, every 4 steps: take 4"),
        ({"judge": "second"}, "train.ppo.guard.judge: second: the engines of a pipeline judge its probes"),
        ({"max_tokens": 300}, "train.ppo.guard.probes: no prompt fits in 256 tokens with 300 of a response"),
        (
            {"limits": {"eos_rate": {"min": 1.1}}},
            "train.ppo.guard.limits: the starting policy breaks them: eos_rate is",
        ),
    ],
)
def test_one_line_for_what_cannot_be(
    options: dict[str, Any], fault: str, tiny_model: Path, data: Path, probes: Path, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DataError)) as raised:
        _ppo(tiny_model, data, tmp_path / "out", guard(probes, **{"every": 4, **options}))
    assert str(raised.value).startswith(fault) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()


def test_probes_that_are_all_trained_on(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "seen.jsonl"
    path.write_text('{"prompt": "is it good 1"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="all 1 prompts are trained on: none is held out"):
        _ppo(tiny_model, data, tmp_path / "out", guard(path))


def test_from_python_the_judge_is_a_function(tiny_model: Path, data: Path, probes: Path, tmp_path: Path) -> None:
    """One that says nothing of half of what it is asked: `n` says so."""
    import rlaif

    def judge(prompts: Sequence[Any], starts: Sequence[str], texts: Sequence[str]) -> list[float | None]:
        assert all(start != text for start, text in zip(starts, texts, strict=True))
        return [0.9 if at % 2 else None for at in range(len(texts))]

    watched = guard(probes, every=6, judge="mine", samples=2)
    record = rlaif.train_dpo(
        str(data), model=str(tiny_model), out=tmp_path / "out", seed=1, args={**ARGS, "learning_rate": 0.05},
        guard=watched, judge=judge,
    )  # fmt: skip
    start, end = record["guard"]["history"]
    assert start["win_rate"] == 0.5 and start["intervals"]["win_rate"]["n"] == 16
    assert 8 <= end["intervals"]["win_rate"]["n"] < 16 and end["win_rate"] > 0.5
    assert record["guard"]["by"] == "win_rate" and record["guard_probes"]["also_trained_on"] == 1


def test_grpo_has_it_too(tiny_model: Path, data: Path, probes: Path, tmp_path: Path) -> None:
    from rlaif.config.training import GRPOSection
    from rlaif.training.grpo import train_grpo

    args = {**PPO_ARGS, "num_generations": 4, "max_steps": 8}
    for name, watched in (("plain", None), ("guarded", guard(probes, every=4, keep="last"))):
        section = GRPOSection.model_validate(
            {"model": str(tiny_model), "rewards": [{"function": "tests:short"}], "args": args, "guard": watched}
        )
        record = train_grpo(section, data, tmp_path / name, 1, functions={"tests:short": short})
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "guarded"))
    assert [row["step"] for row in record["guard"]["history"]] == [0, 4, 8]
    assert record["guard"]["by"] == "reward"
