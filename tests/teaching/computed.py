"""The numbers of the examination's answers, worked out by the package where it can, or by counting.

`COMPUTED[id]` gives the numbers of that question in the order of `numbers` in exam.toml.
"""

from itertools import product
from math import comb, e, exp, log, sqrt
from statistics import NormalDist, fmean, pstdev

import numpy as np
import torch
from tabular import Tree, generalized_advantages, gradient
from tree_search import Tree as SearchTree
from tree_search import mcts

from r1lab import rewards
from r1lab.evaluation.estimators import UNANSWERED, cons_at_k, pass_at_k
from r1lab.objective import KL_ESTIMATORS, clipped_objective, group_advantages, sequence_ratio
from r1lab.stages.preferences import bradley_terry


def tensor(*numbers):
    return torch.tensor([numbers], dtype=torch.float64)


def tree_of_aa():
    tree = Tree("ab.", max_tokens=3)
    logits = torch.zeros(7, 3, dtype=torch.float64).requires_grad_()
    right = torch.tensor([float("aa" in o and o.endswith(".")) for o in tree.completions], dtype=torch.float64)
    slopes = gradient(tree.mean(logits, right), logits).view(7, 3)
    return [slopes[tree.states.index("aa"), 2].item()]


def left_out():
    rewards_of = tensor(1, 0, 0, 0, 0)
    inside = group_advantages(rewards_of, divide_by_std=False)[0, 0].item()
    return [1 / inside, inside]


def clipped():
    ratio, advantages = tensor(1.4, 0.5, 0.7, 1.9).T, tensor(2, 2, -1, -1).T
    found = clipped_objective(ratio, advantages, 0.2, 0.28).flatten().tolist()
    return [sum(found), found[0], found[2], found[3]]


def critic():
    masked = torch.ones(1, 3, dtype=torch.bool)
    inputs = tensor(0, 0, 1), tensor(0.5, 0.4, 0.8), masked
    return [generalized_advantages(*inputs, lam)[0, 0].item() for lam in (0.5, 1.0)]


def divergences():
    policy, reference = tensor(0.2).log(), tensor(0.4).log()
    k1, k2, k3 = (KL_ESTIMATORS[name](policy, reference).item() for name in ("k1", "k2", "k3"))
    return [k3, k1, k2]


def rollouts_to_grow():
    probability, rollouts = 0.002, 0
    while probability < 0.25:
        probability, rollouts = 1.28 * probability, rollouts + 1
    return [rollouts, log(125) / log(1.28)]


def weight_of_two():
    """By enumeration, for some p: the weight of a question whose groups have two answers."""
    weights = []
    for p in (0.05, 0.3, 0.8):
        sigma = sum(
            (p if a else 1 - p) * (p if b else 1 - p) * pstdev([a, b]) for a, b in product((0, 1), repeat=2)
        )
        weights.append(sigma / (p * (1 - p)))
    assert max(weights) - min(weights) < 1e-12, "the same for every p"
    return [weights[0]]


def formats():
    texts = [
        "<think></think> <answer>7</answer>", "Sure! <think>3+4</think> <answer>7</answer>",
        "<think>3+4</think> <answer> 7 or 8 </answer>", "<answer>7</answer> <think>3+4</think>",
        "<think>3</think> <think>4</think> <answer>7</answer>",
    ]  # fmt: skip
    return [sum(rewards.format(prompts=[""] * 5, completions=texts))]


def silent(p, size):
    return p**size + (1 - p) ** size


def silent_groups():
    kinds = [silent(p, 8) for p in (0.02, 0.5, 0.99)]
    return [0.4 * kinds[0] + 0.4 * kinds[1] + 0.2 * kinds[2], *kinds]


def filters():
    names = ["truncated", "correct", "language"]
    failed = [[], names[1:2], names[:2], names[2:], names[1:], names]
    first = [min(sample, key=names.index) for sample in failed if sample]
    return [first.count("language"), sum("language" in sample for sample in failed)]


