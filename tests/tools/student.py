"""Copies of the notebooks for learners: `python -m tests.tools.student` writes them to build/student.

A solved notebook is the source. What is between nbgrader's two markers becomes a place for the
learner's code, folded solutions go, hints stay. Cells carry nbgrader's metadata, so that
`nbgrader autograde` takes the copies as they are.
"""

from __future__ import annotations

import copy
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import nbformat
import tyro
from nbformat import NotebookNode

from r1lab.cli import exit_code
from r1lab.errors import InputError
from r1lab.files import NOTEBOOKS
from tests.tools.build import read_notebook

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
REGION = re.compile(rf"^([ \t]*){BEGIN}[^\n]*\n.*?^[ \t]*{END}[^\n]*$", re.DOTALL | re.MULTILINE)
FOLDED = re.compile(r"<details>\s*<summary>[^<]*solution.*?</details>\s*", re.DOTALL | re.I)
STUB = r"\1# your code here\n\1raise NotImplementedError"
CALL = re.compile(r"^(?=check\.\w+\()", re.MULTILINE)


def student_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook without its solutions and without the outputs of the cells that need them.

    Raises InputError where a solution begins without an end, or the other way round.
    """
    student = source_copy(notebook)
    for cell in student.cells:
        if cell.cell_type == "code":
            cell.source = REGION.sub(STUB, cell.source)
            if BEGIN in cell.source or END in cell.source:
                raise InputError(f"A solution needs {BEGIN} and {END}; see:\n{cell.source}")
    return student


def source_copy(notebook: NotebookNode) -> NotebookNode:
    """The notebook as a source for graders, with solutions between their markers.

    A call of a check becomes an assertion: it prints the check's sentence, and stops the notebook
    (and takes nbgrader's point) until the exercise is solved.
    """
    source = copy.deepcopy(notebook)
    for cell, following in zip(source.cells, [*source.cells[1:], None], strict=True):
        if cell.cell_type == "markdown":
            cell.source = FOLDED.sub("", cell.source)
        elif BEGIN in cell.source or END in cell.source:
            cell.metadata.pop("jupyter", None)  # it was folded
            _grade(cell, solution=True)
            if following is not None and following.cell_type == "code":  # tries the solution
                following.source = CALL.sub("assert ", following.source)
                _grade(following, solution=False)
    return source


def _grade(cell: NotebookNode, solution: bool) -> None:
    """Mark a cell as the learner's own, or as one that earns a point; forget what it printed."""
    cell.execution_count, cell.outputs = None, []
    cell.metadata.nbgrader = {
        "schema_version": 3, "grade_id": cell.id, "task": False, "solution": solution,
        "grade": not solution, "locked": not solution, **({} if solution else {"points": 1}),
    }  # fmt: skip


def copy_files(folder: Path) -> None:
    """Copy what lessons use and show, beside copies of them."""
    shutil.copytree(NOTEBOOKS / "images", folder / "images", dirs_exist_ok=True)
    for path in [path for name in ("*.py", "*.json*", "*.html") for path in NOTEBOOKS.glob(name)]:
        shutil.copy(path, folder)


def main(
    notebooks: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
    out: Path = Path("build/student"),
) -> None:
    """Write copies of notebooks without solutions.

    Args:
        notebooks: which ones; all of notebooks/ when none is named.
        out: the folder for the copies.
    """
    out.mkdir(parents=True, exist_ok=True)
    copy_files(out)
    for path in notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(student_copy(read_notebook(path)), out / path.name)
        print(f"{out / path.name}: written")


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, main, description=__doc__)))
