"""rlaif's PPO on current TRL against TRL 1.12's own PPOTrainer (its last), and GRPO beside them, on a toy.

    python benchmarks/ppo_vs_trl.py [--quick] [--updates 60] [--seeds 3]

The toy: a random policy over 200 words, 20 of them good; the reward is the share of good words in a completion. All
three see the same number of completions (64 an update) in as many optimizer steps (two minibatches of 32, four
epochs), with the same learning rate and lengths, one thread, each run in a process of its own, taking turns. TRL 1.12
never clips gradients, so nobody does. Its `gradient_accumulation_steps` must stay 1: above that it makes fewer
optimizer steps than minibatches. `reward`: mean over the last ten updates, 640 completions. steps/s are optimizer
steps per second of training, without imports: compare the ratio, not the seconds. TRL 1.12 is installed, without its
needs, into a folder of its own (build/trl-1.12, from the package index) and shadows the current one in its runs only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OLD_TRL = ROOT / "build" / "trl-1.12"
RUNS = ("rlaif", "trl_1_12", "grpo")
WORDS = [f"good{i}" for i in range(20)] + [f"word{i}" for i in range(180)]
PROMPT_WORDS, COMPLETION, BATCH, MINIBATCHES, EPOCHS = 6, 24, 64, 2, 4
LEARNING_RATE, KL, VALUE, LAMBDA = 1e-3, 0.02, 0.5, 0.95


def build(folder: Path, seed: int) -> tuple[Path, Path]:
    """A random policy and a random value model, the same for every run of a seed."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        LlamaForSequenceClassification,
        PreTrainedTokenizerFast,
    )

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="left", **special)
    config = {
        "vocab_size": len(vocabulary), "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    torch.manual_seed(seed)
    for name, model in (
        ("policy", LlamaForCausalLM(LlamaConfig(**config))),
        ("value", LlamaForSequenceClassification(LlamaConfig(**config, num_labels=1))),
    ):
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder / "policy", folder / "value"


def prompts(seed: int, n: int = 2048) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) for _ in range(PROMPT_WORDS)) for _ in range(n)]


def good_share(words: list[str]) -> float:
    return sum(word.startswith("good") for word in words) / max(1, len(words))


