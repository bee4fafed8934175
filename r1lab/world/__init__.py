"""The small world: families of problems, the corpus that a base model reads, and its tokenizer.

`FAMILIES` is the one table of families. Whoever wants to know something about a problem asks its
family: `FAMILIES[problem.family].summary(problem, answer)`.
"""

import zlib
from collections.abc import Container
from random import Random

from r1lab.errors import InputError
from r1lab.task import Problem
from r1lab.world.puzzles import COUNTDOWN, SIGNS, Search, parse_attempts
from r1lab.world.side import GYM, Chat, Logic, Programs, Sums, Unsafe
from r1lab.world.words import choose

FAMILIES = {
    family.name: family
    for family in (SIGNS, COUNTDOWN, Sums(), Programs(), Logic(), Chat(), Unsafe(), *GYM)
}
KINDS = {f"{name}/{level}": (name, level) for name, family in FAMILIES.items() for level in family.levels}


def find_attempts(problem: Problem, completion: str) -> list:
    """Read the attempts of a completion, where the problem's family is one of search."""
    family = FAMILIES.get(problem.family)
    return parse_attempts(completion, family.ordered) if isinstance(family, Search) else []


def held_out(problem: Problem) -> bool:
    """Tell whether a problem is held out: it never occurs in training, neither in the corpus nor in RL.

    One in eight, and every second one at level 1, where there are few. Decided by a hash of the
    problem's id, which does not depend on the language it is asked in.
    """
    return zlib.crc32(problem.id.encode()) % 8 < (4 if problem.level == 1 else 1)


def sample_problem(rng: Random, family: str, level: int, lang: str, *, for_test: bool = False) -> Problem:
    """Draw a problem from the training side, or from the held-out side with `for_test`."""
    while True:
        problem = FAMILIES[family].draw(rng, level, lang)
        # Families without a checkable answer are so small that they are not split.
        if problem.solution == "" or held_out(problem) == for_test:
            return problem


def family_and_level(name: str) -> tuple[str, int]:
    """Read "signs/3". Raises InputError where there is no such family or level."""
    if name not in KINDS:
        known = ", ".join(f"{f.name}/{f.levels[0]}-{f.levels[-1]}" for f in FAMILIES.values())
        raise InputError(f"there are no problems {name!r}; a mixture is made of {known}.")
    return KINDS[name]


def training_problems(
    seed: int, step: int, count: int, mixture: dict[str, float], lang_weights: dict[str, float],
    exclude: Container[str] = ()
) -> list[Problem]:  # fmt: skip
    """Draw the questions of one rollout: the same for any number of processes.

    Keyed by (seed, step) alone, so that a resumed run draws what the unbroken run would have.

    Args:
        mixture: "family/level" -> weight, for example {"signs/2": 1.0, "logic/1": 0.5}.
        lang_weights: language -> weight; families that are asked in English only ignore it.
        exclude: ids that are not to be drawn.
    Raises:
        InputError: a name in the mixture is not a family and a level of it.
    """
    parts = {name: family_and_level(name) for name in mixture}
    families = "+".join(sorted({family for family, _ in parts.values()}))
    rng = Random(f"{seed}/{step}/{families}")
    problems = []
    while len(problems) < count:
        family, level = parts[choose(rng, mixture)]
        problem = sample_problem(rng, family, level, choose(rng, lang_weights))
        if problem.id not in exclude:
            problems.append(problem)
    return problems
