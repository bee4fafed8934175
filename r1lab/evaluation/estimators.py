"""Accuracy from k samples per problem, and how sure one can be of it.

Everything here is a pure function of numpy arrays of shape [problem, sample] or [problem].
Headline numbers are means over levels: a level counts the same however many problems it has.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from r1lab.errors import InputError

UNANSWERED = -1


class Estimate(NamedTuple):
    """A mean over levels with the bounds of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def pass_at_1(correct: Num[np.ndarray, "problem sample"]) -> Float[np.ndarray, "problem"]:
    """Share of the k samples that are right, per problem: the paper's pass@1 = 1/k Σ p_i.

    Raises InputError where there is no problem or no sample.
    """
    return _checked(correct).mean(axis=1)


def pass_at_k(
    n: int, correct_counts: Int[np.ndarray, "problem"], k: int
) -> Float[np.ndarray, "problem"]:
    """Chance that k of n samples, drawn without replacement, hold a right one, per problem.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, eq. 1), as the product
    1 - Π_{i=n-c+1..n} (1 - k/i), which never forms a large binomial.
    Raises InputError unless 1 <= k <= n and every count lies in 0..n.
    """
    counts = correct_counts
    if not 1 <= k <= n:
        raise InputError(f"pass@{k} needs k >= 1 and at least k samples per problem, not {n}.")
    if counts.size == 0 or counts.min() < 0 or counts.max() > n:
        raise InputError(f"pass@{k} needs counts of right answers between 0 and {n}, at least one.")
    # Past i = k the factors would be negative, but the factor at i = k has made the product zero.
    factors = np.maximum(0.0, 1.0 - k / np.arange(n, 0, -1))
    all_wrong = np.concatenate([[1.0], np.cumprod(factors)])
    return 1.0 - all_wrong[counts]


def cons_at_k(
    answers: Int[np.ndarray, "problem sample"], correct: Num[np.ndarray, "problem sample"]
) -> Float[np.ndarray, "problem"]:
    """Accuracy of a majority vote over all samples given, per problem.

    `answers` numbers the distinct answers of a problem; UNANSWERED does not vote, unless no sample
    of the problem has an answer. A tie is broken at random in expectation: the value is the mean
    accuracy of the tied answers, so it does not depend on the order of the samples.
    Raises InputError where there is no problem or no sample.
    """
    correct = _checked(correct)
    voters = answers != UNANSWERED
    voters |= ~voters.any(axis=1, keepdims=True)
    same = answers[:, :, None] == answers[:, None, :]
    votes = np.where(voters, same.sum(axis=2), 0)
    # Tied answers have equally many voters: the mean over their voters is the mean over answers.
    winners = votes == votes.max(axis=1, keepdims=True)
    return (winners * correct).sum(axis=1) / winners.sum(axis=1)


def macro_mean(values: Num[np.ndarray, "problem"], levels: Int[np.ndarray, "problem"]) -> float:
    """Mean over levels of the mean over a level's problems."""
    return float(np.mean([values[rows].mean() for rows in _strata(levels)]))


def bootstrap_ci(
    values: Num[np.ndarray, "*seed problem"],
    levels: Int[np.ndarray, "problem"],
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean over levels and its percentile interval from resampling problems within each level.

    With a leading axis of training seeds a problem carries its mean over them (seeds pooled): the
    interval then speaks of new problems, not of new seeds, which is why each seed is shown as well.
    Raises InputError where there is nothing to resample or a value is not a number.
    """
    pooled = values.mean(axis=0) if values.ndim == 2 else values
    strata = _strata(levels)
    if not np.isfinite(pooled).all():
        raise InputError("A bootstrap needs finite values; leave out problems that have none.")
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for rows in strata:
        n = rows.sum()
        # How often each problem is drawn in n draws with replacement, for all resamples at once.
        draws = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
        means += draws @ pooled[rows] / n
    tail = (1 - confidence) / 2
    low, high = np.quantile(means / len(strata), [tail, 1 - tail])
    return Estimate(macro_mean(pooled, levels), float(low), float(high))


def paired_bootstrap(
    treatment: Num[np.ndarray, "*seed problem"],
    control: Num[np.ndarray, "*seed problem"],
    levels: Int[np.ndarray, "problem"],
    **options: float,
) -> Estimate:
    """Difference of two arms on the same problems, with the interval of `bootstrap_ci`.

    Resampling the differences keeps what the arms share, the problems' difficulty, out of the
    interval.
    """
    return bootstrap_ci(treatment - control, levels, **options)


def _checked(correct: Num[np.ndarray, "problem sample"]) -> Num[np.ndarray, "problem sample"]:
    if correct.size == 0:
        raise InputError(f"Grades [problem, sample] are empty: {correct.shape}; evaluate first.")
    return correct


def _strata(levels: Int[np.ndarray, "problem"]) -> list[Bool[np.ndarray, "problem"]]:
    if levels.size == 0:
        raise InputError("There are no problems to average over; evaluate at least one.")
    return [levels == level for level in np.unique(levels)]
