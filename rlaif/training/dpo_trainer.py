"""TRL's DPOTrainer with soft labels, weights and replayed demonstrations: what it does not have, and nothing else.

The forward pass, the reference, the logged metrics and the data preparation stay TRL's. The log-probabilities of
tokens are read from its own forward pass as it returns.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from rlaif.training.losses import moved, preference_loss

PROBABILITY, WEIGHT = "probability", "weight"
_REPLAYED = ("replay_prompt_ids", "replay_completion_ids")


class Additions(NamedTuple):
    """probability, weight: whether the rows have such a column. replay: demonstrations (prompt, completion) or None;
    each pair carries one through the training, drawn by the seed without replacement, and again from the first where
    there are fewer than pairs: so a resumed training and any number of processes see the same ones."""

    probability: bool = False
    weight: bool = False
    label_smoothing: float = 0.0
    replay: Any | None = None
    replay_weight: float = 0.0
    seed: int = 0

    @property
    def own_loss(self) -> bool:
        """Whether the preference loss is ours and not TRL's."""
        return self.probability or self.weight or self.label_smoothing > 0


def extended(base: Any, additions: Additions) -> Any:
    """`base` (TRL's DPOTrainer) with `additions`."""
    import torch

    numbers = [
        *([PROBABILITY] if additions.probability else []),
        *([WEIGHT] if additions.weight else []),
    ]
    kept = [*numbers, *(_REPLAYED if additions.replay is not None else ())]

    class ExtendedDPOTrainer(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)  # precomputes the reference with TRL's collator
            collate: Any = vars(self)["data_collator"]

            def collated(rows: list[dict[str, Any]]) -> dict[str, Any]:
                batch: dict[str, Any] = collate(rows)
                for name in numbers:
                    batch[name] = torch.tensor([float(row[name]) for row in rows])
                if _REPLAYED[0] in rows[0]:
                    batch |= _replayed(collate, rows)
                return batch

            self.data_collator = collated

        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            prepared = super()._prepare_dataset(dataset, processing_class, args, dataset_name)
            if dataset_name != "train" or additions.replay is None:
                return prepared
            demonstrations = super()._prepare_dataset(_as_pairs(additions.replay), processing_class, args, "replay")
            return _with_replay(prepared, demonstrations, additions.seed)

        def _set_signature_columns_if_needed(self) -> None:
            super()._set_signature_columns_if_needed()
            self._signature_columns: list[str] = [*{*self._signature_columns, *kept}]

        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            batch = {name: value for name, value in inputs.items() if name not in numbers and "replay_" not in name}
            seen: list[Any] = []

            def recording(**kwargs: Any) -> Any:
                seen.append(model(**kwargs))
                return seen[-1]

            loss = super().compute_loss(recording, batch)
            if additions.own_loss:
                loss = _preference_loss(self, additions, seen[0], batch, inputs)
            if "replay_input_ids" in inputs:
                loss = loss + additions.replay_weight * _replay_loss(self, model, inputs)
            return (loss, seen[0]) if return_outputs else loss

    return ExtendedDPOTrainer


def _preference_loss(
    trainer: Any, additions: Additions, outputs: Any, batch: dict[str, Any], inputs: dict[str, Any]
) -> Any:
    import torch

    logps = outputs.log_probs.sum(dim=1)  # (2B,); 0 outside the responses
    ones = torch.ones(len(logps) // 2, device=logps.device)
    probability = inputs[PROBABILITY].to(logps.device) if additions.probability else ones
    lengths = batch["completion_mask"].sum(dim=1)
    loss = preference_loss(
        logps,
        torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]]),
        lengths,
        moved(probability, additions.label_smoothing),
        inputs[WEIGHT].to(logps.device) if additions.weight else ones,
        list(zip(trainer.loss_types, trainer.loss_weights, strict=True)),
        beta=trainer.beta,
        epsilon=trainer.label_smoothing,
        chosen_tokens=_shared(trainer, lengths.chunk(2)[0].sum()),
    )
    return loss + trainer.router_aux_loss_coef * outputs.aux_loss if trainer.aux_loss_enabled else loss


def _replay_loss(trainer: Any, model: Any, inputs: dict[str, Any]) -> Any:
    """The mean over the demonstrations' tokens of −log π."""
    ids, mask = inputs["replay_input_ids"], inputs["replay_completion_mask"]
    outputs = model(
        input_ids=ids,
        attention_mask=inputs["replay_attention_mask"],
        labels=ids.masked_fill(mask == 0, -100),
        use_cache=False,
        fused_lm_head=True,
    )
    loss = -outputs.log_probs.sum() / _shared(trainer, mask[:, 1:].sum())
    mode = "train" if trainer.model.training else "eval"
    trainer._metrics[mode]["replay/nll"].append(trainer.accelerator.gather(loss.detach()).mean().item())
    return loss


def _shared(trainer: Any, n_tokens: Any) -> Any:
    """The mean over processes of a number of tokens, at least 1: what a sum over this process's tokens is divided by,
    so that the mean of the processes' losses, which DDP takes, is the mean over all tokens."""
    return trainer.accelerator.gather(n_tokens.float()).mean().clamp(min=1)


def _as_pairs(demonstrations: Any) -> Any:
    """Demonstrations in the shape that DPO's own preparation tokenises: both responses are the demonstrated one."""
    return demonstrations.map(
        lambda row: {"chosen": row["completion"], "rejected": row["completion"]}
    ).remove_columns("completion")


def _with_replay(prepared: Any, demonstrations: Any, seed: int) -> Any:
    """The pairs, each with one demonstration's tokens."""
    order = list(range(len(demonstrations)))
    random.Random(seed).shuffle(order)
    chosen = demonstrations.select([order[number % len(order)] for number in range(len(prepared))])
    for name, of in zip(_REPLAYED, ("prompt_ids", "chosen_ids"), strict=True):
        prepared = prepared.add_column(name, chosen[of][:])
    return prepared


def _replayed(collate: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The demonstrations of a batch, padded and cut as the pairs are."""
    prompt, completion = _REPLAYED
    demonstrations = [
        {"prompt_ids": row[prompt], "chosen_ids": row[completion], "rejected_ids": row[completion]} for row in rows
    ]
    batch = collate(demonstrations)
    names = ("input_ids", "attention_mask", "completion_mask")
    return {f"replay_{name}": batch[name][: len(rows)] for name in names}
