"""Run the notebooks and store them in one normal form: `python -m tests.tools.build [NOTEBOOK ...]`.

Each notebook runs from top to bottom in a new kernel. Cells tagged `skip-execution` (interactive
ones) are stored un-run. A file is written only if the result says something new.
"""

from __future__ import annotations

import copy
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import nbformat
import tyro
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from r1lab.cli import exit_code
from r1lab.errors import InputError

VIEW = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
IGNORED = "nbval-ignore-output"  # cells whose output may differ from run to run


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook. Raises InputError where the file is not one."""
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError):
        raise InputError(f"{path} cannot be read as a notebook.") from None


def build(path: Path, timeout: int = 600) -> bool:
    """Execute one notebook and store it if something changed; say whether it was written.

    Args:
        path: the notebook; it runs in its own folder.
        timeout: seconds that one cell may take. nbclient can wait forever for a lost
            message, so there is always a limit.
    Raises:
        InputError: the file is not a notebook, or a cell failed; the file is left as it was.
    """
    old = read_notebook(path)
    new = copy.deepcopy(old)
    client = NotebookClient(
        new, timeout=timeout, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": path.parent}},
        extra_arguments=["--IPKernelApp.log_level=40"],  # its warnings are not about the lesson
    )  # fmt: skip
    try:
        client.execute(env=os.environ | {"R1LAB_STATIC": "1", "OMP_NUM_THREADS": "1"})
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        why = str(error).splitlines()[0]
        if isinstance(error, CellExecutionError):
            why = f"{error.ename}: {error.evalue}"
        number = client.code_cells_executed
        raise InputError(f"{path} was left as it is: code cell {number} failed, {why}") from None
    normalise(new)
    if _essence(new) == _essence(old):
        return False
    nbformat.write(new, path)
    return True


def normalise(notebook: NotebookNode) -> None:
    """Remove, in place, what differs between machines or needs a live kernel to mean anything."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = KERNEL
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps
        if cell.cell_type != "code":
            continue
        if "skip-execution" in cell.metadata.get("tags", []):
            cell.execution_count, cell.outputs = None, []
        for output in cell.outputs:
            output.get("data", {}).pop(VIEW, None)  # its picture or text stays
        cell.outputs = _merge_streams(cell.outputs)


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: how it was cut depends on the machine's load."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == "stream" and output.name == last.get("name"):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _essence(notebook: NotebookNode) -> dict:
    """The notebook without cell ids, and of cells with changing output only its kinds."""
    essence = copy.deepcopy(notebook)
    for cell in essence.cells:
        cell.pop("id", None)
        if IGNORED in cell.metadata.get("tags", []):
            cell.outputs = [[o.output_type, sorted(o.get("data", {}))] for o in cell.outputs]
    return essence


def main(
    notebooks: Annotated[tuple[Path, ...], tyro.conf.Positional] = (), timeout: int = 600
) -> None:
    """Run notebooks and store them in normal form.

    Args:
        notebooks: which ones; all of notebooks/ when none is named.
        timeout: seconds that one cell may take.
    """
    for path in notebooks or sorted(Path("notebooks").glob("*.ipynb")):
        print(f"{path}: {'written' if build(path, timeout) else 'unchanged'}", flush=True)


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, main, description=__doc__)))
