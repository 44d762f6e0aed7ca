"""What the trainer relies on in TRL, transformers and peft, seam by seam. A failure here names what has drifted.

The other tests of this folder say that the whole works; these say why it no longer does. Run both with another TRL:

    pip install --no-deps --target DIR trl==X && PYTHONPATH=DIR:$PWD pytest tests/training/ppo

The table of versions that passed is in docs/ppo.md.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.integration  # imports TRL and trains for a step
torch = pytest.importorskip("torch")
trl = pytest.importorskip("trl")

from datasets import Dataset  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

from rlaif.training.ppo.arguments import PPOConfig  # noqa: E402
from rlaif.training.ppo.trainer import PPOTrainer  # noqa: E402
from rlaif.training.rollouts import RolloutTrainer  # noqa: E402

PROMPTS = [{"prompt": [{"role": "user", "content": f"is it {i}"}], "mine": i} for i in range(16)]
BATCH, PER_ROLLOUT, LENGTH = 4, 2, 6


class Watched(GRPOTrainer):  # type: ignore[misc]
    """TRL's own trainer, which notes how it calls the methods that ours overrides."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.calls: dict[str, list[Any]] = {}
        super().__init__(*args, **kwargs)

    def _note(self, name: str, value: Any) -> Any:
        self.calls.setdefault(name, []).append(value)
        return value

    def _generate(self, prompts: Any) -> Any:
        return self._note("generate", (prompts, super()._generate(prompts)))[1]

    def _calculate_rewards(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        rows = [{**row, "extra": at} for at, row in enumerate(inputs)]
        return self._note("rewards", super()._calculate_rewards(rows, *args, **kwargs))

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        return self._note("logps", (args, super()._get_per_token_logps_and_entropies(*args, **kwargs)))[1]

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        return self._note("rollout", super()._generate_and_score_completions(inputs))

    def _prepare_inputs(self, batch: Any) -> Any:
        buffered = self._buffered_inputs
        found = super()._prepare_inputs(batch)
        self._note("steps", (self._step, buffered is None, len(self._buffered_inputs)))
        return found

    def _clip_grad_norm(self, model: Any) -> Any:
        return self._note("clip", super()._clip_grad_norm(model))


@pytest.fixture(scope="module")
def seen(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """TRL's trainer after one rollout and its two epochs; what its reward function got; its events in order."""
    given: list[dict[str, Any]] = []
    events: list[str] = []

    def reward(**kwargs: Any) -> list[float]:
        given.append(kwargs)
        return [float(len(ids)) for ids in kwargs["completion_ids"]]

    class Events(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            events.append("before the optimizer's step")

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            events.append("after it")

    args = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("seams")), per_device_train_batch_size=BATCH,
        steps_per_generation=PER_ROLLOUT, num_iterations=2, num_generations=BATCH, max_completion_length=LENGTH,
        beta=0.1, max_steps=4, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none",
        save_strategy="no", disable_tqdm=True, loss_type="bnpo", lr_scheduler_type="constant", logging_steps=1,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    trainer = Watched(
        model=str(tiny_model), reward_funcs=reward, args=args, train_dataset=Dataset.from_list(PROMPTS),
        processing_class=tokenizer, callbacks=[Events()],
    )  # fmt: skip
    trainer.train()
    yield SimpleNamespace(trainer=trainer, calls=trainer.calls, given=given, events=events, tokenizer=tokenizer)


def test_a_beta_makes_a_reference(seen: SimpleNamespace, tiny_model: Path) -> None:
    assert seen.trainer.beta == 0.1
    start = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in seen.trainer.ref_model.state_dict().items())
    assert all(rollout["ref_per_token_logps"].shape[0] == BATCH * PER_ROLLOUT for rollout in seen.calls["rollout"])


def test_generate_returns_the_prompts_ids_first(seen: SimpleNamespace) -> None:
    prompts, generated = seen.calls["generate"][0]
    for prompt, ids in zip(prompts, generated[0], strict=True):
        assert (
            ids
            == seen.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
        )


def test_columns_of_the_rows_reach_the_reward_function(seen: SimpleNamespace) -> None:
    n = BATCH * PER_ROLLOUT
    got = seen.given[0]
    assert got["extra"] == list(range(n)), "a column that was put into the inputs"
    assert len(got["mine"]) == len(got["completions"]) == len(got["completion_ids"]) == n
    assert callable(got["log_metric"]) and "trainer_state" in got
    assert seen.calls["rewards"][0].shape == (n, 1), "one column a function, of all processes"
    assert {"reward_weights", "reward_funcs"} <= set(vars(seen.trainer))


def test_log_probabilities_come_first(seen: SimpleNamespace) -> None:
    args, found = seen.calls["logps"][-1]
    assert found[0].shape == (BATCH, seen.calls["rollout"][-1]["completion_ids"].size(1))
    assert args[1].size(1) > args[3] == found[0].size(1), "(model, input_ids, attention_mask, logits_to_keep)"
    assert (found[0] <= 0).all()


def test_a_rollout_has_what_is_read_of_it(seen: SimpleNamespace) -> None:
    rollout = seen.calls["rollout"][0]
    wanted = {"prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "old_per_token_logps"}
    assert wanted <= set(rollout)
    assert rollout["prompt_mask"][:, -1].all(), "padding of prompts is on the left"
    assert rollout["completion_mask"][:, 0].all(), "of completions on the right"
    ends = getattr(seen.trainer, "eos_token_ids", [seen.tokenizer.eos_token_id])  # TRL 1.14 has no such list
    ended = torch.isin(rollout["completion_ids"], torch.tensor(ends)) & rollout["completion_mask"].bool()
    cut_off = ~ended.any(1)
    assert (rollout["completion_mask"][cut_off].sum(1) == LENGTH).all(), "what has no end token is of full length"


def test_a_rollout_serves_its_epochs_and_is_counted_in_passes(seen: SimpleNamespace) -> None:
    assert seen.calls["steps"] == [(0, True, 2), (1, False, 2), (2, False, 2), (3, False, 2)]
    assert len(seen.calls["rollout"]) == 1
    assert seen.trainer.num_iterations == 2 and seen.trainer.current_gradient_accumulation_steps == 1


def test_the_loss_takes_an_advantage_for_each_token(seen: SimpleNamespace) -> None:
    """With a ratio of 1 the loss is minus the mean advantage over the tokens, whatever their advantages are."""
    trainer, rollout = seen.trainer, dict(seen.calls["rollout"][0])
    rollout.pop("old_per_token_logps")
    advantages = torch.arange(rollout["completion_ids"].numel(), dtype=torch.float32)
    rollout["advantages"] = advantages.view_as(rollout["completion_ids"])
    before, trainer.beta = trainer.beta, 0.0
    try:
        loss = trainer._compute_loss(trainer.model, rollout)
    finally:
        trainer.beta = before
    mask = rollout["completion_mask"]
    assert loss.item() == pytest.approx(-((rollout["advantages"] * mask).sum() / mask.sum()).item(), rel=1e-4)


def test_gradients_are_clipped_by_what_is_in_the_arguments(seen: SimpleNamespace) -> None:
    assert len(seen.calls["clip"]) == 4
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    limit, seen.trainer.args.max_grad_norm = seen.trainer.args.max_grad_norm, 1.0
    try:
        norm = GRPOTrainer._clip_grad_norm(seen.trainer, SimpleNamespace(parameters=lambda: [weight]))
    finally:
        seen.trainer.args.max_grad_norm = limit
    assert float(norm) == pytest.approx(5.0) and weight.grad.norm().item() == pytest.approx(1.0, abs=1e-4)


def test_callbacks_are_told_before_a_step(seen: SimpleNamespace) -> None:
    assert seen.events == ["before the optimizer's step", "after it"] * 4


def test_the_optimizer_has_groups_of_weights(seen: SimpleNamespace) -> None:
    groups = seen.trainer.optimizer.param_groups
    found = [weight for group in groups for weight in group["params"]]
    assert {id(w) for w in found} == {id(w) for w in seen.trainer.model.parameters() if w.requires_grad}
    assert all("lr" in group for group in groups)


def test_signatures() -> None:
    def parameters(function: Any) -> list[str]:
        return list(inspect.signature(function).parameters)

    assert parameters(Trainer._save) == ["self", "output_dir", "state_dict"]
    assert parameters(Trainer._load_from_checkpoint)[:3] == ["self", "resume_from_checkpoint", "model"]
    assert parameters(GRPOTrainer._generate_and_score_completions) == ["self", "inputs"]
    assert parameters(GRPOTrainer._compute_loss) == ["self", "model", "inputs"]
    assert parameters(GRPOTrainer._calculate_rewards)[:2] == ["self", "inputs"]
    assert parameters(GRPOTrainer._generate)[:2] == ["self", "prompts"]
    for name in ("_save", "_load_from_checkpoint", "create_optimizer"):
        assert name not in vars(GRPOTrainer), f"GRPOTrainer has its own {name} now: read it"
    ours = {**vars(RolloutTrainer), **vars(PPOTrainer)}
    overridden = {name for name, value in ours.items() if inspect.isfunction(value)} & set(dir(GRPOTrainer))
    assert overridden == {
        "__init__", "_calculate_rewards", "_clip_grad_norm", "_compute_loss", "_generate",
        "_generate_and_score_completions", "_get_per_token_logps_and_entropies", "_load_from_checkpoint",
        "_prepare_inputs", "_save", "create_optimizer",
    }, "a method of ours has the name of one of TRL's"  # fmt: skip


def test_no_argument_of_ours_has_a_name_of_trls() -> None:
    theirs = {field.name for field in dataclasses.fields(GRPOConfig)}
    redefined = set(PPOConfig.__annotations__) & theirs
    assert redefined == {
        "num_iterations", "num_generations", "loss_type", "ddp_find_unused_parameters", "disable_dropout",
    }  # fmt: skip
    with pytest.raises(ValueError, match="at least 2 generations"):
        GRPOConfig("x", num_generations=1, use_cpu=True, bf16=False)


def test_vllm_reads_the_modules_of_the_model_when_it_syncs() -> None:
    source = inspect.getsource(pytest.importorskip("trl.generation.vllm_generation").VLLMGeneration)
    assert "def sync_weights(self)" in source and "model.named_parameters()" in source
    assert "self.vllm_generation.sync_weights()" in inspect.getsource(GRPOTrainer)


def test_peft_switches_adapters_by_a_name_in_each_layer(tiny_model: Path) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), LoraConfig(target_modules=["q_proj"]))
    model.add_adapter("critic", LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    ids = torch.tensor([[5, 6, 7]])
    policy = model(input_ids=ids).logits
    for layer in layers:
        layer._active_adapter = ["critic"]
    critic = model(input_ids=ids).logits
    for layer in layers:
        layer._active_adapter = ["default"]
    assert not torch.allclose(policy, critic) and torch.equal(policy, model(input_ids=ids).logits)
    model.set_adapter("critic")
    assert torch.equal(critic, model(input_ids=ids).logits)
