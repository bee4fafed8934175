"""Estimators: exact against enumeration, intervals against simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from r1lab.errors import InputError
from r1lab.evaluation.estimators import (
    UNANSWERED, bootstrap_ci, cons_at_k, macro_mean, paired_bootstrap, pass_at_k,
)  # fmt: skip


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets_of_k_samples(n, data):
    k = data.draw(st.integers(1, n))
    grades = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    enumerated = np.mean([any(chosen) for chosen in itertools.combinations(grades, k)])
    assert pass_at_k(n, np.array([sum(grades)]), k)[0] == pytest.approx(enumerated, abs=1e-12)


def test_pass_at_k_is_unbiased_and_stays_exact_where_binomials_are_huge():
    assert pass_at_k(10_000, np.array([1]), 5_000)[0] == pytest.approx(0.5, abs=1e-9)
    n, k, p = 6, 3, 0.2
    counts = np.arange(n + 1)
    chance = [math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]
    assert pass_at_k(n, counts, k) @ chance == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def by_hand(answers, grades):
    """Majority vote written out: mean grade of the answers with the most votes."""
    votes = {a: answers.count(a) for a in answers if a != UNANSWERED} or {UNANSWERED: len(answers)}
    tied = [a for a in votes if votes[a] == max(votes.values())]
    return np.mean([grades[answers.index(a)] for a in tied])


@given(st.lists(st.integers(UNANSWERED, 3), min_size=1, max_size=9), st.sets(st.integers(0, 3)))
def test_cons_is_the_expected_grade_of_the_tied_winners(answers, right_answers):
    grades = [int(answer in right_answers) for answer in answers]
    assert cons_at_k(np.array([answers]), np.array([grades]))[0] == pytest.approx(by_hand(answers, grades))


@pytest.mark.parametrize("answers, grades, expected", [
    ([0, 0, 1], [1, 1, 0], 1.0),
    ([0, 1, 1], [1, 0, 0], 0.0),
    ([0, 0, 1, 1], [1, 1, 0, 0], 0.5),
    ([0, 1, 2], [1, 0, 0], 1 / 3),
    ([-1, -1, -1, 0], [0, 0, 0, 1], 1.0),
    ([-1, -1], [0, 0], 0.0),
])  # fmt: skip
def test_cons_on_cases_with_ties_and_missing_answers(answers, grades, expected):
    assert cons_at_k(np.array([answers]), np.array([grades]))[0] == pytest.approx(expected)


def test_levels_count_the_same_whatever_their_size_and_their_difference_is_left_out():
    values, levels = np.array([1.0, 1, 1, 0]), np.array([1, 1, 1, 2])
    assert macro_mean(values, levels) == bootstrap_ci(values, levels).mean == 0.5


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    levels = np.repeat([1, 2, 3], [20, 40, 60])
    means = np.array([0.2, 0.5, 0.8])
    hits = 0
    for trial in range(400):
        values = rng.beta(2 * means[levels - 1], 2 * (1 - means[levels - 1]))
        _, low, high = bootstrap_ci(values, levels, seed=trial)
        hits += low <= means.mean() <= high
    assert 0.91 <= hits / 400 <= 0.98


def test_interval_is_seeded_and_contains_its_mean():
    values = np.random.default_rng(0).random(50)
    levels = np.arange(50) % 5
    first = bootstrap_ci(values, levels)
    assert first == bootstrap_ci(values, levels)
    assert first != bootstrap_ci(values, levels, seed=1)
    assert first.low < first.mean < first.high


def test_pairing_narrows_the_interval_of_a_constant_gain():
    rng = np.random.default_rng(1)
    control, levels = rng.random(60), np.ones(60, dtype=int)
    gain = paired_bootstrap(control + 0.1, control, levels)
    apart = [bootstrap_ci(values, levels) for values in (control + 0.1, control)]
    assert gain.mean == pytest.approx(0.1)
    assert gain.high - gain.low < sum(one.high - one.low for one in apart)


@pytest.mark.parametrize(("value", "n", "low", "high"), [
    (1.0, 16, 0.025 ** (1 / 16), 1.0), (0.0, 16, 0.0, 1 - 0.025 ** (1 / 16)), (1.0, 1, 0.025, 1.0),
])  # fmt: skip
def test_equal_values_have_the_exact_bound_of_clopper_and_pearson(value, n, low, high):
    found = bootstrap_ci(np.full(n, value), np.arange(n) % 3)
    assert found == pytest.approx((value, low, high))
    difference = paired_bootstrap(np.full(n, value), np.full(n, value), np.zeros(n, dtype=int))
    assert difference.low == -difference.high < 0


@given(arrays(float, (3, 8), elements=st.floats(0, 1)))
def test_pooling_seeds_means_averaging_each_problem_over_them(per_seed):
    levels = np.array([1, 1, 1, 1, 2, 2, 2, 2])
    pooled = bootstrap_ci(per_seed, levels)
    assert pooled == bootstrap_ci(per_seed.mean(axis=0), levels)


@pytest.mark.parametrize("k", [0, 5])
def test_no_more_samples_are_asked_for_than_there_are(k):
    with pytest.raises(InputError, match=f"pass@{k} needs"):
        pass_at_k(4, np.array([1]), k)
