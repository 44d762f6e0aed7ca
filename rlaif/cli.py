"""The command line: arguments in, exit code out. Everything else is imported when a command needs it.

Exit codes: 0 done · 1 a fault of rlaif itself · 2 something you can put right · 3 a gate failed ·
4 stopped by a budget · 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

STAGE_HELP = {
    "generate": "sample candidate responses for your prompts",
    "revise": "rewrite responses after a critique under a rubric or constitution, for supervised training",
    "judge": "judge responses that a run generated, or that your own file holds",
    "calibrate": "compare judges with what people say: agreement, calibration maps, which judge to choose",
    "pair": "turn judgments into preferences (asks nothing)",
    "audit": "measure the labels: bias, duplicates, injections; gates end with exit code 3 (asks nothing by default)",
    "export": "write the preference dataset in TRL's columns (asks nothing)",
    "evaluate": "compare the trained policy with the starting one on held-out prompts",
    "report": "write report.html and report.json",
}
FROM_DATA = ("generate", "revise", "judge", "calibrate")  # commands that take the user's own data file as TARGET
TRAINER_HELP = {
    "sft": "supervised fine-tuning on chosen or revised responses or demonstrations, on TRL",
    "reward": "a reward model: pairs, per-criterion scores or rankings, on TRL",
    "dpo": "direct preference optimisation, on TRL",
    "kto": "Kahneman-Tversky optimisation on single responses, good or bad, on TRL",
    "ppo": "proximal policy optimisation with a critic, against reward models, functions and judges, on TRL",
    "grpo": "group relative policy optimisation, against reward models, functions and judges, on TRL",
}
_SET_HELP = "set a key of the config, for example judge.orders=random; may be given several times"
# Of several processes that train together, all may fail of the same. The launcher ends the others once the first
# has failed: so they wait, and only what fails in one alone is said by it.
_REPEATED_S = 5.0
_EPILOG = """\
TARGET is a pipeline (.yaml), a run folder, or, to generate, revise, judge and train, your own data file. Any key of
the config can be set with --set.
  rlaif run quickstart                                   a shipped pipeline
  rlaif judge answers.jsonl --run runs/mine --rubric helpfulness \\
        --engine openai --model my-model --base-url http://localhost:8000/v1
  rlaif pair runs/mine --set pair.min_margin=0.1         again, with another margin: no request is sent
  rlaif calibrate runs/mine --gold people.jsonl          how far the judge agrees with people
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and never raises for what a user can cause."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))  # a judge of the user's own, as `python -m rlaif` finds it
    parser = build_parser(given)
    arguments = parser.parse_args(given)
    if not hasattr(arguments, "func"):
        parser.print_help()
        return 0
    code = guarded(lambda: int(arguments.func(arguments) or 0))
    if code == 130 and arguments.func is _child:
        # A thread may still be loading a model, and an exit would wait for it. The parent ends what is left.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def guarded(command: Callable[[], int]) -> int:
    """Run `command`, turning our errors into one line on stderr and an exit code."""
    from rlaif.errors import BudgetReached, GateFailed, RlaifError

    if os.environ.get("RLAIF_TRACEBACK"):
        return command()
    try:
        return command()
    except BudgetReached as error:
        return _fail(error, 4)
    except GateFailed as error:
        return _fail(error, 3)
    except RlaifError as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing that was paid for is lost, run the same command to go on", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(error, 2)
    except Exception as error:
        code = getattr(error, "code", None)
        if type(error).__name__ == "ChildFailed" and isinstance(code, int):
            return code if code <= 130 else _fail(_ended_by(code - 128), code)
        hint = "this is a bug in rlaif; RLAIF_TRACEBACK=1 shows where"
        return _fail(f"{type(error).__name__}: {error} ({hint})", 1)


def _ended_by(number: int) -> str:
    """A stage's process that was killed could not say anything itself."""
    why = "; did it run out of memory?" if number == 9 else "."
    return f"the stage's own process was ended by signal {number}{why} Run the same command to go on"


