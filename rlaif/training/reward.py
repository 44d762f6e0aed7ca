"""Reward models: pairs (Bradley–Terry, soft labels, corrections for noise), a head a criterion, rankings; ensembles.

One model is a plain sequence classifier, which transformers loads anywhere, with reward.json beside it: the names of
its heads, the mean and sd of its scores, what tokenizer it was trained with, and what it is worth on held-out labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif.config import RewardSection
from rlaif.errors import ConfigError
from rlaif.training import fitting
from rlaif.training.data import Row, Splits, located
from rlaif.training.fitting import Method
from rlaif.training.reward_data import SEQUENCES, encoded, heads_of, load, that_fit
from rlaif.training.scoring import REWARD_FILE, REWARD_VERSION, predict

_SCORED = 4000  # training responses that the stored mean and sd are taken over
_BATCH = 32


def train_reward(section: RewardSection, dataset: Path | str, out: Path, seed: int) -> dict[str, Any]:
    """A reward model, or with `section.ensemble` several, from pairs, scores or rankings (`section.kind`).

    pair: prompt, chosen, rejected, and probability for soft labels, margin if asked for. scores: prompt, response,
    scores (criterion → number or null). ranking: prompt, responses, ranking (places in responses, best first).
    Text or conversations; `domain` is reported by where it is there. Nothing is cut: rows longer than
    `args.max_length` are left out and counted. What else is read, written, returned and raised: `fitting.train`.
    An ensemble is out/member-0, out/member-1, … from seeds seed, seed + 1, …, and an index, out/reward.json.
    """
    if section.ensemble == 1:
        return fitting.train(Reward(), section, dataset, Path(out), seed)
    from rlaif.training.reward_ensemble import train_members

    return train_members(section, dataset, Path(out), seed)


class Reward(Method):
    name = "reward"
    auto_class = "AutoModelForSequenceClassification"
    task_type = "SEQ_CLS"

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.targets: Any = None  # reward_trainer.Targets
        self.human: Any = None  # rows, as text

    def config_class(self) -> Any:
        from trl import RewardConfig

        return RewardConfig

    def load(self, section: RewardSection, dataset: Path | str, cache: Path, seed: int) -> Splits:
        splits = load(section, dataset, cache)
        self.heads = heads_of(section, splits.train, dataset)
        self.targets = _targets(splits.train, self.heads) if section.kind == "scores" else None
        if section.human:
            people = load(section, located(section.human), cache)
            self.human = people.train if people.test is None else people.test
        return splits._replace(facts={**splits.facts, "heads": self.heads})

    def lora_defaults(self, section: RewardSection) -> dict[str, Any]:
        return {
            "task_type": self.task_type,
            "modules_to_save": ["score"],
        }  # the head is new: it must be trained whole

    def check(self, section: RewardSection, config: Any) -> None:
        if section.lora and "score" not in (section.lora.get("modules_to_save") or ["score"]):
            raise ConfigError(
                f"{self.where}.lora.modules_to_save: must hold 'score', the new head, "
                f"got {section.lora['modules_to_save']!r}"
            )
        if config.center_rewards_coefficient is not None and section.kind == "scores":
            raise ConfigError(f"{self.where}.args.center_rewards_coefficient: not for kind: scores")

    def model_kwargs(self) -> dict[str, Any]:
        """What a model of this shape is loaded with, beside the usual."""
        names = dict(enumerate(self.heads))
        return {"num_labels": len(names), "id2label": names, "label2id": {name: at for at, name in names.items()}}

    def trainer(self, section: RewardSection, splits: Splits, **arguments: Any) -> Any:
        from rlaif.training.reward_trainer import load_model, trainer_class

        args, tokenizer = arguments["args"], arguments["processing_class"]
        _set_pad_token(tokenizer, section.pad_token, arguments["model"])
        init_kwargs, args.model_init_kwargs = args.model_init_kwargs, None  # TRL warns of them beside a loaded model
        quantization = arguments.pop("quantization_config")
        arguments["model"] = load_model(
            arguments["model"], self.model_kwargs(), init_kwargs, quantization, seed=args.seed
        )
        trainer = trainer_class(section, self.heads, self.targets)(**arguments)
        trainer.args.model_init_kwargs = init_kwargs
        return trainer

    def length(self, row: Row) -> int:
        return max(len(ids) for ids in row[SEQUENCES])

    def finish(self, trainer: Any, section: RewardSection, folder: Path, splits: Splits) -> dict[str, Any]:
        """reward.json; also into the record: held_out, human."""
        from rlaif.training import tokens

        tokenizer, limit = trainer.processing_class, trainer.args.max_length
        model = trainer.model_wrapped.eval()

        def scored(dataset: Any) -> Any:
            flat = [ids for row in dataset[SEQUENCES] for ids in row]
            logits = predict(model, flat, tokenizer.pad_token_id, _BATCH)
            return logits if self.targets is None else logits * self.targets.sd + self.targets.mean

        test, human = trainer.eval_dataset, None
        if self.human is not None:
            with trainer.args.main_process_first():
                human = that_fit(encoded(self.human, tokenizer, section, self.heads, None), limit)
        asked = {"train": splits.train, "test": splits.test, "human": self.human}
        kept = {"train": trainer.train_dataset, "test": test, "human": human}
        described = {
            "version": REWARD_VERSION,
            "kind": section.kind,
            "heads": self.heads,
            "targets": {"mean": self.targets.mean, "sd": self.targets.sd} if self.targets else None,
            "scores": self._scale(trainer.train_dataset, scored, int(trainer.args.seed)),
            "tokenizer": tokens.fingerprint(tokenizer),
            "max_length": limit,
            "held_out": self._measured(section, test, scored),
            "human": self._measured(section, human, scored),
            "dropped_too_long": {n: len(rows) - len(kept[n]) for n, rows in asked.items() if rows is not None},
        }
        if trainer.is_world_process_zero():
            write_description(folder, described)
        return {name: described[name] for name in ("held_out", "human", "dropped_too_long")}

    def _scale(self, train: Any, scored: Any, seed: int) -> dict[str, Any]:
        """Per head: mean, sd and quantiles of the scores of training responses, all or a sample of them."""
        from rlaif import metrics

        rows = train.shuffle(seed=seed).select(range(min(len(train), _SCORED)))
        found = scored(rows)
        return {name: metrics.describe(found[:, k]) for k, name in enumerate(self.heads)}

    def _measured(self, section: RewardSection, dataset: Any, scored: Any) -> dict[str, Any] | None:
        from rlaif.training.reward_measure import figures

        if dataset is None or not len(dataset):
            return None
        return figures(section.kind, dataset, scored(dataset), self.heads)


def write_description(folder: Path, described: Mapping[str, Any]) -> None:
    text = json.dumps(described, indent=1, allow_nan=False, ensure_ascii=False)
    (folder / REWARD_FILE).write_text(text, encoding="utf-8")


def _targets(train: Any, heads: list[str]) -> Any:
    """Each criterion's mean and sd over the rows where it was judged; its weight is 1 / the share of these rows."""
    import numpy as np

    from rlaif.training.reward_trainer import Targets

    told = np.array([[np.nan if row.get(name) is None else row[name] for name in heads] for row in train["scores"]])
    share = (~np.isnan(told)).mean(axis=0)
    sd = np.nanstd(told, axis=0)
    return Targets(
        [float(x) for x in np.nanmean(told, axis=0)],
        [float(x) if x > 0 else 1.0 for x in sd],  # a criterion that never varies teaches its mean
        [float(1 / x) for x in share],
    )


def _set_pad_token(tokenizer: Any, wanted: str | None, model: str) -> None:
    """The score is read at the last token that is not padding: a pad token that is the end token would hide the end.

    Errors: ConfigError with tokens of this vocabulary that could do.
    """
    vocabulary = tokenizer.get_vocab()
    if wanted is not None:
        if wanted not in vocabulary or wanted == tokenizer.eos_token:
            raise ConfigError(f"train.reward.pad_token: {wanted!r} is not a token of {model!r}, or is its end token")
        tokenizer.pad_token = wanted
    elif tokenizer.pad_token_id == tokenizer.eos_token_id:
        special = [name for name in vocabulary if name.startswith("<") and name.endswith(">") and len(name) > 4]
        unused = [name for name in special if any(word in name.lower() for word in ("pad", "reserved", "unused"))]
        fitting_names = sorted(name for name in unused or special if name != tokenizer.eos_token)[:3]
        raise ConfigError(
            f"train.reward: the tokenizer of {model!r} has no pad token of its own, and a reward model cannot read "
            f"the end of a response at its padding; set train.reward.pad_token to a token that texts do not hold"
            + (f", for example {' or '.join(fitting_names)}" if fitting_names else "")
        )
