"""The exercises on tree search (notebook 10)."""

from __future__ import annotations

import math
import random

from r1lab.lab.check.engine import Asked, exercise


@exercise
def tree_value(ask: Asked) -> None:
    """fn(node) -> chance to end right: a node is its leaf's 0 or 1, or [(chance, node), ...]."""
    ask.example("a right leaf", [1], 1.0)
    ask.example("a wrong leaf", [0], 0.0)
    ask.example("0.25 x 1 + 0.75 x 0", [[(0.25, 1), (0.75, 0)]], 0.25)
    ask.example("0.5 x (0.2 x 1) + 0.5 x 0", [[(0.5, [(0.2, 1), (0.8, 0)]), (0.5, 0)]], 0.1)
    rng = random.Random(0)

    def grow(depth: int) -> tuple[list | int, float]:
        if depth == 0 or rng.random() < 0.15:
            right = rng.randint(0, 1)
            return right, float(right)
        weights = [rng.randint(1, 9) for _ in range(rng.randint(1, 3))]
        node, value = [], 0.0
        for weight in weights:
            chance = weight / sum(weights)
            child, worth = grow(depth - 1)
            node.append((chance, child))
            value += chance * worth
        return node, value

    for depth in (1, 2, 3, 3, 4, 4):
        node, truth = grow(depth)
        ask.example("each child's value, weighed by its chance", [node], truth)


@exercise
def puct_score(ask: Asked) -> None:
    """fn(total, visits, prior, siblings, c) -> total/visits + c prior sqrt(siblings)/(1 + visits)."""
    ask.examples("puct_score")
    rng = random.Random(0)
    for _ in range(40):
        visits = rng.randint(0, 12)
        total, siblings = rng.random() * visits, visits + rng.randint(0, 30)
        prior, c = rng.random(), rng.choice([0.5, 1.0, 2.5])
        truth = total / max(1, visits) + c * prior * math.sqrt(siblings) / (1 + visits)
        ask.example("mean and bonus", [total, visits, prior, siblings, c], truth)
