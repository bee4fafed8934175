"""Problem families, prompt templates and sets of problems."""

import random
import zlib
from collections.abc import Callable, Container
from functools import partial

from r1lab.errors import InputError
from r1lab.sources.gym import GYM_LEVELS, gym_problem
from r1lab.task import Problem, held_out_ids, load_problems, save_problems
from r1lab.sources.schemas import verify_choice
from r1lab.world.puzzles import (
    COUNTDOWN_LEVELS,
    SIGNS_LEVELS,
    countdown_problem,
    signs_problem,
    verify_countdown,
    verify_signs,
)
from r1lab.world.side import (
    LOGIC_LEVELS,
    PROGRAMS_LEVELS,
    chat_problem,
    logic_problem,
    programs_problem,
    unsafe_problem,
)
from r1lab.world.sums import SUMS_LEVELS, sums_problem
from r1lab.sources.templates import TEMPLATES, apply_template

FAMILIES: dict[str, tuple[Callable[..., Problem], tuple[int, ...]]] = {
    "signs": (signs_problem, SIGNS_LEVELS),
    "countdown": (countdown_problem, COUNTDOWN_LEVELS),
    "sums": (sums_problem, SUMS_LEVELS),
    "programs": (programs_problem, PROGRAMS_LEVELS),
    "logic": (logic_problem, LOGIC_LEVELS),
    "chat": (chat_problem, (1,)),
    "unsafe": (unsafe_problem, (1,)),
    **{name: (partial(gym_problem, name), levels) for name, levels in GYM_LEVELS.items()},
}
CHECKERS = {"signs": verify_signs, "countdown": verify_countdown, "gpqa": verify_choice}

__all__ = [
    *("FAMILIES", "TEMPLATES", "Problem", "apply_template", "family_and_level", "held_out"),
    *("held_out_ids", "load_problems", "sample_problem", "save_problems", "training_problems"),
    "verify",
]


def verify(family: str, answer: str, solution: str, meta: dict) -> bool | None:
    """Is the answer right, by the family's own checker? None where the family has none.

    A search problem can have an answer in several spellings, and its value alone (the target)
    must not pass; so these families are checked by their rules. The others are left to the
    comparison of values in `rewards`.
    """
    checker = CHECKERS.get(family)
    return None if checker is None else checker(answer, meta)


def held_out(problem: Problem) -> bool:
    """True for the problems that never occur in training, neither in the corpus nor in RL.

    One in eight, and every second one at level 1, where there are few. Decided by a hash of the
    problem's id, which does not depend on the language it is asked in.
    """
    return zlib.crc32(problem.id.encode()) % 8 < (4 if problem.level == 1 else 1)


def sample_problem(
    rng: random.Random, family: str, level: int, lang: str, *, for_test: bool = False
) -> Problem:
    """Draw a problem from the training side, or from the held-out side with `for_test`."""
    generate, _ = FAMILIES[family]
    while True:
        problem = generate(rng, level, lang)
        # Families without a checkable answer are so small that they are not split.
        if problem.solution == "" or held_out(problem) == for_test:
            return problem


def family_and_level(name: str) -> tuple[str, int]:
    """Read "signs/3". Raises InputError where there is no such family or level."""
    family, _, level = name.partition("/")
    if family not in FAMILIES or level not in map(str, FAMILIES[family][1]):
        known = ", ".join(f"{name}/{levels[0]}-{levels[-1]}" for name, (_, levels) in FAMILIES.items())
        raise InputError(f"there are no problems {name!r}; a mixture is made of {known}.")
    return family, int(level)


def training_problems(
    seed: int,
    step: int,
    count: int,
    mixture: dict[str, float],
    lang_weights: dict[str, float],
    exclude: Container[str] = (),
) -> list[Problem]:
    """The questions of one rollout: the same for any number of processes.

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
    rng = random.Random(f"{seed}/{step}/{families}")
    problems = []
    while len(problems) < count:
        family, level = parts[rng.choices(list(mixture), list(mixture.values()))[0]]
        lang = rng.choices(list(lang_weights), list(lang_weights.values()))[0]
        problem = sample_problem(rng, family, level, lang)
        if problem.id not in exclude:
            problems.append(problem)
    return problems
