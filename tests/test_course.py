"""The course for nbgrader: solutions earn all points, untouched copies none, and both get feedback.

`make test-nbgrader` lays an environment with nbgrader over .venv; without it, only the sources are tested.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from grading.lessons import exercises, lessons, shipped

from r1lab.errors import InputError
from r1lab.files import NOTEBOOKS
from tests import made_up_submissions as made_up
from tests.made_up_submissions import MARKERS, cell
from tests.tools import course

ROOT = NOTEBOOKS.parent


@pytest.mark.parametrize("lesson", lessons())
def test_a_source_marks_the_exercises_that_r1lab_grades(lesson):
    source = course.source_notebook(lesson)
    nbformat.validate(source)
    marked = [one for one in source.cells if "nbgrader" in one.metadata]
    pairs = [(one.solution, one.test) for one in exercises(lesson)]
    assert [one.id for one in marked] == [name for pair in pairs for name in pair]
    assert sum(one.metadata.nbgrader.get("points", 0) for one in marked) == len(pairs)
    assert not [one.id for one in marked if "skip-execution" in one.metadata.get("tags", [])]


def test_graders_run_only_what_exercises_need(tmp_path):
    assert course.needed_cells("00_start_here") == {"start-3", "start-23", "start-24"}, "imports, a function, its test"
    course.main(("00_start_here",), tmp_path)
    source = nbformat.read(tmp_path / "source/00_start_here/00_start_here.ipynb", as_version=4)
    assert "### BEGIN SOLUTION" in cell(source, "start-23").source
    assert "skip-execution" in cell(source, "start-8").metadata.tags
    with pytest.raises(InputError, match="there is no lesson 'x'"):
        course.main(("x",), tmp_path)


def test_an_environment_over_the_lab_finds_it_from_anywhere(tmp_path):
    """As the kernel of a grader does, which starts in the folder of a submission."""
    makes = ["make", "-n", "test-nbgrader", f"PY={sys.executable}"]
    printed = subprocess.run(makes, cwd=ROOT, capture_output=True, text=True, check=True)
    [_, laid, _] = re.split(r"(?m)^(?=\[ -x)|^(?=\S+ -m pip)", printed.stdout)
    subprocess.run(laid.replace(".venv-nbgrader", str(tmp_path / "over")), shell=True, cwd=ROOT, check=True)
    code = "import r1lab, torch; print(r1lab.__file__)"
    found = subprocess.run([tmp_path / "over/bin/python", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert Path(found.stdout.strip()).parent == ROOT / "r1lab", found.stderr


@pytest.fixture(scope="module")
def nbgrader(tmp_path_factory):
    """Run a command of nbgrader in a course with all lessons."""
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: make test-nbgrader lays an environment for it")
    root = tmp_path_factory.mktemp("course")
    course.main(out=root)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it calls a program that came with it

    def run(*command):
        command = [sys.executable, "-m", "nbgrader", *command]
        done = subprocess.run(command, cwd=root, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return root

    return run


@pytest.mark.parametrize("lesson", lessons())
def test_solutions_earn_all_points_and_untouched_copies_none(nbgrader, lesson):
    from nbgrader.api import Gradebook

    root = nbgrader("generate_assignment", lesson)
    name, count = f"{lesson}.ipynb", len(exercises(lesson))
    text = (root / "release" / lesson / name).read_text("utf-8")
    assert "SOLUTION" not in text and text.count("raise NotImplementedError") >= count
    assert "HIDDEN" not in text
    solutions = {one["id"]: MARKERS.sub("", one["source"]) for one in shipped(lesson)}
    first = exercises(lesson)[0]
    earned = {"solved": count, "untouched": 0}
    if any(one.earlier for one in exercises(lesson)):
        earned["slipped"] = count - 1
    for student in earned:
        submission = nbformat.reads(text, as_version=4)
        for exercise in exercises(lesson) if student != "untouched" else ():
            cell(submission, exercise.solution).source = solutions[exercise.solution]
        if student == "slipped":
            made_up.a_bit_off(submission, first, solutions[first.solution])
        (root / "submitted" / student / lesson).mkdir(parents=True)
        nbformat.write(submission, root / "submitted" / student / lesson / name)
    nbgrader("autograde", lesson)
    nbgrader("generate_feedback", lesson)
    with Gradebook(f"sqlite:///{root}/gradebook.db") as book:
        for student, points in earned.items():
            graded = book.find_submission(lesson, student)
            assert (graded.score, graded.max_score) == (points, count), student
            assert not graded.needs_manual_grade
            page = (root / "feedback" / student / lesson / f"{lesson}.html").read_text("utf-8")
            assert f"{points:.1f}" in page and all(one.test in page for one in exercises(lesson))
