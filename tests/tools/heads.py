"""Put the same head cell into each lesson: `python -m tests.tools.heads [NOTEBOOK ...]`.

A lesson may stand alone in a folder, as on Colab. There its head cell says what to install, and after that
finds the modules that lessons share. It is folded in JupyterLab and absent from the book.
"""

from __future__ import annotations

import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Annotated

import nbformat
import tyro
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from r1lab.cli import exit_code
from tests.tools.build import read_notebook

ROOT = Path(__file__).resolve().parents[2]
NAME = "install-r1lab"  # the cell's id
# `skip-execution`: it is stored un-run, since what it says depends on where it runs.
METADATA = {"jupyter": {"source_hidden": True}, "tags": ["remove-cell", "skip-execution"]}
SOURCE = '''\
class NotHere(ImportError):
    def _render_traceback_(self):  # one sentence in place of a traceback
        return [str(self)]


try:
    import r1lab.lab  # finds the modules that lessons share, wherever this notebook is
except ModuleNotFoundError as missing:
    raise NotHere(
        f"The module {missing.name} is missing: run %pip install "
        "{PACKAGE} in a new cell, then restart the kernel "
        "and run this one again."
    ) from None
'''


def head(root: Path = ROOT) -> str:
    """The cell's source. What pip takes is the repository, where pyproject.toml has its address, or a wheel."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["tool"]["r1lab"]["repository"]
    wheel = f"./r1lab-{project['project']['version']}-py3-none-any.whl"
    return SOURCE.replace("{PACKAGE}", f"git+{address}" if address else wheel).rstrip()


def put_head(notebook: NotebookNode, source: str) -> None:
    """Give the notebook its head cell, in place: after the title, or where it was."""
    places = [place for place, cell in enumerate(notebook.cells) if cell.get("id") == NAME]
    head = new_code_cell(source, id=NAME, metadata=METADATA)
    notebook.cells[(places or [1])[0] : (places or [0])[0] + 1] = [head]


def main(notebooks: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()) -> None:
    """Put the head cell into notebooks; what is up to date is not written.

    Args:
        notebooks: which ones; all lessons when none is named.
    """
    for path in notebooks or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        notebook = read_notebook(path)
        before = nbformat.writes(notebook)
        put_head(notebook, head())
        if nbformat.writes(notebook) != before:
            nbformat.write(notebook, path)
            print(f"{path}: written")


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, main, description=__doc__)))
