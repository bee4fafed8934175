"""Judge a learner's function: by properties, in sentences, within a deadline.

An exercise is a row of `exercises.toml`, asked the questions of `examples.json`: [why, arguments, right
answer, ...]. Where a row has `words`, a right answer is [result, slopes ...], all tensors.
"""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import no_type_check

import torch
from torch import Tensor

from r1lab.files import read_toml
from r1lab.lab.check.asking import NotYet, decode, reply, require, shown, typed

SECONDS = 10.0  # for all calls of one check
AGAIN = 0.5  # seconds until a function that swallowed the alarm hears it again
TOLERANCE = 2e-5  # differences below this, in relation to 1 + |truth|, are rounding
NUMBER, TEXT = (int | float, "a number"), (str | None, "a text or None")
KINDS = {bool: (bool, "True or False"), float: NUMBER, int: NUMBER, list: (list, "a list")}
EXERCISES = read_toml(__file__, "exercises")
EXAMPLES = json.loads(Path(__file__).with_name("examples.json").read_text("utf-8"))


class Overdue(BaseException):
    """Raised inside a learner's function that does not end; no `except Exception` catches it."""


def make_check(name: str) -> Callable[[Callable], bool]:
    """Make the check of an exercise: it prints one line, and says whether a function is right."""

    def check(fn):
        said = f"hand over the function itself, without calling it: check.{name}({name})."
        if callable(fn):
            with deadline(SECONDS):
                said = judge(EXERCISES[name], partial(reply, fn), EXAMPLES[name])
        print(f"{name}: {said}")
        return said == "right"

    check.__name__, check.__doc__ = name, EXERCISES[name]["asks"]
    return check


def judge(row: dict, ask: Callable[..., str], questions: list) -> str:
    """Ask all questions, then again in the reverse order: "right", or the sentence that says what is not.

    Args:
        row: the exercise, one of EXERCISES.
        ask: what `asking.reply` does with a function.
    """
    given = "nothing yet"
    compare = _compare_tensors if "words" in row else _compare
    again = [[f"{why}, asked once more", *rest] for why, *rest in reversed(questions)]
    try:
        for why, stored, *rights in questions + again:
            question = json.dumps(stored)
            args = decode(question)
            given = typed(args)
            answer = decode(ask(question, row.get("slopes", [])))
            if "fault" in answer:
                raise NotYet(answer["fault"])
            compare(row, why, args, answer, rights)
    except NotYet as fault:
        return str(fault)
    except Overdue:
        busy = f"after {SECONDS:g} s your function is still busy with {given}"
        return f"{busy}: a loop in it does not end."
    return "right"


def _compare(row, why, args, answer, rights):
    """The result is plain data, of the kind of the right ones, and one of them."""
    given, yours, value = typed(args), answer["kind"], (answer["values"] or [...])[0]
    value = value.tolist() if isinstance(value, Tensor) else value
    types, expected = KINDS.get(type(rights[0]), TEXT)
    require(isinstance(value, types), f"your function returns {yours} for {given}; {expected} is expected.")
    what = "the result"
    if "packs" in row:
        what = row["packs"]
        value = _fills(value, args[0], f"your function returns {yours} for {given}")
        yours = shown(value)
    wrong = f"{why}: for {given} {what} must be {shown(rights[0])}; yours is {yours}."
    require(any(same(value, right) for right in rights), wrong)


def same(value: object, truth: object) -> bool:
    """Compare plain data: lists entry by entry, numbers within the tolerance where the truth is a float."""
    if isinstance(value, list) and isinstance(truth, list):
        return len(value) == len(truth) and all(map(same, value, truth))
    if isinstance(truth, float) and isinstance(value, int | float):
        return abs(value) < 1e300 and abs(value - truth) <= TOLERANCE / 2 * (1 + abs(truth))
    return value == truth


def _fills(lines, lengths, returned):
    """How many tokens are in each line of row numbers, sorted: what does not depend on the order of ties."""
    each = f"a list of lists with each row from 0 to {len(lengths) - 1} in one of them"
    listed = all(isinstance(line, list) for line in lines)
    once = listed and sorted(map(repr, sum(lines, []))) == sorted(map(repr, range(len(lengths))))
    require(once, f"{returned}; {each} is expected.")
    return sorted(sum(lengths[row] for row in line) for line in lines)


def _compare_tensors(row, why, args, answer, rights):
    """The result and its slopes are those of the nearest right answer."""
    given, values = typed(args), answer["values"] or [...]
    rights = [list(map(torch.tensor, right)) for right in rights]
    shape = tuple(rights[0][0].shape)
    wanted = f"a floating-point tensor of shape {shape} is expected"
    right_type = isinstance(values[0], Tensor) and values[0].is_floating_point()
    require(right_type, f"your function returns {answer['kind']}; {wanted}.")
    size = tuple(values[0].shape)
    require(size == shape, f"your result has shape {size}; {wanted}.")
    odd = values[0][~values[0].isfinite()].tolist()
    fault = "something is divided by 0, or let in by the mask"
    require(not odd, f"your result holds {odd[:1]} for {given}: {fault}.")
    slopes = row.get("slopes", [])
    parts = ["", *(f" has the right value, but its slope over argument {place + 1}" for place in slopes)]
    for part, value, *options in zip(parts, values, *rights):
        fault = "select before you compute, not after"
        require(value.isfinite().all(), f"your gradient is not finite for {given}: {fault}.")
        offs = [((value - one).abs() / (1 + one.abs()), one) for one in options]
        off, right = min(offs, key=lambda pair: pair[0].max().item())
        if off.max() < TOLERANCE:
            continue
        fault = "look for .detach(), .item() or torch.tensor(...) on the way"
        flows = value.any() or not (part and right.any())
        require(flows, f"no gradient flows to your result for {given}: {fault}.")
        at = [int(place) for place in torch.unravel_index(off.argmax(), off.shape)]
        what = row["words"].format(*(_entry(arg, at) for arg in args)) + f" at {at}" * bool(at)
        raise NotYet(f"{why}: {what}{part} must be {right[*at]:.4g}; yours is {value[*at]:.4g}.")


def _entry(arg, at):
    """A tensor's entry at this place, counted round in dimensions that are broadcast; or the argument."""
    if not isinstance(arg, Tensor):
        return arg
    return arg[*(place % size for place, size in zip(at, arg.shape))]


@no_type_check  # a checker's own frames would come between the alarm and the function
@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise Overdue inside a learner's function that still runs when `seconds` are over.

    A thread cannot be killed, and another process cannot be used: spawning one needs to pickle
    functions that a notebook defines, forking one may hang where torch has threads. An alarm
    signal also ends a sleep or a slow regular expression. Signals reach the main thread only, which
    is where cells run: a check called from another thread has no deadline.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    traced = sys.gettrace()

    def stop(frame, event, arg):
        if event == "line":
            raise Overdue
        return stop

    def ring(signum, frame):
        frame.f_trace = stop  # a bare `except:` swallows Overdue, but not one on its own lines
        sys.settrace(lambda *event: None)
        raise Overdue

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(traced)
