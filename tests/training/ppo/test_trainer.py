"""The trainer on a random tiny policy: what moves, what is saved, what resumes. Slow: each test trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
torch = pytest.importorskip("torch")

from datasets import Dataset  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from rlaif.training.ppo.arguments import PPOConfig  # noqa: E402
from rlaif.training.ppo.critic import load_critic  # noqa: E402
from rlaif.training.ppo.trainer import PPOTrainer  # noqa: E402

PROMPTS = [{"prompt": [{"role": "user", "content": f"is it good {i}"}]} for i in range(32)]


def arguments(folder: Path, **more: Any) -> PPOConfig:
    given = {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "steps_per_generation": 2, "num_iterations": 2,
        "max_completion_length": 8, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "use_cpu": True,
        "bf16": False, "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True, "max_steps": 4, "seed": 3,
    }  # fmt: skip
    return PPOConfig(**{**given, **more})


def trainer(model: Path, folder: Path, *, reward: Any = None, rows: Any = None, peft: Any = None, **more: Any) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    return PPOTrainer(
        model=str(model), reward_funcs=reward or shorter, args=arguments(folder, **more), critic=model,
        ptx_rows=rows, train_dataset=Dataset.from_list(PROMPTS), processing_class=tokenizer, peft_config=peft,
    )  # fmt: skip


def shorter(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [-float(len(ids)) for ids in completion_ids]


def weights(found: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in found.model.state_dict().items()}


def moved(before: dict[str, Any], after: dict[str, Any]) -> tuple[float, float]:
    """The largest change of a policy weight and of a critic weight."""
    change = {name: (before[name] - after[name]).abs().max().item() for name in before}
    critic = [value for name, value in change.items() if "critic." in name]
    return max(value for name, value in change.items() if "critic." not in name), max(critic)


def logged(found: Any, name: str) -> list[float]:
    return [row[name] for row in found.state.log_history if name in row]


def test_policy_and_critic_learn_and_the_reference_stays(tiny_model: Path, tmp_path: Path) -> None:
    found = trainer(tiny_model, tmp_path / "out")
    before, reference = weights(found), {k: v.clone() for k, v in found.ref_model.state_dict().items()}
    found.train()
    policy, critic = moved(before, weights(found))
    assert policy > 0 and critic > 0
    assert all(torch.equal(value, found.ref_model.state_dict()[name]) for name, value in reference.items())
    assert logged(found, "ppo/kl")[0] == pytest.approx(0, abs=1e-4), (
        "before the first step the policy is its reference"
    )
    rates = {group["lr"] for group in found.optimizer.param_groups}
    assert rates == {1e-3, 5e-3}
    assert logged(found, "ppo/critic_grad_norm")


def test_a_reward_function_sees_the_token_ids_of_the_rollout(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    seen: list[tuple[list[int], list[int], Any]] = []

    def reward(prompts: Any, prompt_ids: Any, completion_ids: Any, **_: Any) -> list[float]:
        seen.extend(zip(prompt_ids, completion_ids, prompts, strict=True))
        return [0.0] * len(prompts)

    trainer(tiny_model, tmp_path / "out", reward=reward, max_steps=2).train()
    assert len(seen) == 16
    for prompt_ids, completion_ids, prompt in seen:
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        assert tokenizer.decode(prompt_ids) == text
        ended = [i for i, token in enumerate(completion_ids) if token == tokenizer.eos_token_id]
        assert len(completion_ids) == 8 or ended == [len(completion_ids) - 1], "the end token is kept and is the last"


def test_only_the_critic_learns_in_its_warm_up(tiny_model: Path, tmp_path: Path) -> None:
    found = trainer(tiny_model, tmp_path / "out", critic_warmup_steps=4)
    before = weights(found)
    found.train()
    policy, critic = moved(before, weights(found))
    assert policy == 0 and critic > 0


def test_a_policy_that_left_its_rollout_waits_for_the_next_one(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import TrainerCallback

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            policy = [weight for name, weight in found.model.named_parameters() if "critic." not in name]
            seen.append(torch.cat([weight.detach().flatten() for weight in policy]).clone())

    seen: list[Any] = []
    found = trainer(tiny_model, tmp_path / "out", approx_kl_limit=1e-9, max_steps=8, learning_rate=1e-2)
    found.add_callback(Look())
    found.train()
    learns = logged(found, "ppo/policy_learns")
    # a rollout serves 4 steps; its first has not moved yet, from the second on the limit holds
    assert learns[0] == 1.0 and learns[1:4] == [0.0, 0.0, 0.0] and learns[4] == 1.0
    assert all(torch.equal(seen[0], later) for later in seen[1:4]), "not by Adam's momentum either"
    assert not torch.equal(seen[3], seen[4])


def test_a_completion_without_a_score_teaches_nothing(tiny_model: Path, tmp_path: Path) -> None:
    def none(prompts: Any, **_: Any) -> list[None]:
        return [None] * len(prompts)

    found = trainer(tiny_model, tmp_path / "out", reward=none, weight_decay=0.0)
    before = weights(found)
    found.train()
    assert moved(before, weights(found)) == (0.0, 0.0)


def test_the_missing_end_costs(tiny_model: Path, tmp_path: Path) -> None:
    def zero(prompts: Any, **_: Any) -> list[float]:
        return [0.0] * len(prompts)

    found = trainer(
        tiny_model, tmp_path / "out", reward=zero, normalize_scores=False, missing_eos_penalty=2.0, max_steps=1
    )
    found.train()
    (score,), (ended,) = logged(found, "ppo/score"), logged(found, "ppo/eos_rate")
    assert score == pytest.approx(-2.0 * (1 - ended))


def test_replayed_demonstrations_become_likelier(tiny_model: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer("yes very good")["input_ids"]
    rows = [{"input_ids": ids, "labels": [-100, *ids[1:]]}]
    found = trainer(tiny_model, tmp_path / "out", rows=rows, ptx_coef=1.0, max_steps=16)
    found.train()
    losses = logged(found, "ppo/ptx_loss")
    assert losses[-1] < losses[0] - 0.5


def test_a_checkpoint_on_a_rollouts_boundary_resumes_exactly(tiny_model: Path, tmp_path: Path) -> None:
    options = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8, "kl_target": 1.0}
    whole = trainer(tiny_model, tmp_path / "out", **options)
    whole.train()
    checkpoint = tmp_path / "out" / "checkpoint-4"
    assert not [name for name in load_file(checkpoint / "model.safetensors") if name.startswith("critic")]
    AutoModelForCausalLM.from_pretrained(checkpoint)  # an ordinary model
    resumed = trainer(tiny_model, tmp_path / "out", **options)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert max(moved(weights(whole), weights(resumed))) == 0
    assert resumed.kl.coefficient == whole.kl.coefficient
    assert resumed.moments.state() == whole.moments.state()


def test_a_reward_models_head_becomes_the_critics(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    judge = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    torch.nn.init.normal_(judge.score.weight)
    judge.save_pretrained(tmp_path / "rm")
    critic = load_critic(tmp_path / "rm", 0)
    ids = torch.tensor([[5, 6, 7]])
    values = critic(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, :, 0]
    score = judge(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0]
    assert values[-1].item() == pytest.approx(score.item(), abs=1e-5)
    fresh = load_critic(tiny_model, 0)
    assert fresh(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.abs().max() == 0


def test_lora_policy_with_a_full_critic(tiny_model: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    found = trainer(tiny_model, tmp_path / "out", peft=config)
    before = weights(found)
    found.train()
    trained = {name for name, weight in found.model.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or "critic." in name for name in trained)
    assert found.ref_model is None and logged(found, "ppo/kl")[0] == pytest.approx(0, abs=1e-4)
    assert min(moved(before, weights(found))) > 0
