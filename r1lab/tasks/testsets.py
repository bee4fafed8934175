"""Makes the held-out test sets in `data/`: `python -m r1lab.tasks.testsets`."""

import random
from pathlib import Path

from r1lab.tasks import FAMILIES, sample_problem, save_problems

PER_LEVEL = 64
TESTED = ("signs", "countdown", "sums")


def make_test_set(family: str, per_level: int = PER_LEVEL, seed: int = 0) -> list:
    """Different problems of the held-out side, half of each level in English, half in Chinese."""
    rng = random.Random(f"test/{family}/{seed}")
    _, levels = FAMILIES[family]
    problems = []
    for level in levels:
        drawn: dict = {}
        while len(drawn) < per_level:
            lang = "en" if len(drawn) % 2 == 0 else "zh"
            problem = sample_problem(rng, family, level, lang, for_test=True)
            drawn.setdefault(problem.id, problem)
        problems += drawn.values()
    return problems


if __name__ == "__main__":
    for family in TESTED:
        save_problems(make_test_set(family), Path("data") / f"test_{family}.jsonl")
