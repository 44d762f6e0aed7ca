"""PPO with policy, critic, reward model and reference over one backbone, against whole models: memory and learning.

    python benchmarks/one_backbone.py [--quick] [--seeds 3] [--updates 100]

Memory: peak resident memory of a process that makes one PPO update of a random 110M-parameter Llama on a CPU in
float32, `separate` (policy, critic, reward model and reference are whole models, the first two trained whole),
`lora` (the policy is an adapter and lends its base to the reference; critic and reward model are whole) and
`one_backbone`. Learning: a toy of 40 words, 8 of them good, whose reward model has learned from pairs to prefer
good words: the true share of good words over the last ten updates of `lora` and `one_backbone`, same adapters and
rates. Each run is a process of its own. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODES = ("separate", "lora", "one_backbone")
LARGE = {
    "hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12,
    "num_key_value_heads": 12, "tie_word_embeddings": True,
}  # fmt: skip
SMALL = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 2}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
BATCH, COMPLETION, PROMPT = 32, 16, 6
N_WORDS, N_GOOD = 40, 8


def words(n: int) -> list[str]:
    return [f"good{i}" for i in range(N_GOOD)] + [f"word{i}" for i in range(n - N_GOOD)]


def build(folder: Path, seed: int, n_words: int, shape: dict[str, Any]) -> int:
    """A random policy; returns how many parameters it has."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words(n_words)])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(vocabulary), max_position_embeddings=128, **tokens, **shape)
    model = LlamaForCausalLM(config)
    if not config.tie_word_embeddings:  # adapters leave these as they are, and logits of ± 1.3 cannot say much
        torch.nn.init.normal_(model.lm_head.weight, std=0.1)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def rows(seed: int, n: int) -> list[dict[str, str]]:
    """Pairs: chosen has more good words than rejected; the prompts serve PPO too."""
    rng, good, plain = random.Random(seed), words(N_WORDS)[:N_GOOD], words(N_WORDS)[N_GOOD:]

    def response(n_good: int) -> str:
        drawn = [rng.choice(good) for _ in range(n_good)] + [rng.choice(plain) for _ in range(COMPLETION - n_good)]
        return " ".join(rng.sample(drawn, len(drawn)))

    found = []
    for _ in range(n):
        more, less = sorted(rng.sample(range(COMPLETION + 1), 2), reverse=True)
        prompt = " ".join(rng.choice(good + plain) for _ in range(PROMPT)) + " "
        found.append({"prompt": prompt, "chosen": response(more), "rejected": response(less)})
    return found


def share(completions: list[str], **_: Any) -> list[float]:
    """Of good words: what the reward model stands for. It weighs nothing."""
    found = [text.split() for text in completions]
    return [sum(word.startswith("good") for word in text) / max(1, len(text)) for text in found]


def train_reward(folder: Path, steps: int, seed: int) -> None:
    import rlaif

    args = {"max_steps": steps, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "use_cpu": True}
    rlaif.train_reward(
        str(folder / "rows.jsonl"), model=str(folder / "policy"), out=folder / "reward", seed=seed,
        args={**args, "gradient_checkpointing": False}, lora=LORA,
    )  # fmt: skip


def train_ppo(folder: Path, mode: str, updates: int, seed: int, **more: Any) -> list[float]:
    """The share of good words at each update."""
    import rlaif

    args = {
        "per_device_train_batch_size": BATCH // 2, "steps_per_generation": 2, "num_iterations": 4,
        "max_steps": updates * 8, "max_completion_length": COMPLETION, "learning_rate": 2e-3, "logging_steps": 8,
        "critic_learning_rate": 2e-3, "lr_scheduler_type": "constant", "use_cpu": True, "kl_coef": 0.02,
        "missing_eos_penalty": None, "gradient_checkpointing": False, **more,
    }  # fmt: skip
    options = {} if mode == "separate" else {"lora": LORA, "one_backbone": mode == "one_backbone"}
    record = rlaif.train_ppo(
        str(folder / "rows.jsonl"), model=str(folder / "policy"), out=folder / mode, seed=seed, args=args,
        rewards=[{"model": str(folder / "reward")}, {"function": "one_backbone:share", "weight": 0.0}], **options,
    )  # fmt: skip
    name = "rewards/share/mean"
    return [point[name] for point in record["history"] if name in point]  # a point without a rollout has none


def one(job: str, folder: Path, seed: int, updates: int) -> None:
    """One part in this process; the last line is its result."""
    import torch

    torch.set_num_threads(1)
    kind, _, mode = job.partition(":")
    found: dict[str, Any] = {}
    if kind in ("large", "small"):
        shape, n_words = (LARGE, 32_000) if kind == "large" else (SMALL, N_WORDS)
        found["parameters"] = build(folder / "policy", seed, n_words, shape)
        text = "".join(json.dumps(row) + "\n" for row in rows(seed, 64 if kind == "large" else 512))
        (folder / "rows.jsonl").write_text(text, encoding="utf-8")
        train_reward(folder, 1 if kind == "large" else 96, seed)
    elif kind == "memory":
        small_steps = {"per_device_train_batch_size": 4, "num_iterations": 1, "max_steps": 2, "logging_steps": 1}
        train_ppo(folder, mode, 1, seed, **small_steps)
        found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    else:
        found["share"] = train_ppo(folder, mode, updates, seed)
    print(json.dumps(found))


def spawn(job: str, folder: Path, seed: int, updates: int) -> dict[str, Any]:
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")]), "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    command = [sys.executable, __file__, "--one", job, "--folder", str(folder), "--seed", str(seed)]
    done = subprocess.run([*command, "--updates", str(updates)], env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{job}, seed {seed}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=100, help=f"rollouts of {BATCH} completions, for learning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="memory only")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one, given.folder, given.seed, given.updates)
        return
    memory: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as temporary:
        parameters = spawn("large", Path(temporary), 0, 1)["parameters"]
        print(f"{parameters / 1e6:.0f}M parameters, float32, one update: peak MB", flush=True)
        for mode in MODES:
            memory[mode] = spawn(f"memory:{mode}", Path(temporary), 0, 1)["peak_mb"]
            print(f"  {mode:<14}{memory[mode]:>7,}", flush=True)
    learned: dict[str, list[float]] = {mode: [] for mode in MODES[1:]}
    for seed in range(0 if given.quick else given.seeds):
        with tempfile.TemporaryDirectory() as temporary:
            spawn("small", Path(temporary), seed, 1)
            for mode, values in learned.items():
                curve = spawn(f"learn:{mode}", Path(temporary), seed, given.updates)["share"]
                values.append(statistics.fmean(curve[-10:]))
                points = " ".join(f"{value:.2f}" for value in curve[:: max(1, len(curve) // 8)])
                print(f"seed {seed}  {mode:<14}{values[-1]:.3f}   {points}", flush=True)
    print(json.dumps({"parameters": parameters, "peak_mb": memory, "share_of_good_words": learned}))


if __name__ == "__main__":
    main()