def run_current(which: str, policy: Path, value: Path, updates: int, seed: int, out: Path) -> dict[str, Any]:
    """rlaif's PPO, or TRL's GRPO with groups of 8, on the installed TRL."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    history: list[float] = []

    def reward(completions: list[str], **_: Any) -> list[float]:
        rewards = [good_share(text.split()) for text in completions]
        history.append(statistics.fmean(rewards))
        return rewards

    given: dict[str, Any] = {
        "output_dir": str(out), "per_device_train_batch_size": BATCH // MINIBATCHES,
        "steps_per_generation": MINIBATCHES, "num_iterations": EPOCHS, "max_completion_length": COMPLETION,
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "logging_steps": 50, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "seed": seed, "max_steps": updates * MINIBATCHES * EPOCHS, "weight_decay": 0.0,
        "max_grad_norm": 0.0,
    }  # fmt: skip
    data = Dataset.from_dict({"prompt": prompts(seed)})
    common = {"model": str(policy), "reward_funcs": reward, "train_dataset": data, "processing_class": tokenizer}
    trainer: Any
    if which == "rlaif":
        from rlaif.training.ppo.arguments import PPOConfig
        from rlaif.training.ppo.trainer import PPOTrainer

        ours = {"kl_coef": KL, "vf_coef": VALUE, "lam": LAMBDA, "critic_learning_rate": LEARNING_RATE}
        plain = {"normalize_scores": False, "missing_eos_penalty": None}  # as TRL 1.12 has it
        trainer = PPOTrainer(args=PPOConfig(**given, **ours, **plain), critic=value, **common)
    else:
        trainer = GRPOTrainer(args=GRPOConfig(**given, num_generations=8, beta=KL), **common)
    return _timed(trainer, updates, history)


def run_old(policy: Path, value: Path, updates: int, seed: int, out: Path) -> dict[str, Any]:
    """TRL 1.12's PPOTrainer, which wants its reward as a module over hidden states."""
    import torch
    import trl
    from datasets import Dataset
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    assert trl.__version__.startswith("1.12."), trl.__version__
    tokenizer = AutoTokenizer.from_pretrained(policy, padding_side="left")
    is_good = torch.tensor([float(word.startswith("good")) for word in tokenizer.convert_ids_to_tokens(range(204))])

    class Backbone(nn.Module):
        """At each position, the share of good words since the prompt; the end token is no word."""

        def forward(self, input_ids: Any, **_: Any) -> Any:
            completion = torch.arange(input_ids.size(1)) >= PROMPT_WORDS
            word = completion * (input_ids > 3).float()
            share = (is_good[input_ids] * completion).cumsum(1) / word.cumsum(1).clamp(min=1)
            return SimpleNamespace(hidden_states=[share.unsqueeze(-1)])

    class Reward(nn.Module):
        base_model_prefix = "backbone"

        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.unused = Backbone(), nn.Parameter(torch.zeros(1))

        def score(self, hidden: Any) -> Any:
            return hidden

    history: list[float] = []

    class Record(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if "objective/scores" in (logs or {}):
                history.append(logs["objective/scores"])

    rows = [{"input_ids": tokenizer(text)["input_ids"]} for text in prompts(seed)]
    args = PPOConfig(
        output_dir=str(out), per_device_train_batch_size=BATCH, gradient_accumulation_steps=1,
        num_mini_batches=MINIBATCHES, num_ppo_epochs=EPOCHS,
        response_length=COMPLETION, learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant", use_cpu=True, bf16=False, gradient_checkpointing=False, stop_token="eos",
        total_episodes=updates * BATCH, temperature=1.0, kl_coef=KL, vf_coef=VALUE, lam=LAMBDA, seed=seed,
        num_sample_generations=0, report_to="none", save_strategy="no", logging_steps=1, weight_decay=0.0,
        disable_tqdm=True, local_rollout_forward_batch_size=BATCH,
    )  # fmt: skip
    trainer = PPOTrainer(
        args=args, processing_class=tokenizer, model=AutoModelForCausalLM.from_pretrained(policy),
        ref_model=AutoModelForCausalLM.from_pretrained(policy), reward_model=Reward(),
        value_model=AutoModelForSequenceClassification.from_pretrained(value),
        train_dataset=Dataset.from_list(rows), eval_dataset=Dataset.from_list(rows[:8]), callbacks=[Record()],
    )  # fmt: skip
    return _timed(trainer, updates, history)


def _timed(trainer: Any, updates: int, history: list[float]) -> dict[str, Any]:
    clock, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
    steps = updates * MINIBATCHES * EPOCHS
    return {
        "start": history[0],
        "reward": statistics.fmean(history[-10:]),
        "steps_per_s": steps / seconds,
        "steps_per_cpu_s": steps / cpu,
    }


def one(which: str, updates: int, seed: int) -> None:
    """One run in this process; the last line is its result."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        policy, value = build(folder, seed)
        arguments = (policy, value, updates, seed, folder / "out")
        found = run_old(*arguments) if which == "trl_1_12" else run_current(which, *arguments)
    print(json.dumps(found))


def spawn(which: str, updates: int, seed: int) -> dict[str, Any]:
    paths = [str(OLD_TRL)] if which == "trl_1_12" else []
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([*paths, str(ROOT)]), "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "TRL_EXPERIMENTAL_SILENCE": "1",
    }  # fmt: skip
    command = [sys.executable, __file__, "--one", which, "--updates", str(updates), "--seed", str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{which}, seed {seed}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def install_old() -> None:
    if (OLD_TRL / "trl").is_dir():
        return
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(OLD_TRL), "trl==1.12.0"]
    subprocess.run(pip, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=60, help="rollouts of 64 completions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one seed, few updates, no GRPO: speed, not learning")
    parser.add_argument("--one", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.updates, given.seed)
        return
    install_old()
    updates, seeds, runs = (16, 1, RUNS[:2]) if given.quick else (given.updates, given.seeds, RUNS)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    print(f"{'seed':>4}  {'run':<10}{'start':>8}{'reward':>8}{'steps/s':>9}{'steps/CPU s':>13}")
    for seed in range(seeds):
        for name in runs if seed % 2 == 0 else runs[::-1]:
            found = spawn(name, updates, seed)
            results[name].append(found)
            figures = f"{found['start']:>8.3f}{found['reward']:>8.3f}{found['steps_per_s']:>9.2f}"
            print(f"{seed:>4}  {name:<10}{figures}{found['steps_per_cpu_s']:>13.2f}", flush=True)
    mean = {name: statistics.fmean(row["reward"] for row in rows) for name, rows in results.items()}
    pairs = list(zip(results["rlaif"], results["trl_1_12"], strict=True))
    ratios = {
        f"{unit}_ratio": round(statistics.median(ours[unit] / theirs[unit] for ours, theirs in pairs), 3)
        for unit in ("steps_per_s", "steps_per_cpu_s")
    }
    summary = {name: {"reward": round(value, 4)} for name, value in mean.items()}
    print(json.dumps({**summary, **ratios}))


if __name__ == "__main__":
    main()