def _fail(message: object, code: int) -> int:
    from rlaif.process import is_launched, is_main

    if is_launched() and not is_main():
        time.sleep(_REPEATED_S)
    print(f"rlaif: {' '.join(str(message).split())}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """A wrong flag is one line too."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"rlaif: {message} (`{self.prog} --help` shows what there is)\n")


def build_parser(argv: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser for `argv`: a command that brings its own parser is only imported when it is the one named."""
    from rlaif import __version__

    parser = _Parser(
        prog="rlaif",
        description="AI-labelled preference data you can trust, and training on it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rlaif {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    run = commands.add_parser("run", help="run every stage of a pipeline", epilog=_EPILOG, **_raw())
    run.add_argument("target", metavar="PIPELINE", help="a pipeline file, a shipped pipeline's name, or a run folder")
    _common(run)
    run.set_defaults(func=_run)
    for stage, text in STAGE_HELP.items():
        command = commands.add_parser(stage, help=text, description=text, epilog=_EPILOG, **_raw())
        data = ", or a data file" if stage in FROM_DATA else ""
        command.add_argument("target", metavar="TARGET", help=f"a pipeline (.yaml) or a run folder{data}")
        _common(command)
        if stage in FROM_DATA:
            _engine_flags(command, stage)
        command.set_defaults(func=_stage, stage=stage)
    _train_command(commands)
    _plan_command(commands)
    _show_command(commands)
    named = argv[0] if argv else ""
    _lazy_command(commands, named, "rubric", "list, show, check, preview and start rubrics", "rlaif.rubric_cli")
    _lazy_command(
        commands, named, "recording", "check a recording of other people's judgments", "rlaif.recordings.cli"
    )
    _lazy_command(commands, named, "world", "the tiny offline world: measure it, build its models", "rlaif.world.cli")
    if named == "_stage":
        _child_command(commands)
    if named == "_launch":
        launch = commands.add_parser("_launch")  # starts a stage's several processes; not for people
        launch.add_argument("--config_file")
        launch.add_argument("--num_processes")
        launch.add_argument("command", nargs=argparse.REMAINDER)
        launch.set_defaults(func=_launch)
    return parser


def _raw() -> dict[str, Any]:
    return {"formatter_class": argparse.RawDescriptionHelpFormatter}


def _common(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--run", metavar="DIR", help="the run folder (default: the config's)")
    add("--set", metavar="KEY=VALUE", action="append", default=[], dest="overrides", help=_SET_HELP)
    add("--limit", metavar="N", type=int, help="only the first N prompts (of those that the command reads)")
    add("--dry-run", action="store_true", help="check everything, show one prompt and the plan, send nothing")
    add("--max-requests", metavar="N", type=int, help="stop cleanly after sending N requests")
    add("--max-cost", metavar="X", type=float, help="stop cleanly at this cost, in the unit of the config's prices")
    add("--retry", choices=["error", "unparsed"], help="ask again for what ended so")
    add("--force", action="store_true", help="run what is up to date again (replies still come from the journal)")
    add("--quiet", action="store_true", help="no progress lines")


def _engine_flags(command: argparse.ArgumentParser, stage: str) -> None:
    add = command.add_argument
    add("--engine", metavar="NAME", help="openai, transformers, vllm, replay, or an import path")
    add("--model", metavar="M", help="the engine's model: a name, a hub id, or a folder")
    add("--base-url", metavar="URL", help="of an OpenAI-compatible server")
    add("--api-key-env", metavar="VAR", help="the environment variable that holds the key")
    add(
        "--columns", metavar="OURS=THEIRS", action="append", nargs="+", default=[],
        help="map columns of the data file, for example prompt=question",
    )  # fmt: skip
    if stage == "calibrate":
        add("--gold", metavar="FILE", help="what people say: a data file or a recording (default: the config's)")
    if stage != "generate":
        add("--rubric", metavar="NAME", help="a shipped rubric or a file")
        add("--constitution", metavar="NAME", help="a shipped constitution or a file")
        add("--params", metavar="NAME=VALUE", nargs="+", action="extend", default=[], help="of a recording")


def _train_command(commands: Any) -> None:
    train = commands.add_parser("train", help="train on a dataset: " + ", ".join(TRAINER_HELP))
    trainers = train.add_subparsers(title="trainers", metavar="TRAINER", required=True)
    for name, text in TRAINER_HELP.items():
        trainer = trainers.add_parser(name, help=text, epilog=_EPILOG, **_raw())
        trainer.add_argument(
            "target", metavar="TARGET", help="a pipeline, a run folder, or a dataset (folder or file)"
        )
        trainer.add_argument("--model", metavar="M", help="the starting model: a folder or a hub id")
        _common(trainer)
        trainer.set_defaults(func=_stage, stage=name)


def _plan_command(commands: Any) -> None:
    text = "what `--dry-run` says: stages, requests, cost, and the memory of each training by role and in all"
    plan = commands.add_parser("plan", help=text, description=text, epilog=_EPILOG, **_raw())
    plan.add_argument("target", metavar="TARGET", help="a pipeline or a run folder; with --trainer a dataset too")
    plan.add_argument(
        "--trainer", dest="stage", choices=list(TRAINER_HELP), default="run", metavar="TRAINER",
        help=f"plan this training alone: {', '.join(TRAINER_HELP)}",
    )  # fmt: skip
    plan.add_argument("--model", metavar="M", help="with --trainer, the starting model: a folder or a hub id")
    _common(plan)
    plan.set_defaults(func=_plan)


def _show_command(commands: Any) -> None:
    show = commands.add_parser("show", help="one prompt with its responses, judgments, raw replies and preference")
    show.add_argument("target", metavar="RUN", help="a run folder")
    show.add_argument("id", metavar="ID", nargs="?", help="an id, or its beginning; default: a summary")
    show.set_defaults(func=_show)


def _child_command(commands: Any) -> None:
    child = commands.add_parser("_stage")  # a stage in a process of its own; not for people
    child.add_argument("stage")
    child.add_argument("run")
    child.add_argument("--fingerprint", required=True)
    child.add_argument("--quiet", action="store_true")
    child.add_argument("--until", metavar="ROLE")
    child.set_defaults(func=_child)


def _lazy_command(commands: Any, named: str, name: str, text: str, module: str) -> None:
    if name == named:
        import importlib

        importlib.import_module(module).add_parser(commands)
    else:
        commands.add_parser(name, help=text)


def _run(arguments: argparse.Namespace) -> int:
    from rlaif.cli_config import config_from

    return _execute(arguments, config_from(arguments), None)


def _stage(arguments: argparse.Namespace) -> int:
    from rlaif.cli_config import config_from, stages_to_run

    config = config_from(arguments)
    return _execute(arguments, config, stages_to_run(arguments, config))


def _plan(arguments: argparse.Namespace) -> int:
    arguments.dry_run = True
    return _run(arguments) if arguments.stage == "run" else _stage(arguments)


def _execute(arguments: argparse.Namespace, config: Any, stages: list[str] | None) -> int:
    if arguments.dry_run:
        from rlaif.plan import dry_run

        print(dry_run(config, stages))
        return 0
    from rlaif import pipeline
    from rlaif.stages.table import stages_of

    pipeline.run(
        config, stages, retry=arguments.retry, force=arguments.force, quiet=arguments.quiet,
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    if stages == ["calibrate"]:
        from rlaif.stages.calibration import text

        print(text.table(Path(config.run)))
    report = Path(config.run) / "report.html"
    ran_report = "report" in (stages if stages is not None else stages_of(config))
    print(f"report: {report}" if ran_report else f"run folder: {config.run}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from rlaif.show import show

    print(show(arguments.target, arguments.id))
    return 0


def _child(arguments: argparse.Namespace) -> int:
    from rlaif import pipeline
    from rlaif.process import let_interrupts_in
    from rlaif.store import RunFolder

    let_interrupts_in()
    with RunFolder(arguments.run) as folder:
        config = pipeline.load_manifest_config(folder)
        pipeline.run_stage_here(
            config, folder, arguments.stage, arguments.fingerprint, quiet=arguments.quiet, until=arguments.until
        )
    return 0


def _launch(arguments: argparse.Namespace) -> int:
    from rlaif.process import let_interrupts_in
    from rlaif.training.launch import launch

    let_interrupts_in()
    given = {"--config_file": arguments.config_file, "--num_processes": arguments.num_processes}
    return launch([part for flag, value in given.items() if value for part in (flag, value)], arguments.command)


if __name__ == "__main__":
    sys.exit(main())
