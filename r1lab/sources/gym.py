"""Problems of `reasoning-gym` in plain English, for models that have read the real world.

Each family is one of the gym's data sets, in its own words and with its own answers; a level of the
two arithmetic families is a number of terms and of digits.
"""

import random
from functools import lru_cache

# gym_arithmetic has parentheses: without them the gym computes from left to right, whatever the
# operators.
ARITHMETIC = {"gym_sums": "chain_sum", "gym_arithmetic": "basic_arithmetic"}
TERMS_AND_DIGITS = {1: (2, 1), 2: (3, 1), 3: (2, 2)}
GYM_LEVELS = {**dict.fromkeys(ARITHMETIC, tuple(TERMS_AND_DIGITS)), "gym_gsm": (1,)}
ITEMS = 100_000  # of each data set


@lru_cache
def _dataset(family: str, level: int):
    import reasoning_gym  # a hundred data sets, which take seconds to import

    if family == "gym_gsm":
        return reasoning_gym.create_dataset("gsm_symbolic", seed=0, size=ITEMS)
    terms, digits = TERMS_AND_DIGITS[level]
    return reasoning_gym.create_dataset(
        ARITHMETIC[family],
        min_terms=terms, max_terms=terms, min_digits=digits, max_digits=digits, seed=0, size=ITEMS,
    )  # fmt: skip


def gym_item(family: str, rng: random.Random, level: int) -> dict:
    """A question of the gym, with its answer."""
    return _dataset(family, level)[rng.randrange(ITEMS)]
