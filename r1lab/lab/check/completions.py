"""The exercises on rewards (notebook 02) and on measuring (notebook 03).

The examples of `examples.json`, [why, arguments, what must come out], then generated ones.
"""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction
from itertools import combinations
from statistics import fmean

import numpy as np

from r1lab.evaluation import estimators
from r1lab.evaluation.text import count_words
from r1lab.lab.check.engine import Asked, exercise, require
from r1lab.rewards import parse

EVALUATED: list[int] = []  # what an answer fills that is executed instead of read


@exercise
def format_reward(ask: Asked) -> None:
    """fn(completion) -> 1.0 for <think>…</think> then <answer>…</answer>, nothing else; or 0.0."""
    ask.examples("format_reward")
    rng = random.Random(0)
    parts = ["<think>", "a b", "</think>", " ", "<answer>", "7", "</answer>", "\n"]
    for _ in range(300):
        one = list(parts)
        for _ in range(rng.randint(0, 2)):
            place = rng.randrange(len(one))
            one[place : place + 1] = rng.choice([[], [rng.choice(parts)], [one[place]] * 2])
        text = "".join(one)
        if "<answer></answer>" not in "".join(text.split()):  # an empty answer: either way
            tidy = float(parse(text).well_formed)
            ask.example("each tag once, in order, nothing outside", [text], tidy)


@exercise
def final_answer(ask: Asked) -> None:
    """fn(completion) -> the one answer, or None where there is none or several different ones."""
    ask.examples("final_answer")


@exercise
def language_consistency(ask: Asked) -> None:
    """fn(words, is_target) -> share of target-language words among words with letters."""

    def in_list(words: list[str], language: list[str]) -> tuple:
        def is_target(word: str) -> bool:
            return word in language

        is_target.__name__ = f"is_target: one of {language}"
        return words, is_target

    ask.examples("language_consistency", in_list)


@exercise
def safe_accuracy(ask: Asked) -> None:
    """fn(answer, gold) -> do two whole numbers or fractions have the same value? Never executed."""

    def never_executed(answer: str, gold: str) -> tuple[str, str]:
        require(not EVALUATED, "your function executed an answer; a model's text is never run: "
                "read it with a pattern or with Fraction.")  # fmt: skip
        return answer, gold

    EVALUATED.clear()
    ask.examples("safe_accuracy", never_executed)
    never_executed("", "")
    rng = random.Random(0)
    for _ in range(60):
        gold, other = (Fraction(rng.randint(-30, 30), rng.randint(1, 12)) for _ in range(2))
        times = rng.randint(2, 5)
        same = f"{gold.numerator * times}/{gold.denominator * times}"
        ask.example("the same value", [same, str(gold)], True)
        ask.example("compared as values", [str(other), str(gold)], other == gold)


@exercise
def pass_at_k(ask: Asked) -> None:
    """fn(n, correct, k) -> chance that k of n samples, drawn without replacement, hold a right one."""
    ask.examples("pass_at_k")
    for n, right, k in ((4, 1, 2), (5, 2, 2), (6, 2, 3), (7, 3, 4)):
        draws = list(combinations([1] * right + [0] * (n - right), k))
        lucky = sum(map(any, draws))
        why = f"of the {len(draws)} ways to draw {k} of {n}, {lucky} hold a right one"
        ask.example(why, [n, right, k], lucky / len(draws))
    rng = random.Random(0)
    drawn = [(n, rng.randint(0, n), rng.randint(1, n)) for n in range(1, 41)]
    for n, right, k in [(2000, 3, 100), (64, 3, 16), *drawn]:
        truth = float(estimators.pass_at_k(n, np.array([right]), k)[0])
        ask.example("1 - C(n-c, k) / C(n, k)", [n, right, k], truth)


@exercise
def majority_vote(ask: Asked) -> None:
    """fn(answers) -> the most frequent answer; None does not vote; ties go to the first seen."""
    ask.examples("majority_vote")
    rng = random.Random(0)
    for _ in range(60):
        answers = rng.choices(["7", "12", "-3", "0", None], k=rng.randint(1, 9))
        votes = Counter(answer for answer in answers if answer is not None)
        winner = max(votes, key=votes.get) if votes else None
        ask.example("most votes, then first seen", [answers], winner)


@exercise
def reflection_rate(ask: Asked) -> None:
    """fn(completions, markers) -> mean number of marker words, whole ones, in a completion."""
    ask.examples("reflection_rate", lambda texts, markers: (texts, set(markers)))
    rng, markers = random.Random(0), {"wait", "but", "retry"}
    words = [*sorted(markers), "butter", "ok", "13:13", "wait,"]
    for _ in range(40):
        texts = [" ".join(rng.choices(words, k=6)) for _ in range(rng.randint(1, 4))]
        truth = fmean(count_words(text, markers) for text in texts)
        ask.example("the mean number", [texts, markers], truth)
