"""Solutions of notebook 10's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import math

import numpy as np
from tests.planted_edits import edits

RIGHT, WRONG = {}, {}

# ---- tree_value(node) ----------------------------------------------------------------------------


def value(node):
    if isinstance(node, list):
        return sum(chance * value(child) for chance, child in node)
    return float(node)


def value_by_walking(node):
    """Down every path with the product of its chances."""
    total, open_ends = 0.0, [(1.0, node)]
    while open_ends:
        reached, here = open_ends.pop()
        if isinstance(here, list):
            open_ends += [(reached * chance, child) for chance, child in here]
        else:
            total += reached * here
    return total


def share_of_right_leaves(node):
    def leaves(one):
        return [x for _, child in one for x in leaves(child)] if isinstance(one, list) else [one]

    return sum(leaves(node)) / len(leaves(node))


RIGHT["tree_value"] = {
    "from the leaves up": value,
    "path by path": value_by_walking,
    "a numpy number": lambda node: np.float64(value(node)),
}
WRONG["tree_value"] = {"share of right leaves": share_of_right_leaves} | edits(value, {
    "the best child: what is reachable, not what is likely": ("sum(chance * ", "max("),
    "children weighed alike": ("sum(chance * ", "1 / len(node) * sum("),
    "leaves below the first level forgotten": ("in node)", "in node if not isinstance(child, list))"),
    "only the likeliest path": ("chance * ", "", "in node)", "in [max(node, key=lambda pair: pair[0])])"),
    "only the last chance of a path counts": (
        "(node):", "(node, reached=1.0):",
        "chance * value(child)", "value(child, chance)", "float(node)", "reached * node"),
    "the best of the weighed children": ("sum(", "max("),
})  # fmt: skip

# ---- puct_score(total, visits, prior, siblings, c) -----------------------------------------------


def score(total, visits, prior, siblings, c):
    mean = total / visits if visits else 0.0
    return mean + c * prior * math.sqrt(siblings) / (1 + visits)


def score_in_one_line(total, n, p, N, c):
    return total / max(1, n) + c * p * N**0.5 / (1 + n)


RIGHT["puct_score"] = {
    "an `if` for the unvisited": score, "a power for the root": score_in_one_line,
}  # fmt: skip
WRONG["puct_score"] = edits(score_in_one_line, {
    "divides by zero visits": ("max(1, n)", "n"),
    "the sum in place of the mean": ("total / max(1, n)", "total"),
    "no root over the siblings": ("N**0.5", "N"),
    "no 1 under the bonus": ("(1 + n)", "max(1, n)"),
    "UCB1: a logarithm, under the root": ("N**0.5 / (1 + n)", "(math.log(1 + N) / (1 + n)) ** 0.5"),
    "the prior left out": ("p * ", ""),
    "c left out": ("c * ", ""),
    "its own visits under the root": ("N**0.5", "n**0.5"),
    "the mean over one visit too many": ("max(1, n)", "(1 + n)"),
})  # fmt: skip