def at_most_two(p, samples):
    return sum(min(k, 2) * comb(samples, k) * p**k * (1 - p) ** (samples - k) for k in range(samples + 1))


def limits():
    easy, hard = at_most_two(0.9, 4), at_most_two(0.1, 4)
    more = at_most_two(0.1, 8)
    share = 100 * more / (more + at_most_two(0.9, 8))
    return [100 * hard / (easy + hard), 100 * 0.1 / (0.1 + 0.9), easy, hard, more, share]


def pair():
    return [bradley_terry(*map(torch.tensor, scores)).item() for scores in (([1.5], [0.5]), ([0.5], [1.5]))]


def best_difference():
    """Where the mean loss is smallest, with one verdict in ten turned round."""
    losses = {d / 1000: 0.9 * log(1 + exp(-d / 1000)) + 0.1 * log(1 + exp(d / 1000)) for d in range(5000)}
    return [min(losses, key=losses.get)]


def vote():
    answers = np.array([[7, 7, UNANSWERED, 9, 9, 9, UNANSWERED, 7]])
    return [cons_at_k(answers, (answers == 9).astype(float)).item()]


def at_least_one(n, correct, k):
    return pass_at_k(n, np.array([correct]), k).item()


def paired():
    each = [1] * 8 + [-1] * 3 + [0] * 39
    return [1.96 * pstdev(each) / sqrt(50), 1.96 * sqrt((0.6 * 0.4 + 0.5 * 0.5) / 50)]


def half_width(v, w, problems, k):
    return 1.96 * sqrt((v + w / k) / problems)


def rivals():
    least = next(m for m in range(1, 100) if 0.2 > 0.8 / m + 1e-12)
    return [least, 0.8 / least]


def good_nodes():
    """Nodes of the tree of signs after which the target can still be reached, the root left out."""
    hits = [signs for signs in product((1, -1), repeat=3) if 3 + sum(s * n for s, n in zip(signs, (4, 5, 2))) == 4]
    return [len({signs[:depth] for signs in hits for depth in (1, 2, 3)})]


def followed():
    """The c at which both children score the same, both scores at c = 1, and a's bonus."""
    a, b = 0.3 * sqrt(3) / 4, 0.7 * sqrt(3)
    return [0.4 / (b - a), 0.4 + a, b, a]


def budgets():
    small = SearchTree(names=["", "a"], children=[[1], []], prior=[1.0, 1.0], cost=[0, 5], right=[False, True])
    paid = mcts(small, [0.0, 0.0], budget=100, readers=2).found_at
    return [1 - (15 / 16) ** 10, 200 / paid]


def online():
    top, mass, seen = -torch.inf, 0.0, []
    for block in ((2, 4), (1,), (9,)):
        new = max(top, *map(log, block))
        mass = mass * exp(top - new) + sum(number / exp(new) for number in block)
        top = new
        seen.append(mass)
    assert abs(top + log(mass) - log(16)) < 1e-12, "the sum of all"
    return [seen[2], seen[1], seen[0]]


def slopes_of_logits():
    logits = tensor(0.25, 0.5, 0.25).log().requires_grad_()
    (slopes,) = torch.autograd.grad(-2 * logits.log_softmax(-1)[0, 0], logits)
    return slopes.flatten().tolist()


def effective(*weights):
    return sum(weights) ** 2 / len(weights) / sum(w**2 for w in weights)


def best_of_eight():
    """The mean of the largest of eight normal numbers, by its quantiles."""
    steps, normal = 200_000, NormalDist()
    best = fmean(normal.inv_cdf(((i + 0.5) / steps) ** (1 / 8)) for i in range(steps))
    return [10 * best, best]


def adapter():
    shapes = [(1024, 1024)] * 4 + [(1024, 4096)] * 2 + [(4096, 1024)]
    block = sum(16 * m + n * 16 for m, n in shapes)
    return [24 * block, block]


