"""Learner copies: valid notebooks that run up to the first exercise and hold no solution."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from r1lab.errors import InputError
from tests.tools.student import BEGIN, END, student_copy

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SOLVED = f"""from r1lab.lab import check


def majority_vote(answers):
    {BEGIN}
    votes = [answer for answer in answers if answer is not None]
    return max(votes, key=votes.count, default=None)
    {END}"""
STUB = """from r1lab.lab import check


def majority_vote(answers):
    # your code here
    raise NotImplementedError"""


def lesson():
    printed = [new_output("stream", text="majority_vote: right\n")]
    details = "<details><summary>{}</summary>\n\nUse `max`.\n</details>\n"
    return new_notebook(
        cells=[
            new_markdown_cell("# A lesson"),
            new_code_cell("print('before')", execution_count=1, outputs=[*printed]),
            new_markdown_cell(f"### Exercise\n{details.format('Hint')}{details.format('Solution')}"),
            new_code_cell(SOLVED, metadata={"jupyter": {"source_hidden": True}}, execution_count=2),
            new_code_cell("check.majority_vote(majority_vote)", execution_count=3, outputs=printed),
            new_code_cell("print('after')", execution_count=4),
        ]
    )


def test_a_copy_keeps_the_lesson_and_loses_the_solution():
    solved = lesson()
    student = student_copy(solved)
    nbformat.validate(student)
    assert [cell.id for cell in student.cells] == [cell.id for cell in solved.cells]
    assert student.cells[1] == solved.cells[1]
    assert "Hint" in student.cells[2].source and "olution" not in student.cells[2].source
    assert student.cells[3].source == STUB and "jupyter" not in student.cells[3].metadata
    assert student.cells[4].source == "assert check.majority_vote(majority_vote)"
    assert student.cells[4].outputs == [] and student.cells[4].execution_count is None
    assert solved == lesson() | {"cells": solved.cells}  # the source is as it was
    assert solved.cells[3].source == SOLVED


def test_cells_carry_what_nbgrader_needs():
    """The keys that nbgrader's schema 3 asks of a solution and of a test cell."""
    student = student_copy(lesson())
    solution, test = (student.cells[i].metadata.nbgrader for i in (3, 4))
    assert (solution.solution, solution.grade, solution.locked) == (True, False, False)
    assert (test.solution, test.grade, test.locked, test.points) == (False, True, True, 1)
    for marks, cell in ((solution, student.cells[3]), (test, student.cells[4])):
        assert marks.schema_version == 3 and marks.task is False and marks.grade_id == cell.id
    assert "nbgrader" not in student.cells[1].metadata


def test_a_copy_runs_up_to_the_first_exercise(tmp_path):
    student = student_copy(lesson())
    client = NotebookClient(student, timeout=120, resources={"metadata": {"path": tmp_path}})
    with pytest.raises(CellExecutionError, match="AssertionError"):
        client.execute()
    assert student.cells[1].outputs[0].text == "before\n"
    assert "nothing is written yet" in student.cells[4].outputs[0].text
    assert not student.cells[5].outputs


@pytest.mark.parametrize("source", [BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}\n{END}"])
def test_markers_that_do_not_pair_are_refused(source):
    with pytest.raises(InputError, match="needs"):
        student_copy(new_notebook(cells=[new_code_cell(source)]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_solution_line_is_left_in_any_notebook(path):
    solved = nbformat.read(path, as_version=4)
    student = student_copy(solved)
    nbformat.validate(student)
    regions = [
        re.findall(f"{BEGIN}(.*?){END}", cell.source, re.DOTALL)
        for cell in solved.cells
        if cell.cell_type == "code"
    ]
    assert any(regions), "a notebook without exercises"
    for cell, found in zip((c for c in student.cells if c.cell_type == "code"), regions, strict=True):
        lines = [line.strip() for region in found for line in region.splitlines() if line.strip()]
        assert not [line for line in lines if line in map(str.strip, cell.source.splitlines())]
        assert not (found and cell.outputs)


def test_the_command_writes_copies_and_refuses_what_is_no_notebook(tmp_path):
    nbformat.write(lesson(), tmp_path / "lesson.ipynb")
    command = [sys.executable, "-m", "tests.tools.student", "--out", str(tmp_path / "build/student")]
    done = subprocess.run([*command, str(tmp_path / "lesson.ipynb")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    copied = nbformat.read(tmp_path / "build/student/lesson.ipynb", as_version=4)
    assert copied.cells[3].source == STUB and (tmp_path / "build/student/tabular.py").is_file()
    done = subprocess.run([*command, str(tmp_path / "no.ipynb")], capture_output=True, text=True)
    assert done.returncode == 2 and "cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
