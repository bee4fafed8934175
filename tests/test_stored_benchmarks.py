"""Stored benchmarks say what made them: the command, the commit, the day."""

import json
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STORED = sorted((ROOT / "data" / "benchmarks").glob("*.json"))
EARLIER = ("commit_that_stored_these_numbers", "date_of_that_commit")  # before `record` was written


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_stored_benchmark_says_what_made_it(path):
    told = json.loads(path.read_text())
    assert {"command"} <= told.keys()
    assert {"commit", "date"} <= told.keys() or set(EARLIER) <= told.keys()


def test_a_result_is_stored_with_command_commit_date_and_machine(tmp_path, monkeypatch, capsys):
    script = ROOT / "tests" / "benchmarks" / "record.py"
    record = runpy.run_path(str(script))["record"]
    monkeypatch.setattr(sys, "argv", [str(script), "--model", "two words"])
    record({"seconds": 1.5}, tmp_path / "result.json")
    told = json.loads((tmp_path / "result.json").read_text())
    assert json.loads(capsys.readouterr().out) == told
    assert told["command"] == "python tests/benchmarks/record.py --model 'two words'"
    assert told["seconds"] == 1.5 and told["machine"]["cores"] > 0
    assert told["date"][4] == "-" and "commit" in told
