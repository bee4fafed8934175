"""The checks of the exercises: right is right however it is written, and nothing hangs or leaks."""

import signal
import sys
import threading
import time

import pytest
import torch
from grading import questions
from tests.planted_notebook_02 import same_value
from tests.planted_notebook_03 import vote

from r1lab import objective
from r1lab.lab import check
from r1lab.lab.check import engine
from r1lab.stages import preferences


def test_every_exercise_is_exported_and_explained():
    assert set(check.names()) < set(check.__all__)
    for name in check.names():
        assert getattr(check, name).__name__ == name
        assert getattr(check, name).__doc__.startswith("fn(")


@pytest.mark.parametrize("name", check.names())
def test_the_stored_questions_have_the_answers_of_right_functions(name):
    for why, args, *rights in engine.EXAMPLES[name]:
        asked = questions.answered(name, why, args)
        assert asked is None or all(map(same_numbers, asked[2:], rights)), (why, args)
    drawn = list(questions.questions(name, "another seed", 3))
    assert len(drawn) >= 3 and any(one not in engine.EXAMPLES[name] for one in drawn)


def same_numbers(value, stored):
    """Equal up to what rounding differs between machines."""
    if isinstance(stored, list):
        return len(value) == len(stored) and all(map(same_numbers, value, stored))
    return value == stored or value == pytest.approx(stored, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("name", "wrong", "sentence"), [
    ("group_advantages", lambda r: r - r.amin(1, keepdim=True), "sum to 0 and have standard deviation 1"),
    ("group_advantages", lambda r: r - r.mean(1, keepdim=True), "at [1, 2] must be 2.041; yours is 0.8333"),
    ("group_advantages", lambda r: None, "None (a `return` is missing)"),
    ("group_advantages", lambda r: r.mean(1), "shape (2,)"),
    ("group_advantages", lambda r: r.long(), "floating-point"),
    ("group_advantages", lambda r: r / 0, "divided by 0"),
    ("group_advantages", lambda r: r.sub_(1), "changes its arguments"),
    ("group_advantages", torch.rand(3), "hand over the function itself"),
    ("token_mean", lambda x, m: x[m].mean().detach(), "no gradient"),
    ("majority_vote", lambda a: [x for x in a if x][0], "raises IndexError"),
    ("majority_vote", lambda a: 7, "7 (int) for (['7', '8', '7']); a text or None"),
    ("pass_at_k", lambda n, c, k: 1 - (1 - c / n) ** k, "must be 1.0; yours is 0.992"),
])  # fmt: skip
def test_a_wrong_solution_gets_a_sentence(name, wrong, sentence, capsys):
    assert getattr(check, name)(wrong) is False
    said = capsys.readouterr().out
    assert sentence in said and said.startswith(f"{name}: ") and said.count("\n") == 1


@pytest.mark.parametrize(("name", "function"), [
    ("group_advantages", objective.group_advantages), ("clipped_objective", objective.clipped_objective),
    ("kl_penalty", objective.k3), ("bradley_terry", preferences.bradley_terry),
])  # fmt: skip
def test_what_the_package_computes_is_right(name, function):
    assert getattr(check, name)(function) is True


def test_a_stub_is_told_from_a_mistake(capsys):
    def stub(rewards):
        raise NotImplementedError

    assert check.group_advantages(stub) is False
    assert "nothing is written yet" in capsys.readouterr().out


def loops(*args):
    while True:
        sum(range(10))


def sleeps(*args):
    time.sleep(1000)


def swallows(*args):
    while True:
        try:
            time.sleep(1000)
        except:  # noqa: E722
            pass


@pytest.mark.parametrize("endless", [loops, sleeps, swallows])
def test_a_function_that_never_ends_is_stopped(endless, monkeypatch, capsys):
    assert 1 < engine.SECONDS <= 10, "long enough for a busy machine, short enough to wait for"
    monkeypatch.setattr(engine, "SECONDS", 0.2)
    before = signal.getsignal(signal.SIGALRM), sys.gettrace()
    assert check.majority_vote(endless) is False
    assert "a loop in it does not end" in capsys.readouterr().out
    assert (signal.getsignal(signal.SIGALRM), sys.gettrace()) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_after_the_alarm_there_is_time_to_say_what_was_wrong():
    """It rings again for a function that swallowed it, but not while the sentence is made."""
    with engine.deadline(0.05):
        with pytest.raises(engine.Overdue):
            sleeps()
        time.sleep(0.2)


def test_another_thread_gets_a_verdict_too():
    verdicts = []
    worker = threading.Thread(target=lambda: verdicts.append(check.majority_vote(vote)))
    worker.start()
    worker.join()
    assert verdicts == [True]


def test_the_learners_interrupt_is_his_own():
    def interrupted(*args):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check.majority_vote(interrupted)


def test_an_answer_is_never_executed(capsys):
    def runs(answer, gold):
        try:
            return eval(answer) == float(gold) and answer.isdigit()
        except Exception:
            return same_value(answer, gold)

    assert check.safe_accuracy(runs) is False
