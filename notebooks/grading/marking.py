"""Give points: the learner's function runs in a locked process, and its answers are judged outside of it."""

import hashlib
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch
from grading import copies
from grading.lessons import Exercise
from grading.questions import ROWS, questions as drawn
from grading.submissions import clean, remarks

from r1lab.lab.check import asking, engine
from r1lab.sandbox import Limits, Sandbox, pool, zygote

WORKER = Path(__file__).with_name("worker.py")
WAIT, MORE = 3.0, 20.0  # seconds by the clock: so many for a second of computing, and so many more
MEMORY_MB, OUTPUT_KB = 1024, 8 * 1024
UNSEEN, PARTS = 6, 10  # questions that no learner has seen, and how often more of them are drawn
LONGEST = 400  # characters of a sentence
ASSERTED = re.compile(r"^assert (?:not )?(\w+)\(", re.MULTILINE)  # a function, by the lesson itself


class Desk(pool.Zygote):
    """A clean process with what lessons compute with."""

    @property
    def script(self) -> list[str]:
        """What it runs: the worker, which is given two files and Python's path."""
        return list(map(os.path.abspath, [WORKER, zygote.__file__, asking.__file__, *sys.path]))


class Room(Sandbox):
    """The sandbox, for functions of notebooks."""

    zygote = Desk


@cache
def asked(check: str, seed: str) -> list:
    """What the check of a lesson asks, and what only the grader does.

    The latter has enough different answers that whoever knows the former by heart cannot guess it.
    """
    shown = engine.EXAMPLES.get(check, [])
    known, unseen = [args for _, args, *_ in shown], []
    for part in range(PARTS):
        more = drawn(check, f"{seed}/{part}", UNSEEN)
        unseen += [question for question in more if question[1] not in known]
        answers = Counter(repr(rights) for _, _, *rights in unseen)
        if len(unseen) - max(answers.values(), default=0) >= UNSEEN:
            break
    return [*shown, *unseen]


def job(
    exercise: Exercise, check: str, function: str, listed: Sequence[dict], seed: str, seconds: float
) -> dict:
    """What the locked process is given: cells, and questions without their answers."""
    slopes = ROWS[check].get("slopes", [])
    tests = [place for place, cell in enumerate(listed) if cell["id"] == exercise.test]
    called = re.compile(rf"\bcheck\.{check}\((\w+)\)")
    names = [name for cell in listed for name in called.findall(cell["source"])]
    for place in tests:  # without a check, the lesson asserts what the function returns
        names += ASSERTED.findall(listed[place]["source"])
    questions = [[json.dumps(args), slopes] for _, args, *_ in asked(check, seed)]
    return {
        "cells": [cell["source"] for cell in listed],
        "numbers": [cell["number"] for cell in listed],
        "name": function,
        "until": max(tests, default=len(listed)),
        "called": names,
        "solutions": [at for at, cell in enumerate(listed) if cell["id"] == exercise.solution],
        "given": exercise.given[function],
        "questions": questions + questions[::-1],  # in the order of engine.judge
        "limits": asdict(Limits(seconds, WAIT * seconds + MORE, MEMORY_MB, OUTPUT_KB)),
    }


def verdict(check: str, seed: str, status: int, written: bytes, seconds: float) -> tuple[bool, str]:
    """Judge the lines that a locked process wrote: is the function right, and the sentence for its author.

    They may be forged. A forged answer is only an answer; whatever cannot be one is refused.
    """
    first, *lines = map(_read, written[: written.rfind(b"\n") + 1].split(b"\n"))
    replies, faults = iter(lines), []

    def ask(question, slopes):
        answer = next(replies, {})
        if not answer:
            answer = {"fault": ended(status, seconds, asking.typed(asking.decode(question)))}
        elif "fault" not in answer and (what := _forged(answer, slopes)):
            answer = {"fault": f"an answer of your function {what}."}
        if "fault" in answer:
            faults.append(answer["fault"])
        return json.dumps(answer)

    if "unfit" in first:
        said = f"{first['unfit']}."
    elif "source" not in first:
        said = ended(status, seconds, "what it needs")
    else:
        said = _judged(check, ask, asked(check, seed))
    if faults and said == "right":  # the word of a forged fault
        said = "your function writes a verdict of its own in the place of an answer."
    return said == "right", clean(said)[:LONGEST]


