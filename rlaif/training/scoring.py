"""Reward models in use: `load_reward(folder)` gives a scorer that PPO, best-of-n and evaluation ask.

    scorer = load_reward("runs/mine/models/reward", weights=Weights({"helpful": 2, "concise": 1}, {"harmless": 3}))
    scorer.check_policy(policy_tokenizer)                  # once: the ids mean the same to both
    scorer.score_ids(prompt_ids, completion_ids).reward    # (N,), from the ids that the policy was given and wrote
    scorer.score(prompts, responses).reward                # (N,), from text or messages, for another tokenizer too

A completion that the policy finished ends with the end token, one that was cut off does not: the model sees which.
Weights, floors and pessimism are chosen here, not in training; one model serves any of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.errors import ConfigError, one_line
from rlaif.training import tokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

REWARD_FILE = "reward.json"
REWARD_VERSION = 1
_VIOLATED = -10.0  # a response below a floor gets less, one within the floors at least this


class Scores(NamedTuple):
    """Of N responses. `heads` in the unit of the criteria (or the model's own, for a model of pairs)."""

    reward: Floats  # (N,) what to maximise
    heads: Floats  # (N, K) mean over the members
    disagreement: Floats  # (N,) standard deviation of the reward over the members; 0 for one member
    violated: Any  # (N,) bool: below a floor


@dataclass(frozen=True)
class Weights:
    """How K heads become one reward: Σ w_k · z_k over heads standardised by their mean and sd on the training
    responses. `weights`: head → weight; empty: all 1; heads that are not named count 0. `floors`: head → the least
    score that is allowed, in the criterion's unit. A response below a floor gets −10 minus how far below it is (in
    sds, summed), whatever the rest says: a hard constraint, not a price.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Member:
    """One model. Its scores are logits · scale + shift, with this mean and sd on training responses."""

    model: Any
    scale: Floats  # (K,)
    shift: Floats
    mean: Floats
    sd: Floats


class RewardScorer:
    """Made by `load_reward`."""

    def __init__(
        self,
        folder: str,
        members: Sequence[_Member],
        heads: Sequence[str],
        tokenizer: Any,
        *,
        weights: Weights | None = None,
        pessimism: float = 0.0,
        normalise: bool = True,
        batch_size: int = 32,
    ) -> None:
        self.folder, self.heads, self.tokenizer = folder, list(heads), tokenizer
        self.pessimism, self.normalise, self.batch_size = pessimism, normalise, batch_size
        self._members = list(members)
        self._fingerprint: dict[str, str] | None = None
        self.use(weights or Weights())

    @property
    def n_members(self) -> int:
        return len(self._members)

    def use(self, weights: Weights) -> None:
        """Other weights and floors from now on. Errors: ConfigError for a head that is not there."""
        for name in (*weights.weights, *weights.floors):
            if name not in self.heads:
                raise ConfigError(f"{self.folder}: no head {name!r}; there are: {', '.join(self.heads)}")
        self.weights = weights

    def linear(self) -> tuple[list[float], float]:
        """(weights (K,), bias) of the first member's reward as a function of its K outputs; floors left out."""
        import numpy as np

        first, names = self._members[0], self.weights.weights
        w = np.array([names.get(name, 0.0) for name in self.heads] if names else [1.0] * len(self.heads))
        mean, sd = (first.mean, first.sd) if self.normalise else (np.zeros(len(w)), np.ones(len(w)))
        return list(w * first.scale / sd), float((w * (first.shift - mean) / sd).sum())

    def check_policy(self, policy: Any) -> None:
        """Whether ids of this policy (a tokenizer, a folder or a hub id) mean the same here, its template included.

        Errors: ConfigError that says what differs and the way out.
        """
        theirs = _tokenizer(str(policy)) if isinstance(policy, str | Path) else policy
        if self._fingerprint is None:
            self._fingerprint = tokens.fingerprint(self.tokenizer)
        found = tokens.difference(self._fingerprint, tokens.fingerprint(theirs))
        if found:
            raise ConfigError(
                f"{self.folder}: this reward model does not fit the policy: {found}, so it cannot score the policy's "
                "token ids; train one from a model of the policy's family, or score text (RewardScorer.score)"
            )

    def score_ids(self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]) -> Scores:
        """N prompts and completions as the policy's token ids, without padding; the end token is kept if it was
        written. Errors: ConfigError for a sequence that is longer than the model takes: it is never cut."""
        return self.score_sequences([[*p, *c] for p, c in zip(prompt_ids, completion_ids, strict=True)])

    def score(
        self,
        prompts: Sequence[str | tokens.Messages],
        responses: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> Scores:
        """N prompts (text or messages) and responses as text, rendered by the reward model's own template.

        finished: which responses came to their end; default: all. One that was cut off gets no end token.
        """
        ended = [True] * len(responses) if finished is None else finished
        rows = zip(prompts, responses, ended, strict=True)
        return self.score_sequences([tokens.encode(self.tokenizer, p, r, finished=f).whole for p, r, f in rows])

    def score_members(
        self,
        prompts: Sequence[str | tokens.Messages],
        responses: Sequence[str],
        finished: Sequence[bool] | None = None,
    ) -> Floats:
        """(M, N): what each member alone finds; arguments as of `score`. Floors and pessimism have no part in it."""
        import numpy as np

        ended = [True] * len(responses) if finished is None else finished
        rows = zip(prompts, responses, ended, strict=True)
        heads = self._heads([tokens.encode(self.tokenizer, p, r, finished=f).whole for p, r, f in rows])
        mean, sd = (np.stack([getattr(m, name) for m in self._members]) for name in ("mean", "sd"))
        return rewards_of(heads, mean, sd, self.heads, self.weights, normalise=self.normalise)

    def _heads(self, sequences: Sequence[Sequence[int]]) -> Floats:
        """(M, N, K) in the unit of the criteria."""
        import numpy as np

        self._check_lengths(sequences)
        pad = int(self._members[0].model.config.get_text_config().pad_token_id)
        logits = np.stack([predict(m.model, sequences, pad, self.batch_size) for m in self._members])
        return np.stack([x * m.scale + m.shift for x, m in zip(logits, self._members, strict=True)])

    def score_sequences(self, sequences: Sequence[Sequence[int]]) -> Scores:
        """As `score_ids`, for prompt and completion in one list."""
        import numpy as np

        return combine(
            self._heads(sequences),
            np.stack([m.mean for m in self._members]),
            np.stack([m.sd for m in self._members]),
            self.heads,
            self.weights,
            pessimism=self.pessimism,
            normalise=self.normalise,
        )

    def _check_lengths(self, sequences: Sequence[Sequence[int]]) -> None:
        limit = getattr(self._members[0].model.config.get_text_config(), "max_position_embeddings", None)
        longest = max((len(ids) for ids in sequences), default=0)
        if limit is not None and longest > limit:
            raise ConfigError(
                f"{self.folder}: a prompt and response of {longest} tokens, this reward model takes {limit}; "
                "lower the policy's max_completion_length or leave long prompts out"
            )


def combine(
    heads: Floats,
    mean: Floats,
    sd: Floats,
    names: Sequence[str],
    weights: Weights,
    *,
    pessimism: float = 0.0,
    normalise: bool = True,
) -> Scores:
    """From the heads of M members to one reward.

    heads: (M, N, K) in the criteria's unit; mean, sd: (M, K). With members' rewards r_m = Σ_k w_k · z_mk:
    reward = mean_m r_m − pessimism · sd_m r_m (sd with n − 1; Coste et al. 2023, 2310.02743, use the variance), and
    a head is below its floor if mean_m − pessimism · sd_m is.
    """
    import numpy as np

    rewards = rewards_of(heads, mean, sd, names, weights, normalise=normalise)
    several = len(heads) > 1
    disagreement = rewards.std(axis=0, ddof=1) if several else np.zeros(heads.shape[1])
    reward = rewards.mean(axis=0) - pessimism * disagreement
    short = np.zeros(heads.shape[1])
    for name, floor in weights.floors.items():
        k = names.index(name)
        spread = heads[:, :, k].std(axis=0, ddof=1) if several else 0.0
        safe = heads[:, :, k].mean(axis=0) - pessimism * spread
        short += np.maximum(0.0, floor - safe) / sd[:, k].mean()
    violated = short > 0
    reward = np.where(violated, _VIOLATED - short, np.maximum(reward, _VIOLATED) if weights.floors else reward)
    return Scores(reward, heads.mean(axis=0), disagreement, violated)


def rewards_of(
    heads: Floats, mean: Floats, sd: Floats, names: Sequence[str], weights: Weights, *, normalise: bool
) -> Floats:
    """(M, N) Σ_k w_k · z_mk of each member alone; arguments as of `combine`."""
    import numpy as np

    w = np.array([weights.weights.get(name, 0.0) for name in names] if weights.weights else [1.0] * len(names))
    z = (heads - mean[:, None]) / sd[:, None] if normalise else heads
    found: Floats = z @ w
    return found


def predict(model: Any, sequences: Sequence[Sequence[int]], pad_token_id: int, batch_size: int) -> Floats:
    """(N, K) logits of a sequence classifier, padded on the right, similar lengths together."""
    import numpy as np
    import torch

    if not sequences:
        return np.zeros((0, int(model.config.num_labels)))
    device = next(model.parameters()).device
    order = sorted(range(len(sequences)), key=lambda at: len(sequences[at]))
    parts = []
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = [sequences[at] for at in order[start : start + batch_size]]
            ids = torch.full((len(rows), max(map(len, rows))), pad_token_id)
            mask = torch.zeros_like(ids)
            for at, row in enumerate(rows):
                ids[at, : len(row)], mask[at, : len(row)] = torch.tensor(row), 1
            out = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False)
            parts.append(out.logits.double().cpu().numpy())
    found: Floats = np.concatenate(parts)
    sorted_back = np.empty_like(found)
    sorted_back[order] = found
    return sorted_back


def load_reward(
    folder: str | Path,
    *,
    weights: Weights | None = None,
    pessimism: float = 0.0,
    normalise: bool = True,
    batch_size: int = 32,
    device: str | None = None,
    dtype: str = "float32",
    classifier: Callable[[str], tuple[Any, Any]] | None = None,
) -> RewardScorer:
    """What `rlaif train reward` wrote (one model or an ensemble), or any sequence classifier that transformers loads.

    pessimism: k of mean − k · sd over the members of an ensemble. normalise: heads are (x − mean) / sd by the figures
    stored in reward.json; a foreign model has none, and stays as it is. batch_size: sequences. device: default the
    GPU where there is one. classifier: makes the model and tokenizer of a folder, otherwise than by loading them.
    Errors: ConfigError.
    """
    from rlaif.paths import resolve

    resolved = resolve(str(folder), Path())
    path = resolved if resolved.exists() else Path(folder)
    index = read_reward_file(path)
    parts = [path / name for name in index["members"]] if index and index.get("members") else [path]
    members: list[_Member] = []
    heads: list[str] = []
    tokenizer = None
    for part in parts:
        described = read_reward_file(part)
        model, tokenizer = classifier(str(part)) if classifier else _classifier(str(part), device, dtype)
        heads = described["heads"] if described else list(model.config.id2label.values())
        if model.config.num_labels != len(heads):
            raise ConfigError(f"{part}: {len(heads)} heads in {REWARD_FILE}, {model.config.num_labels} in the model")
        members.append(_member(model, heads, described))
    return RewardScorer(
        str(folder),
        members,
        heads,
        tokenizer,
        weights=weights,
        pessimism=pessimism,
        normalise=normalise,
        batch_size=batch_size,
    )


def read_reward_file(folder: Path) -> dict[str, Any] | None:
    """reward.json of a folder; None where there is none. Errors: ConfigError where it cannot be used."""
    path = folder / REWARD_FILE
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot read: {one_line(error)}") from None
    if found.get("version") != REWARD_VERSION:
        raise ConfigError(f"{path}: version {found.get('version')!r}; this rlaif reads {REWARD_VERSION}")
    return found


def _member(model: Any, heads: Sequence[str], described: dict[str, Any] | None) -> _Member:
    import numpy as np

    zeros, ones = np.zeros(len(heads)), np.ones(len(heads))
    if described is None:
        return _Member(model, ones, zeros, zeros, ones)
    scores, targets = described["scores"], described["targets"]
    return _Member(
        model,
        np.array(targets["sd"]) if targets else ones,
        np.array(targets["mean"]) if targets else zeros,
        np.array([scores[name]["mean"] for name in heads]),
        np.array([scores[name]["sd"] or 1.0 for name in heads]),
    )


def _classifier(folder: str, device: str | None, dtype: str) -> tuple[Any, Any]:
    """The model, ready to score, and its tokenizer. Errors: ConfigError where this is no reward model."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    tokenizer = _tokenizer(folder)
    try:
        config = AutoConfig.from_pretrained(folder)
        names = config.architectures or []
        if not any(name.endswith("ForSequenceClassification") for name in names):
            raise ConfigError(
                f"{folder}: not a reward model: its config names {', '.join(names) or 'no architecture'}, not a "
                "sequence classifier; `rlaif train reward` makes one"
            )
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True
        )
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise ConfigError(f"{folder}: cannot load this reward model: {one_line(error)}") from error
    if model.config.get_text_config().pad_token_id is None:
        if tokenizer.pad_token_id is None:
            raise ConfigError(f"{folder}: neither its config nor its tokenizer names a pad token")
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu")), tokenizer


def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError(f"{folder}: cannot load its tokenizer: {one_line(error)}") from error
