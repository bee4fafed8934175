"""What a program's end means, decided outside of it, from plain data. Pure functions."""

import json
import math
import os
import reprlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

@dataclass(frozen=True)
class Ended:
    """How a program's process ended: killed at the wall deadline, wait status, what it wrote."""

    late: bool
    status: int
    written: bytes


@dataclass(frozen=True)
class Outcome:
    """A verdict: ok, wrong, error, timeout, memory or forbidden; and why ("" for ok)."""

    verdict: str
    detail: str = ""


# SIGPROF is the end of the computing time, SIGSYS a forbidden system call, SIGKILL (where it is not
# the deadline's) the kernel short of memory.
BY_SIGNAL = {signal.SIGPROF: "timeout", signal.SIGSYS: "forbidden", signal.SIGKILL: "memory"}


def same(answer: object, expected: object) -> bool:
    """Are two values of JSON equal? 6 is 6.0, but True is not 1; floats up to 1e-9, relatively."""
    kinds = (type(answer), type(expected))
    if kinds == (list, list):
        return len(answer) == len(expected) and all(map(same, answer, expected))
    if kinds == (dict, dict):
        return answer.keys() == expected.keys() and all(
            same(answer[key], expected[key]) for key in expected
        )
    if bool in kinds:
        return answer is expected
    if kinds == (float, float):
        return math.isclose(answer, expected, rel_tol=1e-9)
    return answer == expected


def same_text(answer: object, expected: object) -> bool:
    """Are two printed texts equal? Line by line, without blanks around a line; lines of numbers by
    their values: 1.0 is 1."""
    if not isinstance(answer, str) or not isinstance(expected, str):
        return False
    ours, theirs = (text.strip().split("\n") for text in (answer, expected))
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(ours: str, theirs: str) -> bool:
    if ours.strip() == theirs.strip():
        return True
    try:
        return [Decimal(word) for word in ours.split()] == [Decimal(word) for word in theirs.split()]
    except InvalidOperation:  # words, or no number at all
        return False


def judge(
    ended: Ended, inputs: list, expected: list, same: Callable[[object, object], bool] = same
) -> Outcome:
    """The verdict on a program; `same` compares an output with the expected one. The signal that
    ended it is the kernel's word, what it wrote is only the program's: that can be an answer, right
    or wrong, and never a verdict."""
    killer = -min(0, os.waitstatus_to_exitcode(ended.status))
    if ended.late:
        return Outcome("timeout", "it was still running at the wall deadline")
    if killer:
        return Outcome(BY_SIGNAL.get(killer, "error"), f"ended: {signal.strsignal(killer)}")
    try:
        answer = json.loads(ended.written)
        outputs, error = (answer.get(key) for key in ("outputs", "error"))
    except (ValueError, RecursionError, AttributeError):  # it ended early, or wrote what it liked
        return Outcome("error", "it ended without an answer that can be read")
    if error == "MemoryError":
        return Outcome("memory", "it ran out of memory")
    if not isinstance(outputs, list) or len(outputs) != len(expected):
        text = error[:300] if isinstance(error, str) else "some outputs are missing"
        return Outcome("error", text.encode(errors="backslashreplace").decode())
    for value, output, wanted in zip(inputs, outputs, expected, strict=True):
        if not same(output, wanted):
            shown = map(reprlib.repr, (value, output, wanted))  # short, however large they are
            return Outcome("wrong", "for {} it gave {} in place of {}".format(*shown))
    return Outcome("ok")
