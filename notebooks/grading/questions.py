"""Random questions for the exercises of the lessons, with their right answers: the teacher's copy.

The checks of `r1lab.lab.check` ask what seed 1 draws here. `r1lab grade` draws with another seed, so it
asks what no learner has seen. Learners' copies of the lessons come without this folder.

A question is [why, arguments, right answer, ...]. Arguments are plain data, in which {"tensor": [...]},
{"set": [...]}, {"tuple": [...]} and {"one_of": [...]} stand for what JSON cannot hold. Where the check
compares tensors, a right answer is [result, slopes ...].
"""

import json
import math
import random
from collections.abc import Callable, Iterator

import torch
from grading import early_lessons, late_lessons, other_lessons
from grading.drawing import SOURCES
from grading.kinds import MAKERS

from r1lab.files import read_toml
from r1lab.lab.check import asking, engine

BY_RULE = "drawn at random"  # the sentence of a question that nobody wrote by hand
EACH = 6
DRAWN = (early_lessons, late_lessons, other_lessons)  # each fills SOURCES when it is imported
# Exercises whose lesson has asserts in place of a check: their rows, and the function that each asks for.
OTHERS = read_toml(__file__, "exercises")
ROWS = engine.EXERCISES | {name: row for name, row in OTHERS.items() if "asks" in row}
asking.MAKERS.update(MAKERS)


def questions(name: str, seed: object, count: int = EACH) -> Iterator[list]:
    """Draw questions of random sizes; each also with one argument changed, and no other.

    A cache that forgets an argument, or that knows no more than shapes, gives an old answer to one of them.
    """
    rng = random.Random(f"{name} {seed}")
    while count > 0:
        size = rng.randint(1, 9)
        args, others = SOURCES[name].draw(rng, size), SOURCES[name].draw(rng, size)
        changed = [[*args[:place], other, *args[place + 1 :]] for place, other in enumerate(others)]
        asked = [question for one in [args, *changed] if (question := answered(name, BY_RULE, one))]
        yield from asked
        count -= bool(asked)


def answered(name: str, why: str, args: list) -> list | None:
    """Make a question of arguments; None where they fit no right answer, or more than one."""
    where = SOURCES[name]
    slopes = ROWS[name].get("slopes", [])
    try:
        if not where.clear(*decoded(args)):
            return None
        answers = [answer_of(right, args, slopes) for right in where.rights]
    except (ArithmeticError, ValueError, IndexError, TypeError, RuntimeError):
        return None
    if "words" not in ROWS[name]:
        answers = [result for result, *_ in answers]
    distinct = [one for place, one in enumerate(answers) if repr(one) not in map(repr, answers[:place])]
    return [why, args, *distinct]


def answer_of(right: Callable, args: list, slopes: list) -> list:
    """[result, slopes ...] of a right function, as lists."""
    replied = asking.decode(asking.reply(right, json.dumps(args), slopes))
    if "fault" in replied:
        raise ValueError(replied["fault"])
    values = [one.tolist() if isinstance(one, torch.Tensor) else one for one in replied["values"]]
    return rounded(values)


def decoded(args: list) -> list:
    return asking.decode(json.dumps(args))


def rounded(value: object) -> object:
    """Floats with as many digits as float32 has."""
    if isinstance(value, list):
        return list(map(rounded, value))
    return float(f"{value:.7g}") if isinstance(value, float) and math.isfinite(value) else value
