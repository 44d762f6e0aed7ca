"""A bag-of-words judge that sees the two responses and not the question: what word counts alone can tell.

Logistic regression on the difference of the word counts, one per principle, fitted by Newton steps with ridge.
It is trained on training prompts. Where it does well, a principle can be judged from the surface.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from rlaif.world.evalset import Item, grammar_pairs
from rlaif.world.grammar import Mix
from rlaif.world.oracle import PRINCIPLES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_WORD = re.compile(r"[A-Za-z]+")
_RIDGE = 1.0
_N_NEWTON = 12


def baseline_accuracy(items: list[Item], mix: Mix, n_train: int = 2500) -> dict[str, float]:
    """Accuracy per principle on `items`, after training on `n_train` pairs that the grammar writes with `mix`."""
    import numpy as np

    trained = grammar_pairs(n_train, 1, "train", "train", "train", mix).items
    words = sorted({word for item in trained for word in _counts(item.a) + _counts(item.b)})
    column = {word: at for at, word in enumerate(words)}
    accuracy = {}
    for name in PRINCIPLES:
        x, y = _table([item for item in trained if item.principle == name], column)
        weights = _fit(x, y)
        x_test, y_test = _table([item for item in items if item.principle == name], column)
        accuracy[name] = float(np.mean((x_test @ weights > 0) == (y_test > 0.5)))
    return accuracy


def _counts(text: str) -> Counter[str]:
    return Counter(word.lower() for word in _WORD.findall(text))


def _table(items: list[Item], column: dict[str, int]) -> tuple[Floats, Floats]:
    """Differences of word counts (n, words) and labels (n,)."""
    import numpy as np

    x = np.zeros((len(items), len(column)))
    for row, item in enumerate(items):
        for sign, text in ((1, item.a), (-1, item.b)):
            for word, count in _counts(text).items():
                if word in column:
                    x[row, column[word]] += sign * count
    return x, np.array([item.label for item in items], dtype=float)


def _fit(x: Floats, y: Floats) -> Floats:
    import numpy as np

    weights: Floats = np.zeros(x.shape[1])
    for _ in range(_N_NEWTON):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (p - y) + _RIDGE * weights
        curvature = (x * (p * (1 - p))[:, None]).T @ x + _RIDGE * np.eye(x.shape[1])
        weights = weights - np.linalg.solve(curvature, gradient)
    return weights
