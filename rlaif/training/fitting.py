"""The course of every training: data, arguments, trainer, fit, model folder, record.

A trainer is a `Method`: it names TRL's config and trainer, says which columns it reads, and adds what TRL has not.
All else happens here, once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.config.training import TrainerSection
from rlaif.digests import path_sha256
from rlaif.errors import ConfigError, DataError, one_line
from rlaif.process import n_processes
from rlaif.training import common, processes
from rlaif.training.data import Row, Splits, dataset_sha256, located
from rlaif.training.guard.probes import ProbeJudge, load_probes
from rlaif.training.workspace import Workspace

if TYPE_CHECKING:
    from rlaif.training.guard.watch import Guard

TRAINING_VERSION = 2  # of training.json
CURVE_POINTS = 40  # of the training curve, about
_COMMON_KEYS = {"model", "dataset", "args"}  # of a section; the others go into the record as they are


class Method:
    """One way to train. Subclasses set the names and override what differs from the common course."""

    name: str  # of the section: train.NAME
    defaults: Mapping[str, Any] = {}  # of TRL's arguments, beyond the common ones
    auto_class = "AutoModelForCausalLM"  # of transformers: what the folder that is written loads as
    task_type = "CAUSAL_LM"  # of peft

    @property
    def where(self) -> str:
        return f"train.{self.name}"

    def config_class(self) -> Any:
        """TRL's class of arguments."""
        raise NotImplementedError

    def load(self, section: Any, dataset: Path | str, cache: Path, seed: int) -> Splits:
        """The checked rows. Errors: DataError."""
        raise NotImplementedError

    def trainer(self, section: Any, splits: Splits, **arguments: Any) -> Any:
        """TRL's trainer, or ours over it. arguments: model (a path or id), args, train_dataset, eval_dataset,
        processing_class, peft_config, quantization_config, as TRL's trainers take them."""
        raise NotImplementedError

    def check(self, section: Any, config: Any) -> None:
        """Whether `config` (TRL's) fits the section. Errors: ConfigError."""

    def logging_steps(self, config: Any, n_rows: int) -> int:
        """Steps between two points of the training curve, where the user says nothing."""
        steps = config.max_steps
        if steps <= 0:
            batch = config.train_batch_size * config.gradient_accumulation_steps * config.world_size
            steps = math.ceil(-(-n_rows // batch) * config.num_train_epochs)
        return max(1, int(steps) // CURVE_POINTS)

    def lora_defaults(self, section: Any) -> dict[str, Any]:
        return {"task_type": self.task_type}

    def model_kwargs(self) -> dict[str, Any]:
        """What `auto_class` needs to load a model of the shape that is trained, beside the usual."""
        return {}

    def conversational(self, row: Row) -> bool:
        """Whether a row holds messages rather than text."""
        return any(isinstance(row.get(name), list) for name in ("prompt", "messages", "chosen", "completion"))

    def length(self, row: Row) -> int:
        """Tokens of a row of the trainer's own, prepared dataset, before it is cut."""
        raise NotImplementedError

    def lengths(self, trainer: Any) -> list[int]:
        """Tokens of each row that is trained on, before it is cut."""
        return [self.length(row) for row in trainer.train_dataset]

    def finish(self, trainer: Any, section: Any, folder: Path, splits: Splits) -> dict[str, Any]:
        """After the model is in `folder`: anything more to write there; what it returns goes into the record."""
        return {}


def train(
    method: Method,
    section: TrainerSection,
    dataset: Path | str,
    out: Path,
    seed: int,
    judge: ProbeJudge | None = None,
) -> dict[str, Any]:
    """Train `section.model` on `dataset` and write a full model folder to `out`.

    dataset: what `rlaif export` wrote, or any folder, file or hub id with the method's columns. A split `test` is
    measured at the end.
    out: appears whole or not at all, replaces an older one, and holds the weights (safetensors, in the dtype they
    were trained in), tokenizer, chat template, generation config and training.json, which is also what is returned.
    With `lora` the adapter is merged into the weights, so that every engine serves `out` as it is, and is kept in
    out/adapter. The same seed gives the same weights on the same machine. A killed training continues from its
    newest checkpoint if `args.save_strategy` had it write any.
    judge: what `section.guard.judge` stands for (docs/guards.md).
    Errors: ConfigError (model, arguments, divergence, memory), DataError (dataset), StoreError (out); nothing is
    written then.
    """
    common.prepare_environment()
    started, given = time.monotonic(), {"seed": seed, **section.args}
    named, source = section.model, str(dataset)  # as the user wrote them: what the record tells
    processes.check(section.launch, f"{method.where}.launch")
    section = section.model_copy(update={"model": located(section.model)})
    processes.join(section.args)
    workspace = Workspace(Path(out))
    try:
        with common.memory_errors(method.where):
            with processes.main_first():
                splits = method.load(section, located(source), workspace.cache, int(given["seed"]))
                guard, splits = _guard(method, section, splits, workspace.cache, int(given["seed"]), judge)
            n_train = len(splits.train)
            record = plan(method, section, named, source, splits, given)
            checkpoint = workspace.begin(record)
            config = arguments(method, section, given, workspace.checkpoints, n_train)
            if guard is not None:
                guard.check(config)
            trainer = _build(method, section, config, splits)
            if guard is not None:
                guard.attach(trainer, workspace.guard, resumed=checkpoint is not None)
            record |= _fit(method, trainer, checkpoint, n_train, guard)
            _save(method, trainer, section, workspace.model)
            record |= method.finish(trainer, section, workspace.model, splits)
            record |= {"seconds": round(time.monotonic() - started, 2), "versions": common.versions()}
            workspace.publish(record)
            processes.wait()
    except BaseException:
        workspace.abandon()
        raise
    return record


def plan(
    method: Method, section: TrainerSection, model: str, source: str, splits: Splits, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What a training is: where it is the same, a killed one is continued. The record begins with it.

    model, source: the starting model and the dataset as the user named them.
    """
    n_train = len(splits.train)
    return {
        "version": TRAINING_VERSION,
        "method": method.name,
        "model": model,
        "model_sha256": path_sha256(Path(section.model)) or None,
        "dataset": {"source": source, "sha256": dataset_sha256(splits.train), "rows": n_train},
        "n_train": n_train,
        "processes": n_processes(),
        **section.model_dump(mode="json", exclude=_COMMON_KEYS),
        **splits.facts,
        "given_args": dict(given),
    }


def check_arguments(method: Method, section: TrainerSection) -> None:
    """Whether the section's arguments have names that TRL, peft and transformers know, without loading anything.

    What only shows where the training runs (bf16 on this device, say) is not looked at. Errors: ConfigError.
    """
    where = method.where
    common.check_names(method.config_class(), section.args, f"{where}.args")
    _init_kwargs(section.args, f"{where}.args")
    if section.lora is not None:
        common.check_names(common.lora_class(f"{where}.lora"), section.lora, f"{where}.lora")
    if section.quantization is not None:
        from transformers import BitsAndBytesConfig

        common.check_names(BitsAndBytesConfig, section.quantization, f"{where}.quantization")


def arguments(method: Method, section: TrainerSection, given: Mapping[str, Any], output: Path, n_rows: int) -> Any:
    """TRL's config with our defaults under the user's arguments. Errors: ConfigError."""
    import torch

    on_gpu = torch.cuda.is_available()
    where = f"{method.where}.args"
    init_kwargs = _init_kwargs(given, where)
    defaults = {
        "per_device_train_batch_size": 8,
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),  # on CPU autocast halves the speed
        "gradient_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "save_total_limit": 2,  # the newest may be torn
        "logging_nan_inf_filter": False,  # it would hide a divergence
        "logging_steps": 1,
        **method.defaults,
        "output_dir": str(output),
    }
    config = common.config_object(method.config_class(), given, defaults, where)
    config.model_init_kwargs = init_kwargs
    if "logging_steps" not in given:
        config.logging_steps = method.logging_steps(config, n_rows)
    method.check(section, config)
    return config


def _init_kwargs(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`args.model_init_kwargs`, with safetensors only. Errors: ConfigError for what we never do."""
    kwargs = given.get("model_init_kwargs") or {}
    if not isinstance(kwargs, Mapping):
        raise ConfigError(f"{where}.model_init_kwargs: expected a mapping, got {kwargs!r}")
    if kwargs.get("trust_remote_code"):
        raise ConfigError(f"{where}.model_init_kwargs.trust_remote_code: {common.REFUSED['trust_remote_code']}")
    if not kwargs.get("use_safetensors", True):
        raise ConfigError(f"{where}.model_init_kwargs.use_safetensors: pickled weights are never loaded")
    return {**kwargs, "use_safetensors": True}


def _build(method: Method, section: TrainerSection, config: Any, splits: Splits) -> Any:
    from safetensors import SafetensorError
    from transformers import PrinterCallback

    where = method.where
    peft_config = None
    if section.lora is not None:
        cls = common.lora_class(f"{where}.lora")
        peft_config = common.config_object(cls, section.lora, method.lora_defaults(section), f"{where}.lora")
    revision = config.model_init_kwargs.get("revision")
    tokenizer = common.load_tokenizer(section.model, method.conversational(splits.train[0]), revision)
    try:
        trainer = method.trainer(
            section,
            splits,
            model=section.model,
            args=config,
            train_dataset=splits.train,
            eval_dataset=splits.test,
            processing_class=tokenizer,
            peft_config=peft_config,
            quantization_config=common.quantization_config(section.quantization, f"{where}.quantization"),
        )
    except (OSError, ValueError, NotImplementedError, ImportError, SafetensorError) as error:
        raise ConfigError(f"{where}: {one_line(error)}") from error
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(common.stop_at_nan(where))
    return trainer


def no_empty_dataset(base: Any, where: str) -> Any:
    """`base`, one of TRL's trainers, but one line where no row fits `max_length`: TRL would fail in its middle."""

    class Checked(base):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, *rest: Any) -> Any:
            prepared = super()._prepare_dataset(dataset, processing_class, args, *rest)
            if not len(prepared):
                which = rest[-1] if rest else "train"  # TRL's name of the split
                raise DataError(
                    f"{where}.args.max_length: {args.max_length}: every prompt is longer, no row of {which} is left"
                )
            return prepared

    Checked.__name__ = base.__name__
    return Checked


def _guard(
    method: Method, section: TrainerSection, splits: Splits, cache: Path, seed: int, judge: ProbeJudge | None
) -> tuple[Guard | None, Splits]:
    """The guard that the section asks for; its prompts become part of what the training is."""
    if section.guard is None:
        return None, splits
    from rlaif.training.guard.watch import Guard

    where = f"{method.where}.guard"
    probes = load_probes(section.guard, splits, cache, seed, where)
    guard = Guard(section.guard, probes, method=method.name, where=where, seed=seed, judge=judge)
    return guard, splits._replace(facts={**splits.facts, "guard_probes": probes.facts})


def _fit(
    method: Method, trainer: Any, checkpoint: Path | None, n_rows: int, guard: Guard | None = None
) -> dict[str, Any]:
    """Train, measure the test split, and return what training.json says about it."""
    lengths = method.lengths(trainer)
    limit = getattr(trainer.args, "max_length", None)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if guard is not None:
        guard.finish()
    common.check_finite(trainer.model, method.where)
    test = trainer.evaluate() if trainer.eval_dataset is not None else None
    return {
        "steps": trainer.state.global_step,
        "resumed_from_step": int(checkpoint.name.rpartition("-")[2]) if checkpoint else None,
        "rows_dropped_too_long": n_rows - len(lengths),
        "rows_truncated": sum(length > limit for length in lengths) if limit else 0,
        "args": common.plain_args(trainer.args),
        "history": common.history(trainer.state.log_history),
        "test": {k.removeprefix("eval_"): v for k, v in test.items()} if test else None,
        **({"guard": guard.record()} if guard is not None else {}),
    }


def _save(method: Method, trainer: Any, section: TrainerSection, folder: Path) -> None:
    """The model folder. A LoRA adapter is merged, and kept beside the merged weights."""
    from transformers import AutoConfig

    if section.lora is not None:
        trainer.save_model(str(folder / "adapter"))  # gathers what is sharded
        _drop_pickles(folder / "adapter")
        if trainer.is_world_process_zero():
            merged = _merged(method, trainer, section, folder / "adapter")
            merged.save_pretrained(str(folder))
            trainer.processing_class.save_pretrained(str(folder))
        return
    trainer.model.config.use_cache = AutoConfig.from_pretrained(
        section.model
    ).use_cache  # the trainer switches it off
    trainer.save_model(str(folder))
    _drop_pickles(folder)


def _drop_pickles(folder: Path) -> None:
    (folder / "training_args.bin").unlink(missing_ok=True)  # training.json says the same


def _merged(method: Method, trainer: Any, section: TrainerSection, adapter: Path) -> Any:
    """The starting model, loaded afresh, with the adapter in its weights.

    Afresh: a quantised model must be merged at full precision, and a sharded one is nowhere whole.
    """
    import torch
    import transformers
    from peft import PeftModel

    config = trainer.args.model_init_kwargs
    dtype = torch.bfloat16 if section.quantization is not None else next(trainer.model.parameters()).dtype
    wanted = {name: value for name, value in config.items() if name in ("revision", "attn_implementation")}
    base = getattr(transformers, method.auto_class).from_pretrained(
        section.model, dtype=dtype, use_safetensors=True, **wanted, **method.model_kwargs()
    )
    base.config.pad_token_id = trainer.processing_class.pad_token_id
    return PeftModel.from_pretrained(base, str(adapter)).merge_and_unload()
