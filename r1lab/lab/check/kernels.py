"""The exercises on fused log-probabilities (notebook 11)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from r1lab.lab.check.engine import Asked, exercise

NOTHING = -math.inf
BLOCKS = (  # why, the largest score and the sum so far, the scores of the next block
    ("the first block", NOTHING, 0.0, [0.0, 1.0, 1.0]),
    ("a block below the maximum", 3.0, 2.0, [1.0, 0.0, 2.0]),
    ("a block with a new maximum", 1.0, 4.0, [2.0, 5.0]),
    ("a tie with the maximum", 1.0, 1.5, [1.0, 1.0]),
    ("a block masked entirely", 2.0, 3.0, [NOTHING, NOTHING]),
    ("a block masked in part", 0.0, 1.0, [1.0, NOTHING]),
    ("very large scores", 400.0, 2.0, [401.0, 399.0]),
    ("very negative scores first", NOTHING, 0.0, [-500.0, -501.0]),
    ("drawn scores", 0.5, 7.0, [6.2, -1.2, -8.7, 2.3, -4.3, -5.6, 1.6]),
)


@exercise
def online_softmax(ask: Asked) -> None:
    """fn(top, mass, block [columns]) -> [2]: the largest score so far, and the sum below it."""

    def truth(top: Tensor, mass: Tensor, block: Tensor) -> Tensor:
        new = torch.maximum(top, block.max())
        return torch.stack([new, mass * (top - new).exp() + (block - new).exp().sum()])

    for why, top, mass, block in BLOCKS:
        after = f"{why} {torch.tensor(block).tolist()} after top {top:g} and mass {mass:g}"
        ask.agree([truth], [torch.tensor(one) for one in (top, mass, block)],
                  lambda at: f"{after}: {('top', 'mass')[at[0]]}")  # fmt: skip


@exercise
def target_in_tile(ask: Asked) -> None:
    """fn(z [rows, columns], first, ids [rows], chosen [rows]) -> chosen [rows], this tile's filled in.

    z holds the columns first, first + 1, …; `chosen` is 0 where no tile had the row's id yet.
    """

    def truth(z: Tensor, first: int, ids: Tensor, chosen: Tensor) -> Tensor:
        hit = torch.arange(first, first + z.shape[1]) == ids[:, None]
        return torch.where(hit.any(1), torch.where(hit, z, 0.0).sum(1), chosen)

    g = torch.Generator().manual_seed(0)
    tiles = ((0, [0, 3, 4, -1, 9], 0), (4, [4, 7, 8, 3, 0], 0), (8, [8, 9, 2, 7, 1], 2))
    for first, ids, past in tiles:
        z = torch.randn(5, 4, generator=g) - 3
        z[:, 4 - past :] = NOTHING  # columns past a vocabulary of 10
        seen = torch.tensor([0 <= one < first for one in ids])
        chosen = torch.where(seen, torch.randn(5, generator=g) + 6, 0.0)
        where = f"tile of columns {first} to {first + 3}"
        ask.agree([truth], [z, first, torch.tensor(ids), chosen],
                  lambda at: f"id {ids[at[0]]}, {where}: the chosen score")  # fmt: skip
