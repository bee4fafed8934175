"""Grade 50 made-up submissions of every lesson: `python -m tests.tools.submissions`.

Right ones, half right ones, wrong ones, crashing and endless ones, and every cheat: each exercise of each
submission is of a kind drawn from `tests/made_up_submissions.py`. Printed is how many exercises got their
points, and each that did not.
"""

import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from grading import grade
from grading.lessons import exercises, lessons

from r1lab.cli import exit_code
from tests import made_up_submissions as made_up
from tests.test_grading import table

SHARE = 0.4  # of the exercises, as the lesson solves them


def main(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    each: int = 50,
    seed: int = 0,
    seconds: float = 2.0,
) -> int:
    """Grade made-up submissions; 1 where an exercise did not get its points.

    Args:
        names: which lessons; all when none is named.
        each: how many submissions of a lesson.
        seed: of the kinds, and of the questions.
        seconds: of computing for a function.
    """
    rng, count, faults, started = random.Random(seed), 0, 0, time.monotonic()
    for lesson in names or lessons():
        with tempfile.TemporaryDirectory() as place:
            expected = hand_in(Path(place, "in"), lesson, each, rng)
            grade(Path(place, "in"), Path(place, "out"), seconds=seconds, seed=str(seed))
            rows = table(Path(place, "out"))
        for student, kinds in expected.items():
            points = zip(exercises(lesson), kinds, made_up.earned(kinds), strict=True)
            for exercise, kind, earns in points:
                count += 1
                if rows[student][exercise.title] != str(int(earns)):
                    faults += 1
                    said = rows[student][f"{exercise.title} check"]
                    print(f"WRONG: {exercise.title}, {kind}: {rows[student][exercise.title]}, {said}")
    minutes = (time.monotonic() - started) / 60
    print(f"{count - faults} of {count} exercises got their points, in {minutes:.0f} minutes")
    return int(faults > 0)


def hand_in(folder: Path, lesson: str, each: int, rng: random.Random) -> dict[str, list[str]]:
    """Write submissions of a lesson; the kinds of each student's exercises."""
    nothing, right = list(made_up.NOTHING), list(made_up.RIGHT)
    expected = {}
    for number in range(each):
        kinds = [rng.choice(right if rng.random() < SHARE else nothing) for _ in exercises(lesson)]
        made_up.hand_in(folder, f"student {number:02}", lesson, kinds)
        expected[f"student {number:02}"] = kinds
    return expected


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, main, description=__doc__)))
