"""The kill table: are the lessons' checks able to tell wrong solutions from right ones?

Every exercise has planted wrong solutions, each wrong in one way, and right ones in different
styles, in the files `planted_notebook_*.py`; those of notebooks 01 to 03 were written without sight
of the checks. Run this file for the table in Markdown: python -m tests.planted_solutions
"""

import contextlib
import io
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple

from r1lab.lab import check
from r1lab.lab.check.engine import EXAMPLES
from tests import planted_kinds

FILES = *(f"planted_notebook_{number}" for number in ("01", "02", "03", "07", "10", "11", "12")), "planted_others"
NOTEBOOKS = [import_module(f"tests.{name}") for name in FILES]


class Planted(NamedTuple):
    """One solution of an exercise: what it does, and whether the check should accept it."""

    exercise: str
    right: bool
    what: str
    function: Callable


PLANTED = [
    Planted(exercise, solutions is notebook.RIGHT, what, function)
    for notebook in NOTEBOOKS
    for exercise in notebook.RIGHT
    for solutions in (notebook.RIGHT, notebook.WRONG)
    for what, function in solutions[exercise].items()
]


SOLVED = {planted.exercise: planted.function for planted in reversed(PLANTED) if planted.right}
PLANTED += [
    Planted(exercise, kinds is planted_kinds.RIGHT, what, kind(function))
    for kinds in (planted_kinds.RIGHT, planted_kinds.WRONG)
    for what, kind in kinds.items()
    for exercise, function in SOLVED.items()
    if planted_kinds.changes(what, exercise, len(EXAMPLES[exercise][-1][1]))
]


class Verdict(NamedTuple):
    accepted: bool
    message: str  # all that was printed


def judge(exercise: str, function: object) -> Verdict:
    """What the exercise's check answers to a function, and says about it."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        accepted = getattr(check, exercise)(function)
    return Verdict(accepted, printed.getvalue().strip())


def kill_table(verdicts: dict[Planted, Verdict]) -> str:
    """One row per exercise: wrong solutions rejected, right ones accepted, what was wrong."""
    rows = [
        "| exercise | wrong, rejected | right, accepted | what was wrong with each |",
        "|---|---|---|---|",
    ]
    for exercise in dict.fromkeys(planted.exercise for planted in verdicts):
        own = [planted for planted in verdicts if planted.exercise == exercise]
        right = [planted for planted in own if planted.right]
        wrong = [planted for planted in own if not planted.right]
        accepted = {planted for planted in own if verdicts[planted].accepted}
        flaws = [f"**survived: {p.what}**" if p in accepted else p.what for p in wrong]
        rows.append(
            f"| `check.{exercise}` | {len(set(wrong) - accepted)} of {len(wrong)} "
            f"| {len(accepted & set(right))} of {len(right)} | {' · '.join(flaws)} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(kill_table({planted: judge(planted.exercise, planted.function) for planted in PLANTED}))
