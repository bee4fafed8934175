"""The trusted side: a pool of clean processes, each running one program after another, and what a
program's end means, decided outside of it from plain data."""

import ast
import json
import math
import os
import re
import reprlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

from r1lab.errors import InputError
from r1lab.files import read_toml
from r1lab.sandbox.zygote import STDIN

CLEAN_PROCESS = str(Path(__file__).with_name("zygote.py"))
GRACE_SECONDS = 20.0  # beyond the wall deadline, for a clean process to answer on a busy machine
VERDICTS = read_toml(__file__, "verdicts")
BY_SIGNAL = {getattr(signal, name): end for name, end in VERDICTS["signals"].items()}


@dataclass(frozen=True)
class Outcome:
    """A verdict: ok, wrong, error, timeout, memory or forbidden; and why ("" for ok)."""

    verdict: str
    detail: str = ""


PARTS = r"([\s,;:=()\[\]{}]+)"  # of a printed line: words, and what is between them
FLOAT = r"(?=.*[.eE])[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?i:inf|infinity)"


def same(answer: object, expected: object, near: float = 1e-9) -> bool:
    """Compare two values of JSON: 6 is 6.0, but True is not 1; floats may differ by `near`, or by this
    part of their size."""
    kinds = (type(answer), type(expected))
    if kinds == (list, list):
        return len(answer) == len(expected) and all(map(same, answer, expected, repeat(near)))
    if kinds == (dict, dict):
        return answer.keys() == expected.keys() and all(same(answer[key], expected[key]) for key in expected)
    if bool in kinds:
        return answer is expected
    if kinds == (float, float):
        return math.isclose(answer, expected, rel_tol=near, abs_tol=near)
    return answer == expected


def same_text(answer: object, expected: object) -> bool:
    """Compare two printed texts line by line, without blanks around a line.

    A line of numbers is compared by values, 1.0 is 1; any other as it is printed. In both, numbers
    that are printed with a point or an exponent may differ by 1e-6, or by this part of their size."""
    if not isinstance(answer, str) or not isinstance(expected, str):
        return False
    ours, theirs = (text.strip().split("\n") for text in (answer, expected))
    return ours == theirs or same(list(map(_values, ours)), list(map(_values, theirs)), near=1e-6)


def _values(line):
    """Read a line of numbers, or else the words of a line and what is between them."""
    try:
        return [float(word) if re.fullmatch(FLOAT, word) else int(word) for word in line.split()]
    except ValueError:  # a word, or an integer that is too long to read
        return [float(word) if re.fullmatch(FLOAT, word) else word for word in re.split(PARTS, line.strip())]


def judge(
    status: int, written: bytes, inputs: list, expected: list, same: Callable[[object, object], bool] = same
) -> Outcome:
    """Give the verdict on a program; `same` compares an output with the expected one. The signal in
    its wait status is the kernel's word, what it wrote is only the program's: that can be an answer,
    right or wrong, or a confession, and never more."""
    if killer := -min(0, os.waitstatus_to_exitcode(status)):
        return Outcome(*BY_SIGNAL.get(killer, ("error", f"ended: {signal.strsignal(killer)}")))
    try:
        answer = json.loads(written)
        outputs, error = (answer.get(key) for key in ("outputs", "error"))
    except (ValueError, RecursionError, AttributeError):  # it ended early, or wrote what it liked
        return Outcome("error", "it ended without an answer that can be read")
    if not isinstance(outputs, list) or len(outputs) != len(expected):
        text = error[:300] if isinstance(error, str) else "some outputs are missing"
        verdict = VERDICTS["errors"].get(text.partition(":")[0], "error")
        return Outcome(verdict, text.encode(errors="backslashreplace").decode())
    for value, output, wanted in zip(inputs, outputs, expected, strict=True):
        if not same(output, wanted):
            shown = map(reprlib.repr, (value, output, wanted))  # short, however large they are
            return Outcome("wrong", "for {} it gave {} in place of {}".format(*shown))
    return Outcome("ok")


@dataclass(frozen=True)
class Limits:
    """What one program may use. Computing time decides in the ordinary case, because it does not
    depend on how busy the machine is; the wall deadline is for programs that wait."""

    cpu_seconds: float = 1.0
    wall_seconds: float = 10.0
    memory_mb: int = 256  # address space, Python's own 20 included
    output_kb: int = 64


# For programs of contests, all tests of one together. LiveCodeBench gives each test 6 seconds.
CONTEST = Limits(cpu_seconds=30.0, wall_seconds=90.0, memory_mb=1024, output_kb=16 * 1024)


def read_tests(tests: list) -> tuple[str, list, list]:
    """Return how the program is called, with `_` for an input, the inputs, and what each must give."""
    if isinstance(tests[0], str):
        call = "eval(_)"
        pairs = [pair for text in tests for pair in read_asserts(text)]
    else:
        entry = tests[0].get("entry", "f")
        key = "arguments" if "arguments" in tests[0] else "input"
        call = entry.replace(".", "().") + ("(*_)" if "." in entry or key == "arguments" else "(_)")
        pairs = [(test[key], test["output"]) for test in tests]
    return call, *map(list, zip(*json.loads(json.dumps(pairs)), strict=True))


def read_asserts(text: str) -> Iterator[tuple[str, object]]:
    """Split each assert of a text into what the program computes and what it should be. Only the
    first is given to the program. Raises ValueError where the second is not a plain value."""
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assert(ast.Compare(call, [ast.Eq() | ast.Is()], [value])):
                yield ast.unparse(call), ast.literal_eval(value)
            case _:
                raise ValueError(ast.unparse(statement))


