"""Solutions of notebook 10's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import math

import numpy as np

RIGHT, WRONG = {}, {}

# ---- tree_value(node) ----------------------------------------------------------------------------


def value_by_recursion(node):
    if isinstance(node, list):
        return sum(chance * value_by_recursion(child) for chance, child in node)
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


def value_of_the_best(node):
    return max(map(value_of_the_best, dict_children(node))) if isinstance(node, list) else float(node)


def dict_children(node):
    return [child for _, child in node]


def plain_mean(node):
    if isinstance(node, list):
        return sum(map(plain_mean, dict_children(node))) / len(node)
    return float(node)


def first_level_only(node):
    if isinstance(node, list):
        return float(sum(chance * child for chance, child in node if not isinstance(child, list)))
    return float(node)


def share_of_right_leaves(node):
    def leaves(one):
        return [x for child in dict_children(one) for x in leaves(child)] if isinstance(one, list) else [one]

    return sum(leaves(node)) / len(leaves(node))


def likeliest_path(node):
    while isinstance(node, list):
        node = max(node, key=lambda pair: pair[0])[1]
    return float(node)


def chances_added(node, reached=1.0):
    if isinstance(node, list):
        return sum(chances_added(child, chance) for chance, child in node)
    return float(reached * node)


def best_weighed(node):
    if isinstance(node, list):
        return max(chance * best_weighed(child) for chance, child in node)
    return float(node)


RIGHT["tree_value"] = {
    "from the leaves up": value_by_recursion,
    "path by path": value_by_walking,
    "a numpy number": lambda node: np.float64(value_by_recursion(node)),
}
WRONG["tree_value"] = {
    "the best child: what is reachable, not what is likely": value_of_the_best,
    "children weighed alike": plain_mean,
    "leaves below the first level forgotten": first_level_only,
    "share of right leaves": share_of_right_leaves,
    "only the likeliest path": likeliest_path,
    "only the last chance of a path counts": chances_added,
    "the best of the weighed children": best_weighed,
}

# ---- puct_score(total, visits, prior, siblings, c) -----------------------------------------------


def score(total, visits, prior, siblings, c):
    mean = total / visits if visits else 0.0
    return mean + c * prior * math.sqrt(siblings) / (1 + visits)


def mean_of(total, visits):
    return total / max(1, visits)


RIGHT["puct_score"] = {
    "an `if` for the unvisited": score,
    "a power for the root": lambda total, n, p, N, c: total / max(1, n) + c * p * N**0.5 / (n + 1),
}
WRONG["puct_score"] = {
    "divides by zero visits": lambda total, n, p, N, c: total / n + c * p * math.sqrt(N) / (1 + n),
    "the sum in place of the mean": lambda total, n, p, N, c: total + c * p * math.sqrt(N) / (1 + n),
    "no root over the siblings": lambda total, n, p, N, c: mean_of(total, n) + c * p * N / (1 + n),
    "no 1 under the bonus": lambda total, n, p, N, c: mean_of(total, n) + c * p * math.sqrt(N) / max(1, n),
    "UCB1: a logarithm, under the root": lambda total, visits, prior, siblings, c: (
        mean_of(total, visits) + c * prior * math.sqrt(math.log(1 + siblings) / (1 + visits))
    ),
    "the prior left out": lambda total, n, p, N, c: mean_of(total, n) + c * math.sqrt(N) / (1 + n),
    "c left out": lambda total, n, p, N, c: mean_of(total, n) + p * math.sqrt(N) / (1 + n),
    "its own visits under the root": lambda total, visits, prior, siblings, c: (
        mean_of(total, visits) + c * prior * math.sqrt(visits) / (1 + visits)
    ),
    "the mean over one visit too many": lambda total, visits, prior, siblings, c: (
        total / (1 + visits) + c * prior * math.sqrt(siblings) / (1 + visits)
    ),
}
