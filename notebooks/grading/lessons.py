"""The exercises of the shipped lessons: which cells, which functions, which checks, and what is given."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path

from grading import cells
from grading.questions import OTHERS

from r1lab.files import NOTEBOOKS

SOLUTION = "### BEGIN SOLUTION"
CHECKED = re.compile(r"\bcheck\.(\w+)\((\w+)\)")


@dataclass(frozen=True)
class Exercise:
    """A cell with a solution and the one behind it, which checks it.

    Attributes:
        checks: (name of the check, name of the learner's function); each earns the same part of the point.
        earlier: the lesson's own functions of earlier exercises, as far as the solution calls them.
        given: sources of what the solution imports from the lab, by full name, for each function.
    """

    lesson: str
    number: int
    solution: str
    test: str
    tested: str
    checks: tuple[tuple[str, str], ...]
    earlier: str = ""
    given: dict[str, dict[str, str]] = field(default_factory=dict, compare=False)

    @property
    def title(self) -> str:
        return f"{self.lesson.partition('_')[0]}.{self.number} {self.checks[0][1]}"


def code_cells(notebook: dict) -> list[dict]:
    """The code cells of a notebook as {"id", "number", "source"}, numbered among all its cells from 1."""
    return [
        {"id": _name(cell), "number": number, "source": _source(cell)}
        for number, cell in enumerate(notebook["cells"], 1)
        if cell.get("cell_type") == "code"
    ]


def _source(cell):
    source = cell.get("source", "")
    return source if isinstance(source, str) else "".join(source)


def _name(cell):
    """nbgrader's name of a cell, which editors keep, or else its id."""
    marks = cell.get("metadata", {}).get("nbgrader", {})
    return str(marks.get("grade_id") or cell.get("id", ""))


@cache
def shipped(lesson: str) -> list[dict]:
    """The code cells of a lesson as it ships, with its solutions."""
    return code_cells(json.loads((NOTEBOOKS / f"{lesson}.ipynb").read_text("utf-8")))


@cache
def exercises(lesson: str) -> tuple[Exercise, ...]:
    """The exercises of a shipped lesson, in their order."""
    listed = shipped(lesson)
    read, _ = cells.statements([cell["source"] for cell in listed])
    chosen = []
    for place, cell in enumerate(listed):
        if SOLUTION not in cell["source"]:
            continue
        test, names = listed[place + 1], cells.functions(read, place)
        others = {row["function"]: row.get("check", name) for name, row in OTHERS.items()}
        plain = [(others[name], name) for name in names if name in others]
        checks = tuple(CHECKED.findall(test["source"]) or plain)
        before = [one for one in read if one.cell <= place]
        given = {name: _given(before, name) for _, name in checks}
        solved = {name for one in chosen for _, name in one.checks}
        called = {read for _, name in checks for one in cells.needed(before, name) for read in one.reads} & solved
        earlier = cells.text([one for name in sorted(called) for one in cells.needed(before, name)])
        ids = cell["id"], test["id"], test["source"]
        chosen.append(Exercise(lesson, len(chosen) + 1, *ids, checks, earlier, given))
    return tuple(chosen)


def lessons() -> list[str]:
    """Names of all lessons that have exercises."""
    return [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]


def _given(before: Sequence[cells.Statement], name: str) -> dict[str, str]:
    """What the lesson's solution takes from the lab: the source of functions, the value of data."""
    used = cells.needed(before, name)
    names = {read for one in used for read in one.reads}
    return {
        f"{module}.{taken}": _program(import_module(module), taken)
        for module, taken in cells.imports(used, names, "r1lab")
    }


def _program(module, name):
    value = getattr(module, name)
    if not callable(value):
        return f"{name} = {value!r}"
    read = [cells.statement(0, node) for node in cells.parse(Path(module.__file__).read_text("utf-8"))]
    return cells.text(cells.needed(read, name))
