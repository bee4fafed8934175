"""The exercises on scaling out (notebook 12)."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from r1lab.lab.check.engine import Asked, exercise, require
from r1lab.training import packing

PARTS = {"weights": 4, "gradients": 4, "optimizer": 8}  # bytes of a weight: AdamW in float32


@exercise
def bytes_on_gpu(ask: Asked) -> None:
    """fn(weights, gpus, sharded: set of names) -> bytes that one GPU holds: 4, 4 and 8 a weight."""
    ask.example("nothing is sharded: 10 x (4 + 4 + 8)", [10, 4, set()], 160.0)
    ask.example("8 bytes are divided by 4, the others are not", [10, 4, {"optimizer"}], 100.0)
    ask.example("all is divided by 4", [10, 4, set(PARTS)], 40.0)
    ask.example("one GPU holds all, sharded or not", [7, 1, set(PARTS)], 112.0)
    for sharded in ({"weights"}, {"gradients"}, {"weights", "gradients"}, {"gradients", "optimizer"}):
        truth = sum(1000 * size / (8 if name in sharded else 1) for name, size in PARTS.items())
        ask.example("only what is named is divided by 8", [1000, 8, sharded], truth)
    ask.example("shares need not be whole numbers", [10, 3, set(PARTS)], 160 / 3)


@exercise
def best_fit(ask: Asked) -> None:
    """fn(lengths: list, capacity) -> lists of row numbers, packed longest first by best fit."""
    rng = random.Random(0)
    drawn = [[rng.randint(1, 30) for _ in range(rng.randint(1, 25))] for _ in range(25)]
    for lengths in ([7, 6, 3, 4], [5, 5], [6, 4, 5, 5, 3], [4, 12, 6], [], *drawn):
        capacity = 10 if max(lengths, default=0) <= 12 else 32
        lines, _ = ask(lengths, capacity)
        require(isinstance(lines, list) and all(isinstance(line, list) for line in lines),
                f"a list of lists of row numbers is expected for {ask.last}.")  # fmt: skip
        rows = [row for line in lines for row in line]
        require(all(isinstance(row, int) for row in rows) and sorted(rows) == [*range(len(lengths))],
                f"each row from 0 to {len(lengths) - 1} must be in one line; for {ask.last} your "
                f"lines hold {str(rows)[:80]}.")  # fmt: skip
        fills = sorted(sum(lengths[row] for row in line) for line in lines)
        over = [line for line in lines if sum(lengths[row] for row in line) > capacity]
        require(all(len(line) == 1 for line in over),
                f"a line of several rows holds at most {capacity} tokens; for {ask.last} yours hold "
                f"{fills}.")  # fmt: skip
        best = packing.best_fit(lengths, range(len(lengths)), capacity)
        wanted = sorted(sum(lengths[row] for row in line) for line in best)
        require(fills == wanted, f"longest first, each into the fullest line that it fits in, fills "
                f"the lines with {wanted} tokens for {ask.last}; yours hold {fills}.")  # fmt: skip


@exercise
def tis_weight(ask: Asked) -> None:
    """fn(trainer [batch, tokens], sampler [batch, tokens], cap) -> min(exp(trainer - sampler), cap)."""

    def truth(trainer: Tensor, sampler: Tensor, cap: float) -> Tensor:
        return (trainer - sampler).exp().clamp(max=cap)

    g = torch.Generator().manual_seed(0)
    drawn = [-3 * torch.rand(3, 5, generator=g) for _ in range(2)]
    by_hand = torch.tensor([[0.3, 0.9, 0.1]]).log(), torch.tensor([[0.2, 0.1, 0.2]]).log()
    for pair, cap in ((by_hand, 2.0), (by_hand, 5.0), (drawn, 2.0), (drawn, 1.0)):
        ask.agree([truth], [*pair, cap], lambda i, pair=pair, cap=cap:
                  f"p = {pair[0][*i].exp():.3g} for the trainer, {pair[1][*i].exp():.3g} for the "
                  f"sampler, cap {cap:g}: the weight")  # fmt: skip
    result, _ = ask(*by_hand, 5.0, wrt=0)
    require(not result.requires_grad, "the weight is a number by which the loss is multiplied; a "
            f"gradient flows through yours for {ask.last}: detach it.")  # fmt: skip
