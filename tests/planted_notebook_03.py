"""Solutions of notebook 03's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import math
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import torch
from tests.planted_edits import edited, edits

RIGHT, WRONG = {}, {}

# ---- pass_at_k(n, correct, k) --------------------------------------------------------------------


def pass_by_product(n, correct, k):
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1 - k / i for i in range(n - correct + 1, n + 1))


def pass_by_drawing(n, correct, k):
    """All wrong: the first draw is, and the second of what is left, and so on."""
    missed = Fraction(1)
    for drawn in range(k):
        missed *= Fraction(max(0, n - correct - drawn), n - drawn)
    return float(1 - missed)


def pass_by_int64_products(n, correct, k):
    with np.errstate(all="ignore"):
        missed, every = (np.prod(np.arange(m, m - k, -1, dtype=np.int64)) for m in (n - correct, n))
        return 1.0 - missed / every


def pass_by_trials(n, correct, k):
    generator = np.random.default_rng(0)
    outcomes = np.arange(n) < correct
    return np.mean([generator.permutation(outcomes)[:k].any() for _ in range(100)])


RIGHT["pass_at_k"] = {
    "two binomials": lambda n, c, k: 1 - math.comb(n - c, k) / math.comb(n, k),
    "a product of factors below 1": pass_by_product,
    "exact, draw by draw": pass_by_drawing,
    "torch, returned as a tensor": lambda n, c, k:
        1 - (1 - k / torch.arange(n - c + 1, n + 1).double()).prod(),
}
WRONG["pass_at_k"] = {
    "biased: 1 - (1 - c/n)^k": lambda n, c, k: 1 - (1 - c / n) ** k,
    "pass@1 whatever k": lambda n, c, k: c / n,
    "k chances added up": lambda n, c, k: min(1.0, k * c / n),
    "the chance that all fail": lambda n, c, k: math.comb(n - c, k) / math.comb(n, k),
    "the chance that all k are right": lambda n, c, k: math.comb(c, k) / math.comb(n, k),
    "the chance of exactly one right": lambda n, c, k: c * math.comb(n - c, k - 1) / math.comb(n, k),
    "1 as soon as any sample is right": lambda n, c, k: float(c > 0),
    "a right sample too few": lambda n, c, k: 1 - math.comb(n - max(0, c - 1), k) / math.comb(n, k),
    "factorials of negative numbers raise": lambda n, c, k:
        1 - (math.factorial(n - c) * math.factorial(n - k) / math.factorial(n - c - k) / math.factorial(n)),
    "64-bit products overflow at k = 16": pass_by_int64_products,
    "estimated from 100 random draws": pass_by_trials,
}  # fmt: skip

# ---- majority_vote(answers) ----------------------------------------------------------------------


def vote_in_a_loop(answers):
    winner, most = None, 0
    for answer in answers:
        if answer is not None and answers.count(answer) > most:
            winner, most = answer, answers.count(answer)
    return winner


def vote_by_sorting(answers):
    seen = [answer for answer in answers if answer is not None]
    ranked = sorted(set(seen), key=lambda answer: (-seen.count(answer), seen.index(answer)))
    return ranked[0] if ranked else None


def vote(answers):
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=counts.get) if counts else None


def vote_removing(answers):
    answers[:] = [answer for answer in answers if answer is not None]
    return vote(answers)


def vote_removing_while_looping(answers):
    kept = list(answers)
    for answer in kept:
        if answer is None:
            kept.remove(answer)
    return Counter(kept).most_common(1)[0][0] if kept else None


RIGHT["majority_vote"] = {
    "Counter.most_common": lambda votes:
        (Counter(vote for vote in votes if vote is not None).most_common(1) or [(None, 0)])[0][0],
    "a loop": vote_in_a_loop,
    "sorted by count and first place": vote_by_sorting,
}
WRONG["majority_vote"] = edits(vote, {
    "None votes, too": (" if answer is not None", ""),
    "raises on an empty list": (" if counts else None", ""),
    "ties go to the one seen last": ("in answers", "in reversed(answers)"),
    "ties go to the first in the alphabet": ("max(counts", "max(sorted(counts)"),
    "ties go to the longest": ("max(counts", "max(sorted(counts, key=len, reverse=True)"),
    "a tie is no winner": ("if counts", "if counts and len(counts) == len(set(counts.values()))"),
    "needs more than half of all votes": (
        "if counts", "if max(counts.values(), default=0) * 2 > len(answers)"),
}) | {
    "the first answer, unless None": lambda answers: next((a for a in answers if a is not None), None),
    "a pair instead of the winner": lambda answers: (vote(answers), len(answers)),
    "the word None instead of None": lambda answers: str(vote(answers)),
    "an empty string where nobody voted": lambda answers: vote(answers) or "",
    "removes None from its input": vote_removing,
    "skips every second None": vote_removing_while_looping,
}  # fmt: skip

# ---- reflection_rate(completions, markers) -------------------------------------------------------


def words(text):
    return re.findall(r"\w+", text.lower())


def rate_by_pattern(completions, markers):
    if not completions or not markers:
        return 0.0
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, markers))})\b", re.IGNORECASE)
    return sum(len(pattern.findall(text)) for text in completions) / len(completions)


def rate_in_a_loop(completions, markers):
    total = 0
    for text in completions:
        spaced = "".join(c if c.isalnum() else " " for c in text)
        for word in spaced.lower().split():
            if word in markers:
                total += 1
    return total / max(1, len(completions))


def rate(completions, markers):
    counts = [sum(word in markers for word in words(text)) for text in completions]
    return sum(counts) / len(counts) if counts else 0.0


def rate_without_end(completions, markers):
    total = 0
    for text in completions:
        for marker in markers:
            place = text.find(marker)
            while place >= 0:
                total += 1
                place = text.find(marker, place)
    return total / max(1, len(completions))


RIGHT["reflection_rate"] = {
    "Counter of words": edited(
        rate, "word in markers for word in words(text)", "Counter(words(text))[one] for one in markers"),
    "one pattern with word boundaries": rate_by_pattern,
    "a loop over words": rate_in_a_loop,
}  # fmt: skip
WRONG["reflection_rate"] = {"an endless loop": rate_without_end} | edits(rate, {
    "substrings: waiter and await count": (
        "word in markers for word in words(text)", "text.lower().count(one) for one in markers"),
    "beginnings of words: waiter counts": (
        "word in markers for word in words(text)",
        r"len(re.findall(rf'\b{one}', text.lower())) for one in markers"),
    "split at spaces only: `wait,` is missed": ("words(text)", "text.lower().split()"),
    "share of completions with a marker": ("[sum(", "[any("),
    "each marker once per completion": ("words(text)", "set(words(text))"),
    "only one of the markers": ("word in markers", "word == min(markers)"),
    "per word instead of per completion": ("len(counts)", "max(1, len(words(' '.join(completions))))"),
    "per completion that has a marker": ("len(counts)", "max(1, len(counts) - counts.count(0))"),
    "a sum instead of a mean": ("sum(counts) / len(counts)", "float(sum(counts))"),
    "rounded down": ("sum(counts) / len(counts)", "float(sum(counts) // len(counts))"),
    "raises on an empty list": (" if counts else 0.0", ""),
    "NaN on an empty list": ("else 0.0", "else math.nan"),
})  # fmt: skip
