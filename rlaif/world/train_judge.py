"""Train a tiny judge from scratch: a drill phase, short pairs, then pairs of every length.

The phases are counted in steps, so the same seed and steps give the same weights on the same machine.
"""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.world.judge_data import Encoder, PairPlan, drill, judged
from rlaif.world.model import JUDGE_SHAPE, SECOND_JUDGE_SHAPE, Shape, new_model, optimizer_for, save_model
from rlaif.world.oracle import PRINCIPLES, TAGS
from rlaif.world.packing import Batch, Packed, collate
from rlaif.world.tokenizer import build_tokenizer

if TYPE_CHECKING:
    import torch

_LEVELS = 6  # 0 is "no level"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a judge besides its seed. Shares are of all steps."""

    shape: Shape
    draw: str  # names the stream of examples, so that two judges never share one
    steps: int = 4200
    drill_share: float = 0.20
    short_until: float = 0.46
    drill_later: float = 0.10  # share of drill batches kept in after the drill phase
    lr: float = 4e-3
    warmup: int = 150
    weight_decay: float = 0.05
    batch: int = 16
    lm_weight: float = 0.5
    rating_weight: float = 0.5
    tie_weight: float = 0.3


JUDGE = Recipe(JUDGE_SHAPE, "judge")
SECOND_JUDGE = Recipe(SECOND_JUDGE_SHAPE, "second-judge", drill_share=0.24, short_until=0.5, lr=3e-3)


class _Heads:
    """The throw-away readers of sentence tags and of levels."""

    def __init__(self, hidden: int) -> None:
        import torch

        self.tags = torch.nn.Linear(hidden, len(TAGS))
        self.ratings = torch.nn.Linear(hidden, len(PRINCIPLES) * _LEVELS)


class _Means:
    """Running means of the last hundred values of each figure."""

    def __init__(self) -> None:
        self._values: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=100))

    def add(self, name: str, value: float) -> None:
        self._values[name].append(value)

    def __str__(self) -> str:
        return " ".join(f"{name} {sum(v) / len(v):.3f}" for name, v in self._values.items())


def train_judge(recipe: Recipe, folder: Path, seed: int) -> None:
    """Train from scratch and save to `folder`."""
    import torch

    tokenizer = build_tokenizer()
    encoder = Encoder(tokenizer)
    model = new_model(tokenizer, recipe.shape, seed)
    heads = _Heads(recipe.shape.hidden)
    modules = [model, heads.tags, heads.ratings]
    parameters = [p for module in modules for p in module.parameters()]
    optimizer = optimizer_for(modules, recipe.lr, recipe.weight_decay)
    rng = random.Random(f"{recipe.draw}/{seed}")
    queue: list[list[Packed]] = []
    phase = None
    means, started = _Means(), time.perf_counter()
    for step in range(recipe.steps):
        if _phase(recipe, step) != phase:
            phase, queue = _phase(recipe, step), []
        queue = queue or _draw(rng, encoder, recipe, _phase(recipe, step))
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(recipe, step)
        loss = _loss(model, heads, collate(queue.pop(), encoder.pad_id), recipe, means)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == recipe.steps - 1:
            print(f"step {step}/{recipe.steps} {phase} {time.perf_counter() - started:.0f} s {means}", flush=True)
    save_model(model, tokenizer, folder)


def _phase(recipe: Recipe, step: int) -> str:
    done = step / recipe.steps
    return "drill" if done < recipe.drill_share else "short" if done < recipe.short_until else "full"


def _learning_rate(recipe: Recipe, step: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.lr * min(1.0, (step + 1) / recipe.warmup) * (0.02 + 0.98 * cosine)


def _draw(rng: random.Random, encoder: Encoder, recipe: Recipe, phase: str, n: int = 12) -> list[list[Packed]]:
    """`n` batches of like length within a batch, in random order."""
    n_drills = n if phase == "drill" else sum(rng.random() < recipe.drill_later for _ in range(n))
    plan = PairPlan(short=0.6) if phase == "short" else PairPlan(tie_weight=recipe.tie_weight)
    size = recipe.batch
    pairs = [judged(rng, encoder, plan) for _ in range((n - n_drills) * size)]
    pairs.sort(key=lambda tree: len(tree.ids))
    drills = [drill(rng, encoder) for _ in range(n_drills * size)]
    trees = pairs + drills
    batches = [trees[i : i + size] for i in range(0, len(trees), size)]
    rng.shuffle(batches)
    return batches


def _loss(model: Any, heads: _Heads, batch: Batch, recipe: Recipe, means: _Means) -> torch.Tensor:
    import torch

    hidden = model.model(
        input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False
    ).last_hidden_state
    tags = torch.tensor(batch.tags)
    tag_logits = heads.tags(hidden[tags[:, 0], tags[:, 1]])
    loss: torch.Tensor = torch.nn.functional.cross_entropy(tag_logits, tags[:, 2])
    _count_right(means, "drill-tags" if batch.following else "tags", tag_logits, tags[:, 2])
    if batch.following:
        following = torch.tensor(batch.following)
        logits = model.lm_head(hidden[following[:, 0], following[:, 1]])
        loss = loss + recipe.lm_weight * torch.nn.functional.cross_entropy(logits, following[:, 2])
    if batch.verdicts:
        loss = loss + _verdict_loss(model, hidden, batch, means)
        loss = loss + recipe.rating_weight * _rating_loss(heads, hidden, batch)
    return loss


def _verdict_loss(model: Any, hidden: torch.Tensor, batch: Batch, means: _Means) -> torch.Tensor:
    """Cross-entropy over the whole vocabulary; a tie wants half the mass on each label."""
    import torch

    places = torch.tensor([target[:4] for target in batch.verdicts])
    weights = torch.tensor([target[4] for target in batch.verdicts])
    logps = model.lm_head(hidden[places[:, 0], places[:, 1]]).log_softmax(-1)
    chosen = (logps.gather(1, places[:, 2:3]) + logps.gather(1, places[:, 3:4]))[:, 0] / 2
    decided = places[:, 2] == places[:, 3]
    hits = (logps.argmax(-1) == places[:, 2])[decided].float()
    means.add("verdicts", hits.mean().item())
    heavy = weights[decided] > 1
    if heavy.any():
        means.add("helpful+honest", hits[heavy].mean().item())
    total: torch.Tensor = -(chosen * weights).sum() / weights.sum()
    return total


def _rating_loss(heads: _Heads, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    import torch

    rows = torch.tensor([[row, place] for row, place, _ in batch.ratings])
    levels = torch.tensor([levels for _, _, levels in batch.ratings])
    logits = heads.ratings(hidden[rows[:, 0], rows[:, 1]]).view(-1, _LEVELS)
    return torch.nn.functional.cross_entropy(logits, levels.flatten(), ignore_index=0)


def _count_right(means: _Means, name: str, logits: torch.Tensor, tags: torch.Tensor) -> None:
    """Accuracy on the tags that need knowledge; the rest is easy."""
    import torch

    hard = torch.isin(tags, torch.tensor([TAGS.index("right"), TAGS.index("wrong")]))
    if hard.any():
        means.add(name, (logits.argmax(-1) == tags)[hard].float().mean().item())
