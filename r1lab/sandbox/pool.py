"""The trusted side: a pool of clean processes, each running one program after another."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from r1lab.errors import InputError
from r1lab.sandbox.judge import Ended, Outcome, judge, same, same_text
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
        """Runs one program. Raises OSError where the clean process ended; the next run has a new
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
        """Ends the process; a child of it ends with it."""
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

    def __init__(
        self, workers: int = 0, limits: Limits = Limits(), contest: Limits = CONTEST
    ) -> None:
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
        """Starts grading one program: `f(input)` must give `output`, for each test.

        The first test may name another `entry`, as contests have them: `Solution.method`, called
        with the input as the list of its arguments, or `stdin`: the input is a text for the whole
        program to read, the output the text that it must print (see `judge.same_text`).
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
        """Waits for what is running and ends the clean processes."""
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
        """Tries what a program must not be able to do; InputError if any of it works."""
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
