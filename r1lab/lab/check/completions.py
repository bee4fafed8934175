"""The exercises on values and texts (notebooks 02, 03, 10 and 12).

Each is asked about its cases in `examples.json`, [why, arguments, what must come out].
"""

from r1lab.lab.check.engine import EXAMPLES, exercise, kind, require

EVALUATED = []  # what an answer fills that is executed instead of read


@exercise
def format_reward(ask):
    """fn(completion) -> 1.0 for <think>…</think> then <answer>…</answer>, nothing else; or 0.0."""
    ask.examples()


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


@exercise
def pass_at_k(ask):
    """fn(n, correct, k) -> chance that k of n samples, drawn without replacement, hold a right one."""
    ask.examples()


@exercise
def majority_vote(ask):
    """fn(answers) -> the most frequent answer; None does not vote; ties go to the first seen."""
    ask.examples()


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
    for why, (lengths, capacity), best in EXAMPLES["best_fit"]:
        lines, _ = ask(lengths, capacity)
        listed = isinstance(lines, list) and all(isinstance(line, list) for line in lines)
        once = listed and sorted(map(repr, sum(lines, []))) == sorted(map(repr, range(len(lengths))))
        each = f"a list of lists with each row from 0 to {len(lengths) - 1} in one of them"
        require(once, f"your function returns {kind(lines)} for {ask.last}; {each} is expected.")
        yours = sorted(sum(lengths[row] for row in line) for line in lines)
        require(yours == best, f"{why}, fills the lines with {best} tokens for {ask.last}; yours hold {yours}.")
