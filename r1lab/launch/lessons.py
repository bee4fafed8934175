"""`r1lab lab`: the lessons, beside whoever installed the wheel."""

import shutil
import subprocess
import sys
from pathlib import Path

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

    hidden = shutil.ignore_patterns("__*", ".*")
    shutil.copytree(NOTEBOOKS, folder, ignore=hidden, copy_function=copy_new, dirs_exist_ok=True)
    print(f"Lessons: {folder}")
    return 0 if copy_only else subprocess.call([sys.executable, "-m", "jupyter", "lab", folder])
