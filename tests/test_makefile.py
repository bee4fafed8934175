"""Every target of make, unrolled and not run: the modules, files and options that its lines name are there."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.test_structure import ROOT, make_targets
from tests.tools import build, heads, offline, student

ELSEWHERE = {"venv", "pip", "jupyter", "pytest"}  # not ours


def lines_of(target: str) -> str:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("target", make_targets())
def test_a_target_names_only_what_is_there(target):
    text = lines_of(target)
    modules = set(re.findall(r"-m ([a-z][\w.]*)", text)) - ELSEWHERE
    marks = {"real", "gpu", "vllm", "slow"}  # of pytest's own -m
    assert not [name for name in modules - marks if find_spec(name) is None]
    for path in re.findall(r"(?<![\w/.-])(tests/[\w/]+\.(?:py|cfg)|constraints[\w-]*\.txt)", text):
        assert (ROOT / path).is_file(), path


def test_help_lists_every_target():
    command = ["make", "--no-print-directory"]  # make test runs this test, too
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[1] for line in done.stdout.splitlines()] == [*make_targets()]


@pytest.mark.parametrize("tool", [build, heads, offline, student], ids=lambda tool: Path(tool.__file__).stem)
def test_a_tool_explains_itself(tool):
    module = f"tests.tools.{Path(tool.__file__).stem}"
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr
