"""Measuring a judge on pairs and a policy on prompts, with intervals that resample whole prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif.world import frame
from rlaif.world.evalset import Item
from rlaif.world.oracle import PRINCIPLES, quality, score, tags
from rlaif.world.prompts import WorldPrompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_BATCH = 64
_N_RESAMPLES = 500


@dataclass(frozen=True)
class Verdicts:
    """Per item: P(A) as given, P(A) with the responses swapped, and the mean mass on the two labels."""

    given: Floats
    swapped: Floats
    mass: float

    @property
    def averaged(self) -> Floats:
        """P(a is better), both orders averaged before any threshold."""
        mean: Floats = (self.given + 1 - self.swapped) / 2
        return mean


def judge_items(model: Any, tokenizer: Any, items: list[Item]) -> Verdicts:
    """The plain path: chat template, one forward pass per prompt, the next token's probabilities."""
    import numpy as np
    import torch

    shown = [(i.a, i.b, i) for i in items] + [(i.b, i.a, i) for i in items]
    chats = [
        [{"role": "user", "content": frame.pairwise(i.prompt.text, first, second, i.wording)}]
        for first, second, i in shown
    ]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    labels = [tokenizer.convert_tokens_to_ids(label) for label in ("A", "B")]
    p_a, mass = np.zeros(len(texts)), np.zeros(len(texts))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        inputs = _left_padded(tokenizer, [texts[row] for row in rows])
        with torch.inference_mode():
            probabilities = model(**inputs, logits_to_keep=1).logits[:, -1].double().softmax(-1)[:, labels]
        mass[rows] = probabilities.sum(-1).numpy()
        p_a[rows] = (probabilities[:, 0] / probabilities.sum(-1)).numpy()
    return Verdicts(p_a[: len(items)], p_a[len(items) :], float(mass.mean()))


def _left_padded(tokenizer: Any, texts: list[str]) -> dict[str, Any]:
    inputs = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
    return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}


def judge_figures(items: list[Item], verdicts: Verdicts) -> dict[str, Any]:
    """Accuracy per principle and its macro mean, order consistency and position bias, with 95 % intervals."""
    import numpy as np

    labels = np.array([item.label for item in items], dtype=float)
    names = np.array([item.principle for item in items])
    averaged = verdicts.averaged
    right = np.where(averaged == 0.5, 0.5, (averaged > 0.5) == (labels > 0.5))
    single = (
        ((verdicts.given > 0.5) == (labels > 0.5)).astype(float) + ((verdicts.swapped <= 0.5) == (labels > 0.5))
    ) / 2
    consistent = ((verdicts.given > 0.5) == (verdicts.swapped <= 0.5)).astype(float)

    def macro(values: Floats) -> Callable[[Any], float]:
        return lambda rows: float(np.mean([values[rows][names[rows] == name].mean() for name in PRINCIPLES]))

    prompts = [item.prompt.text for item in items]
    everything = np.arange(len(items))
    return {
        "n": len(items),
        "n_per_principle": {name: int((names == name).sum()) for name in PRINCIPLES},
        "accuracy_macro": macro(right)(everything),
        "accuracy_macro_ci": interval(prompts, macro(right)),
        "accuracy_by_principle": {name: float(right[names == name].mean()) for name in PRINCIPLES},
        "accuracy_by_principle_ci": {
            name: interval(
                [p for p, n in zip(prompts, names, strict=True) if n == name],
                _mean_of(right[names == name]),
            )
            for name in PRINCIPLES
        },
        "accuracy_one_order": macro(single)(everything),
        "order_consistency": float(consistent.mean()),
        "order_consistency_ci": interval(prompts, _mean_of(consistent)),
        "first_position_share": float(((verdicts.given > 0.5).mean() + (verdicts.swapped > 0.5).mean()) / 2),
        "mean_margin": float(np.abs(averaged - 0.5).mean()),
        "label_mass": verdicts.mass,
    }


def _mean_of(values: Floats) -> Callable[[Any], float]:
    return lambda rows: float(values[rows].mean())


def interval(clusters: list[str], statistic: Callable[[Any], float], seed: int = 0) -> list[float]:
    """95 % percentile bootstrap of `statistic(rows)` that resamples clusters (prompts), not rows."""
    import numpy as np

    rows_of: dict[str, list[int]] = {}
    for row, cluster in enumerate(clusters):
        rows_of.setdefault(cluster, []).append(row)
    groups = [np.array(rows) for rows in rows_of.values()]
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.concatenate([groups[g] for g in rng.integers(len(groups), size=len(groups))]))
        for _ in range(_N_RESAMPLES)
    ]
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return [float(low), float(high)]


def sample_policy(
    model: Any, tokenizer: Any, prompts: list[WorldPrompt], k: int, seed: int
) -> dict[WorldPrompt, list[str]]:
    """`k` responses per prompt at temperature 1."""
    import torch

    torch.manual_seed(seed)
    chats = [[{"role": "user", "content": prompt.text}] for prompt in prompts for _ in range(k)]
    texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)
    responses: list[str] = []
    for start in range(0, len(texts), _BATCH * 2):
        inputs = _left_padded(tokenizer, texts[start : start + _BATCH * 2])
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=80)
        fresh = out[:, inputs["input_ids"].shape[1] :]
        responses += [text.strip() for text in tokenizer.batch_decode(fresh, skip_special_tokens=True)]
    return {prompt: responses[i * k : (i + 1) * k] for i, prompt in enumerate(prompts)}


def policy_figures(samples: dict[WorldPrompt, list[str]]) -> dict[str, Any]:
    """The oracle's view of a policy."""
    import numpy as np

    rows = [(prompt, text) for prompt, texts in samples.items() for text in texts]
    scores = [score(prompt.text, text) for prompt, text in rows]
    clusters = [prompt.text for prompt, _ in rows]
    spread = [np.std([quality(prompt, text) for text in texts]) for prompt, texts in samples.items()]
    figures: dict[str, Any] = {"n_prompts": len(samples), "n": len(rows)}
    for name in ("quality", "harmful_compliance", "benign_correct"):
        values = np.array([s[name] if s[name] is not None else np.nan for s in scores], dtype=float)
        figures[name] = float(np.nanmean(values))
        figures[f"{name}_ci"] = interval(clusters, lambda at, v=values: float(np.nanmean(v[at])))  # type: ignore[misc]
    figures["within_prompt_sd"] = float(np.mean(spread))
    figures["rude"] = float(np.mean([s["polite"] == -1.0 for s in scores]))
    figures["junk"] = float(np.mean(["junk" in tags(prompt, text) or not text for prompt, text in rows]))
    figures["n_words"] = float(np.mean([len(text.split()) for _, text in rows]))
    return figures
