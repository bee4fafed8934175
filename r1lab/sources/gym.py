"""Problems of `reasoning-gym` in plain English, for models that have read the real world."""

from difflib import get_close_matches
from functools import lru_cache
from random import Random

from r1lab.errors import InputError

# The families of the small world's mixtures that are the gym's; a level of the two arithmetic ones
# is a number of terms and of digits. gym_arithmetic has parentheses: without them the gym computes
# from left to right, whatever the operators.
ARITHMETIC = {"gym_sums": "chain_sum", "gym_arithmetic": "basic_arithmetic"}
TERMS_AND_DIGITS = {1: (2, 1), 2: (3, 1), 3: (2, 2)}
GYM_LEVELS = {**dict.fromkeys(ARITHMETIC, tuple(TERMS_AND_DIGITS)), "gym_gsm": (1,)}
ITEMS = 100_000  # of each data set


@lru_cache
def open_dataset(name: str, options: tuple[tuple[str, object], ...] = ()):
    """One of the gym's data sets. Raises InputError where there is no such set or option."""
    import reasoning_gym  # a hundred data sets, which take seconds to import
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, 5, 0.4) or sorted(DATASETS)[:5]
        raise InputError(
            f"reasoning-gym has no data set {name!r}; the nearest of its {len(DATASETS)} are "
            f"{', '.join(near)}."
        )
    try:
        return reasoning_gym.create_dataset(name, **{"seed": 0, "size": ITEMS, **dict(options)})
    except Exception as error:  # each set checks its options in its own way
        raise InputError(
            f"reasoning-gym does not make {name!r} of {dict(options)} ({error})."
        ) from error


def gym_item(family: str, rng: Random, level: int) -> dict:
    """A question of a family of the small world's mixtures, with its answer."""
    if family == "gym_gsm":
        dataset = open_dataset("gsm_symbolic")
    else:
        terms, digits = TERMS_AND_DIGITS[level]
        options = {"min_terms": terms, "max_terms": terms, "min_digits": digits, "max_digits": digits}
        dataset = open_dataset(ARITHMETIC[family], tuple(options.items()))
    return dataset[rng.randrange(ITEMS)]
