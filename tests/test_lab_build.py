"""The build: notebooks run in a new kernel, stored in one form, written only for a reason."""

import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from r1lab.errors import InputError
from tests.tools.build import build, normalise

VIEW = "application/vnd.jupyter.widget-view+json"


def write(path, *cells, **metadata):
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), path)
    return path


def test_a_notebook_is_run_and_stored_in_normal_form(tmp_path):
    path = write(
        tmp_path / "lesson.ipynb",
        new_markdown_cell("# A lesson"),
        new_code_cell(
            "import os\nprint(os.environ['R1LAB_STATIC'], flush=True)\nprint('two')\n"
            "print(os.path.basename(os.getcwd()))",
            metadata={"execution": {"iopub.execute_input": "2026-01-01T00:00:00Z"}},
        ),
        new_code_cell(
            "slider()", execution_count=9, metadata={"tags": ["interactive", "skip-execution"]},
            outputs=[new_output("stream", text="stale")],
        ),
        new_code_cell("import random\nrandom.random()", metadata={"tags": ["nbval-ignore-output"]}),
        new_code_cell("6 * 7"),
        kernelspec={"name": "mine", "display_name": "Mine", "language": "python"},
        widgets={"state": {}},
    )  # fmt: skip
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert build(path) is True

    stored = nbformat.read(path, as_version=4)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.id for cell in stored.cells] == ids
    assert [cell.execution_count for cell in code] == [1, None, 2, 3]
    printed = [output.text for output in code[0].outputs if output.name == "stdout"]
    assert "".join(printed).split() == ["1", "two", tmp_path.name]
    assert "execution" not in code[0].metadata and code[1].outputs == []
    assert code[3].outputs[0].data["text/plain"] == "42"
    assert "widgets" not in stored.metadata and stored.metadata.kernelspec.name == "python3"
    assert "version" not in stored.metadata.language_info

    before = path.read_bytes()
    assert build(path) is False  # the random number differs, and its cell is one that may
    assert path.read_bytes() == before


@pytest.mark.parametrize(("source", "timeout", "words"), [
    ("raise ValueError('no')", 60, "code cell 2 failed, ValueError: no$"),
    ("while True: pass", 1, "code cell 2 failed, .*timed out.*$"),
    ("import os\nos._exit(1)", 60, "code cell 2 failed, Kernel died$"),
])  # fmt: skip
def test_a_failing_notebook_is_left_as_it_was(tmp_path, source, timeout, words):
    path = write(tmp_path / "lesson.ipynb", new_code_cell("1"), new_code_cell(source))
    before = path.read_bytes()
    with pytest.raises(InputError, match=words):
        build(path, timeout)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [None, "", "{}", "not a notebook"])
def test_what_is_no_notebook_is_refused(tmp_path, content):
    path = tmp_path / "lesson.ipynb"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="cannot be read as a notebook"):
        build(path)


def test_the_command_says_what_is_wrong_and_exits_with_2(tmp_path):
    command = [sys.executable, "-m", "tests.tools.build", str(tmp_path / "nowhere.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nowhere.ipynb cannot be read" in done.stderr and "Traceback" not in done.stderr


def test_neighbouring_pieces_of_one_stream_become_one():
    pieces = [("stdout", "a\n"), ("stdout", "b\n"), ("stderr", "c\n"), ("stdout", "d\n")]
    outputs = [new_output("stream", name=name, text=text) for name, text in pieces]
    notebook = new_notebook(cells=[new_code_cell("x", outputs=outputs, execution_count=1)])
    normalise(notebook)
    merged = [(output.name, output.text) for output in notebook.cells[0].outputs]
    assert merged == [("stdout", "a\nb\n"), ("stderr", "c\n"), ("stdout", "d\n")]


def test_a_widget_keeps_its_picture_and_loses_its_view():
    data = {VIEW: {"model_id": "0123"}, "image/png": "iVBO", "text/plain": "Chart"}
    cell = new_code_cell("x", outputs=[new_output("display_data", data)], execution_count=1)
    notebook = new_notebook(cells=[cell])
    normalise(notebook)
    assert set(notebook.cells[0].outputs[0].data) == {"image/png", "text/plain"}
