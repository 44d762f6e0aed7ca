"""The plan of memory: arithmetic by hand, parameters of a known model, and activations as autograd keeps them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shared_data import benchmark

from rlaif import cli
from rlaif.config import DPOSection, SFTSection
from rlaif.config.training import LaunchSection, PPOSection, RewardSource
from rlaif.errors import ConfigError
from rlaif.training.memory import Setting, Shape, layer_bytes, memory, shape_of
from rlaif.training.memory_plan import plan, setting, told

# 2 layers of 100 parameters, 40 outside them; widths 3, 5 and 3
SMALL = Shape(n_parameters=240, n_trained=240, n_layers=2, hidden=3, mlp=5, queries=3, vocabulary=10, n_embedding=40)
# a Llama 3.1 8B's config.json, as its makers published the sizes
LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llama")
    (folder / "config.json").write_text(json.dumps(LLAMA_8B))
    return str(folder)


def test_a_layer_by_hand() -> None:
    """float32: (2·3·3 norms + 4·3 attention + 4·5 MLP) elements of 4 bytes; bf16 autocast halves the last two and
    adds its copy of each norm's output."""
    assert layer_bytes(SMALL, Setting(tokens=1)) == (18 + 12 + 20) * 4
    assert layer_bytes(SMALL, Setting(tokens=1, compute_bytes=2)) == 18 * 4 + 2 * 3 * 2 + (12 + 20) * 2


def test_a_whole_plan_by_hand() -> None:
    found = memory(SMALL, Setting(tokens=2))
    activations = 2 * (2 * 200 + 3 * 4 * 3)
    # 20 logits, float32, and 7 tensors and a byte to make their gradient of; the head's gradient and what it reads
    head = 20 * (4 + 7 * 4 + 1) + 10 * 3 * 4 + 2 * 3 * 4
    assert found == {
        "policy": 960, "gradients": 960, "optimiser": 1920, "activations": activations, "output head": head,
        "total": 960 + 1920 + max(activations + head, 960),
    }  # fmt: skip


def test_the_head_on_a_gpu_is_one_tile_and_a_reward_model_has_none() -> None:
    """The tile is 32,768 wide whatever the vocabulary, in bfloat16; the cast head beside it."""
    on_gpu = memory(SMALL, Setting(tokens=2, compute_bytes=2, triton=True))
    assert on_gpu["output head"] == 2 * 32_768 * 2 + 10 * 3 * 4 + 2 * 3 * 4 + 10 * 3 * 2
    assert "output head" not in memory(SMALL._replace(vocabulary=0), Setting(tokens=2, triton=True))


def test_gradients_that_are_accumulated_are_there_with_the_activations() -> None:
    once, twice = (memory(SMALL, Setting(tokens=2, accumulation=n)) for n in (1, 2))
    assert twice["total"] == once["total"] + min(960, once["activations"] + once["output head"])


def test_shards_divide_what_is_kept_and_gather_a_layer() -> None:
    found = memory(SMALL, Setting(tokens=2, shards=4), {"reference": (240, False)})
    assert (found["policy"], found["reference"], found["gradients"], found["optimiser"]) == (240, 240, 240, 480)
    assert found["gathered"] == 4 * (2 * 100 + 40)


def test_a_trained_second_model_has_gradients_and_moments() -> None:
    found = memory(SMALL, Setting(tokens=2), {"value": (100, True), "reward": (50, False)})
    assert (found["value"], found["reward"]) == (400, 200)
    assert (found["gradients"], found["optimiser"]) == (4 * 340, 8 * 340)
    alone = memory(SMALL, Setting(tokens=2))["activations"]
    assert found["activations"] == int(alone * 340 / 240)


@pytest.mark.integration  # imports transformers and peft
def test_parameters_of_a_known_model(llama: str) -> None:
    """8,030,261,248 is the published count; LoRA of rank r on a linear layer of m by n has r·(m + n)."""
    assert shape_of(llama).n_parameters == 8_030_261_248
    lora = shape_of(llama, {"r": 16, "target_modules": ["q_proj", "v_proj"]})
    assert lora.n_trained == 32 * 16 * ((4096 + 4096) + (4096 + 1024))
    assert lora.n_parameters == 8_030_261_248 + lora.n_trained


