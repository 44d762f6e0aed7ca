"""Steps per second of our trainers over TRL's own with the same arguments, the same rows and the same model.

    python benchmarks/training_overhead.py            # 7 rounds of 12 steps: 10 minutes on two quiet cores
    python benchmarks/training_overhead.py --quick

In a round each trainer runs once as ours and once as TRL's, in an order that changes with the round, in one process.
Timed is `trainer.train()` from the end of its second step: what comes before (data, reference log-probs) is done once
and by TRL in both. A figure is the median over rounds of ours / TRL's. The last line is the figures as JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

BAR = 0.97
STEPS, ROUNDS = 12, 7
ARGS: dict[str, Any] = {"per_device_train_batch_size": 4, "max_length": 256, "learning_rate": 1e-5}
WORDS = ["good", "bread", "water", "never", "please", "maybe", "people", "music", "because", "under"]


def rows(n: int) -> list[dict[str, Any]]:
    draw = random.Random(0)

    def text(longest: int) -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(longest // 2, longest)))

    return [
        {"prompt": text(30), "chosen": " " + text(60), "rejected": " " + text(60), "probability": draw.random()}
        for _ in range(n)
    ]


def build_model(folder: Path) -> str:
    """A random Llama of 3 million parameters with the tiny world's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from rlaif.paths import shipped

    tokenizer = AutoTokenizer.from_pretrained(shipped("data") / "tiny" / "policy")
    torch.manual_seed(0)
    size = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 4}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **size, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def jobs(model: str, data: Path) -> dict[str, tuple[Any, dict[str, Any]]]:
    """name → (method, section's keys). Those whose trainer this rlaif has not are left out."""
    from rlaif.training.methods import method

    found: dict[str, tuple[Any, dict[str, Any]]] = {
        "sft": (lambda: method("sft"), {}),
        "dpo": (lambda: method("dpo"), {}),
        "dpo, soft labels": (lambda: method("dpo"), {"soft_labels": True}),
        "dpo, soft labels, replay": (
            lambda: method("dpo"),
            {"soft_labels": True, "replay": {"dataset": str(data / "demonstrations.jsonl")}},
        ),
    }
    from rlaif.config.training import TrainSection

    if "reward" in TrainSection.model_fields:
        found["reward"] = (lambda: method("reward"), {})
        found["reward, soft labels"] = (lambda: method("reward"), {"soft_labels": True})
    return found


def bare(name: str) -> Any:
    import trl

    return {"sft": trl.SFTTrainer, "dpo": trl.DPOTrainer, "reward": trl.RewardTrainer}[name]


def trainer_of(make: Any, keys: dict[str, Any], model: str, data: Path, out: Path, steps: int, ours: bool) -> Any:
    """Ours as `fitting.train` builds it; TRL's with the config, the rows and the tokenizer of ours."""
    from transformers import PrinterCallback

    from rlaif.config.training import TrainSection
    from rlaif.training import common, fitting

    method = make()
    given = {**ARGS, "max_steps": steps, "seed": 0}
    section = TrainSection.model_validate({method.name: {"model": model, "args": given, **keys}}).section(method.name)
    splits = method.load(section, str(data / "pairs.jsonl"), out / "cache", 0)
    config = fitting.arguments(method, section, given, out / "checkpoints", len(splits.train))
    if ours:
        return fitting._build(method, section, config, splits)
    if method.name == "reward":  # TRL's takes a loaded model's arguments, or none
        config.model_init_kwargs = None
    fresh = splits.train
    columns = [name for name in ("prompt", "completion", "chosen", "rejected") if name in fresh.column_names]
    arguments = {"args": config, "train_dataset": fresh.select_columns(columns)}
    tokenizer = common.load_tokenizer(model, False)
    found = bare(method.name)(model=model, processing_class=tokenizer, **arguments)
    found.remove_callback(PrinterCallback)
    return found


def steps_per_second(trainer: Any, steps: int) -> float:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    clock = Clock()
    clock.times = []
    trainer.add_callback(clock)
    trainer.train()
    return (steps - 2) / (clock.times[-1] - clock.times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 rounds of 8 steps of sft and dpo")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    n_rounds, steps = (5, 8) if given.quick else (given.rounds, given.steps)
    from rlaif.training.common import prepare_environment

    prepare_environment()
    with tempfile.TemporaryDirectory(prefix="rlaif-") as temporary:
        folder = Path(temporary)
        model, pairs = build_model(folder / "model"), rows(48)
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
        shown = ({"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs)
        (folder / "demonstrations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shown))
        found = jobs(model, folder)
        if given.quick:
            found = {name: found[name] for name in ("sft", "dpo")}
        speeds = measured(found, model, folder, n_rounds, steps)
    ratios = {name: [a / b for a, b in zip(*speed, strict=True)] for name, speed in speeds.items()}
    print(f"| trainer | steps/s, ours | TRL's | ratio, median of {n_rounds} | all |\n|---|---|---|---|---|")
    for name, (ours, theirs) in speeds.items():
        all_ratios = " ".join(f"{ratio:.2f}" for ratio in sorted(ratios[name]))
        middle = [statistics.median(values) for values in (ours, theirs, ratios[name])]
        print(f"| {name} | {middle[0]:.2f} | {middle[1]:.2f} | {middle[2]:.3f} | {all_ratios} |")
    figures = {name: round(statistics.median(values), 3) for name, values in ratios.items()}
    print(json.dumps({**figures, "bar": BAR, "rounds": n_rounds}))


def measured(found: Any, model: str, folder: Path, n_rounds: int, steps: int) -> dict[str, tuple[list[float], ...]]:
    """name → steps/s of ours and of TRL's, one a round. A round before them warms up."""
    speeds: dict[str, tuple[list[float], ...]] = {name: ([], []) for name in found}
    for number in range(-1, n_rounds):
        for name, (make, keys) in found.items():
            for ours in (True, False) if number % 2 else (False, True):
                trainer = trainer_of(make, keys, model, folder, folder / name, 3 if number < 0 else steps, ours)
                speed = steps_per_second(trainer, 3 if number < 0 else steps)
                if number >= 0:
                    print(f"round {number + 1}: {name}, {'ours' if ours else 'TRL'}: {speed:.2f} steps/s", flush=True)
                    speeds[name][0 if ours else 1].append(speed)
    return speeds


if __name__ == "__main__":
    main()
