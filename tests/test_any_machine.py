"""A Mac, as far as Linux can play one: `tests/mac/sitecustomize.py` takes away what Linux alone has."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1lab import cli

ROOT = Path(__file__).resolve().parents[1]
MAC = ROOT / "tests/mac"
ZERO = (
    "-m r1lab zero --model data/tiny --rollouts 1 --questions 2 --group-size 2 --minibatches 1 --caps 0 16 "
    "--processes 2 --eval-samples 1 --eval-problems 1 --final-samples 1"
)


def on_a_mac(folder: Path, *command: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join(map(str, (MAC, ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "R1LAB_STATIC": "1"}
    return subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("command", "code", "words"), [
    (ZERO, 0, "Report: runs/zero/report.html"),
    ("-m r1lab doctor", None, "every lesson"),
    ("-m r1lab sample data/zero --level 1 --group-size 2 --max-tokens 8", 0, "advantage"),
    (f"{MAC}/lesson.py {ROOT}/notebooks/00_start_here.ipynb", 0, "ran to its end"),
    (f"{MAC}/lesson.py {ROOT}/notebooks/03_r1_zero.ipynb", 0, "ran to its end"),
])  # fmt: skip
def test_a_mac_trains_grades_and_teaches(command, code, words, tmp_path):
    folder = tmp_path / "Übung für 学生"  # a home may be called so
    folder.mkdir()
    done = on_a_mac(folder, *command.split())
    assert code in (done.returncode, None) and words in done.stdout, done.stdout[-2000:] + done.stderr[-3000:]


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
