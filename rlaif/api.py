"""The public Python API: each stage as a function on a DataFrame, a Dataset, a file, or an iterable of dicts.

    import rlaif
    answers = rlaif.generate(prompts, engine={"engine": "openai", "model": "m", "base_url": "http://…/v1"}, n=4)
    judgments = rlaif.judge(answers, engine={…}, constitution="helpful-harmless-honest")
    preferences = rlaif.preferences(answers, engine={…}, rubric="helpfulness", run="runs/mine")

A function returns the kind that it was given: a DataFrame for a DataFrame, a Dataset for a Dataset, else a list of
dicts. With `run=` the journal stays in that folder, so that a second call pays for nothing; without it, a temporary
folder is used and forgotten. Every function also works inside a running event loop (Jupyter); its `a…` twin is to be
awaited instead of waited for.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from rlaif import config as configs
from rlaif.config import Pipeline
from rlaif.errors import ConfigError
from rlaif.records import Judgment, Preference, Prompt, Response, Revision

_T = TypeVar("_T")
# of (prompts, the starting policy's responses, the policy's): P(the policy's is better) of each, None: no verdict
ProbeJudge = Callable[[Sequence[Any], Sequence[str], Sequence[str]], Sequence[float | None]]
Data = Any  # DataFrame | Dataset | path | iterable of dicts
Engine = Mapping[str, Any]


def generate(data: Data, *, engine: Engine, n: int = 4, run: str | Path | None = None, **sampler: Any) -> Any:
    """Candidate responses, one row each: id (the prompt's), prompt, response, source, sample, finish_reason.

    `data` has a column `prompt` (text, or a list of messages). `engine`: an entry of `engines:` in a pipeline.
    `sampler`: temperature, top_p, max_tokens, stop, system, extra. `seed`, `columns`, `budget`, `quiet` too.
    Errors: UserError (one line says what is wrong).
    """
    general, sampler = _split(sampler)
    raw = {"engines": {"policy": _entry(engine)}, "generate": {"samplers": [{"engine": "policy", "n": n, **sampler}]}}
    return _like(data, _run(raw | general, data, ["prompts", "generate"], run, _response_rows))


def revise(
    data: Data,
    *,
    engine: Engine,
    rubric: str | None = None,
    constitution: str | None = None,
    run: str | Path | None = None,
    **section: Any,
) -> Any:
    """Responses written anew after a critique, one row a round: the columns of `Revision` in docs/formats.md.

    `data` as for `judge`. `section`: the keys of `revise:` in a pipeline (rounds, temperature, …); `seed`,
    `columns`, `budget`, `quiet` too. Errors: UserError.
    """
    general, section = _split(section)
    asked = {"engine": "reviser", "rubric": rubric, "constitution": constitution, **section}
    raw = {"engines": {"reviser": _entry(engine)}, "revise": asked, **general}
    return _like(data, _run(raw, data, ["prompts", "revise"], run, _revision_rows))


def judge(
    data: Data,
    *,
    engine: Engine,
    rubric: str | None = None,
    constitution: str | None = None,
    run: str | Path | None = None,
    **section: Any,
) -> Any:
    """Judgments, one row each (the columns of judgments.jsonl, see docs/formats.md).

    `data` has a column `prompt` and its responses: `responses` (a list), `response_a` and `response_b`, `chosen` and
    `rejected`, or one `response` a row. `section`: the keys of `judge:` in a pipeline. Errors: UserError.
    """
    raw, _ = _judging(engine, rubric, constitution, section)
    return _like(data, _run(raw, data, ["prompts", "judge"], run, _judgment_rows))


def preferences(
    data: Data,
    *,
    engine: Engine,
    rubric: str | None = None,
    constitution: str | None = None,
    run: str | Path | None = None,
    select: str = "best_vs_worst",
    min_margin: float = 0.0,
    **section: Any,
) -> Any:
    """Judge and pair: one row a preference, in TRL's columns with `probability`, `judge_margin` and ids.

    Arguments as for `judge`; `select` and `min_margin` as in `pair:` of a pipeline. Errors: UserError, also when no
    preference survives.
    """
    raw, general = _judging(engine, rubric, constitution, section)
    raw["pair"] = {"select": select, "min_margin": min_margin}
    raw["export"] = {"test_fraction": 0.0, "formats": ["jsonl"], **general.pop("export", {})}
    return _like(data, _run(raw, data, ["prompts", "judge", "pair", "export"], run, _exported_rows))


def pair(
    judgments: Data,
    *,
    select: str = "best_vs_worst",
    min_margin: float = 0.0,
    principle_weights: Mapping[str, float] | None = None,
    rubric: str | None = None,
    constitution: str | None = None,
    **section: Any,
) -> Any:
    """Preferences from judgment rows (of `judge`, or read from judgments.jsonl), one row each, without texts.

    `rubric`, `constitution`: what judged, for its weights, scales and hard criteria. `section`: other keys of
    `pair:`, such as `order_policy` and `panel`. Asks nothing and needs no run folder. Errors: DataError, ConfigError.
    """
    import msgspec

    from rlaif import io
    from rlaif.config import JudgeSection, PairSection
    from rlaif.errors import DataError
    from rlaif.stages.pair import pair as pair_judgments
    from rlaif.stages.pairing.standards import Standards

    try:
        rows = [msgspec.convert(_without_nulls(row), Judgment) for row in io.read_rows(judgments)]
    except msgspec.ValidationError as error:
        raise DataError(f"judgments: {error}") from None
    given = {"select": select, "min_margin": min_margin, **section}
    given["principle_weights"] = dict(principle_weights or {})
    checked = configs.validate(PairSection, given, "pair")
    judged_by = {"judge": "pointwise", "rubric": rubric, "constitution": constitution}
    standards = Standards.of(configs.validate(JudgeSection, judged_by, "pair"))
    return _like(judgments, [_as_row(found) for found in pair_judgments(rows, checked, standards=standards)[0]])


def export(run: str | Path, **section: Any) -> Path:
    """Write the dataset of a run folder that has preferences; returns its folder, for `datasets.load_dataset`.

    `section`: the keys of `export:` in a pipeline. Errors: UserError, also when no preference survived.
    """
    _on_run_folder(run, "export", section)
    return Path(run) / "dataset"


def train_sft(
    dataset: Data,
    *,
    model: str,
    out: str | Path,
    seed: int = 0,
    args: Mapping[str, Any] | None = None,
    judge: ProbeJudge | None = None,
    **section: Any,
) -> dict[str, Any]:
    """Fine-tune `model` (a folder or a hub id) on good responses and write the trained model to the folder `out`.

    `dataset`: pairs as for `train_dpo`, whose chosen responses are learnt, or with `on="demonstrations"` (or
    "revised") rows with prompt and completion, or with messages. `args`: of `trl.SFTConfig`; `lora`: of
    `peft.LoraConfig`; `guard`, `judge`: as for `train_dpo`. Returns what stands in out/training.json.
    Errors: UserError.
    """
    from rlaif.config import SFTSection
    from rlaif.training.sft import train_sft as train

    checked = configs.validate(SFTSection, {"model": model, "args": dict(args or {}), **section}, "train_sft")
    return _train(partial(train, judge=judge), checked, dataset, out, seed)


def train_dpo(
    dataset: Data,
    *,
    model: str,
    out: str | Path,
    seed: int = 0,
    args: Mapping[str, Any] | None = None,
    judge: ProbeJudge | None = None,
    **section: Any,
) -> dict[str, Any]:
    """Train `model` (a folder or a hub id) with DPO and write the trained model to the folder `out`.

    `dataset`: what `export` wrote, a file, a hub id, or rows with prompt, chosen, rejected (and probability for
    `soft_labels=True`). `args`: of `trl.DPOConfig`, by their own names; `lora`: of `peft.LoraConfig`; `section`: the
    other keys of `train.dpo:` in a pipeline. With `guard={"probes": …, "judge": "mine"}` (docs/guards.md), `judge` is
    a function of prompts, the start's responses and the policy's: P(the policy's is better), or None, of each.
    Returns what stands in out/training.json. Errors: UserError.
    """
    from rlaif.config import DPOSection
    from rlaif.training.dpo import train_dpo as train

    checked = configs.validate(DPOSection, {"model": model, "args": dict(args or {}), **section}, "train_dpo")
    return _train(partial(train, judge=judge), checked, dataset, out, seed)


def train_kto(
    dataset: Data,
    *,
    model: str,
    out: str | Path,
    seed: int = 0,
    args: Mapping[str, Any] | None = None,
    judge: ProbeJudge | None = None,
    **section: Any,
) -> dict[str, Any]:
    """Train `model` (a folder or a hub id) with KTO and write the trained model to the folder `out`.

    `dataset`: what `export` wrote as `unpaired`, a file, a hub id, or rows with prompt, completion and label (true:
    good, false: bad). `args`: of `trl.KTOConfig`; `lora`: of `peft.LoraConfig`; `guard`, `judge`: as for
    `train_dpo`. Returns what stands in out/training.json. Errors: UserError.
    """
    from rlaif.config import KTOSection
    from rlaif.training.kto import train_kto as train

    checked = configs.validate(KTOSection, {"model": model, "args": dict(args or {}), **section}, "train_kto")
    return _train(partial(train, judge=judge), checked, dataset, out, seed)


def train_reward(
    dataset: Data,
    *,
    model: str,
    out: str | Path,
    seed: int = 0,
    args: Mapping[str, Any] | None = None,
    **section: Any,
) -> dict[str, Any]:
    """Train a reward model on top of `model` (a folder or a hub id) and write it to the folder `out`.

    `dataset`: as for `train_dpo`, or with `kind="scores"` rows of prompt, response and scores, with `kind="ranking"`
    rows of prompt, responses and ranking. `args`: of `trl.RewardConfig`; `section`: the keys of `train.reward:` in a
    pipeline. `rlaif.training.scoring.load_reward(out)` scores with it. Returns what stands in out/training.json.
    Errors: UserError.
    """
    from rlaif.config import RewardSection
    from rlaif.training.reward import train_reward as train

    checked = configs.validate(RewardSection, {"model": model, "args": dict(args or {}), **section}, "train_reward")
    return _train(train, checked, dataset, out, seed)


def train_ppo(
    prompts: Data,
    *,
    model: str,
    out: str | Path,
    rewards: Sequence[Mapping[str, Any] | Callable[..., Any]],
    seed: int = 0,
    args: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
    judge: ProbeJudge | None = None,
    engines: Mapping[str, Engine] | None = None,
    run: str | Path | None = None,
    pair: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    **section: Any,
) -> dict[str, Any]:
    """Train `model` (a folder or a hub id) with PPO and write the policy to the folder `out`, its critic beside it.

    `prompts`: a file, a hub id, or rows with `prompt`. `rewards`: entries of `train.ppo.rewards:` in a pipeline, or
    functions as TRL takes them (they get prompts, completions, prompt_ids, completion_ids; None is no score).
    `args`: of `rlaif.training.ppo.arguments.PPOConfig`, which adds to `trl.GRPOConfig`; `section`: the other keys of
    `train.ppo:`, `guard` among them. `judge`: as for `train_dpo`. A reward `{"judge": {"engine": "judge",
    "rubric": …}}` asks a judge while training: then `engines` has its engines and `run` names the run folder where
    every reply is kept; `pair` and `budget` are as in a pipeline. Returns what stands in out/training.json.
    Errors: UserError, BudgetReached.
    """
    from rlaif.api_online import online
    from rlaif.config import PPOSection
    from rlaif.training.ppo.method import train_ppo as train

    given = {"model": model, "args": dict(args or {}), **section}
    judging = {"engines": engines, "pair": pair, "budget": budget}
    job = online(train, "ppo", PPOSection, given, rewards, {"callbacks": callbacks, "judge": judge}, judging, run)
    return _train(job.train, job.section, prompts, out, seed)


def train_grpo(
    prompts: Data,
    *,
    model: str,
    out: str | Path,
    rewards: Sequence[Mapping[str, Any] | Callable[..., Any]],
    seed: int = 0,
    args: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] = (),
    judge: ProbeJudge | None = None,
    engines: Mapping[str, Engine] | None = None,
    run: str | Path | None = None,
    pair: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    **section: Any,
) -> dict[str, Any]:
    """Train `model` (a folder or a hub id) with GRPO and write the policy to the folder `out`.

    `args`: of `trl.GRPOConfig`, and of `rlaif.training.grpo_arguments.GRPOArguments`. All else: as for `train_ppo`.
    """
    from rlaif.api_online import online
    from rlaif.config import GRPOSection
    from rlaif.training.grpo import train_grpo as train

    given = {"model": model, "args": dict(args or {}), **section}
    judging = {"engines": engines, "pair": pair, "budget": budget}
    job = online(train, "grpo", GRPOSection, given, rewards, {"callbacks": callbacks, "judge": judge}, judging, run)
    return _train(job.train, job.section, prompts, out, seed)


def _train(
    train: Callable[[Any, str, Path, int], dict[str, Any]], section: Any, dataset: Data, out: str | Path, seed: int
) -> dict[str, Any]:
    from rlaif import io

    if isinstance(dataset, str | Path):
        return _outside_loop(lambda: train(section, str(dataset), Path(out), seed))
    with tempfile.TemporaryDirectory(prefix="rlaif-") as temporary:
        path = Path(temporary) / "train.jsonl"
        io.write_jsonl(path, io.read_rows(dataset))
        return _outside_loop(lambda: train(section, str(path), Path(out), seed))


def evaluate(
    prompts: Data,
    *,
    before: Engine,
    after: Engine,
    judge: Engine,
    rubric: str | None = None,
    constitution: str | None = None,
    run: str | Path | None = None,
    **section: Any,
) -> dict[str, Any]:
    """Two policies' answers to `prompts`, judged in both orders: what stands in evaluation/evaluation.json.

    `section`: the keys of `evaluate:` in a pipeline (n, temperature, max_tokens, metrics); `seed` and `quiet` too.
    Errors: UserError.
    """
    general, section = _split(section)
    raw = {
        "engines": {"before": dict(before), "after": dict(after), "judge": dict(judge)},
        "judge": {"rubric": rubric, "constitution": constitution},
        "evaluate": {"before": "before", "after": "after", "judges": ["judge"], **section},
        **general,
    }
    return _run(raw, prompts, ["evaluate"], run, lambda folder: _figures(folder, "evaluation"))


def calibrate(
    gold: Data,
    *,
    engine: Engine,
    rubric: str | None = None,
    constitution: str | None = None,
    run: str | Path | None = None,
    judge: Mapping[str, Any] | None = None,
    **section: Any,
) -> dict[str, Any]:
    """How far a judge agrees with people: what stands in calibration/calibration.json.

    `gold`: rows with prompt, response_a, response_b and label (a, b or tie; `labels` of several raters), or a file or
    recording of them. `judge`: other keys of `judge:` in a pipeline; `section`: the keys of `calibrate:`; `seed`,
    `columns`, `budget` and `quiet` too. With `run`, the map can label: `pair.calibration`.
    Errors: UserError.
    """
    general, section = _split(section)
    raw = {
        "engines": {"judge": _entry(engine)},
        "judge": {"rubric": rubric, "constitution": constitution, **(judge or {})},
        "calibrate": section,
        **general,
    }
    return _run(raw, gold, ["calibrate"], run, lambda folder: _figures(folder, "calibration"))


def audit(run: str | Path, **section: Any) -> dict[str, Any]:
    """Audit the labels of a run folder; returns what stands in audit.json.

    `section`: the keys of `audit:` in a pipeline. Errors: UserError; GateFailed, with audit.json written.
    """
    import json

    _on_run_folder(run, "audit", section)
    found: dict[str, Any] = json.loads((Path(run) / "audit.json").read_text(encoding="utf-8"))
    return found


def report(run: str | Path, **section: Any) -> dict[str, Any]:
    """Write report.html and report.json of a run folder; returns the JSON. `section`: the keys of `report:`."""
    import json

    _on_run_folder(run, "report", section)
    figures: dict[str, Any] = json.loads((Path(run) / "report.json").read_text(encoding="utf-8"))
    return figures


def run(
    pipeline: str | Path | Mapping[str, Any], *, overrides: Iterable[str] = (), quiet: bool = True
) -> dict[str, Any]:
    """Run a pipeline file, a shipped one by name, or the same as a mapping; returns the manifest.

    `overrides`: "key=value", as `--set`. Errors: UserError; `pipeline.ChildFailed` when a stage's own process failed,
    which has then said why on stderr.
    """
    from rlaif import pipeline as pipelines

    raw, where = ({**pipeline}, "pipeline") if isinstance(pipeline, Mapping) else _read(pipeline)
    for override in overrides:
        configs.apply_override(raw, override)
    config = configs.validate(Pipeline, raw, where)
    return _outside_loop(lambda: pipelines.run(config, quiet=quiet))


def _read(pipeline: str | Path) -> tuple[dict[str, Any], str]:
    from rlaif.paths import resolve, shipped_pipeline

    path = resolve(str(pipeline), Path())
    return configs.read_yaml(path if path.is_file() else shipped_pipeline(str(pipeline)) or path), str(pipeline)


async def agenerate(data: Data, **arguments: Any) -> Any:
    """`generate`, awaited."""
    return await asyncio.to_thread(generate, data, **arguments)


async def ajudge(data: Data, **arguments: Any) -> Any:
    """`judge`, awaited."""
    return await asyncio.to_thread(judge, data, **arguments)


async def apreferences(data: Data, **arguments: Any) -> Any:
    """`preferences`, awaited."""
    return await asyncio.to_thread(preferences, data, **arguments)


# -- how ----------------------------------------------------------------------------------------------------------

_GENERAL = ("seed", "columns", "budget", "quiet", "export")


def _split(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    general = {name: arguments[name] for name in _GENERAL if name in arguments}
    return general, {name: value for name, value in arguments.items() if name not in general}


def _entry(engine: Engine) -> dict[str, Any]:
    """A copy of the caller's entry. Errors: ConfigError for anything but a mapping."""
    if not isinstance(engine, Mapping):
        raise ConfigError(f"engine: expected a mapping such as {{'engine': 'openai', 'model': …}}, got {engine!r}")
    return dict(engine)


def _judging(
    engine: Engine, rubric: str | None, constitution: str | None, section: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    general, section = _split(section)
    judge_section = {"rubric": rubric, "constitution": constitution, **section}
    return {"engines": {"judge": _entry(engine)}, "judge": judge_section, **general}, general


def _run(
    raw: dict[str, Any], data: Data, stages: list[str], folder: str | Path | None, result: Callable[[Path], _T]
) -> _T:
    """Run `stages` on `data` in `folder`, or in a folder that is gone afterwards."""
    quiet = bool(raw.pop("quiet", True))
    columns = raw.pop("columns", {})
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="rlaif-") as temporary:
            return _run_in(raw, data, columns, stages, Path(temporary), result, quiet)
    return _run_in(raw, data, columns, stages, Path(folder), result, quiet)


def _run_in(
    raw: dict[str, Any],
    data: Data,
    columns: Mapping[str, str],
    stages: list[str],
    folder: Path,
    result: Callable[[Path], _T],
    quiet: bool,
) -> _T:
    from rlaif import pipeline as pipelines

    path = str(data) if isinstance(data, str | Path) else str(_written(data, folder))
    raw = {**raw, "run": str(folder)}
    source = {"path": path, "columns": dict(columns)}
    if stages == ["evaluate"]:
        raw["evaluate"] = {**raw["evaluate"], "prompts": source}
    elif stages == ["calibrate"]:
        raw["calibrate"] = {**raw["calibrate"], "gold": source}
    else:
        raw["prompts"] = source
    config = configs.validate(Pipeline, raw, "rlaif")

    def work() -> _T:
        pipelines.run(config, stages, quiet=quiet, in_process=True)
        return result(folder)

    return _outside_loop(work)


def _written(data: Data, folder: Path) -> Path:
    """The rows as a file in the run folder, so that a run on a DataFrame is a run like any other."""
    from rlaif import io
    from rlaif.store import RunFolder

    path = folder / "input.jsonl"
    RunFolder(folder).refuse_foreign(path.name)
    folder.mkdir(parents=True, exist_ok=True)
    io.write_jsonl(path, io.read_rows(data))
    return path


def _outside_loop(work: Callable[[], _T]) -> _T:
    """`work()` in this thread, or in one of its own when this one runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return work()
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=target, name="rlaif", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _on_run_folder(run: str | Path, stage: str, section: Mapping[str, Any]) -> None:
    """Run one stage again on what lies in a run folder, with this section in its config."""
    from rlaif import pipeline as pipelines
    from rlaif.store import RunFolder

    raw = pipelines.load_manifest_config(RunFolder(run)).model_dump(mode="json")
    raw |= {"run": str(run), stage: {**(raw.get(stage) or {}), **section}}
    config = configs.validate(Pipeline, raw, f"rlaif.{stage}")
    _outside_loop(lambda: pipelines.run(config, [stage], quiet=True, in_process=True))


def _figures(folder: Path, name: str) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads((folder / name / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _response_rows(folder: Path) -> list[dict[str, Any]]:
    from rlaif import io

    prompts = {row.id: row for row in io.read_table(folder / "prompts.jsonl", Prompt)}
    return [
        {
            "id": row.prompt_id,
            "prompt": _prompt_value(prompts[row.prompt_id]),
            "response": row.text,
            "source": row.source,
            "sample": row.sample,
            "finish_reason": row.finish_reason,
        }
        for row in io.read_table(folder / "responses.jsonl", Response)
    ]


def _prompt_value(prompt: Prompt) -> Any:
    return prompt.text if len(prompt.messages) == 1 else prompt.messages


def _revision_rows(folder: Path) -> list[dict[str, Any]]:
    from rlaif import io

    return [_as_row(row) for row in io.read_table(folder / "revisions.jsonl", Revision)]


def _judgment_rows(folder: Path) -> list[dict[str, Any]]:
    from rlaif import io

    return [_as_row(row) for row in io.read_table(folder / "judgments.jsonl", Judgment)]


def _as_row(record: Judgment | Preference | Revision) -> dict[str, Any]:
    """Every field, also those at their default, so that all rows have the same columns."""
    import msgspec

    return {name: msgspec.to_builtins(getattr(record, name)) for name in record.__struct_fields__}


def _without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _exported_rows(folder: Path) -> list[dict[str, Any]]:
    import json

    path = folder / "dataset" / "train.jsonl"
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _like(data: Data, rows: list[dict[str, Any]]) -> Any:
    """`rows` as the kind that `data` is."""
    kind = type(data).__module__.partition(".")[0]
    if kind == "pandas":
        import pandas

        return pandas.DataFrame(rows)
    if kind == "datasets":
        import datasets

        return datasets.Dataset.from_list(rows)
    return rows
