"""A Mac, as far as Linux can play one: `tests/mac/sitecustomize.py` takes away what Linux alone has."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from r1lab import cli

ROOT = Path(__file__).resolve().parents[1]
MAC = ROOT / "tests/mac"
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KERNEL_CELLS = ("b6bd6f31", "b3c23791", "c9063e5f", "1a2918f7", "f8c23246")  # of lesson 11: kernels, listener, launches
COMMON = ("from contextlib import contextmanager", "from unittest.mock import patch", "import torch")
INTERPRETERS = {
    "triton": ("import triton", "import triton.language as tl",
               "from triton.runtime.interpreter import interpreter_builder as builder"),
    "numpy": ("from tiles import builder, tl, triton",),
}  # fmt: skip
ZERO = (
    "-m r1lab zero --model data/tiny --rollouts 1 --questions 2 --group-size 2 --minibatches 1 --caps 0 16 "
    "--processes 2 --eval-samples 1 --eval-problems 1 --final-samples 1"
)


def on_a_mac(folder: Path, *command: str) -> subprocess.CompletedProcess:
    """Run Python in a folder with what a wheel installs and no more: no tests, no compiler, no git."""
    packages, programs = folder / "site-packages", folder / "bin"
    for made in (packages, programs):
        made.mkdir()
    for name in ("r1lab", "data", "notebooks"):
        (packages / name).symlink_to(ROOT / name)
    path = os.pathsep.join(map(str, (MAC, packages)))
    environment = os.environ | {
        "PYTHONPATH": path, "PATH": str(programs), "OMP_NUM_THREADS": "1", "R1LAB_STATIC": "1",
    }  # fmt: skip
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("command", "code", "words"), [
    (ZERO, 0, "Report: runs/zero/report.html"),
    ("-m r1lab doctor", None, "every lesson"),
    ("-m r1lab sample data/zero --level 1 --group-size 2 --max-tokens 8", 0, "advantage"),
    (f"{MAC}/lesson.py 00_start_here.ipynb", 0, "ran to its end"),
    (f"{MAC}/lesson.py 03_r1_zero.ipynb", 0, "ran to its end"),
    (f"{MAC}/lesson.py 11_fused_logprobs.ipynb", 0, "stored: Triton: dX and dW equal float64's"),
])  # fmt: skip
def test_a_mac_trains_grades_and_teaches(command, code, words, tmp_path):
    folder = tmp_path / "Übung für 学生"  # a home may be called so
    folder.mkdir()
    if command.endswith(".ipynb"):  # the lesson alone: nothing that it shares with others is beside it
        shutil.copy(ROOT / "notebooks" / command.split()[-1], folder)
    done = on_a_mac(folder, *command.split())
    assert code in (done.returncode, None) and words in done.stdout, done.stdout[-2000:] + done.stderr[-3000:]


def test_every_lesson_finds_what_it_imports_on_a_mac_and_without_the_tests(tmp_path):
    done = on_a_mac(tmp_path, f"{MAC}/imports.py", *map(str, LESSONS))
    assert done.returncode == 0 and done.stdout.count("all its imports are here") == len(LESSONS), done.stderr[-2000:]


def test_no_lesson_asks_for_what_linux_alone_has():
    linux = r"""/proc/|/sys/|sched_[gs]etaffinity|os\.fork|memfd|prctl|["']fork["']|RLIMIT_AS"""
    sources = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.py")}
    for path in LESSONS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources[path.name] = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    assert len(sources) > 20
    assert {name: re.findall(linux, text) for name, text in sources.items() if re.search(linux, text)} == {}


@pytest.mark.parametrize(("statement", "words"), [
    ("from tests.grader_forms import question", "No module named 'tests'"),
    ("if True:\n    import triton.language", "triton"),
])  # fmt: skip
def test_an_import_that_is_not_there_is_found(statement, words, tmp_path):
    cell = {"cell_type": "code", "source": [statement]}
    (tmp_path / "lesson.ipynb").write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    done = on_a_mac(tmp_path, f"{MAC}/imports.py", "lesson.ipynb")
    assert done.returncode == 1 and words in done.stderr and "lesson.ipynb, cell 0" in done.stderr


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not built for this system")
def test_the_numpy_interpreter_does_what_tritons_does(tmp_path, monkeypatch):
    """The kernels of lesson 11 on both: the same loads and stores, in order, and the same numbers."""
    cells = json.loads((ROOT / "notebooks/11_fused_logprobs.ipynb").read_text(encoding="utf-8"))["cells"]
    kernels = ["".join(cell["source"]) for cell in cells if cell["id"] in KERNEL_CELLS]
    assert len(kernels) == len(KERNEL_CELLS)
    monkeypatch.syspath_prepend(tmp_path)
    made = []
    for name, lines in INTERPRETERS.items():  # a module each, as Triton reads a kernel's file
        (tmp_path / f"kernels_by_{name}.py").write_text("\n".join([*COMMON, *lines, *kernels]), encoding="utf-8")
        made.append(import_module(f"kernels_by_{name}"))
    triton, ours = made
    assert (triton.out - ours.out).abs().max() < 1e-5 and (triton.logp - ours.logp).abs().max() < 1e-5
    assert [event[:2] for event in triton.events] == [event[:2] for event in ours.events]
    assert all((left[2] == right[2]).all() for left, right in zip(triton.events, ours.events, strict=True))


def test_a_mac_grades_mathematics_and_refuses_programs(tmp_path):
    script = (
        "from r1lab.errors import InputError\n"
        "from r1lab.rewards import accuracy\n"
        "print(accuracy(['q'] * 2, ['<answer>1 + x</answer>', '<answer>x</answer>'], ['x + 1'] * 2))\n"
        "tests = [{'input': 1, 'output': 1}]\n"
        "try:\n"
        "    accuracy(['q'], ['<answer>f = abs</answer>'], [''], tests=[tests])\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    grades, *refusal = on_a_mac(tmp_path, "-c", script).stdout.splitlines()
    assert grades == "[1.0, 0.0]"
    assert len(refusal) == 1 and "so none was run: it needs Linux" in refusal[0]


@pytest.mark.parametrize(("number", "code"), [
    (errno.EROFS, cli.BAD_INPUT), (errno.EACCES, cli.BAD_INPUT), (errno.ENOSPC, cli.BAD_INPUT), (errno.EIO, None),
])  # fmt: skip
def test_a_folder_that_cannot_be_written_is_one_sentence(number, code, capsys):
    def work():
        raise OSError(number, os.strerror(number), "runs/zero")

    if code is None:  # a fault of another kind keeps its traceback
        pytest.raises(OSError, cli.exit_code, work)
    else:
        assert cli.exit_code(work) == code
        said = capsys.readouterr().err
        assert "'runs/zero'; start it in a folder that you may write to" in said and said.count("\n") == 1
