"""A lesson alone in an empty folder: its head cell says what to install, and finds what lessons share."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.tools import heads

LESSONS = sorted((heads.ROOT / "notebooks").glob("*.ipynb"))
# IPython where r1lab is not installed: neither on the path nor known to an editable installation.
SHELL = """
import sys
from pathlib import Path
sys.path = [path for path in sys.path if not Path(path, "r1lab").is_dir()]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
done = shell.run_cell(sys.argv[1])
print(done.success)
"""


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_has_the_head_cell(path):
    notebook = nbformat.read(path, as_version=4)
    expected = copy.deepcopy(notebook)
    heads.put_head(expected, heads.head())
    assert notebook == expected, "python -m tests.tools.heads writes it"


def test_a_head_is_replaced_where_it_is_and_put_after_the_title(tmp_path):
    cells = [nbformat.v4.new_markdown_cell(text) for text in ("# A title", "words")]
    path = tmp_path / "lesson.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    for _ in range(2):
        heads.main((path,))
        assert [cell.source for cell in nbformat.read(path, as_version=4).cells] == ["# A title", heads.head(), "words"]


def test_without_r1lab_the_head_says_in_one_sentence_what_to_run(tmp_path):
    """Neither a traceback nor a second line; later cells do not run, since this one failed."""
    command = [sys.executable, "-c", SHELL, heads.head()]
    environment = os.environ | {"IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    sentence, success = done.stdout.splitlines()
    assert sentence == (
        "The module r1lab is missing: run %pip install ./r1lab-0.1.0-py3-none-any.whl in a new cell, then restart the "
        "kernel and run this one again."
    )
    assert success == "False" and done.stderr == ""


def test_where_the_address_is_known_pip_takes_it(tmp_path):
    text = (heads.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    Path(tmp_path, "pyproject.toml").write_text(
        text.replace('repository = ""', 'repository = "https://example.org/r1lab"'), encoding="utf-8"
    )
    assert '"git+https://example.org/r1lab in a new cell' in heads.head(tmp_path)
