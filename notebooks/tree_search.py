"""Two ways to spend tokens on one puzzle: search its tree, or sample whole attempts.

The tree of a signs puzzle is small enough to be written out: a node is an attempt's first signs, a
leaf a whole attempt. Everything a model says about it is asked once and kept in a table, and the
searches run over the table, paying for each step as if it were written only then.
"""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch

from process_rewards import ProcessRewardModel, find_steps, solving_signs
from r1lab.models.policy import Policy
from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world import sample_problem
from r1lab.world.puzzles import SIGNS, write_attempt
from r1lab.training.batching import pad_rows


@dataclass(frozen=True)
class Tree:
    """All nodes of a search, parents before their children; node 0 is the root.

    Attributes:
        names: what a node stands for; in the signs puzzle its signs, "" at the root.
        children: of each node; a leaf has none.
        prior: the policy's probability of a node once its parent is reached (1 at the root).
        cost: tokens of the node's own step (0 at the root).
        right: is it a leaf that solves the puzzle?
    """

    names: Sequence[str]
    children: Sequence[Sequence[int]]
    prior: Sequence[float]
    cost: Sequence[int]
    right: Sequence[bool]

    def values(self, *, best: bool) -> list[float]:
        """Compute the exact value of each node, from the leaves up.

        `best`: 1 where a right leaf can still be reached, which is what the PRM is to say. Else the
        chance that the policy, going on by its prior, ends in a right leaf.
        """
        values = [float(right) for right in self.right]
        for node, children in reversed(list(enumerate(self.children))):
            if children and best:
                values[node] = max(values[child] for child in children)
            elif children:
                values[node] = sum(self.prior[child] * values[child] for child in children)
        return values


@torch.no_grad()
def signs_tree(policy: Policy, tokenizer, problem: Problem) -> Tree:
    """Write out the tree of a signs puzzle, with the policy's prior over a first attempt's next sign.

    The prior is renormalised over the two signs; what the policy gives to other tokens is left out.
    """
    texts = attempts(problem)
    prompt = tokenizer(apply_template("small", problem.prompt)).input_ids
    coded = tokenizer(texts)
    logps = policy(*pad_rows([prompt] * len(texts), coded.input_ids, 0)).logp
    chance, cost = {"": 1.0}, {"": 0}
    for place, text in enumerate(texts):
        for step in find_steps(text):
            first, last = (coded.char_to_token(place, at) for at in (step.start, step.end - 1))
            chance[step.signs] = logps[place, first].exp().item()
            cost[step.signs] = last - first + 1
    names = sorted(cost, key=lambda name: (len(name), name))
    children = [[2 * node + 1, 2 * node + 2] for node in range(len(texts) - 1)]  # of inner nodes
    prior = [1.0]
    for pair in children:
        both = [chance[names[child]] for child in pair]
        prior += [weight / sum(both) for weight in both]
    right = [name == solving_signs(problem) for name in names]
    return Tree(names, children + [[]] * len(texts), prior, [cost[name] for name in names], right)


def attempts(problem: Problem) -> list[str]:
    """List all first attempts at a signs puzzle, as the model would write them, without a verdict."""
    chains = SIGNS.chains(problem.meta["numbers"])
    return [f"<think> {write_attempt(*chain, problem.meta['target'])[0]}" for chain in chains]


def learned_values(prm: ProcessRewardModel, problem: Problem, tree: Tree) -> list[float]:
    """Ask the PRM about each node; of the root, which has no step, it says the base rate 1/2."""
    texts, prompt = attempts(problem), apply_template("small", problem.prompt)
    said = {"": 0.5}
    for text, scores in zip(texts, prm.scores([(prompt, text) for text in texts])):
        said |= {step.signs: score for step, score in zip(find_steps(text), scores)}
    return [said[name] for name in tree.names]


def value_error(trees: Sequence[Tree], said: Sequence[Sequence[float]], depth: int) -> dict:
    """Compute at one depth the PRM's squared error, that of the constant 2^-depth, and right choices.

    A choice is right where the sibling from which the target can be reached is the higher one.
    """
    errors, choices = [], []
    for tree, value in zip(trees, said):
        exact = tree.values(best=True)
        errors += [(value[n] - exact[n]) ** 2 for n, k in enumerate(tree.names) if len(k) == depth]
        for pair in tree.children:
            if pair and len(tree.names[pair[0]]) == depth and any(exact[n] for n in pair):
                good, bad = sorted(pair, key=lambda n: -exact[n])
                choices.append(value[good] > value[bad])
    base_rate = 0.5**depth
    return {"error": fmean(errors), "blind": base_rate * (1 - base_rate), "right": fmean(choices)}


