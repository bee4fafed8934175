"""The exercises on values and texts (notebooks 02, 03, 10 and 12).

The examples of `examples.json`, [why, arguments, what must come out], then generated ones.
"""

import random
from collections import Counter
from fractions import Fraction
from itertools import product
from math import comb

from r1lab.lab.check.engine import exercise, kind, require
from r1lab.rewards import parse
from r1lab.training import batching

EVALUATED = []  # what an answer fills that is executed instead of read


@exercise
def format_reward(ask):
    """fn(completion) -> 1.0 for <think>…</think> then <answer>…</answer>, nothing else; or 0.0."""
    ask.examples()
    parts = ("<think> a ", "</think>\n", "<answer> 7 ", "</answer>", "", "b")
    for chosen in product(parts, repeat=5):
        text = "".join(chosen)
        tidy = float(parse(text).well_formed)
        ask.example("each tag once, in order, nothing outside", [text], tidy)


@exercise
def final_answer(ask):
    """fn(completion) -> the one answer, or None where there is none or several different ones."""
    ask.examples()


@exercise
def language_consistency(ask):
    """fn(words, is_target) -> share of target-language words among words with letters."""

    def in_list(words, language):
        def is_target(word):
            return word in language

        is_target.__name__ = f"is_target: one of {language}"
        return words, is_target

    ask.examples(in_list)


@exercise
def safe_accuracy(ask):
    """fn(answer, gold) -> do two whole numbers or fractions have the same value? Never executed."""
    EVALUATED.clear()
    ask.examples()
    never = "a model's text is never run: read it with a pattern or with Fraction"
    require(not EVALUATED, f"your function executed an answer, {ask.last}; {never}.")
    values = {Fraction(*both) for both in product(range(-5, 6), (1, 2, 3, 10))}
    for answer, gold in product(values, repeat=2):
        ask.example("compared as values", [str(answer), str(gold)], answer == gold)
    for one in values:
        same = f"{3 * one.numerator}/{3 * one.denominator}"
        ask.example("the same value", [same, str(one)], True)


@exercise
def pass_at_k(ask):
    """fn(n, correct, k) -> chance that k of n samples, drawn without replacement, hold a right one."""
    ask.examples()
    small = (one for one in product(range(10), repeat=3) if 1 <= one[2] <= one[0] >= one[1])
    for n, right, k in [(2000, 3, 100), (64, 3, 16), *small]:
        ask.example("1 - C(n-c, k) / C(n, k)", [n, right, k], 1 - comb(n - right, k) / comb(n, k))


@exercise
def majority_vote(ask):
    """fn(answers) -> the most frequent answer; None does not vote; ties go to the first seen."""
    ask.examples()
    for answers in product(["7", "12", "-3", None], repeat=5):
        votes = Counter(filter(None, answers))
        winner = max(votes, key=votes.get, default=None)
        ask.example("most votes, then first seen", [list(answers)], winner)


@exercise
def reflection_rate(ask):
    """fn(completions, markers) -> mean number of marker words, whole ones, in a completion."""
    ask.examples(lambda texts, markers: (texts, set(markers)))


@exercise
def tree_value(ask):
    """fn(node) -> chance to end right: a node is its leaf's 0 or 1, or [(chance, node), ...]."""

    def pairs(node):
        """The node with its children as tuples, which JSON has not."""
        if isinstance(node, int):
            return node
        return [(chance, pairs(child)) for chance, child in node]

    ask.examples(lambda node: [pairs(node)])


@exercise
def puct_score(ask):
    """fn(total, visits, prior, siblings, c) -> total/visits + c prior sqrt(siblings)/(1 + visits)."""
    ask.examples()


@exercise
def bytes_on_gpu(ask):
    """fn(weights, gpus, sharded: set of names) -> bytes that one GPU holds: 4, 4 and 8 a weight."""
    ask.examples(lambda weights, gpus, sharded: (weights, gpus, set(sharded)))


@exercise
def best_fit(ask):
    """fn(lengths: list, capacity) -> lists of row numbers, packed longest first by best fit."""
    rng = random.Random(0)
    drawn = [[rng.randint(1, 30) for _ in range(rng.randint(1, 25))] for _ in range(25)]
    for lengths in ([7, 6, 3, 4], [5, 5], [6, 4, 5, 5, 3], [4, 12, 6], [], *drawn):
        capacity, numbers = 10 if max(lengths, default=0) <= 12 else 32, range(len(lengths))
        lines, _ = ask(lengths, capacity)
        listed = isinstance(lines, list) and all(isinstance(line, list) for line in lines)
        once = listed and sorted(map(repr, sum(lines, []))) == sorted(map(repr, numbers))
        each = f"a list of lists with each row from 0 to {len(lengths) - 1} in one of them"
        require(once, f"your function returns {kind(lines)} for {ask.last}; {each} is expected.")
        yours, best = (
            sorted(sum(lengths[row] for row in line) for line in packed)
            for packed in (lines, batching.best_fit(lengths, numbers, capacity))
        )
        rule = "longest first, each into the fullest line that it fits in, fills the lines with"
        require(yours == best, f"{rule} {best} tokens for {ask.last}; yours hold {yours}.")