class Zygote:
    """A clean process, started when it is first needed, and the socket to it."""

    process: subprocess.Popen | None = None
    script = ()  # what the process runs in place of zygote.py, with its arguments

    def run(self, job: dict) -> tuple[int, bytes]:
        """Run one program. Returns the wait status of its process, and what it wrote.

        Raises OSError where the clean process ended; the next run has a new one. Raises InputError
        where it cannot be set up."""
        if self.process is None:
            self._start()
        try:
            # files in memory; what one side has written the other reads from the start
            with (
                open(os.memfd_create("program"), "w+b", buffering=0) as program,
                open(os.memfd_create("outputs"), "w+b", buffering=0) as outputs,
            ):
                program.write(json.dumps(job).encode())
                self.control.settimeout(job["limits"]["wall_seconds"] + GRACE_SECONDS)
                files = [program.fileno(), outputs.fileno()]
                socket.send_fds(self.control, [b"run"], files)
                if not (reply := self.control.recv(1000)):
                    raise ConnectionError("a clean process of the sandbox was ended")
                outputs.seek(0)
                return int(reply), outputs.read()
        except OSError:
            self.close()
            raise

    def _start(self):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *"-S -s -P -B -W ignore".split(), *(self.script or [CLEAN_PROCESS])],
                stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}, start_new_session=True,
            )  # fmt: skip
        if (greeting := self.control.recv(1000)) != b"ready":
            self.close()
            raise _refusal(greeting.decode() or "its process ended at the start")

    def close(self):
        """End the process; a child of it ends with it."""
        if self.process is not None:
            self.control.close()
            self.process.kill()
            self.process.wait()
            self.process = None


class Sandbox:
    """Runs programs that nobody has read, several at a time, from any thread.

    `submit` returns at once: a trainer draws its next samples while the last are graded. Threads
    here only wait; each has a clean process of its own, started when first needed.

    Raises InputError, naming what is missing, where programs cannot be locked in: none is run.
    """

    zygote = Zygote

    def __init__(self, workers: int = 0, limits: Limits = Limits(), contest: Limits = CONTEST):
        if sys.platform != "linux":
            raise _refusal("it needs Linux, whose kernel can lock a process in")
        self.limits, self.contest = limits, contest
        self.zygotes = [self.zygote() for _ in range(workers or os.cpu_count() or 1)]
        self.idle = list(self.zygotes)  # never empty for a thread: there are no more than these
        self.threads = ThreadPoolExecutor(len(self.zygotes), "sandbox")
        try:
            self._check_isolation()
        except BaseException:
            self.close()
            raise

    def submit(self, program: str, tests: list) -> Future[Outcome]:
        """Start grading one program: `f(input)` must give `output`, for each test.

        A test may have a list of `arguments` in place of the input, or be the text of asserts, as in
        HumanEval and MBPP: `assert f(1, 2) == 3`. The first may name another `entry`: a function;
        `Solution.method`, called with the input as the list of its arguments; or `stdin`: the input
        is a text for the whole program to read, the output what it must print (see `same_text`).
        Raises InputError for tests that cannot be used."""
        if not tests:
            raise InputError("a program without tests cannot be graded; give at least one test.")
        try:
            call, inputs, expected = read_tests(tests)
        except Exception as error:  # whatever there is in place of tests
            raise InputError(
                f"these tests of a program cannot be used ({error!r}): each must be an object with "
                "the keys input (or arguments) and output, both plain data, or the text of an assert "
                "that a call is a plain value, as in assert f(1, 2) == 3."
            ) from error
        limits = self.contest if call == STDIN or "." in call else self.limits
        job = {"program": program, "inputs": inputs, "call": call, "limits": asdict(limits)}
        return self.threads.submit(self._grade, job, expected)

    def close(self):
        """Wait for what is running, then end the clean processes."""
        self.threads.shutdown(cancel_futures=True)
        for zygote in self.zygotes:
            zygote.close()

    def _grade(self, job, expected):
        status, written = self.run(job)
        compare = same_text if job["call"] == STDIN else same
        return judge(status, written, job["inputs"], expected, compare)

    def run(self, job: dict) -> tuple[int, bytes]:
        """Run one job now, in one of the threads: its wait status, and what it wrote."""
        zygote = self.idle.pop()
        try:
            status, written = zygote.run(job)
        except OSError:  # ended from outside, for want of memory perhaps: once is bad luck
            status, written = zygote.run(job)
        finally:
            self.idle.append(zygote)
        if os.waitstatus_to_exitcode(status) == -signal.SIGABRT:  # see zygote.run_child
            raise _refusal(written.decode(errors="replace"))
        return status, written

    def _check_isolation(self):
        """Try what a program must not be able to do. Raises InputError if any of it works."""
        job = {"inputs": [1], "call": "f(_)", "limits": asdict(Limits(cpu_seconds=0.1))}
        missing = [
            name for name, (verdict, program) in VERDICTS["tries"].items()
            if self._grade(job | {"program": program}, [1]).verdict != verdict
        ]  # fmt: skip
        if missing:
            raise _refusal(f"this system lacks {', '.join(missing)}")


def _refusal(reason):
    return InputError(
        f"programs cannot be run safely on this system, so none was run: {reason}; leave the "
        "family `programs` out, or see the requirements in r1lab/sandbox/__init__.py."
    )
