"""Chains of sums: checking is as hard as doing, so reflection does not pay.

The problems are `reasoning-gym`'s `chain_sum`; level n has n+1 terms of one or two digits.
"""

import random
import re
from functools import lru_cache

from r1lab.task import Problem, problem_id
from r1lab.world.words import QUESTIONS

SUMS_LEVELS = (1, 2, 3, 4, 5)


@lru_cache
def _dataset(level: int):
    # Imported here: reasoning-gym brings a hundred data sets and takes seconds to import.
    from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

    return ChainSumDataset(
        ChainSumConfig(
            min_terms=level + 1, max_terms=level + 1, min_digits=1, max_digits=2,
            allow_negation=False, size=2**31, seed=0,
        )  # fmt: skip
    )


def sums_problem(rng: random.Random, level: int, lang: str) -> Problem:
    """A chain of `level`+1 terms joined by plus and minus."""
    item = _dataset(level)[rng.randrange(2**31)]
    terms = item["metadata"]["expression"].replace(" ", "")
    return Problem(
        id=problem_id("sums", terms),
        family="sums",
        level=level,
        lang=lang,
        prompt=QUESTIONS["sums"][lang].format(terms=terms),
        solution=item["answer"],
        meta={"terms": [int(term) for term in re.findall(r"[-+]?\d+", terms)]},
    )
