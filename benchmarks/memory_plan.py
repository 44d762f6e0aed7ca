"""The memory that `rlaif.training.memory` foretells beside what trainings take, on this machine's CPU.

    python benchmarks/memory_plan.py            # 6 trainings of a random Llama of 105 million parameters: 5 minutes
    python benchmarks/memory_plan.py --quick    # the first two

Each training runs in a process of its own. Measured is the peak of its resident memory (sampled every 2 ms), less
what the same process held after the same training of a model of 0.5 million parameters: by then every library that a
training loads is there. Weights that are only read stay pages of their file; they count. Blocks of 64 KiB and more
are given back to the system at once (MALLOC_MMAP_THRESHOLD_), so that what is resident is what is used. The last line
is measured / foretold as JSON; the bar is 1 ± 0.2.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

BAR = 0.2
STEPS = 2  # the peak is in the second: the optimiser's moments are there
CASES: dict[str, dict[str, Any]] = {
    "sft": {"trainer": "sft", "rows": 2, "length": 64},
    "dpo": {"trainer": "dpo", "rows": 2, "length": 64},
    "reward": {"trainer": "reward", "rows": 2, "length": 64, "args": {"pad_to_multiple_of": 64}},
    "sft, LoRA": {"trainer": "sft", "rows": 2, "length": 64, "lora": {"r": 16, "target_modules": "all-linear"}},
    "sft, 1024 tokens": {"trainer": "sft", "rows": 4, "length": 256},
    "dpo, 1024 tokens, checkpointing": {
        "trainer": "dpo",
        "rows": 2,
        "length": 256,
        "args": {"gradient_checkpointing": True},
    },
}

# in a process of its own: trainer, section, small model, data, out; prints bytes
MEASURED = """
import gc, json, sys, threading, time
from pathlib import Path
from rlaif.config.training import TrainSection
from rlaif.training import fitting
from rlaif.training.methods import method

PAGE, peak = 4096, 0
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE

def watch():
    global peak
    while True:
        peak = max(peak, resident())
        time.sleep(0.002)

class Trained(Exception):
    pass

def fit(method, trainer, checkpoint, n_rows, guard):
    trainer.train()
    raise Trained

def train(trainer, section, data, out):
    try:
        section = TrainSection.model_validate({trainer: section}).section(trainer)
        fitting.train(method(trainer), section, data, Path(out), 0)
    except Trained:
        pass
    gc.collect()

trainer, section, small, data, out = sys.argv[1:]
section, fitting._fit = json.loads(section), fit
train(trainer, {**section, "model": small}, data, out)
before = peak = resident()
threading.Thread(target=watch, daemon=True).start()
train(trainer, section, data, out)
print("PEAK", peak - before)
"""


def build_model(folder: Path, *, hidden: int = 768, layers: int = 12) -> str:
    """A random Llama with grouped queries and the tiny world's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from rlaif.paths import shipped

    tokenizer = AutoTokenizer.from_pretrained(shipped("data") / "tiny" / "policy")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16_384,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def section_of(case: dict[str, Any], model: str) -> dict[str, Any]:
    args = {
        "max_steps": STEPS,
        "learning_rate": 1e-5,
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": case["rows"],
        "max_length": case["length"],
        **case.get("args", {}),
    }
    return {"model": model, "args": args, **({"lora": case["lora"]} if "lora" in case else {})}


def foretold(case: dict[str, Any], model: str) -> dict[str, int]:
    from rlaif.config.training import TrainSection
    from rlaif.training.memory_plan import plan

    section = TrainSection.model_validate({case["trainer"]: section_of(case, model)}).section(case["trainer"])
    assert section is not None
    return plan(case["trainer"], section)


def measured(case: dict[str, Any], model: str, small: str, folder: Path) -> int:
    """Bytes. Every row is as long as the case has it, so that batches are as large as the plan has them."""
    longest = (
        3 * case["length"] if case["trainer"] != "reward" else case["length"] - 16
    )  # it drops rows that are longer
    word = " very good bread" * (longest // 3)
    rows = [{"prompt": f"is it {i}", "chosen": f" yes{word}", "rejected": f" no{word}"} for i in range(32)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    section = json.dumps(section_of(case, model))
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16), "MALLOC_TRIM_THRESHOLD_": str(2**16)}
    command = [sys.executable, "-c", MEASURED, case["trainer"], section, small, str(data), str(folder / "out")]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("PEAK ")]
    if not found:
        raise RuntimeError(done.stderr[-2000:])
    return int(found[0].split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first two trainings")
    quick = parser.parse_args().quick
    ratios = {}
    with tempfile.TemporaryDirectory(prefix="rlaif-") as temporary:
        model = build_model(Path(temporary) / "model")
        small = build_model(Path(temporary) / "small", hidden=16, layers=1)
        print("| training | weights | gradients | optimiser | activations | head | foretold | measured | ratio |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name, case in list(CASES.items())[: 2 if quick else None]:
            told, peak = foretold(case, model), measured(case, model, small, Path(temporary))
            parts = [told.get(part, 0) for part in ("policy", "gradients", "optimiser", "activations", "output head")]
            shown = " | ".join(f"{value / 2**20:.0f}" for value in (*parts, told["total"], peak))
            ratios[name] = round(peak / told["total"], 3)
            print(f"| {name} | {shown} | {ratios[name]:.2f} |", flush=True)
    print(json.dumps({**ratios, "bar": BAR}))


if __name__ == "__main__":
    main()
