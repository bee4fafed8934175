"""The trusted side: a pool of clean processes, each running one program after another, and what a
program's end means, decided outside of it from plain data."""

import json
import math
import os
import reprlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from r1lab.errors import InputError
from r1lab.sandbox.zygote import STDIN

CLEAN_PROCESS = str(Path(__file__).with_name("zygote.py"))
GRACE_SECONDS = 20.0  # beyond the wall deadline, for a clean process to answer on a busy machine
# What a program must not be able to do, each tried at the start of every sandbox: (verdict, try).
TRIES = {
    "the running of a plain program": ("ok", "f = abs"),
    "a ban on new processes": ("forbidden", "import os\nos.fork() or os._exit(0)"),
    "a ban on signals": ("forbidden", "import os\nos.kill(1, 0)"),
    "a ban on reading files": ("forbidden", "import os\nos.open('/', os.O_RDONLY)"),
    "a ban on writing files": ("forbidden", "import os\nos.open('/dev/null', os.O_WRONLY)"),
    "a ban on the network": ("forbidden", "import socket\nsocket.socket().detach()"),
    "a limit on memory": ("memory", "bytearray(2 ** 30)"),
    "a limit on computing time": ("timeout", "while True: pass"),
}


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
    """Compare two values of JSON: 6 is 6.0, but True is not 1; floats may differ by 1e-9, relatively."""
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
    """Compare two printed texts line by line, without blanks around a line; lines of numbers are
    compared by their values: 1.0 is 1."""
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
    """Give the verdict on a program; `same` compares an output with the expected one. The signal that
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


class Zygote:
    """A clean process, started when it is first needed, and the socket to it."""

    process: subprocess.Popen | None = None

    def run(self, job: dict, limits: Limits) -> Ended:
        """Run one program. Raises OSError where the clean process ended; the next run has a new
        one. Raises InputError where it cannot be set up."""
        if self.process is None:
            self._start()
        try:
            # files in memory; what one side has written the other reads from the start
            with (
                open(os.memfd_create("program"), "w+b", buffering=0) as program,
                open(os.memfd_create("outputs"), "w+b", buffering=0) as outputs,
            ):
                program.write(json.dumps(job).encode())
                self.control.settimeout(limits.wall_seconds + GRACE_SECONDS)
                files = [program.fileno(), outputs.fileno()]
                socket.send_fds(self.control, [json.dumps(asdict(limits)).encode()], files)
                if not (reply := self.control.recv(1000)):
                    raise ConnectionError("a clean process of the sandbox was ended")
                outputs.seek(0)
                return Ended(*json.loads(reply), outputs.read())
        except OSError:
            self.close()
            raise

    def _start(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *"-S -s -P -B -W ignore".split(), CLEAN_PROCESS],
                stdin=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}, start_new_session=True,
            )  # fmt: skip
        if (greeting := self.control.recv(1000)) != b"ready":
            self.close()
            raise _refusal(greeting.decode() or "its process ended at the start")

    def close(self) -> None:
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

    def __init__(self, workers: int = 0, limits: Limits = Limits(), contest: Limits = CONTEST) -> None:
        if sys.platform != "linux":
            raise _refusal("it needs Linux, whose kernel can lock a process in")
        self.limits, self.contest = limits, contest
        self.zygotes = [Zygote() for _ in range(workers or os.cpu_count() or 1)]
        self.idle = list(self.zygotes)  # never empty for a thread: there are no more than these
        self.threads = ThreadPoolExecutor(len(self.zygotes), "sandbox")
        try:
            self._check_isolation()
        except BaseException:
            self.close()
            raise

    def submit(self, program: str, tests: list) -> Future[Outcome]:
        """Start grading one program: `f(input)` must give `output`, for each test.

        The first test may name another `entry`, as contests have them: `Solution.method`, called
        with the input as the list of its arguments, or `stdin`: the input is a text for the whole
        program to read, the output the text that it must print (see `same_text`).
        Raises InputError for tests that cannot be used."""
        try:
            entry = tests[0].get("entry", "f") if tests else "f"
            pairs = json.loads(json.dumps([(test["input"], test["output"]) for test in tests]))
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise InputError(
                f"these tests of a program cannot be used ({error!r}): each must be an object with "
                "the keys input and output, both plain data."
            ) from error
        if not pairs:
            raise InputError("a program without tests cannot be graded; give at least one test.")
        inputs, expected = map(list, zip(*pairs, strict=True))
        job = {"program": program, "inputs": inputs, "entry": entry}
        limits = self.contest if entry == STDIN or "." in entry else self.limits
        return self.threads.submit(self._grade, job, expected, limits)

    def close(self) -> None:
        """Wait for what is running, then end the clean processes."""
        self.threads.shutdown(cancel_futures=True)
        for zygote in self.zygotes:
            zygote.close()

    def _grade(self, job: dict, expected: list, limits: Limits) -> Outcome:
        zygote = self.idle.pop()
        try:
            try:
                ended = zygote.run(job, limits)
            except OSError:  # ended from outside, for want of memory perhaps: once is bad luck
                ended = zygote.run(job, limits)
        finally:
            self.idle.append(zygote)
        if os.waitstatus_to_exitcode(ended.status) == -signal.SIGABRT:  # see zygote.run_child
            raise _refusal(ended.written.decode(errors="replace"))
        compare = same_text if job["entry"] == STDIN else same
        return judge(ended, job["inputs"], expected, compare)

    def _check_isolation(self) -> None:
        """Try what a program must not be able to do. Raises InputError if any of it works."""
        missing = []
        for name, (verdict, program) in TRIES.items():
            job = {"program": program, "inputs": [1], "entry": "f"}
            if self._grade(job, [1], Limits(cpu_seconds=0.1)).verdict != verdict:
                missing.append(name)
        if missing:
            raise _refusal(f"this system lacks {', '.join(missing)}")


def _refusal(reason: str) -> InputError:
    return InputError(
        f"programs cannot be run safely on this system, so none was run: {reason}; leave the "
        "family `programs` out, or see the requirements in r1lab/sandbox/__init__.py."
    )
