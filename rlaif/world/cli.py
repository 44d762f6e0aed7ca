"""`rlaif world …`: build the tiny models, regenerate the prompts, check what is shipped."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def add_parser(subparsers: Any) -> None:
    """Add the `world` command to the main parser."""
    world = subparsers.add_parser("world", help="the tiny offline world: build its models, check them")
    _add_commands(world)


def _add_commands(world: argparse.ArgumentParser) -> None:
    commands = world.add_subparsers(dest="world_command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="train a tiny model from scratch (minutes on one core)")
    build.add_argument("what", choices=("policy", "judge", "second-judge"))
    build.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--steps", type=_positive, help="optimizer steps; the default is what the shipped weights had")
    build.set_defaults(func=_build)
    prompts = commands.add_parser("prompts", help="write the prompts of the tiny world as JSONL")
    prompts.add_argument("--out", type=Path, required=True, help="file to write")
    prompts.add_argument("--n", type=int, default=0, help="how many; 0 means all")
    prompts.add_argument("--seed", type=int, default=0, help="decides the order, and so which come first")
    prompts.add_argument("--heldout", action="store_true", help="prompts that no shipped model was trained on")
    prompts.set_defaults(func=_prompts)
    facts = commands.add_parser("facts", help="write the world's facts as demonstrations: to replay, or to measure")
    facts.add_argument("--out", type=Path, required=True, help="file to write")
    facts.add_argument("--seed", type=int, default=0, help="decides the order and the wording of each completion")
    facts.add_argument("--heldout", action="store_true", help="asked by templates that nothing was trained on")
    facts.set_defaults(func=_facts)
    check = commands.add_parser("check", help="measure the shipped models against the oracle")
    check.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    check.add_argument("--models", type=Path, help="folder with policy/, judge/ and second-judge/")
    check.add_argument("--pairs", type=_positive, default=400, help="pairs per principle in each set")
    check.add_argument("--split", choices=("heldout", "dev"), default="heldout", help="dev is for decisions")
    check.add_argument("--seed", type=int, default=0)
    check.set_defaults(func=_check)


def _before_torch() -> None:
    """Settings that torch and transformers read when they are imported; nothing here needs a network."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _build(args: argparse.Namespace) -> int:
    _writable(args.out)
    _before_torch()
    from dataclasses import replace

    from rlaif.world.train_judge import JUDGE, SECOND_JUDGE, train_judge
    from rlaif.world.train_policy import DEFAULT_STEPS, train_policy

    if args.what == "policy":
        train_policy(args.out, args.seed, args.steps or DEFAULT_STEPS)
    else:
        recipe = JUDGE if args.what == "judge" else SECOND_JUDGE
        train_judge(replace(recipe, steps=args.steps) if args.steps else recipe, args.out, args.seed)
    return 0


def _writable(folder: Path) -> None:
    """Make `folder` now, rather than find out after minutes of training that it cannot be made."""
    from rlaif.errors import ConfigError

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: {error.strerror}") from None
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"--out {folder}: this folder cannot be written to")


def _prompts(args: argparse.Namespace) -> int:
    from rlaif.errors import ConfigError
    from rlaif.world.prompts import write_prompts

    if args.n < 0:
        raise ConfigError(f"--n {args.n}: give how many prompts, or 0 for all of them")
    _writable(args.out.parent)
    n = write_prompts(args.out, args.n, args.seed, "heldout" if args.heldout else "train")
    print(f"{n} prompts written to {args.out}")
    return 0


def _facts(args: argparse.Namespace) -> int:
    from rlaif.world.demonstrations import write_facts

    _writable(args.out.parent)
    n = write_facts(args.out, args.seed, "heldout" if args.heldout else "train")
    print(f"{n} demonstrations written to {args.out}")
    return 0


def _check(args: argparse.Namespace) -> int:
    _before_torch()
    from rlaif.errors import ConfigError
    from rlaif.paths import shipped

    folder = args.models or shipped("data") / "tiny"
    for name in ("policy", "judge"):
        if not (folder / name / "config.json").is_file():
            raise ConfigError(f"{folder}: no model in {name}/; the folder must hold policy/ and judge/")
    from rlaif.world.check import run_check

    return run_check(folder, args.pairs, args.split, args.seed, as_json=args.json)


def main(argv: list[str] | None = None) -> int:
    """`python -m rlaif.world.cli …`, the same commands without the word `world`."""
    parser = argparse.ArgumentParser(prog="rlaif world")
    _add_commands(parser)
    args = parser.parse_args(argv)
    status: int = args.func(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
