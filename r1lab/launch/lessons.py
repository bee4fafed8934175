"""`r1lab lab` and `r1lab grade`: the lessons beside whoever installed the wheel, and what learners hand in."""

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from tyro.conf import Positional

from r1lab.files import NOTEBOOKS


def lab(folder: Path = Path("notebooks"), copy_only: bool = False) -> int:
    """Copy the lessons, with the modules and pictures that they use, and open them in JupyterLab.

    Args:
        folder: where the copies go; a file that is there already stays as it is.
        copy_only: do not open JupyterLab.
    """

    def copy_new(source, target):
        if not Path(target).exists():
            shutil.copyfile(source, target)

    hidden = shutil.ignore_patterns("__*", ".*", "grading")
    shutil.copytree(NOTEBOOKS, folder, ignore=hidden, copy_function=copy_new, dirs_exist_ok=True)
    print(f"Lessons: {folder}")
    return 0 if copy_only else subprocess.call([sys.executable, "-m", "jupyter", "lab", folder])


def grade(
    folder: Positional[Path], out: Path = Path("grades"), lesson: str = "", seconds: float = 10.0, seed: str = ""
):
    """Grade the notebooks that learners hand in: a table, grades.csv, and a page for each learner.

    Args:
        folder: a folder for each learner, or notebooks named LEARNER_LESSON.ipynb.
        out: the folder of the grades; what is in it and unchanged is not graded again.
        lesson: grade only this one, as 01_grpo_math.
        seconds: of computing for one function.
        seed: of the questions that no learner has seen; without one, a secret one is drawn once.
    """
    import_module("r1lab.lab")  # puts the lessons' folder on the path
    import_module("grading").grade(folder, out, lesson, seconds, seed)
