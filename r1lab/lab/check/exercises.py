"""The exercises: rows of `exercises.toml`, and those that JSON cannot hold or that need a rule of their own.

Each is asked about its cases in `examples.json`: [why, arguments, truth], or for tensors [why, arguments,
right answers], where an answer is [result, slopes] and the nearest of the right ones judges.
"""

from collections.abc import Sequence

import torch

from r1lab.files import read_toml
from r1lab.lab.check.engine import EXAMPLES, exercise, kind, require

EVALUATED = []  # what an answer fills that is executed instead of read


def stored(name: str, asks: str, words: str = "", slopes: Sequence[int] = (), scalars: bool = False):
    """Make the exercise of a row of `exercises.toml`."""

    def properties(ask):
        if words:
            ask.cases(words, slopes, list | float if scalars else list)
        else:
            ask.examples()

    properties.__name__, properties.__doc__ = name, asks
    exercise(properties)


for name, row in read_toml(__file__, "exercises").items():
    stored(name, **row)


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
def bytes_on_gpu(ask):
    """fn(weights, gpus, sharded: set of names) -> bytes that one GPU holds: 4, 4 and 8 a weight."""
    ask.examples(lambda weights, gpus, sharded: (weights, gpus, set(sharded)))


@exercise
def best_fit(ask):
    """fn(lengths: list, capacity) -> lists of row numbers, packed longest first by best fit."""
    for why, (lengths, capacity), best in EXAMPLES["best_fit"]:
        lines, _ = ask(lengths, capacity)
        listed = isinstance(lines, list) and all(isinstance(line, list) for line in lines)
        once = listed and sorted(map(repr, sum(lines, []))) == sorted(map(repr, range(len(lengths))))
        each = f"a list of lists with each row from 0 to {len(lengths) - 1} in one of them"
        require(once, f"your function returns {kind(lines)} for {ask.last}; {each} is expected.")
        yours = sorted(sum(lengths[row] for row in line) for line in lines)
        rule = f"{why}, fills the lines with {best} tokens"
        require(yours == best, f"{rule} for {ask.last}; yours hold {yours}.")


@exercise
def tis_weight(ask):
    """fn(trainer [batch, tokens], sampler [batch, tokens], cap) -> min(exp(trainer - sampler), cap)."""
    ask.cases("for log p = {0:.3g} of the trainer and {1:.3g} of the sampler the weight")
    result, _ = ask(torch.zeros(1, 3), torch.ones(1, 3), 5.0, wrt=(0,))
    fault = "the weight is a number by which the loss is multiplied; a gradient flows through yours"
    require(not result.requires_grad, f"{fault} for {ask.last}: detach it.")
