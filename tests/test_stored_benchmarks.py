"""Stored benchmarks say what made them: the command, the commit, the day."""

import ast
import inspect
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parents[1]
STORED = sorted((ROOT / "data" / "benchmarks").glob("*.json"))
SCRIPTS = sorted((ROOT / "tests" / "benchmarks").glob("*.py"))
EARLIER = ("commit_that_stored_these_numbers", "date_of_that_commit")  # before `record` was written


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_benchmark_says_what_made_it(path):
    summary = json.loads(path.read_text())
    assert {"command"} <= summary.keys()
    assert {"commit", "date"} <= summary.keys() or set(EARLIER) <= summary.keys()


def test_a_result_is_stored_with_command_commit_date_and_machine(tmp_path, monkeypatch, capsys):
    script = ROOT / "tests" / "benchmarks" / "record.py"
    record = runpy.run_path(str(script))["record"]
    monkeypatch.setattr(sys, "argv", [str(script), "--model", "two words"])
    record({"seconds": 1.5}, tmp_path / "result.json")
    summary = json.loads((tmp_path / "result.json").read_text())
    assert json.loads(capsys.readouterr().out) == summary
    assert summary["command"] == "python tests/benchmarks/record.py --model 'two words'"
    assert summary["seconds"] == 1.5 and summary["machine"]["cores"] > 0
    assert summary["date"][4] == "-" and "commit" in summary


@pytest.fixture
def script(monkeypatch):
    """A function that reads a benchmark's script without running it, as its module's globals."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "benchmarks")
    with patch.dict(os.environ):
        yield lambda path: runpy.run_path(str(path), run_name="benchmark")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_finds_what_it_imports(path, script):
    assert script(path)["__doc__"]


def test_a_benchmark_that_trains_runs(script, tmp_path, monkeypatch):
    """With few and short answers of a small model: two steps of each way to grade, in two processes."""
    bench, out = script(ROOT / "tests/benchmarks/bench_grading.py"), tmp_path / "out.json"
    bench["main"].__globals__.update(QUESTIONS=4, GROUP=2, UPDATES=2, CAP=8, OWN=4, TOGETHER=2)
    monkeypatch.setattr(sys, "argv", [str(ROOT / "tests/benchmarks/bench_grading.py")])
    bench["main"](str(ROOT / "data/tiny"), repeats=1, out=out)
    assert json.loads(out.read_text())["completions"] == 8


@pytest.mark.parametrize("arm", ["today", "TRL, float32, 8 rows"])
def test_the_benchmark_of_a_real_model_runs_on_a_small_one(arm, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
    bench = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "bench_real.py"))
    changes = {"rollouts": 2, "questions": 4, "group_size": 4, "minibatches": 2, "caps": ((0, 8),), "processes": 1}
    found = bench["work"](arm, "cpu", str(ROOT / "data" / "tiny"), changes)
    assert found["seconds"] > 0 and found["peak_memory_gb"] > 0
    assert 16 <= found["tokens"] <= 16 * 8
    summary = bench["summary"]({"today": [found], arm: [found]}, lambda values: values[0])
    assert summary["times_today's"]["cpu_seconds"] == dict.fromkeys({"today", arm}, 1.0)


def test_the_benchmark_names_modules_that_the_earlier_code_has():
    bench = runpy.run_path(str(ROOT / "tests" / "benchmarks" / "bench_real.py"))
    imports = [node for node in ast.walk(ast.parse(inspect.getsource(bench["before"])))
               if isinstance(node, ast.ImportFrom) and node.module.startswith("r1lab")]  # fmt: skip
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-tree", "-r", "--name-only", bench["BEFORE"]],
        capture_output=True, text=True,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip(f"this checkout does not hold {bench['BEFORE']}")
    files = set(listed.stdout.split())
    for node in imports:
        assert f"{node.module.replace('.', '/')}.py" in files, node.module
