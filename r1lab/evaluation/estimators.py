"""Accuracy from k samples per problem, and how sure one can be of it.

Everything here is a pure function of numpy arrays of shape [problem, sample] or [problem]. A problem's
pass@1 is the share of its k samples that are right, 1/k Σ p_i in the paper: the mean over axis 1.
Headline numbers are means over levels: a level counts the same however many problems it has.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, Num

from r1lab.errors import InputError

UNANSWERED = -1
PerProblem, PerSample = Num[np.ndarray, "problem"], Num[np.ndarray, "problem sample"]
Counts, Pooled = Int[np.ndarray, "problem"], Num[np.ndarray, "*seed problem"]
RESAMPLES, CONFIDENCE = 2000, 0.95


class Estimate(NamedTuple):
    """A mean over levels with the bounds of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def pass_at_k(n: int, correct_counts: Counts, k: int) -> PerProblem:
    """Estimate each problem's chance that k of n samples, drawn without replacement, hold a right one.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, eq. 1), as the product
    1 - Π_{i=n-c+1..n} (1 - k/i), which never forms a large binomial.
    Raises InputError unless 1 <= k <= n.
    """
    if not 1 <= k <= n:
        raise InputError(f"pass@{k} needs k >= 1 and at least k samples per problem, not {n}.")
    # Past i = k the factors would be negative, but the factor at i = k has made the product zero.
    factors = np.maximum(0.0, 1.0 - k / np.arange(n, 0, -1))
    all_wrong = np.concatenate([[1.0], np.cumprod(factors)])
    return 1.0 - all_wrong[correct_counts]


def cons_at_k(answers: PerSample, correct: PerSample) -> PerProblem:
    """Score a majority vote over all samples given, per problem.

    `answers` numbers the distinct answers of a problem; UNANSWERED does not vote, unless no sample
    of the problem has an answer. A tie is broken at random in expectation: the value is the mean
    accuracy of the tied answers, so it does not depend on the order of the samples.
    """
    voters = answers != UNANSWERED
    voters |= ~voters.any(axis=1, keepdims=True)
    same = answers[:, :, None] == answers[:, None, :]
    votes = np.where(voters, same.sum(axis=2), 0)
    # Tied answers have equally many voters: the mean over their voters is the mean over answers.
    winners = votes == votes.max(axis=1, keepdims=True)
    return (winners * correct).sum(axis=1) / winners.sum(axis=1)


def macro_mean(values: PerProblem, levels: Counts) -> float:
    """Average over levels the mean over a level's problems."""
    return float(np.mean([values[levels == level].mean() for level in np.unique(levels)]))


def bootstrap_ci(
    values: Pooled, levels: Counts, seed: int = 0, span: tuple[float, float] = (0.0, 1.0)
) -> Estimate:
    """Average over levels, with the percentile interval from resampling problems within each level.

    Where resampling changes nothing, because all n problems have the same value, the interval is the
    exact one of Clopper and Pearson (1934): a chance of 1 - (α/2)^(1/n) that a new problem differs is
    compatible with n that do not, and then its value may be anything in `span`. Of n = 16 problems,
    all right, that gives (α/2)^(1/n) = 0.794 to 1. n is the number of problems, not of samples.
    With a leading axis of training seeds a problem carries its mean over them (seeds pooled): the
    interval then speaks of new problems, not of new seeds, which is why each seed is shown as well.
    """
    pooled = values.mean(axis=0) if values.ndim == 2 else values
    rng, means, strata = np.random.default_rng(seed), np.zeros(RESAMPLES), np.unique(levels)
    for level in strata:
        at_level = pooled[levels == level]
        n = len(at_level)
        # How often each problem is drawn in n draws with replacement, for all resamples at once.
        draws = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
        means += draws @ at_level / n
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means / len(strata), [tail, 1 - tail])
    mean = macro_mean(pooled, levels)
    if high - low < 1e-9:
        other = 1 - tail ** (1 / len(pooled))
        low, high = (mean + other * (choose(end, mean) - mean) for choose, end in zip((min, max), span))
    return Estimate(mean, float(low), float(high))


def paired_bootstrap(treatment: Pooled, control: Pooled, levels: Counts, seed: int = 0) -> Estimate:
    """Compare two arms on the same problems: their difference, with the interval of `bootstrap_ci`.

    Resampling the differences keeps what the arms share, the problems' difficulty, out of the
    interval.
    """
    return bootstrap_ci(treatment - control, levels, seed, span=(-1.0, 1.0))