def held_out_puzzles(level: int, count: int) -> list[Problem]:
    """Draw different English puzzles of a level, from the held-out side."""
    rng, problems = random.Random(f"search/0/{level}"), {}
    while len(problems) < count:
        problem = sample_problem(rng, "signs", level, "en", for_test=True)
        problems[problem.id] = problem
    return list(problems.values())


@dataclass
class Search:
    """A search in a tree, for `budget` tokens; `readers` models read each one.

    Attributes:
        visits: of each node, by finished simulations; the one that ends the search is none.
        totals: of each node, the sum of the values found on these visits.
        written: the nodes in the order in which they were written.
        spent: tokens.
        found_at: tokens spent when the right leaf was written, None where it never was.
    """

    tree: Tree
    budget: int
    readers: int = 1
    visits: dict = field(default_factory=Counter)
    totals: dict = field(default_factory=Counter)
    written: list = field(default_factory=list)
    spent: int = 0
    found_at: int | None = None

    def write(self, nodes: Sequence[int]) -> bool:
        """Pay for these nodes and write them. False where the search ends: no tokens, or found."""
        price = self.readers * sum(self.tree.cost[node] for node in nodes)
        if self.spent + price > self.budget:
            return False
        self.spent += price
        self.written += nodes
        if any(self.tree.right[node] for node in nodes):
            self.found_at = self.spent
        return self.found_at is None

    def puct(self, child: int, siblings: int, c: float) -> float:
        """Score a child to visit: its mean value, and a bonus for what is likely and rarely visited.

        Q + c P sqrt(N) / (1 + n), the rule of AlphaGo Zero; N = `siblings` counts the visits of all
        children of the parent, n those of this one. Unvisited children have the value 0.
        """
        visits = self.visits[child]
        mean = self.totals[child] / max(1, visits)
        return mean + c * self.tree.prior[child] * math.sqrt(siblings) / (1 + visits)


def mcts(
    tree: Tree, values: Sequence[float] | None, budget: int, *, c: float = 1.0, readers: int = 1,
    width: int | None = None, rng: random.Random | None = None
) -> Search:  # fmt: skip
    """Go through a tree by Monte Carlo tree search (PUCT) until the right leaf is written or the budget is spent.

    A simulation walks down from the root to the first node that is not written yet, writes it, and
    adds its value to all nodes on the way. A leaf's value is the rule's verdict. Walking over what
    is written costs no tokens, so that the number of simulations has a bound of its own.

    Args:
        values: of inner nodes; None: each is the verdict on a rollout by the prior, paid in tokens,
            which `rng` draws.
        budget: tokens; what would be written beyond it is not.
        readers: models that read each token; 2 where a value model reads along.
        width: follow only so many children of a node, the likeliest first.
    """
    search = Search(tree, budget, readers)
    for _ in range(50 * len(tree.names)):
        path = [0]
        while (children := tree.children[path[-1]]) and (len(path) == 1 or search.visits[path[-1]]):
            ranked = sorted(children, key=lambda child: -tree.prior[child])
            siblings = sum(search.visits[child] for child in children)
            path.append(max(ranked[:width], key=lambda child: search.puct(child, siblings, c)))
        new = [] if search.visits[path[-1]] else path[-1:]
        ahead = _roll(tree, path[-1], rng) if values is None else []
        if not search.write(new + ahead):
            break
        last = (path + ahead)[-1]
        value = values[last] if tree.children[last] else float(tree.right[last])
        for node in path:
            search.visits[node] += 1
            search.totals[node] += value
    return search


def best_of_n(tree: Tree, budget: int, rng: random.Random) -> Search:
    """Write whole attempts by the prior, one after the other, until one is right or tokens run out."""
    search = Search(tree, budget)
    while search.write(_roll(tree, 0, rng)):
        pass
    return search


def _roll(tree, node, rng):
    """Walk down to a leaf by the prior; return the nodes below `node` itself."""
    path = [node]
    while children := tree.children[path[-1]]:
        path += rng.choices(children, [tree.prior[child] for child in children])
    return path[1:]
