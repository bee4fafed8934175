"""Every check rejects each planted wrong solution with a sentence that helps, and accepts each
right one; and it answers a hostile or broken function within seconds, too."""

import functools
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from tests.planted_solutions import PLANTED, Verdict, judge, kill_table

from r1lab.lab import check
from r1lab.lab.check import engine

# Solutions that evaluate an answer make Python warn about the answer's syntax.
pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")

EXERCISES = list(dict.fromkeys(planted.exercise for planted in PLANTED))
WRONG = [planted for planted in PLANTED if not planted.right]
RIGHT = [planted for planted in PLANTED if planted.right]
ENDLESS = "an endless loop"


def names(planted):
    return [f"{p.exercise}: {p.what}" for p in planted]


def assert_helpful(message):
    """One line, a whole sentence that shows a number or an input, and nothing of our insides."""
    lines = message.splitlines()
    assert len(lines) == 1, f"one sentence, not {len(lines)} lines:\n{message}"
    assert message.endswith("."), message
    assert re.search(r"\d|['\"`\[(]", message), f"neither a number nor an input: {message}"
    assert not re.search(r"Traceback|\.py\b|<lambda>|<function|0x[0-9a-f]{6}", message), message
    assert len(message) < 600, message


def judge_endless(exercise, function):
    """The verdict after one second instead of the deadline that learners get."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "SECONDS", 1.0)
        return judge(exercise, function)


@functools.cache
def verdict_on(planted):
    ask = judge_endless if planted.what == ENDLESS else judge
    return ask(planted.exercise, planted.function)


def test_each_exercise_has_enough_planted_solutions():
    wrong = Counter(planted.exercise for planted in WRONG)
    right = Counter(planted.exercise for planted in RIGHT)
    assert sorted(EXERCISES) == check.names()
    assert min(wrong[exercise] for exercise in EXERCISES) >= 15
    assert min(right[exercise] for exercise in EXERCISES) >= 5


@pytest.mark.parametrize("planted", WRONG, ids=names(WRONG))
def test_a_wrong_solution_is_rejected_with_a_sentence_that_helps(planted):
    accepted, message = verdict_on(planted)
    assert accepted is False
    assert_helpful(message)


@pytest.mark.parametrize("planted", RIGHT, ids=names(RIGHT))
def test_a_right_solution_is_accepted(planted):
    assert verdict_on(planted) == (True, f"{planted.exercise}: right")


# ---- a broken or hostile learner -----------------------------------------------------------------


def raises(error):
    def function(*inputs):
        raise error

    return function


def recurses(*inputs):
    return recurses(*inputs)


class Stubborn:
    """Whatever is asked of it raises."""

    def __eq__(self, other):
        raise ValueError("cannot be compared")

    __bool__ = __float__ = __iter__ = __len__ = __repr__ = __eq__


BROKEN = {
    "returns None": lambda *inputs: None,
    "returns Ellipsis": lambda *inputs: ...,
    "returns a dictionary": lambda *inputs: {"answer": 1},
    "returns an exception": lambda *inputs: ValueError("no"),
    "returns an empty tensor": lambda *inputs: torch.zeros(0),
    "returns a complex tensor": lambda *inputs: torch.ones(2, 2) * 1j,
    "returns a huge integer": lambda *inputs: 10**5000,
    "returns a function": lambda *inputs: recurses,
    "returns what cannot be compared or shown": lambda *inputs: Stubborn(),
    "yields": lambda *inputs: (yield 1.0),
    "takes no argument": lambda: 1.0,
    "raises SystemExit": raises(SystemExit(1)),
    "raises an AssertionError without a text": raises(AssertionError()),
    "raises an error of two lines": raises(RuntimeError("first line\nsecond line")),
    "recurses without end": recurses,
    "is no function": 3,
    "is forgotten": None,
}


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_function_gets_a_sentence(exercise, broken):
    accepted, message = judge(exercise, BROKEN[broken])
    assert accepted is False
    assert_helpful(message)


def test_a_function_that_prints_a_lot_does_not_bury_the_verdict():
    def talks(n, correct, k):
        for number in range(2_000):
            print("debug", number)
        return 0.5

    accepted, message = judge("pass_at_k", talks)
    assert accepted is False
    assert_helpful(message.splitlines()[-1])


def test_checks_draw_from_their_own_generator():
    """A lesson's later numbers must not depend on whether a learner ran a check before."""
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    for planted in {planted.exercise: planted for planted in RIGHT}.values():
        judge(planted.exercise, planted.function)
    assert torch.equal(torch.rand(1), expected)


def test_the_kill_table_counts_and_names_survivors():
    verdicts = {planted: verdict_on(planted) for planted in PLANTED}
    printed = kill_table(verdicts)
    page = Path("notebooks/proofs.md").read_text(encoding="utf-8")
    assert printed in page
    assert f"reject {len(WRONG)} planted wrong solutions and accept {len(RIGHT)} right ones" in page
    lessons = [path.read_text(encoding="utf-8") for path in Path("notebooks").glob("*.ipynb")]
    assert f"of the {sum(text.count('### Exercise ') for text in lessons)} exercises" in page
    table = printed.splitlines()
    assert len(table) == 2 + len(EXERCISES)
    assert not [row for row in table if "survived" in row]
    rejected = sum(int(re.search(r"\| (\d+) of", row)[1]) for row in table[2:])
    assert rejected == len(WRONG)
    survivor = WRONG[0]
    row = kill_table({**verdicts, survivor: Verdict(True, "")}).splitlines()[2]
    assert f"survived: {survivor.what}" in row
    assert f"| {len([p for p in WRONG if p.exercise == survivor.exercise]) - 1} of" in row
