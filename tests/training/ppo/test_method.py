"""`train_ppo` on a random tiny policy: what it reads, writes, refuses and continues. Slow: each test trains."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
torch = pytest.importorskip("torch")

import reward_functions  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from training_data import build_model, pairs  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification, AutoTokenizer  # noqa: E402

from rlaif.config import PPOSection  # noqa: E402
from rlaif.errors import UserError  # noqa: E402
from rlaif.training.ppo.method import train_ppo  # noqa: E402

QUICK: dict[str, Any] = {
    "per_device_train_batch_size": 4, "steps_per_generation": 2, "num_iterations": 2, "max_completion_length": 8,
    "learning_rate": 1e-3, "lr_scheduler_type": "constant", "bf16": False, "max_steps": 4,
}  # fmt: skip
SHORTER = {"function": "reward_functions:shorter"}


def section(model: Path, *rewards: Any, args: dict[str, Any] | None = None, **options: Any) -> PPOSection:
    given = {"model": str(model), "rewards": list(rewards), "args": {**QUICK, **(args or {})}, **options}
    return PPOSection.model_validate(given)


def train(job: PPOSection, data: Path, out: Path, **options: Any) -> dict[str, Any]:
    functions = {name: getattr(reward_functions, name.rpartition(":")[2]) for name in job.code}
    return train_ppo(job, data, out, 1, functions=functions, **options)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """A run's prompts.jsonl, with one prompt twice and a `meta` that no table could hold."""
    rows = [
        {
            "id": str(i),
            "messages": [{"role": "user", "content": f"is it {i % 23}"}],
            "meta": {"x": i if i % 2 else "a"},
        }
        for i in range(24)
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_policy_a_critic_and_a_record(tiny_model: Path, reward_model: Path, prompts: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    from transformers import TrainerCallback

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seen.append(state.global_step)

    job = section(tiny_model, {"model": str(reward_model), "weight": 2.0}, {**SHORTER, "weight": 0.1})
    out = tmp_path / "run" / "ppo"
    record = train(job, prompts, out, callbacks=[Look()])
    assert json.loads((out / "training.json").read_text()) == record
    assert [path.name for path in out.parent.iterdir()] == ["ppo"]
    assert seen == [1, 2, 3, 4]
    assert (record["n_train"], record["prompts_repeated"], record["steps"], record["rollouts"]) == (23, 1, 4, 1)
    (point,) = record["history"]
    assert {"ppo/kl", "ppo/value_loss", "rewards/reward/mean", "rewards/shorter/mean"} <= set(point)
    assert point["reward"] == pytest.approx(
        2 * point["rewards/reward/mean"] + 0.1 * point["rewards/shorter/mean"], abs=1e-4
    )
    AutoModelForCausalLM.from_pretrained(out)
    critic = AutoModelForTokenClassification.from_pretrained(out / "critic")
    assert critic.config.num_labels == 1
    started = load_file(reward_model / "model.safetensors")["model.embed_tokens.weight"]
    moved = (load_file(out / "critic" / "model.safetensors")["model.embed_tokens.weight"] - started).abs().max()
    assert 0 < moved < 0.1, "the critic began as the reward model"
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert not list(out.rglob("*.bin")) and not (out / "ppo_state.json").exists()
    assert set(record["state"]) == {"kl_coef", "moments", "ptx"}


KILLED = """
import os, signal, sys
from pathlib import Path
from transformers import Trainer
import reward_functions
from rlaif.config import PPOSection
from rlaif.training.ppo.method import train_ppo

save = Trainer._save_checkpoint
def save_and_die(self, *args, **kwargs):
    save(self, *args, **kwargs)
    if self.state.global_step == 4:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._save_checkpoint = save_and_die
job = PPOSection.model_validate_json(sys.argv[1])
train_ppo(job, sys.argv[2], Path(sys.argv[3]), 1, functions={"reward_functions:shorter": reward_functions.shorter})
"""


@pytest.mark.parametrize("one_backbone", [False, True])
def test_goes_on_after_a_kill(
    one_backbone: bool, tiny_model: Path, reward_adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    """Killed after the first of two rollouts, then run again: the weights of an unkilled run."""
    saving = {"max_steps": 8, "save_strategy": "steps", "save_steps": 4, "kl_target": 1.0}
    options = {"one_backbone": True, "lora": {"r": 4, "target_modules": ["q_proj", "v_proj"]}} if one_backbone else {}
    job = section(tiny_model, {"model": str(reward_adapter)}, SHORTER, args=saving, **options)
    whole = train(job, prompts, tmp_path / "whole")
    killed = tmp_path / "killed"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, job.model_dump_json(), str(prompts), str(killed)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL and not killed.exists(), done.stderr[-2000:]
    found = train(job, prompts, killed)
    assert found["resumed_from_step"] == 4 and found["steps"] == 8 and found["state"] == whole["state"]
    names = sorted(path.relative_to(killed) for path in killed.rglob("*.safetensors"))
    assert names == sorted(
        path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.safetensors")
    )
    for name in names:
        ours, theirs = load_file(killed / name), load_file(tmp_path / "whole" / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_one_backbone(tiny_model: Path, reward_adapter: Path, prompts: Path, tmp_path: Path) -> None:
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    job = section(
        tiny_model, {"model": str(reward_adapter)}, lora=lora, one_backbone=True,
        args={"max_steps": 8, "logging_steps": 1},
    )  # fmt: skip
    out = tmp_path / "ppo"
    record = train(job, prompts, out)
    assert record["history"][0]["ppo/kl"] == pytest.approx(0, abs=1e-6), "with adapters off, the policy is its start"
    merged = load_file(out / "model.safetensors")
    before = load_file(tiny_model / "model.safetensors")
    changed = {name for name, value in before.items() if not torch.equal(value, merged[name])}
    assert changed and all("q_proj" in name or "v_proj" in name for name in changed)
    adapter = load_file(out / "critic" / "adapter_model.safetensors")
    began = load_file(reward_adapter / "adapter" / "adapter_model.safetensors")
    assert any("up_proj" in name for name in adapter), "the critic has the reward model's shape"
    assert all(0 < (value - began[name]).abs().max() < 0.1 for name, value in adapter.items())
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["adapter", "critic"]


def test_one_backbone_scores_as_the_merged_reward_model_does(tiny_model: Path, reward_adapter: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from rlaif.training.ppo.backbone import Backbone
    from rlaif.training.scoring import load_reward

    job = section(tiny_model, {"model": str(reward_adapter)}, lora={"r": 4}, one_backbone=True)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    backbone = Backbone(job, tokenizer, "train.ppo")
    scorer = backbone.scorer(job.rewards[0])
    policy = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    critic = backbone.critic(policy)
    ids = [tokenizer(text)["input_ids"] + [tokenizer.eos_token_id] for text in ("yes very good", "no", "is it")]
    expected = load_reward(reward_adapter).score_sequences(ids).reward
    assert scorer.score_sequences(ids).reward == pytest.approx(expected, abs=1e-4)
    assert policy.active_adapter == "default"
    one = torch.tensor(ids[:1])
    values = critic(input_ids=one, attention_mask=torch.ones_like(one)).logits[0, :, 0]
    assert values[-1].item() == pytest.approx(float(expected[0]), abs=1e-4), "the critic begins as the reward"
    trained = {name for name, weight in policy.named_parameters() if weight.requires_grad}
    assert trained and all(".default." in name or ".critic." in name for name in trained)


def test_rewards_may_be_async_and_silent(tiny_model: Path, prompts: Path, tmp_path: Path) -> None:
    job = section(tiny_model, {"function": "reward_functions:later"}, critic=str(tiny_model))
    record = train(job, prompts, tmp_path / "out")
    assert record["history"][0]["rewards/later/mean"] == 1.0


def test_replay_and_lora(tiny_model: Path, prompts: Path, tmp_path: Path) -> None:
    demonstrations = tmp_path / "sft.jsonl"
    rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs(6)]
    demonstrations.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    job = section(
        tiny_model, SHORTER, replay={"dataset": str(demonstrations), "weight": 0.5},
        lora={"r": 4, "target_modules": ["q_proj"]},
    )  # fmt: skip
    out = tmp_path / "out"
    record = train(job, prompts, out)
    assert (
        record["replayed_rows"] == record["replay_dataset"]["rows"] == 6 and record["history"][0]["ppo/ptx_loss"] > 0
    )
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["adapter", "critic"]
    AutoModelForCausalLM.from_pretrained(out)


def refused(job: PPOSection, data: Path, out: Path, message: str) -> None:
    with pytest.raises(UserError) as error:
        train(job, data, out / "ppo")
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (out / "ppo").exists() and not (out / ".ppo.partial").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"kl_coeff": 1}, "PPOConfig has no such argument; did you mean kl_coef"),
        ({"beta": 0.1}, "set kl_coef instead"),
        ({"num_generations": 3}, "must be divisible by num_generations (3)"),
        ({"save_strategy": "steps", "save_steps": 6}, "must fall on the end of a rollout, every 4 steps"),
        ({"gradient_accumulation_steps": 3}, "3 does not divide steps_per_generation × num_iterations = 4"),
        ({"per_device_train_batch_size": 1, "steps_per_generation": 1}, "a rollout of one completion"),
        ({"steps_per_generation": 8}, "23 prompts fit, one rollout takes 32"),
        ({"max_prompt_length": 2}, "no prompt fits in 2 tokens"),
        ({"max_completion_length": 400}, "no prompt fits in -144 tokens"),
        ({"reward_weights": [1.0]}, "the weight of each reward stands in rewards"),
        ({"learning_rate": 1e30, "max_grad_norm": 0}, "training diverged"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(tiny_model: Path, prompts: Path, tmp_path: Path, args: dict[str, Any], message: str) -> None:
    refused(section(tiny_model, SHORTER, args=args), prompts, tmp_path / "out", message)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken", "rewards[0] (reward_functions:broken): failed: KeyError: 'no such word'"),
        ("not_a_number", "returned nan for completion 0; expected a finite number, or None"),
        ("too_few", "returned 1 scores for 8 completions"),
    ],
)
def test_bad_functions(tiny_model: Path, prompts: Path, tmp_path: Path, function: str, message: str) -> None:
    job = section(tiny_model, {"function": f"reward_functions:{function}"})
    refused(job, prompts, tmp_path / "out", message)


def test_what_does_not_fit_together(tiny_model: Path, reward_model: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(section(tiny_model), prompts, out, "train.ppo.rewards: none given")
    other = build_model(tmp_path / "other", template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    refused(
        section(other, {"model": str(reward_model)}), prompts, out,
        "this reward model does not fit the policy: the chat templates render a conversation differently",
    )  # fmt: skip
    refused(section(tiny_model, {"model": str(tiny_model)}), prompts, out, "not a reward model")
    lora = {"r": 4, "target_modules": ["q_proj"]}
    refused(
        section(tiny_model, {"model": str(reward_model)}, one_backbone=True, lora=lora), prompts, out,
        "no adapter there; train this reward model with lora",
    )  # fmt: skip
    pairs_of_text = tmp_path / "empty.jsonl"
    pairs_of_text.write_text('{"prompt": " "}\n', encoding="utf-8")
    refused(section(tiny_model, SHORTER), pairs_of_text, out, "row 0: prompt is empty")


def test_an_adapter_over_other_weights_is_no_backbone(
    tiny_model: Path, reward_adapter: Path, prompts: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.lm_head.weight.add_(0.01)
    model.save_pretrained(tmp_path / "sft")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "sft")
    job = section(tmp_path / "sft", {"model": str(reward_adapter)}, one_backbone=True, lora={"r": 4})
    refused(job, prompts, tmp_path / "out", "both must lie over the same weights")
