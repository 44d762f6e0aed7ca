"""TRL's RewardTrainer with our loss. Model, adapter, padding, dropout, offloading, logging and cards stay TRL's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from rlaif.config import RewardSection
from rlaif.errors import DataError
from rlaif.training import reward_losses as losses
from rlaif.training.reward_data import SEQUENCES, collator, encoded, that_fit

_OURS = ("present", "target", "margin", "scores")  # of a batch: not for the model


class Targets(NamedTuple):
    """How scores are told to the heads: head k learns (score − mean_k) / sd_k, and counts weight_k in the loss."""

    mean: list[float]
    sd: list[float]
    weight: list[float]


def trainer_class(section: RewardSection, heads: Sequence[str], targets: Targets | None) -> type[Any]:
    """The subclass of TRL's trainer for this section. Imports TRL."""
    import torch
    from trl import RewardTrainer

    class OurRewardTrainer(RewardTrainer):  # type: ignore[misc]
        def __init__(self, model: Any, args: Any, processing_class: Any, **others: Any) -> None:
            collate = collator(processing_class.pad_token_id, args.pad_to_multiple_of)
            with only_one_label(model):
                super().__init__(
                    model=model, args=args, processing_class=processing_class, data_collator=collate, **others
                )

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            with args.main_process_first():  # the others read what it wrote
                if SEQUENCES not in dataset.column_names:
                    dataset = encoded(dataset, processing_class, section, heads, args.dataset_num_proc)
                fitting = that_fit(dataset, args.max_length)
            if not len(fitting) and dataset_name == "train":
                raise DataError(
                    f"train.reward.args.max_length: {args.max_length}: every row is longer, none is left to train on"
                )
            return fitting

        def _set_signature_columns_if_needed(self) -> None:
            self._signature_columns: list[str] = [SEQUENCES, *_OURS]

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            ours = {name: inputs[name] for name in _OURS if name in inputs}
            batch = {name: value for name, value in inputs.items() if name not in ours}
            if section.kind == "pair":
                _, outputs = super().compute_loss(model, batch, return_outputs=True)  # TRL's metrics
            else:
                outputs = model(**batch, use_cache=False)
                self._record(outputs.logits, batch["attention_mask"])
            loss = self._loss(outputs.logits.float(), **ours)
            return (loss, outputs) if return_outputs else loss

        def _loss(self, logits: Any, present: Any, target: Any = None, margin: Any = None, scores: Any = None) -> Any:
            """logits: (S, K) as the collator lays sequences out."""
            if section.kind == "scores":
                assert targets is not None
                mean, sd, weight = (logits.new_tensor(values) for values in targets)
                return losses.masked_squared_error(logits, (scores - mean) / sd, weight).mean()
            if section.kind == "ranking":
                grid = logits.new_zeros(present.T.shape).masked_scatter(present.T, logits.squeeze(-1)).T  # (B, N)
                loss = losses.plackett_luce(grid, present)
            else:
                chosen, rejected = logits.squeeze(-1).chunk(2)
                grid = torch.stack((chosen, rejected), dim=1)
                loss = pair_loss(section, chosen - rejected - margin, target)
            if self.args.center_rewards_coefficient is not None:
                loss = loss + self.args.center_rewards_coefficient * losses.centring(grid, present)
            return loss.mean()

        def _record(self, logits: Any, mask: Any) -> None:
            """Into the step's log, for the kinds that TRL does not know: what TRL logs of pairs."""
            mode = "train" if self.model.training else "eval"
            metrics = self._metrics[mode]
            if mode == "train":
                self._total_train_tokens += int(self.accelerator.gather_for_metrics(mask.sum()).sum().item())
            metrics["num_tokens"] = [self._total_train_tokens]
            every = self.accelerator.gather(logits.detach().float().mean().reshape(1))
            metrics["mean_reward"].append(every.mean().item())

    return OurRewardTrainer


def pair_loss(section: RewardSection, difference: Any, target: Any) -> Any:
    """(B,) the section's loss of pairs. difference: r(chosen) − r(rejected) − margin; target: P(chosen is better)."""
    target = losses.smoothed(target, section.label_smoothing) if section.label_smoothing else target
    if section.loss == "forward":
        return losses.forward_corrected(difference, target, section.flip_rate)
    if section.loss == "backward":
        return losses.backward_corrected(difference, target, section.flip_rate)
    if section.loss == "symmetric":
        return losses.symmetric(difference, target)
    return losses.bradley_terry(difference, target)


@contextmanager
def only_one_label(model: Any) -> Iterator[None]:
    """TRL refuses a model of several heads, since its own loss could not use them. Inside, the config says one."""
    names = dict(model.config.id2label)
    model.config.num_labels = 1
    try:
        yield
    finally:
        model.config.id2label = names
        model.config.label2id = {name: index for index, name in names.items()}


def load_model(
    path: str, head_kwargs: Mapping[str, Any], init_kwargs: Mapping[str, Any], quantization: Any, seed: int
) -> Any:
    """A sequence classifier with a new head on the weights of `path` (a causal LM), or the reward model that it is.

    The head is drawn from `seed`. float32 unless told otherwise, as TRL loads one.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl.trainer.reward_trainer import suppress_seqcls_warning

    kwargs = {"dtype": "float32", **init_kwargs, **head_kwargs}
    if isinstance(kwargs["dtype"], str) and kwargs["dtype"] != "auto":
        kwargs["dtype"] = getattr(torch, kwargs["dtype"])
    if quantization is not None:
        kwargs["quantization_config"] = quantization
    set_seed(seed)
    with suppress_seqcls_warning():
        return AutoModelForSequenceClassification.from_pretrained(path, **kwargs)
