"""Trees of tokens: one prefix and several branches in one sequence, each branch blind to the others.

A judge's prompt ends with the principle, so one pair of responses serves many principles at the price of one
prefix. Positions restart at the end of the prefix for every branch, so a branch sees exactly what the plain
prompt would show it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_BLOCKED = -1e9
_MULTIPLE = 8


@dataclass
class Packed:
    """One tree, flat, and what is to be learnt at which of its places."""

    ids: list[int]
    positions: list[int]
    segments: list[int]  # 0 is the prefix, 1… the branches
    # (place, token, other token, weight): the next token is one of the two, half and half; the same twice if one
    verdicts: list[tuple[int, int, int, float]] = field(default_factory=list)
    tags: list[tuple[int, int]] = field(default_factory=list)  # (place, tag)
    ratings: list[tuple[int, list[int]]] = field(default_factory=list)  # (place, one level per principle, 0 = none)
    following: list[tuple[int, int]] = field(default_factory=list)  # (place, next token)

    @classmethod
    def of(cls, prefix: list[int]) -> Packed:
        return cls(list(prefix), list(range(len(prefix))), [0] * len(prefix))

    def branch(self, ids: list[int]) -> int:
        """Add a branch; returns the place of its first token."""
        start, n_prefix = len(self.ids), self.segments.count(0)
        self.ids += ids
        self.positions += range(n_prefix, n_prefix + len(ids))
        self.segments += [self.segments[-1] + 1] * len(ids)
        return start


@dataclass
class Batch:
    """Padded trees: ids and positions (B, T), an additive mask (B, 1, T, T), and the targets, with their rows."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    verdicts: list[tuple[int, int, int, int, float]]
    tags: list[tuple[int, int, int]]
    ratings: list[tuple[int, int, list[int]]]
    following: list[tuple[int, int, int]]


def collate(trees: list[Packed], pad_id: int) -> Batch:
    import torch

    width = -(-max(len(tree.ids) for tree in trees) // _MULTIPLE) * _MULTIPLE
    pads = [width - len(tree.ids) for tree in trees]
    ids = torch.tensor([tree.ids + [pad_id] * n for tree, n in zip(trees, pads, strict=True)])
    positions = torch.tensor([tree.positions + [0] * n for tree, n in zip(trees, pads, strict=True)])
    segments = torch.tensor([tree.segments + [-1] * n for tree, n in zip(trees, pads, strict=True)])
    same = segments[:, :, None] == segments[:, None, :]
    seen = (same | (segments[:, None, :] == 0)) & torch.ones(width, width, dtype=torch.bool).tril()
    seen |= torch.eye(width, dtype=torch.bool)
    mask = torch.zeros(seen.shape).masked_fill_(~seen, _BLOCKED)[:, None]
    rows = list(enumerate(trees))
    return Batch(
        ids,
        positions,
        mask,
        [(row, *target) for row, tree in rows for target in tree.verdicts],
        [(row, *target) for row, tree in rows for target in tree.tags],
        [(row, *target) for row, tree in rows for target in tree.ratings],
        [(row, *target) for row, tree in rows for target in tree.following],
    )
