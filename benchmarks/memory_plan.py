"""The memory that `rlaif.training.memory` foretells beside what trainings take, on this machine's CPU.

    python benchmarks/memory_plan.py            # 6 trainings of a random Llama of 16 million parameters: 5 minutes
    python benchmarks/memory_plan.py --quick    # the first two

Each training runs in a process of its own. Measured is the peak of its resident memory from the moment when the
libraries are there and the model is not. Blocks of a megabyte and more are given back to the system at once
(MALLOC_MMAP_THRESHOLD_), so that what is resident is what is used. The last line is measured / foretold as JSON; the
bar is 1 ± 0.2.
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
LENGTH, STEPS = 256, 2
CASES: dict[str, dict[str, Any]] = {
    "sft": {"trainer": "sft", "args": {"per_device_train_batch_size": 4}},
    "dpo, checkpointing": {
        "trainer": "dpo",
        "args": {"per_device_train_batch_size": 4, "gradient_checkpointing": True},
    },
    "dpo": {"trainer": "dpo", "args": {"per_device_train_batch_size": 4}},
    "sft, sgd, 16 rows": {"trainer": "sft", "args": {"per_device_train_batch_size": 16, "optim": "sgd"}},
    "sft, LoRA": {
        "trainer": "sft",
        "args": {"per_device_train_batch_size": 8},
        "lora": {"r": 16, "target_modules": "all-linear"},
    },
    "sft, bfloat16 weights": {
        "trainer": "sft",
        "args": {"per_device_train_batch_size": 4, "model_init_kwargs": {"dtype": "bfloat16"}},
    },
}

# in a process of its own: section, data, out; prints bytes
MEASURED = """
import json, sys
from pathlib import Path
import torch, transformers, trl, datasets, peft
from rlaif.config.training import TrainSection
from rlaif.training import fitting
from rlaif.training.methods import method

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

def fit(method, trainer, checkpoint, n_rows):
    trainer.train()
    print("PEAK", status("VmHWM") - before)
    sys.stdout.flush()
    raise SystemExit

trainer, section, data, out = sys.argv[1:]
build = fitting._build
def building(*arguments):
    global before
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    return build(*arguments)
fitting._build, fitting._fit = building, fit
fitting.train(method(trainer), TrainSection.model_validate({trainer: json.loads(section)}).section(trainer), data,
              Path(out), 0)
"""


def build_model(folder: Path, *, hidden: int = 384, layers: int = 6) -> str:
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
    fixed = {"max_steps": STEPS, "max_length": LENGTH, "learning_rate": 1e-5, "use_cpu": True, "bf16": False}
    keys = {name: value for name, value in case.items() if name not in ("trainer", "args")}
    return {"model": model, "args": {**fixed, **case["args"]}, **keys}


def foretold(case: dict[str, Any], model: str) -> dict[str, int]:
    from rlaif.config.training import TrainSection
    from rlaif.training.memory_plan import plan

    section = TrainSection.model_validate({case["trainer"]: section_of(case, model)}).section(case["trainer"])
    assert section is not None
    return plan(case["trainer"], section)


def measured(case: dict[str, Any], model: str, folder: Path) -> int:
    """Bytes. Every row is cut at `LENGTH` tokens, so that batches are as large as the plan has it."""
    word = " very good bread" * LENGTH
    rows = [{"prompt": f"is it {i}", "chosen": f" yes{word}", "rejected": f" no{word}"} for i in range(32)]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    section = json.dumps(section_of(case, model))
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": str(2**20)}
    command = [sys.executable, "-c", MEASURED, case["trainer"], section, str(data), str(folder / "out")]
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
        print("| training | weights | gradients | optimiser | activations | head | foretold | measured | ratio |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name, case in list(CASES.items())[: 2 if quick else None]:
            told, peak = foretold(case, model), measured(case, model, Path(temporary))
            parts = [told.get(part, 0) for part in ("policy", "gradients", "optimiser", "activations", "output head")]
            shown = " | ".join(f"{value / 2**20:.0f}" for value in (*parts, told["total"], peak))
            ratios[name] = round(peak / told["total"], 3)
            print(f"| {name} | {shown} | {ratios[name]:.2f} |", flush=True)
    print(json.dumps({**ratios, "bar": BAR}))


if __name__ == "__main__":
    main()
