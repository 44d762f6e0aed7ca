"""`train_grpo` on a random tiny policy: what it reads, writes, refuses and continues. Slow: each test trains."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from rlaif.config import GRPOSection  # noqa: E402
from rlaif.errors import UserError  # noqa: E402
from rlaif.training.grpo import train_grpo  # noqa: E402
from rlaif.training.rollouts import without_half_scores  # noqa: E402

QUICK: dict[str, Any] = {
    "per_device_train_batch_size": 4, "steps_per_generation": 2, "num_generations": 4, "max_completion_length": 8,
    "learning_rate": 1e-3, "lr_scheduler_type": "constant", "bf16": False, "max_steps": 4,
}  # fmt: skip
YES = {"function": "grpo_rewards:yes"}
NAN = float("nan")


def section(model: Path, *rewards: Any, args: dict[str, Any] | None = None, **options: Any) -> GRPOSection:
    given = {"model": str(model), "rewards": list(rewards), "args": {**QUICK, **(args or {})}, **options}
    return GRPOSection.model_validate(given)


def yes(completions: list[Any], prompt_ids: list[list[int]], **_: Any) -> list[float]:
    assert all(ids and isinstance(ids[0], int) for ids in prompt_ids)
    return [float(text[0]["content"].count("yes")) for text in completions]


class Judge:
    """Longer is better, except that it fails on every fifth completion."""

    identity = "longer"

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[Any]]] = []

    def __call__(self, rows: list[Any], step: int) -> list[float | None]:
        assert threading.current_thread() is threading.main_thread(), "where processes may wait for one another"
        self.asked.append((step, rows))
        return [None if at % 5 == 0 else float(len(row["completion"][0]["content"])) for at, row in enumerate(rows)]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": [{"role": "user", "content": f"is it {i}"}], "domain": "d"} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_row_without_a_judges_score_has_none() -> None:
    found = without_half_scores(
        torch.tensor([[1.0, 2.0, -1.0], [NAN, 2.0, 0.0], [1.0, NAN, 0.0], [NAN, NAN, -1.0]]), [0], [2]
    )
    assert found[0].tolist() == [1, 2, -1] and found[1].isnan().all()
    assert found[2].isnan().tolist() == [False, True, False], "a function may be silent: TRL passes over it"
    assert found[3].isnan().all()
    alone = without_half_scores(torch.tensor([[NAN, -1.0], [0.5, 0.0]]), [], [1])
    assert alone[0].isnan().all(), "a penalty alone is no score"
    assert alone[1].tolist() == [0.5, 0]


def test_a_policy_and_a_record(tiny_model: Path, prompts: Path, tmp_path: Path) -> None:
    judge = Judge()
    job = section(tiny_model, {**YES, "weight": 2.0}, {"judge": True, "weight": 0.1})
    out = tmp_path / "run" / "grpo"
    record = train_grpo(job, prompts, out, 1, functions={YES["function"]: yes}, judges={1: judge})
    assert json.loads((out / "training.json").read_text()) == record
    assert [path.name for path in out.parent.iterdir()] == ["grpo"]
    assert (record["n_train"], record["steps"], record["rollouts"]) == (12, 4, 2)
    assert record["judged_by"] == {"1": "longer"}
    point = record["history"][0]
    assert point["rewards/judge/failed"] == pytest.approx(2 / 8)
    assert {"kl", "rewards/yes/mean", "rewards/judge/seconds", "rewards/missing_eos/mean"} <= set(point)
    expected = 2 * point["rewards/yes/mean"] + 0.1 * point["rewards/judge/mean"] + point["rewards/missing_eos/mean"]
    assert point["reward"] == pytest.approx(expected, abs=1e-4), "over the same completions, those with a score"
    assert [step for step, _ in judge.asked] == [0, 2] and [len(rows) for _, rows in judge.asked] == [8, 8]
    row = judge.asked[0][1][0]
    assert row["domain"] == "d" and row["prompt"][0]["role"] == "user" and isinstance(row["completion"], list)
    AutoModelForCausalLM.from_pretrained(out)
    assert AutoTokenizer.from_pretrained(out).chat_template
    started = load_file(tiny_model / "model.safetensors")["model.embed_tokens.weight"]
    assert not torch.equal(load_file(out / "model.safetensors")["model.embed_tokens.weight"], started)


def test_trl_leaves_what_has_no_score_out_of_its_group(tiny_model: Path, tmp_path: Path) -> None:
    """The seam that "a failure is never a label" stands on: no advantage, and no part in the group's mean."""
    from datasets import Dataset

    from rlaif.training.grpo_arguments import GRPOArguments
    from rlaif.training.rollouts import RolloutTrainer

    rollouts: list[Any] = []

    class Watched(RolloutTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            rollouts.append(super()._generate_and_score_completions(inputs))
            return rollouts[-1]

    def judge(completions: list[Any], **_: Any) -> list[float | None]:
        return [None, 1.0, 2.0, 3.0, None, None, None, None]

    def always(completions: list[Any], **_: Any) -> list[float]:
        return [5.0] * len(completions)

    always.__name__, judge.__name__ = "always", "judge"
    args = GRPOArguments(**{**QUICK, "max_steps": 1}, output_dir=str(tmp_path), use_cpu=True, report_to="none")
    trainer = Watched(
        model=str(tiny_model), reward_funcs=[judge, always], args=args, must_score=[0],
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": f"is it {i}"}]} for i in range(4)]),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )  # fmt: skip
    trainer.train()
    assert rollouts[0]["advantages"].tolist() == pytest.approx([0, -1, 0, 1, 0, 0, 0, 0], abs=1e-3)


KILLED = """
import os, signal, sys
from pathlib import Path
from transformers import Trainer
from test_grpo import yes
from rlaif.config import GRPOSection
from rlaif.training.grpo import train_grpo

save = Trainer._save_checkpoint
def save_and_die(self, *args, **kwargs):
    save(self, *args, **kwargs)
    if self.state.global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._save_checkpoint = save_and_die
job = GRPOSection.model_validate_json(sys.argv[1])
train_grpo(job, sys.argv[2], Path(sys.argv[3]), 1, functions={"grpo_rewards:yes": yes})
"""


def test_goes_on_after_a_kill(tiny_model: Path, prompts: Path, tmp_path: Path) -> None:
    """Killed at the end of the second of four rollouts, then run again: the weights of an unkilled run."""
    job = section(tiny_model, YES, args={"max_steps": 8, "save_strategy": "steps", "save_steps": 4})
    functions = {YES["function"]: yes}
    train_grpo(job, prompts, tmp_path / "whole", 1, functions=functions)
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, job.model_dump_json(), str(prompts), str(killed)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL and not killed.exists(), done.stderr[-2000:]
    found = train_grpo(job, prompts, killed, 1, functions=functions)
    assert found["resumed_from_step"] == 4 and found["steps"] == 8
    ours, theirs = load_file(killed / "model.safetensors"), load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_lora_keeps_its_adapter(tiny_model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = section(tiny_model, YES, lora={"r": 4, "target_modules": ["q_proj"]}, args={"max_steps": 2})
    train_grpo(job, prompts, out, 1, functions={YES["function"]: yes})
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["adapter"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"beeta": 1}, "GRPOArguments has no such argument; did you mean beta"),
        ({"num_generations": 3}, "must be divisible by num_generations (3)"),
        ({"save_strategy": "steps", "save_steps": 3}, "must fall on the end of a rollout, every 2 steps"),
        ({"gradient_accumulation_steps": 4}, "4 does not divide steps_per_generation × num_iterations = 2"),
        ({"steps_per_generation": 16}, "12 prompts fit, one rollout takes 16"),
        ({"max_prompt_length": 2}, "no prompt fits in 2 tokens"),
        ({"reward_weights": [1.0]}, "the weight of each reward stands in rewards"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(tiny_model: Path, prompts: Path, tmp_path: Path, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        train_grpo(
            section(tiny_model, YES, args=args), prompts, tmp_path / "out", 1, functions={YES["function"]: yes}
        )
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / ".out.partial").exists()


def test_a_judge_must_be_handed_in(tiny_model: Path, prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train.grpo.rewards\[0\].judge: no judge was handed in"):
        train_grpo(section(tiny_model, {"judge": True}), prompts, tmp_path / "out", 1)
