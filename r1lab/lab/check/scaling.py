"""The exercises on scaling out (notebook 12)."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from r1lab.lab.check.engine import Asked, exercise, require
from r1lab.training import batching


@exercise
def bytes_on_gpu(ask: Asked) -> None:
    """fn(weights, gpus, sharded: set of names) -> bytes that one GPU holds: 4, 4 and 8 a weight."""
    ask.examples("bytes_on_gpu", lambda weights, gpus, sharded: (weights, gpus, set(sharded)))


@exercise
def best_fit(ask: Asked) -> None:
    """fn(lengths: list, capacity) -> lists of row numbers, packed longest first by best fit."""
    rng = random.Random(0)
    drawn = [[rng.randint(1, 30) for _ in range(rng.randint(1, 25))] for _ in range(25)]
    for lengths in ([7, 6, 3, 4], [5, 5], [6, 4, 5, 5, 3], [4, 12, 6], [], *drawn):
        _packed(ask, lengths, 10 if max(lengths, default=0) <= 12 else 32)


def _packed(ask: Asked, lengths: list[int], capacity: int) -> None:
    """Each row is in one line, no line of several rows overflows, and the lines fill as they must."""
    lines, _ = ask(lengths, capacity)
    require(
        isinstance(lines, list) and all(isinstance(line, list) for line in lines),
        f"a list of lists of row numbers is expected for {ask.last}.",
    )
    rows = sum(lines, [])
    require(
        all(isinstance(row, int) for row in rows) and sorted(rows) == [*range(len(lengths))],
        f"each row from 0 to {len(lengths) - 1} must be in one line; for {ask.last} your "
        f"lines hold {str(rows)[:80]}.",
    )
    fills = [sum(lengths[row] for row in line) for line in lines]
    over = [line for line, fill in zip(lines, fills, strict=True) if fill > capacity]
    require(
        all(len(line) == 1 for line in over),
        f"a line of several rows holds at most {capacity} tokens; for {ask.last} yours hold "
        f"{sorted(fills)}.",
    )
    best = batching.best_fit(lengths, range(len(lengths)), capacity)
    wanted = sorted(sum(lengths[row] for row in line) for line in best)
    require(
        sorted(fills) == wanted,
        "longest first, each into the fullest line that it fits in, fills the lines with "
        f"{wanted} tokens for {ask.last}; yours hold {sorted(fills)}.",
    )


@exercise
def tis_weight(ask: Asked) -> None:
    """fn(trainer [batch, tokens], sampler [batch, tokens], cap) -> min(exp(trainer - sampler), cap)."""

    def truth(trainer: Tensor, sampler: Tensor, cap: float) -> Tensor:
        return (trainer - sampler).exp().clamp(max=cap)

    by_hand = torch.tensor([[[0.3, 0.9, 0.1]], [[0.2, 0.1, 0.2]]]).log()
    drawn = -3 * torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(0))
    for (trainer, sampler), cap in ((by_hand, 2.0), (by_hand, 5.0), (drawn, 2.0), (drawn, 1.0)):
        ask.agree([truth], [trainer, sampler, cap], lambda at:
                  f"p = {trainer[*at].exp():.3g} for the trainer, {sampler[*at].exp():.3g} for the "
                  f"sampler, cap {cap:g}: the weight")  # fmt: skip
    result, _ = ask(*by_hand, 5.0, wrt=0)
    require(not result.requires_grad, "the weight is a number by which the loss is multiplied; a "
            f"gradient flows through yours for {ask.last}: detach it.")  # fmt: skip