COMPUTED = {
    "00-1": lambda: [group_advantages(tensor(1.1, 1.1, 0.1, 0.1, 0, 0))[0, 2].item(),
                     pstdev([1.1, 1.1, 0.1, 0.1, 0, 0]), fmean([1.1, 1.1, 0.1, 0.1, 0, 0])],
    "00-2": lambda: [fmean([6 / 8, 0 / 2])],
    "01-1": tree_of_aa, "01-2": left_out, "01-3": clipped, "01-4": critic,
    "01-5": lambda: [(1 / 3 / 100) / (1 / 3 / 700)],
    "01b-1": divergences, "01b-2": rollouts_to_grow, "01b-3": weight_of_two,
    "01b-4": lambda: [sequence_ratio(tensor(0.5, 2.0, 1.1, 1.0).log(), torch.ones(1, 4, dtype=torch.bool))[0, 0].item()],
    "02-1": formats,
    "02-3": lambda: [next(w / 10_000 for w in range(20_000) if 0.1 + w / 10_000 > 1.1 + 0.1 * w / 10_000)],
    "02-4": lambda: [12 / (12 + 4), 6 / (6 + 4)],
    "03-1": lambda: [3000 // 8, 4096 // 32, 8 - 1],
    "03-2": lambda: [100 * (1 - (31 / 32) ** 10), 100 * 10 / 32],
    "03-3": silent_groups,
    "04-1": lambda: [len(range(5, 5 + 7 + 1)), range(5, 13)[0]],
    "04-2": lambda: [10_000 * (1 - 0.06) * (1 - 0.55) * (1 - 0.2)],
    "05-1": lambda: [1 + 0.1 + 0.5 * 0.4, 0.1 + 0.5],
    "05-2": lambda: [next(w / 10_000 for w in range(30_000) if w / 10_000 > 1 + 0.4 * w / 10_000)],
    "06-1": filters,
    "06-2": lambda: [at_least_one(8, 2, 3), 1 - (6 / 8) ** 3],
    "06-3": lambda: [round(6000 * 0.3 / 0.7), 100 * 1800 / 7800],
    "06-4": limits, "07-1": pair, "07-2": best_difference,
    "07-4": lambda: [sqrt(0.8 * 0.2 / (200 / 10))],
    "08-1": lambda: [6 * 800_000 * 5_000 * 2 / 8],
    "08-2": lambda: [e ** (log(0.6) / 24)],
    "09-1": vote,
    "09-2": lambda: [at_least_one(10, 3, 4), 1 - 0.7**4],
    "09-3": lambda: [half_width(0.06, 0.16, 100, 4), half_width(0.06, 0.16, 200, 4), half_width(0.06, 0.16, 100, 64)],
    "09-4": paired, "09-5": rivals, "10-1": good_nodes, "10-2": followed, "10-3": budgets, "11-1": online,
    "11-2": lambda: [log(14 / 12), log((12 * exp(3) + 2) / (12 * exp(3)))],
    "11-3": lambda: [4096 * 128_256 * (2 + 4) / 2**30, 4096 * 4 / 2**10],
    "11-4": slopes_of_logits,
    "12-1": lambda: [(4 + 4 + 4) * 3 + 8 * 3 / 8, 20 * 3 / 8],
    "12-2": lambda: [2 * 24 * 4 * 64 * 2, *(2 * 24 * heads * 64 * 2 * 512 * 2000 / 1e9 for heads in (4, 16))],
    "12-3": lambda: [max(9, 12) + 6, max(9 / 0.6, 6 / 0.4, 12)],
    "12-4": lambda: [effective(1, 1, 1, 5), effective(1, 1, 1, 2)],
    "13-1": adapter,
    "13-2": lambda: [1 - 0.5 ** (1 / 16), 100 * silent(0.005, 16)],
    "14-1": best_of_eight,
    "14-2": lambda: [fmean([4, 2])],
}  # fmt: skip
