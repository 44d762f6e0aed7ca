"""What a narrow training forgets on the tiny world, and what replaying demonstrations keeps.

    nice python benchmarks/forgetting.py [--quick] [--split heldout] [--seeds 3] [--trainers dpo ppo]

A judge labels four responses to each harmful training prompt. PPO on these prompts against a reward model that
learned from the labels, or DPO on them, then trains the shipped policy: by itself, and with demonstrations of what it
could do mixed in (`replay`: tips for benign requests and facts, from training templates). Benign requests are asked
in the same words as harmful ones, "How can I …?". DPO has the quickstart's rate and as many steps, and no SFT term.
Reported on prompts of the split:

    tips, facts     of all of them, greedily: the share that is answered right
    quality         the oracle's, on harmful prompts: what the training was for
    harm            share of harmful requests that are complied with
    win             the labelling judge's win rate on them, against the shipped policy
    KL              from the shipped policy on them, nats a response
    seconds         of the training
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from reward_world import mean, quiet

from rlaif import pipeline
from rlaif.config import Pipeline, validate
from rlaif.world.demonstrations import fact_rows, tip_rows, write_rows
from rlaif.world.prompts import prompt_rows

Rows = dict[str, dict[str, float]]  # policy → column → figure
WEIGHTS = (None, 0.1, 1.0)  # of the replayed demonstrations; None: no replay
COLUMNS = ("tips", "facts", "quality", "harm", "win", "KL", "seconds")
POLICY = {"engine": "transformers", "model": "shipped:data/tiny/policy", "dtype": "float32"}
ARGS: dict[str, dict[str, Any]] = {
    "reward": {
        "learning_rate": 1e-3, "lr_scheduler_type": "cosine", "warmup_steps": 10, "num_train_epochs": 4,
        "per_device_train_batch_size": 8, "max_length": 256,
    },
    "dpo": {
        "learning_rate": 4e-4, "lr_scheduler_type": "cosine", "warmup_steps": 5, "num_train_epochs": 12,
        "per_device_train_batch_size": 8, "max_length": 256, "beta": 0.1,
    },
    "ppo": {
        "learning_rate": 2e-4, "lr_scheduler_type": "constant", "per_device_train_batch_size": 32,
        "steps_per_generation": 2, "num_iterations": 2, "max_steps": 96, "max_completion_length": 64, "kl_coef": 0.05,
    },
}  # fmt: skip


def one_seed(seed: int, split: str, trainers: list[str], folder: Path, limit: int | None) -> Rows:
    """Policy (`start`, `dpo`, `dpo, replay 0.1`, …) → column → figure."""
    files = write_files(folder, split, limit)
    config = labels_config(seed, folder, files)
    run(config, ["prompts", "generate", "judge", "pair", "export", *(["reward"] if "ppo" in trainers else [])])
    seconds, engines = {}, dict(config["engines"])
    for trainer in trainers:
        for weight in WEIGHTS:
            name = trainer if weight is None else f"{trainer}, replay {weight:g}"
            out = folder / "run" / "models" / name.replace(", ", "-").replace(" ", "-")
            started = time.monotonic()
            train(trainer, weight, seed, folder, files, out)
            seconds[name] = time.monotonic() - started
            engines[name] = {**POLICY, "model": str(out)}
    section = {
        "prompts": {"path": files["asked"]}, "before": "policy", "after": next(iter(seconds)),
        "policies": list(seconds)[1:], "judges": ["judge"], "n": 1, "max_tokens": 64, "kl": True,
        "metrics": ["rlaif.world.oracle:score"],
        "skills": {name: {"dataset": files[name], "greedy": True} for name in ("tips", "facts")},
    }  # fmt: skip
    run({**config, "engines": engines, "evaluate": section}, ["evaluate"])
    found = json.loads((folder / "run" / "evaluation" / "evaluation.json").read_text())
    return figures(found, seconds)


def write_files(folder: Path, split: str, limit: int | None) -> dict[str, str]:
    files = {name: str(folder / f"{name}.jsonl") for name in ("prompts", "asked", "tips", "facts", "replay")}
    for name, of in (("prompts", "train"), ("asked", split)):
        rows = [row for row in prompt_rows(0, 0, of) if row["domain"] == "harm"][:limit]  # type: ignore[arg-type]
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_rows(Path(files["tips"]), tip_rows(0, split))  # type: ignore[arg-type]
    write_rows(Path(files["facts"]), fact_rows(0, split))  # type: ignore[arg-type]
    write_rows(Path(files["replay"]), tip_rows(0, "train") + fact_rows(0, "train"))
    return files


def labels_config(seed: int, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    judge = {**POLICY, "model": "shipped:data/tiny/judge"}
    return {
        "run": str(folder / "run"),
        "seed": seed,
        "engines": {"policy": POLICY, "judge": judge},
        "prompts": {"path": files["prompts"]},
        "generate": {"samplers": [{"engine": "policy", "n": 4, "max_tokens": 64}]},
        "judge": {"engine": "judge", "constitution": "tiny-world", "read": "logprobs"},
        "pair": {"select": "best_vs_worst", "min_margin": 0.05, "principle_weights": {"harmless": 3.0}},
        "export": {"kinds": ["pair", "ranking"]},
        "train": {"reward": {"model": judge["model"], "kind": "ranking", "args": ARGS["reward"]}},
    }


def run(config: dict[str, Any], stages: list[str]) -> None:
    pipeline.run(validate(Pipeline, config, "benchmark"), stages, quiet=True, in_process=True)


def train(trainer: str, weight: float | None, seed: int, folder: Path, files: dict[str, str], out: Path) -> None:
    from rlaif.config import DPOSection, PPOSection, Replay
    from rlaif.training.dpo import train_dpo
    from rlaif.training.ppo.method import train_ppo

    replay = None if weight is None else Replay(dataset=files["replay"], weight=weight)
    common: dict[str, Any] = {"model": POLICY["model"], "args": ARGS[trainer], "replay": replay}
    if trainer == "dpo":
        train_dpo(DPOSection(**common), folder / "run" / "dataset", out, seed)
    else:
        rewards = [{"model": str(folder / "run" / "models" / "reward")}]
        train_ppo(PPOSection(**common, rewards=rewards), folder / "run" / "prompts.jsonl", out, seed)  # type: ignore[arg-type]


def figures(found: dict[str, Any], seconds: dict[str, float]) -> Rows:
    matches = {match["policy"]: match for match in found.get("matches", [])} | {"after": found}
    rows = {}
    for name, own in found["contestants"].items():
        side = "before" if name == "before" else "after"
        match = found if name == "before" else matches[name]
        policy = {"before": "start", "after": next(iter(seconds))}.get(name, name)
        rows[policy] = {
            **{skill: of["accuracy"]["mean"]["value"] for skill, of in own["skills"].items()},
            "quality": match["metrics"]["quality"][side]["value"],
            "harm": match["metrics"]["harmful_compliance"][side]["value"],
            "win": 0.5 if name == "before" else match["win_rate"]["judge"]["value"],
            "KL": own["kl"]["per_response"]["value"],
            "seconds": seconds.get(policy, 0.0),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one seed of DPO on few prompts: shows that it runs")
    parser.add_argument("--split", choices=("heldout", "dev"), default="heldout", help="dev is for decisions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--trainers", nargs="+", choices=("dpo", "ppo"), default=["ppo"], help="which of them to train"
    )
    args = parser.parse_args()
    quiet()
    seeds, trainers, limit = (1, ["dpo"], 48) if args.quick else (args.seeds, args.trainers, None)
    results = []
    for seed in range(args.first, args.first + seeds):
        with tempfile.TemporaryDirectory() as folder:
            results.append(one_seed(seed, args.split, trainers, Path(folder), limit))
        print(f"seed {seed}")
        show(results[-1])
    means = {
        name: {column: mean(result[name][column] for result in results) for column in COLUMNS} for name in results[0]
    }
    print(f"mean of {seeds} seeds")
    show(means)
    print(json.dumps({"split": args.split, "seeds": seeds, "mean": means, "by_seed": results}))


def show(rows: Rows) -> None:
    print(f"{'':<18}" + "".join(f"{column:>9}" for column in COLUMNS))
    for name, row in rows.items():
        print(f"{name:<18}" + "".join(f"{row[column]:>9.{1 if column == 'seconds' else 3}f}" for column in COLUMNS))


if __name__ == "__main__":
    main()
