"""The lessons as a course for nbgrader: `python -m tests.tools.course` writes it to build/course.

Each lesson is an assignment with one notebook, whose exercises have a point each. A grader runs only the
cells that an exercise needs, and those that learners add: the others carry the tag `skip-execution`, which
JupyterLab does not heed.
"""

from __future__ import annotations

import ast
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import nbformat
import tyro
from grading import cells
from grading.lessons import exercises, lessons, shipped
from nbformat import NotebookNode

from r1lab.cli import exit_code
from r1lab.errors import require_known
from r1lab.files import NOTEBOOKS, write_text
from tests.tools.build import read_notebook
from tests.tools.student import copy_files, source_copy

DEFINES = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef
HIDDEN = "### BEGIN HIDDEN TESTS\n{}\n### END HIDDEN TESTS"  # nbgrader takes it out, and puts it back to grade
SETTINGS = """c = get_config()
c.CourseDirectory.course_id = "r1lab"
c.ExecutePreprocessor.timeout = c.ExecutePreprocessor.startup_timeout = 300
"""


def source_notebook(lesson: str) -> NotebookNode:
    """A lesson with nbgrader's metadata and its solutions, in which graders run what exercises need."""
    notebook = source_copy(read_notebook(NOTEBOOKS / f"{lesson}.ipynb"))
    keep = needed_cells(lesson)
    earlier = {one.test: one.earlier for one in exercises(lesson) if one.earlier}
    for cell in notebook.cells:
        if cell.id in earlier:  # a slip in an earlier exercise costs no point here
            cell.source = f"{HIDDEN.format(earlier[cell.id])}\n{cell.source}"
        if cell.cell_type == "code" and cell.id not in keep:
            cell.metadata["tags"] = sorted({*cell.metadata.get("tags", []), "skip-execution"})
    return notebook


def needed_cells(lesson: str) -> set[str]:
    """Find the code cells that an exercise needs, and those that only define; their ids."""
    listed = shipped(lesson)
    read, _ = cells.statements([cell["source"] for cell in listed])
    places = {cell["id"]: place for place, cell in enumerate(listed)}
    keep = set()
    for exercise in exercises(lesson):
        graded = {places[exercise.solution], places[exercise.test]}
        before = [one for one in read if one.cell <= max(graded)]
        names = {name for one in before if one.cell in graded for name in one.reads}
        keep |= graded | {one.cell for name in names for one in cells.needed(before, name)}
    acts = {one.cell for one in read if not isinstance(one.node, DEFINES)}
    return {name for name, place in places.items() if place in keep or place not in acts}


def main(names: Annotated[tuple[str, ...], tyro.conf.Positional] = (), out: Path = Path("build/course")) -> None:
    """Write a course for nbgrader: its settings, and an assignment for each lesson.

    Args:
        names: which lessons; all of them when none is named.
        out: the course's folder.
    """
    for lesson in names:
        require_known(lesson, lessons(), "lesson")
    for lesson in names or lessons():
        folder = out / "source" / lesson
        folder.mkdir(parents=True, exist_ok=True)
        copy_files(folder)
        nbformat.write(source_notebook(lesson), folder / f"{lesson}.ipynb")
        print(f"{folder}: {len(exercises(lesson))} points")
    write_text(out / "nbgrader_config.py", SETTINGS)


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, main, description=__doc__)))
