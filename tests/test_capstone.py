"""The capstone: its puzzles, its entries and its board."""

import inspect
from pathlib import Path

import capstone
import first_entries
import nbformat
import numpy as np
import pytest

from r1lab.errors import InputError
from r1lab.sources import load_object

LESSON = Path("notebooks/14_capstone.ipynb")


def test_plus_signs_alone_solve_most_training_puzzles_and_no_test_puzzle():
    task = capstone.trap().task
    assert sum("-" not in problem.solution for problem in task.problems) == 72
    assert len(task.problems) == 96 and len({problem.id for problem in task.test}) == 32
    assert all("-" in problem.solution for problem in task.test)
    assert not {problem.id for problem in task.problems} & {problem.id for problem in task.test}
    assert len(capstone.healthy().task.test) == 32


def test_the_lesson_shows_the_code_of_the_first_entries():
    cells = [cell.source for cell in nbformat.read(LESSON, as_version=4).cells]
    for function in (first_entries.second_try, first_entries.hurried):
        assert any(inspect.getsource(function) in source for source in cells)


@pytest.mark.parametrize(("yours", "side", "named", "counts"), [
    ([0.8, 0.7, 0.9], "reward", [], True),
    ([0.8, 0.4, 0.9], "reward", [], False),  # a seed on the other side
    ([0.8, 0.7], "reward", [], False),  # two seeds
    ([0.2, 0.1, 0.3], "fault", [], True),
    ([0.2, 0.1, 0.3], "fault", ["grader accepts nonsense"], False),
    ([0.8, 0.7, 0.9], "fault", [], False),  # a fault that helps
])  # fmt: skip
def test_an_entry_counts_by_the_rule_of_the_course(yours, side, named, counts, monkeypatch):
    shares = np.array(yours)[:, None] + np.linspace(-0.05, 0.05, 8)
    result = capstone.Comparison(shares, np.full(shares.shape, 0.5), {})
    ill = [type("Ill", (), {"name": name}) for name in named]
    monkeypatch.setattr(capstone, "compare", lambda *arms: result)
    monkeypatch.setattr(capstone, "ask_doctor", lambda arm: ill)
    given = first_entries.rewards if side == "reward" else first_entries.arm
    entry = capstone.measured(side, given, range(len(yours)))
    assert entry["counts"] is counts and entry["named"] == (named if side == "fault" else [])
    assert entry["low"] <= entry["points"] <= entry["high"]


@pytest.mark.parametrize(("choice", "given"), [("reward", len), ("fault", {}), ("claim", first_entries.arm)])
def test_what_cannot_be_an_entry_is_refused_in_a_sentence(choice, given):
    with pytest.raises(InputError, match=f"an entry for '{choice}' is a"):
        capstone.arms(choice, given)


def test_an_entry_replaces_an_earlier_one_of_its_name(tmp_path, capsys):
    board = tmp_path / "board.jsonl"
    for points in (3.0, 5.0):
        entry = {"choice": "reward", "name": "mine", "points": points, "low": 1.0, "high": 9.0,
                 "seeds": [points] * 3, "counts": True, "command": "…"}  # fmt: skip
        capstone.enter(entry, board)
    assert [row["points"] for row in capstone.entries(board)] == [5.0]
    capstone.show_board(board)
    board.write_text('{"choice": "reward"}\n')
    with pytest.raises(InputError):
        capstone.entries(board)


def test_every_stored_entry_names_a_command_that_finds_it():
    for entry in capstone.entries():
        _, script, choice, source = entry["command"].split()
        assert Path(script).is_file() and choice == entry["choice"]
        assert capstone.arms(choice, load_object(source, "reward"))
