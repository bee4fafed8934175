"""Solutions of notebook 03's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import math
import re
import statistics
from collections import Counter
from fractions import Fraction

import numpy as np
import torch

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


def pass_by_int64_factorials(n, correct, k):
    def choose(m):
        if m < k:
            return 0
        return np.prod(np.arange(m, m - k, -1, dtype=np.int64))

    with np.errstate(all="ignore"):
        return 1.0 - choose(n - correct) / choose(n)


def pass_by_trials(n, correct, k):
    generator = np.random.default_rng(0)
    outcomes = np.arange(n) < correct
    return np.mean([generator.permutation(outcomes)[:k].any() for _ in range(100)])


RIGHT["pass_at_k"] = {
    "two binomials": lambda n, c, k: 1 - math.comb(n - c, k) / math.comb(n, k),
    "a product of factors below 1": pass_by_product,
    "exact, draw by draw": pass_by_drawing,
    "torch, returned as a tensor": lambda n, correct, k: 1 - torch.prod(
        1 - k / torch.arange(n - correct + 1, n + 1, dtype=torch.float64)
    ),
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
    "factorials of negative numbers raise": lambda n, c, k: (
        1 - (math.factorial(n - c) * math.factorial(n - k) / math.factorial(n - c - k) / math.factorial(n))
    ),
    "64-bit products overflow at k = 16": pass_by_int64_factorials,
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


def vote_of(answers, default=None):
    counts = Counter(answers)
    return max(counts, key=counts.get) if counts else default


def vote(answers):
    return vote_of(answer for answer in answers if answer is not None)


def vote_more_than_half(answers):
    winner = vote(answers)
    return winner if answers.count(winner) * 2 > len(answers) else None


def vote_without_ties(answers):
    counts = Counter(answer for answer in answers if answer is not None)
    return vote(answers) if len(counts) == len(set(counts.values())) else None


def vote_removing(answers):
    while None in answers:
        answers.remove(None)
    return vote_of(answers)


def vote_removing_while_looping(answers):
    kept = list(answers)
    for answer in kept:
        if answer is None:
            kept.remove(answer)
    return vote_of(kept)


RIGHT["majority_vote"] = {
    "Counter.most_common": lambda answers: (
        Counter(a for a in answers if a is not None).most_common(1) or [(None, 0)]
    )[0][0],
    "a loop": vote_in_a_loop,
    "sorted by count and first place": vote_by_sorting,
}
WRONG["majority_vote"] = {
    "None votes, too": vote_of,
    "raises on an empty list": lambda answers: statistics.mode(a for a in answers if a is not None),
    "ties go to the one seen last": lambda answers: vote([answer for answer in reversed(answers)]),
    "ties go to the first in the alphabet": lambda answers: vote(
        sorted(answer for answer in answers if answer is not None)
    ),
    "ties go to the longest": lambda answers: vote(
        sorted((a for a in answers if a is not None), key=len, reverse=True)
    ),
    "a tie is no winner": vote_without_ties,
    "needs more than half of all votes": vote_more_than_half,
    "the first answer, unless None": lambda answers: next(
        (answer for answer in answers if answer is not None), None
    ),
    "a pair instead of the winner": lambda answers: (vote(answers), len(answers)),
    "the word None instead of None": lambda answers: str(vote(answers)),
    "an empty string where nobody voted": lambda answers: vote(answers) or "",
    "removes None from its input": vote_removing,
    "skips every second None": vote_removing_while_looping,
}

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


def rate(completions, count):
    return sum(map(count, completions)) / len(completions) if completions else 0.0


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
    "Counter of words": lambda completions, markers: rate(
        completions, lambda text: sum(Counter(words(text))[marker] for marker in markers)
    ),
    "one pattern with word boundaries": rate_by_pattern,
    "a loop over words": rate_in_a_loop,
}
WRONG["reflection_rate"] = {
    "substrings: waiter and await count": lambda completions, markers: rate(
        completions, lambda text: sum(text.lower().count(marker) for marker in markers)
    ),
    "beginnings of words: waiter counts": lambda completions, markers: rate(
        completions, lambda text: len(re.findall(rf"\b(?:{'|'.join(markers)})", text.lower()))
    ),
    "split at spaces only: `wait,` is missed": lambda completions, markers: rate(
        completions, lambda text: sum(word in markers for word in text.lower().split())
    ),
    "share of completions with a marker": lambda completions, markers: rate(
        completions, lambda text: any(word in markers for word in words(text))
    ),
    "each marker once per completion": lambda completions, markers: rate(
        completions, lambda text: len(markers & set(words(text)))
    ),
    "only one of the markers": lambda completions, markers: rate(
        completions, lambda text: words(text).count(min(markers))
    ),
    "per word instead of per completion": lambda completions, markers: (
        sum(word in markers for text in completions for word in words(text))
        / max(1, sum(len(words(text)) for text in completions))
    ),
    "per completion that has a marker": lambda completions, markers: rate(
        [text for text in completions if markers & set(words(text))],
        lambda text: sum(word in markers for word in words(text)),
    ),
    "a sum instead of a mean": lambda completions, markers: float(
        sum(word in markers for text in completions for word in words(text))
    ),
    "rounded down": lambda texts, markers: (
        float(sum(word in markers for text in texts for word in words(text)) // max(1, len(texts)))
    ),
    "raises on an empty list": lambda completions, markers: statistics.mean(
        sum(word in markers for word in words(text)) for text in completions
    ),
    "NaN on an empty list": lambda texts, markers: (
        rate(texts, lambda text: sum(word in markers for word in words(text))) if texts else math.nan
    ),
    "an endless loop": rate_without_end,
}  # fmt: skip