def _read(line):
    """A line's object; an empty one where there is none."""
    try:
        value = json.loads(line)
        return value if isinstance(value, dict) else {}
    except (ValueError, RecursionError):
        return {}


def _forged(answer, slopes):
    """What is wrong with a reply that `asking.reply` never gives, or ""."""
    try:
        values = asking.decode(json.dumps(answer))["values"]
        whole = isinstance(answer["kind"], str) and isinstance(values, list)
    except Exception as error:  # whatever was written in the place of values
        return f"cannot be read ({type(error).__name__})"
    tensors = whole and values and isinstance(values[0], torch.Tensor)
    return "is not whole" if not whole or (tensors and len(values) != 1 + len(slopes)) else ""


def _judged(check, ask, listed):
    try:
        return engine.judge(ROWS[check], ask, listed)
    except Exception as error:  # a forged answer in a shape that no function returns
        return f"the answers of your function cannot be compared ({type(error).__name__})."


def ended(status: int, seconds: float, given: str) -> str:
    """Why a locked process wrote no more, as a sentence."""
    killer = -min(0, os.waitstatus_to_exitcode(status))
    kind = pool.BY_SIGNAL.get(killer, ("",))[0]
    if killer == signal.SIGALRM:
        return f"your function still waits at {given} after {WAIT * seconds + MORE:g} s by the clock."
    if kind == "timeout":
        return f"after {seconds:g} s your function is still busy with {given}: a loop in it does not end."
    if kind == "forbidden":
        none = "while you are graded there are no files, no network, no processes and no threads"
        return f"your function asks the system for more than memory at {given}: {none}."
    if killer:
        return f"your function crashes Python at {given}: {signal.strsignal(killer)}."
    return f"your function ends the program at {given}: return an answer instead."


def mark(room: Room, exercise: Exercise, listed: Sequence[dict], seed: str, seconds: float) -> dict:
    """Ask all functions of an exercise, each in a process of its own: points, a sentence, remarks.

    What is wrong may be so by an earlier exercise, which has its own point: then it is asked again with the
    lesson's own functions of those.
    """
    right, said, notes, sources = 0, [], list(remarks(exercise, listed)), []
    for check, function in exercise.checks:
        first, is_right, sentence = _asked(room, exercise, check, function, listed, seed, seconds)
        if not is_right and exercise.earlier:
            _, is_right, _ = _asked(room, exercise, check, function, _with_earlier(exercise, listed), seed, seconds)
            notes += ["right with the lesson's own functions of earlier exercises, and wrong with these"] * is_right
        right += is_right
        said.append("right" if is_right else sentence)
        sources.append(str(first.get("source", "")))
        notes += [clean(first["note"])[:LONGEST]] if first.get("note") else []
    copied = copies.is_shipped(exercise, listed)
    notes += [copies.SHIPPED] * copied
    return {
        "points": right / len(exercise.checks),
        "check": next((sentence for sentence in said if sentence != "right"), "right"),
        "notes": notes,
        "wording": "" if copied else copies.wording(exercise, listed),
        "version": hashlib.sha256("\n".join(sources).encode(errors="replace")).hexdigest()[:16],
    }


def _asked(room, exercise, check, function, listed, seed, seconds):
    """What the locked process says first, and the verdict."""
    status, written = room.run(job(exercise, check, function, listed, seed, seconds))
    return _read(written.partition(b"\n")[0]), *verdict(check, seed, status, written, seconds)


def _with_earlier(exercise, listed):
    """The cells with the lesson's functions of earlier exercises, which are the last of their names."""
    tests = [place for place, cell in enumerate(listed) if cell["id"] == exercise.test]
    until = max(tests, default=len(listed))
    added = {"id": "", "number": listed[until - 1]["number"], "source": exercise.earlier}
    return [*listed[:until], added, *listed[until:]]