@pytest.mark.integration  # imports TRL
def test_sections_become_settings(llama: str, tmp_path: Path) -> None:
    args = {"per_device_train_batch_size": 2, "max_length": 512, "bf16": True, "gradient_checkpointing": True}
    launch = LaunchSection(config_file="shipped:pipelines/accelerate/fsdp.yaml", num_processes=8)
    dpo = DPOSection(model=llama, args=args, launch=launch)
    assert setting("dpo", dpo) == Setting(2 * 2 * 512, 4, None, 2, 8, True, 1, 8, False)
    eight = plan("dpo", dpo)
    assert eight["optimiser"] == 8 * 8_030_261_248 // 8 and "reference" not in eight
    own = DPOSection(model=llama, args={**args, "precompute_ref_log_probs": False}, launch=launch)
    assert plan("dpo", own)["reference"] == 4 * 8_030_261_248 // 8
    lora = DPOSection(model=llama, args=args, lora={"r": 16}, quantization={"load_in_4bit": True})
    assert plan("dpo", lora)["policy"] == pytest.approx(0.5 * 8_030_261_248, rel=0.01)
    ddp = SFTSection(model=llama, args={"optim": "sgd"}, launch=LaunchSection(num_processes=2))
    found = setting("sft", ddp)
    assert (found.moments, found.ddp, found.shards) == (0, True, 1)
    assert told("dpo", dpo).startswith("train.dpo: about ") and "GiB on each device" in told("dpo", dpo)
    with pytest.raises(ConfigError, match=r"train.dpo.model: .*: no config to plan by"):
        plan("dpo", DPOSection(model=str(tmp_path)))


@pytest.mark.integration  # imports TRL
def test_ppo_counts_each_of_its_models(llama: str) -> None:
    """A model of one score has, in place of the 128,256 · 4,096 head, 4,096 weights."""
    args = {"per_device_train_batch_size": 2, "max_prompt_length": 100, "max_completion_length": 28}
    ppo = PPOSection(model=llama, args=args, rewards=[RewardSource(model=llama), RewardSource(function="m:f")])
    scoring, policy = 8_030_261_248 - 128_255 * 4096, 8_030_261_248
    found = plan("ppo", ppo)
    assert {name: found[name] for name in ("policy", "reference", "reward 1", "critic")} == {
        "policy": 4 * policy, "reference": 4 * policy, "reward 1": 4 * scoring, "critic": 4 * scoring,
    }  # fmt: skip
    assert found["optimiser"] == 8 * (policy + scoring)
    assert setting("ppo", ppo).tokens == 2 * 128
    shared = plan("ppo", ppo.model_copy(update={"lora": {"r": 16}, "one_backbone": True}))
    assert "reference" not in shared and shared["reward 1"] == shared["critic"] < 0.01 * shared["policy"]


@pytest.mark.integration  # imports TRL
def test_the_plan_command_names_each_role(llama: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text(
        f"run: {tmp_path / 'run'}\ntrain:\n  reward: {{model: {llama}, dataset: a}}\n"
        f"  ppo: {{model: {llama}, dataset: b, rewards: [{{model: 'run:reward'}}]}}\n"
    )
    for name in "ab":
        (tmp_path / name).mkdir()
    code = cli.main(["plan", str(tmp_path / "p.yaml"), "--set", f"train.reward.dataset={tmp_path / 'a'}",
                     "--set", f"train.ppo.dataset={tmp_path / 'b'}"])  # fmt: skip
    out = capsys.readouterr()
    assert code == 0, out.err
    line = next(line for line in out.out.splitlines() if line.startswith("train.ppo: about "))
    assert all(f"{role} " in line for role in ("policy", "reference", "reward 1", "critic", "gradients", "optimiser"))
    assert not (tmp_path / "run").exists()


@pytest.mark.integration  # trains 2 steps of a Llama of 22 million parameters in a process of its own
def test_the_plan_is_what_a_training_takes(tmp_path: Path) -> None:
    memory_plan = benchmark("memory_plan")
    case = {"trainer": "sft", "rows": 4, "length": 256}
    model = memory_plan.build_model(tmp_path / "model", hidden=384, layers=6)
    small = memory_plan.build_model(tmp_path / "small", hidden=16, layers=1)
    peak = memory_plan.measured(case, model, small, tmp_path)
    assert peak == pytest.approx(memory_plan.foretold(case, model)["total"], rel=memory_plan.BAR)


@pytest.mark.integration  # imports TRL and passes a Llama of 22 million parameters forward
def test_activations_are_what_the_forward_pass_saves() -> None:
    """What autograd keeps beside the parameters, each piece of memory once."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    sizes = {"hidden_size": 384, "intermediate_size": 1056, "num_hidden_layers": 6, "num_attention_heads": 8}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=16_384, num_key_value_heads=8, **sizes))
    add_fused_lm_head(model)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(0, 16_384, (4, 256))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = model(input_ids=ids, labels=ids, fused_lm_head=True)
    assert out.log_probs.requires_grad
    n = sum(p.numel() for p in model.parameters())
    shape = Shape(
        n, n, n_layers=6, hidden=384, mlp=1056, queries=384, vocabulary=16_384, n_embedding=2 * 16_384 * 384
    )
    assert memory(shape, Setting(tokens=1024))["activations"] == pytest.approx(sum(saved.values()), rel=0.05)
