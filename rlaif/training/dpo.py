"""Direct Preference Optimization (Rafailov et al. 2023, 2305.18290) on TRL's own trainer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.config import DPOSection
from rlaif.digests import path_sha256
from rlaif.errors import ConfigError, DataError, one_line
from rlaif.training import common
from rlaif.training.workspace import Workspace

TRAINING_VERSION = 1  # of training.json
WHERE = "train.dpo"
ARGS = f"{WHERE}.args"
_POINTS = 40  # of the training curve, about
_NEEDED_BY_SOFT_LABELS = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "f_divergence_type": "reverse_kl",
    "use_weighting": False,
    "ld_alpha": None,
    "precompute_ref_log_probs": True,
}


def train_dpo(section: DPOSection, dataset: Path | str, out: Path, seed: int) -> dict[str, Any]:
    """Train `section.model` on the pairs of `dataset` and write a full model folder to `out`.

    dataset: what `rlaif export` wrote, or any folder, file or hub id with the columns prompt, chosen, rejected (text
    or conversations) and, for soft labels, probability. A split `test` is measured at the end.
    out: appears whole or not at all, replaces an older one, and holds the weights (safetensors, in the dtype they
    were trained in), tokenizer, chat template, generation config and training.json, which is also what is returned.
    With `lora` the adapter is merged into the weights, so that every engine serves `out` as it is, and is kept in
    out/adapter. The same seed gives the same weights on the same machine. A killed training continues from its
    newest checkpoint if `args.save_strategy` had it write any.
    Errors: ConfigError (model, arguments, divergence, memory), DataError (dataset), StoreError (out); nothing is
    written then.
    """
    common.prepare_environment()
    started, given = time.monotonic(), {"seed": seed, **section.args}
    named, source = section.model, str(dataset)  # as the user wrote them: what the record tells
    section = section.model_copy(update={"model": common.located(section.model)})
    dataset = common.located(str(dataset))
    workspace = Workspace(Path(out))
    try:
        with common.memory_errors(WHERE):
            train, test = _pairs(section, dataset, workspace.cache)
            record = {
                "version": TRAINING_VERSION,
                "method": "dpo",
                "model": named,
                "model_sha256": path_sha256(Path(section.model)) or None,
                "dataset": {"source": source, "sha256": common.dataset_sha256(train), "pairs": len(train)},
                "n_train": len(train),
                "soft_labels": section.soft_labels,
                "lora": section.lora,
                "given_args": given,
            }
            checkpoint = workspace.begin(record)
            trainer = _trainer(section, _arguments(section, given, workspace.checkpoints, len(train)), train, test)
            record |= _fit(trainer, checkpoint, len(train))
            _save(trainer, workspace.model, section)
            record |= {"seconds": round(time.monotonic() - started, 2), "versions": common.versions()}
            if trainer.is_world_process_zero():
                workspace.publish(record)
    except BaseException:
        workspace.abandon()
        raise
    return record


def check_arguments(section: DPOSection) -> None:
    """Whether the section's arguments have names that TRL and peft know, without loading anything.

    What only shows where the training runs (bf16 on this device, say) is not looked at. Errors: ConfigError.
    """
    from trl import DPOConfig

    common.check_names(DPOConfig, section.args, ARGS)
    if section.lora is not None:
        from peft import LoraConfig

        common.check_names(LoraConfig, section.lora, "train.dpo.lora")


def _pairs(section: DPOSection, dataset: Path | str, cache: Path) -> tuple[Any, Any | None]:
    columns = ["prompt", "chosen", "rejected"] + (["probability"] if section.soft_labels else [])
    train, test = common.load_splits(dataset, columns, cache)
    for name, split in (("train", train), ("test", test)):
        if split is not None:
            common.check_pairs(split, section.soft_labels, f"{dataset} ({name})")
    return train, test


def _arguments(section: DPOSection, given: Mapping[str, Any], output: Path, n_pairs: int) -> Any:
    """`trl.DPOConfig` with our defaults. Errors: ConfigError."""
    import torch
    from trl import DPOConfig

    on_gpu = torch.cuda.is_available()
    defaults = {
        "per_device_train_batch_size": 8,
        "precompute_ref_log_probs": True,
        "bf16": on_gpu and torch.cuda.is_bf16_supported(),  # on CPU autocast halves the speed
        "gradient_checkpointing": on_gpu,
        "dataloader_pin_memory": on_gpu,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "save_total_limit": 2,  # the newest may be torn
        "logging_nan_inf_filter": False,  # it would hide a divergence
        "logging_steps": 1,
    }
    config = common.config_object(DPOConfig, given, {**defaults, "output_dir": str(output)}, ARGS)
    if "logging_steps" not in given:
        config.logging_steps = max(1, _steps(config, n_pairs) // _POINTS)
    config.model_init_kwargs = {"use_safetensors": True, **(config.model_init_kwargs or {})}
    if section.soft_labels:
        for name, needed in _NEEDED_BY_SOFT_LABELS.items():
            if getattr(config, name) != needed:
                raise ConfigError(f"{ARGS}.{name}: soft_labels need {needed!r}, got {getattr(config, name)!r}")
    return config


def _steps(config: Any, n_pairs: int) -> int:
    if config.max_steps > 0:
        return int(config.max_steps)
    batch: int = config.train_batch_size * config.gradient_accumulation_steps * config.world_size
    epochs: float = config.num_train_epochs
    return math.ceil(-(-n_pairs // batch) * epochs)


def _trainer(section: DPOSection, config: Any, train: Any, test: Any | None) -> Any:
    from safetensors import SafetensorError
    from transformers import PrinterCallback

    conversational = isinstance(train[0]["chosen"], list)
    tokenizer = common.load_tokenizer(section.model, conversational)
    cls = soft_label_trainer() if section.soft_labels else hard_label_trainer()
    try:
        trainer = cls(
            model=section.model,
            args=config,
            train_dataset=train,
            eval_dataset=test,
            processing_class=tokenizer,
            peft_config=common.lora_config(section.lora, f"{WHERE}.lora"),
        )
    except (OSError, ValueError, NotImplementedError, ImportError, SafetensorError) as error:
        raise ConfigError(f"{WHERE}: {one_line(error)}") from error
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(common.stop_at_nan(WHERE))
    return trainer


def hard_label_trainer() -> type[Any]:
    """DPOTrainer that says so when no pair fits."""
    from trl import DPOTrainer

    class PlainDPOTrainer(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            prepared = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
            if not len(prepared):
                raise DataError(
                    f"{ARGS}.max_length: {args.max_length}: every prompt is longer, no pair is left to train on"
                )
            return prepared

    return PlainDPOTrainer


def soft_label_trainer() -> type[Any]:
    """DPOTrainer whose loss is `losses.soft_dpo_loss` with the column `probability`.

    Everything else, its logged metrics among it, stays TRL's: the forward pass is TRL's own, and its per-token
    log-probabilities are read from it as it returns.
    """
    import torch

    from rlaif.training.losses import soft_dpo_loss

    class SoftLabelDPOTrainer(hard_label_trainer()):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)  # precomputes the reference with TRL's collator
            collate: Any = vars(self)["data_collator"]

            def with_probability(rows: list[dict[str, Any]]) -> dict[str, Any]:
                batch: dict[str, Any] = collate(rows)
                batch["probability"] = torch.tensor([float(row["probability"]) for row in rows])
                return batch

            self.data_collator = with_probability

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            self._signature_columns: list[str] = [*{*self._signature_columns, "probability"}]

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            probability = inputs["probability"]
            batch = {key: value for key, value in inputs.items() if key != "probability"}
            seen: list[Any] = []

            def recording(**kwargs: Any) -> Any:
                seen.append(model(**kwargs))
                return seen[-1]

            super().compute_loss(recording, batch)
            chosen, rejected = seen[0].log_probs.sum(dim=1).chunk(2)  # (B,) each; 0 outside the responses
            ratio = (chosen - batch["ref_chosen_logps"]) - (rejected - batch["ref_rejected_logps"])
            loss = soft_dpo_loss(self.beta * ratio, probability.to(ratio.device)).mean()
            return (loss, seen[0]) if return_outputs else loss

    return SoftLabelDPOTrainer


def _fit(trainer: Any, checkpoint: Path | None, n_pairs: int) -> dict[str, Any]:
    """Train, measure the test split, and return what training.json says about it."""
    lengths = [
        len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        for row in trainer.train_dataset
    ]
    limit = trainer.args.max_length
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    common.check_finite(trainer.model, WHERE)
    test = trainer.evaluate() if trainer.eval_dataset is not None else None
    return {
        "steps": trainer.state.global_step,
        "resumed_from_step": int(checkpoint.name.rpartition("-")[2]) if checkpoint else None,
        "pairs_dropped_too_long": n_pairs - len(lengths),
        "pairs_truncated": sum(length > limit for length in lengths) if limit else 0,
        "args": common.plain_args(trainer.args),
        "history": common.history(trainer.state.log_history),
        "test": {k.removeprefix("eval_"): v for k, v in test.items()} if test else None,
    }


def _save(trainer: Any, folder: Path, section: DPOSection) -> None:
    """The model folder. A LoRA adapter is merged, and kept beside the merged weights."""
    from transformers import AutoConfig

    model = trainer.model
    if section.lora is not None:
        if not trainer.is_world_process_zero():
            return
        model.save_pretrained(str(folder / "adapter"))
        model = model.merge_and_unload()
    model.config.use_cache = AutoConfig.from_pretrained(section.model).use_cache  # the trainer switches it off
    if section.lora is None:
        trainer.save_model(str(folder))  # gathers sharded weights
    else:
        model.save_pretrained(str(folder))
        trainer.processing_class.save_pretrained(str(folder))
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; training.json says the same
