"""Makes the held-out test sets in `data/`: `python -m tests.tools.testsets`."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

from r1lab.task import Problem, save_problems
from r1lab.world import FAMILIES, sample_problem

PER_LEVEL = 64
FRENCH_PER_LEVEL = 16
DRAWS = 2_000  # of a level; after them a small family has shown all that it holds
TESTED = ("signs", "countdown", "sums", "programs", "logic", "chat", "unsafe")


def make_test_set(
    family: str, per_level: int = PER_LEVEL, seed: int = 0, langs: Sequence[str] = ("en", "zh")
) -> list[Problem]:
    """Different problems of the held-out side, the languages taking turns within each level.

    Equal seeds draw the same problems whatever the languages are. A level with fewer problems
    gives all of its held-out side. Chat and unsafe requests, which are so few that the corpus holds
    all of them, give half of what there is: the stages after the base never see that half.
    """
    rng = Random(f"test/{family}/{seed}")
    problems = []
    for level in FAMILIES[family].levels:
        drawn: dict[str, Problem] = {}
        for _ in range(DRAWS):
            lang = langs[len(drawn) % len(langs)]
            problem = sample_problem(rng, family, level, lang, for_test=True)
            drawn.setdefault(problem.id, problem)
            if len(drawn) == per_level:
                break
        problems += drawn.values()
    if problems[0].solution:
        return problems
    # Every second one by topic: each topic and each way to ask for it is on both sides.
    return sorted(problems, key=lambda problem: (problem.meta["topic"], problem.prompt))[::2]


def french_test_set() -> list[Problem]:
    """The first problems of each level of the tests of signs and sums, asked in French."""
    problems = []
    for family in ("signs", "sums"):
        asked = make_test_set(family, langs=["fr"])
        for level in FAMILIES[family].levels:
            problems += [problem for problem in asked if problem.level == level][:FRENCH_PER_LEVEL]
    return problems


if __name__ == "__main__":
    for family in TESTED:
        save_problems(make_test_set(family), Path("data") / f"test_{family}.jsonl")
    save_problems(french_test_set(), Path("data") / "test_french.jsonl")
