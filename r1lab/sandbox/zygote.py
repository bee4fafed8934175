"""The clean process of the sandbox: it forks one locked-in child for each program.

A script of its own, started without site packages and with an empty environment, so that no child
inherits anything of the process that trains: `fork` copies memory, and this memory holds Python's
standard library and nothing else. A job (program and inputs) is read by the child that runs it,
never here: no child finds another one's program. Python starts once; a fork takes a millisecond.

Standard input is a socket. Each message holds the limits and two files: the job to read, and an
empty one for the outputs. The answer says whether the wall deadline passed, and the wait status.
"""

import ctypes
import gc
import importlib
import io
import json
import os
import random
import resource
import signal
import socket
import sys
import time

# Loaded here, once, because a program can open no file: it can import these and nothing else.
MODULES = (
    "abc array bisect cmath collections copy dataclasses datetime decimal enum fractions functools heapq "
    "itertools json math numbers operator random re statistics string textwrap time typing"
).split()
# What the programs of a contest find there without importing it, as on the contests' own sites.
AT_HAND = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools "
    "operator builtins typing"
).split()
STDIN = "stdin"  # as the entry: a whole program, from standard input to standard output
# The system calls that a child may make once it is locked in: memory, waiting, random numbers, the
# time, writing to a file that is already open, and the end. Any other call ends the process, and
# so what is not in this list needs no rule: files, sockets, processes, signals, tracing.
SYSTEM_CALLS = (
    "brk mmap mremap munmap mprotect madvise futex write clock_gettime clock_nanosleep gettimeofday "
    "restart_syscall rt_sigreturn getrandom exit exit_group"
).split()
KILL_PROCESS, ALLOW = ctypes.c_uint32(0x80000000), ctypes.c_uint32(0x7FFF0000)  # seccomp.h
SET_PARENT_DEATH_SIGNAL = 1  # prctl.h
NOBODY = 65534
Rules = tuple[ctypes.CDLL, ctypes.c_void_p]  # libseccomp and its filter
OPEN_FILES = 16  # of this process; a child keeps four: /dev/null three times and its outputs
OUTPUTS = 3
NO_FILE = "\ud800"  # a program's file name: after a syntax error Python opens what it can


def system_call_filter() -> Rules:
    """Load libseccomp and the rules above, which it translates to the numbers of this processor."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(KILL_PROCESS))
    for name in SYSTEM_CALLS:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # negative where a processor does not have the call
            library.seccomp_rule_add_array(rules, ALLOW, number, 0, None)
    return library, rules


def drop_root() -> None:
    """Become `nobody`: the kernel's limits and permissions do not bind root."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except OSError as error:
            raise OSError("root cannot become an ordinary user here; start it as one") from error


def lock_in(limits: dict[str, float], parent: int, rules: Rules) -> None:
    """Remove from this process all that a program does not need; none of it can be regained.

    Raises OSError or ValueError where the kernel refuses one of the steps.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    sizes = {"AS": limits["memory_mb"] * 2**20, "FSIZE": limits["output_kb"] * 2**10}
    seconds = {"CPU": int(limits["cpu_seconds"]) + 2}  # behind the finer timer below
    for name, limit in {**sizes, **seconds, "NPROC": 0, "CORE": 0}.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (int(limit), int(limit)))
    signal.setitimer(signal.ITIMER_PROF, limits["cpu_seconds"])  # computing time, then SIGPROF
    library, filters = rules
    if ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL) or os.getppid() != parent:
        raise OSError("the child would outlive its parent")
    if error := library.seccomp_load(filters):  # sets no_new_privs first
        raise OSError(-error, "the kernel takes no filter of system calls (seccomp)")


def contest_names() -> dict:
    """Make the names that a program of a contest starts with: all of AT_HAND's, then the modules."""
    names = {"__name__": "__main__", "exit": sys.exit, "quit": sys.exit, "sys": sys}
    stars = [f"from {name} import *" for name in AT_HAND]
    exec("\n".join([*stars, *(f"import {name}" for name in AT_HAND)]), names)
    return names


def printed(program: object, names: dict, text: str) -> str:
    """Return what a whole program prints when `text` is its standard input."""
    sys.stdin = given = io.TextIOWrapper(io.BytesIO(text.encode()))
    sys.stdout = written = io.TextIOWrapper(io.BytesIO())
    read = {"open": lambda file, *rest, **more: given if file == 0 else open(file, *rest, **more)}
    try:
        exec(program, {**names, **read})
    except SystemExit:  # an ordinary way to end
        pass
    written.flush()
    return written.buffer.getvalue().decode(errors="replace")


def outputs_of(job: dict) -> list:
    """Return what a program gives for each input. Its entry is a function, called with the input;
    `Class.method`, called with the input as the list of its arguments; or `STDIN`."""
    program, entry = compile(job["program"], NO_FILE, "exec"), job["entry"]
    if entry == STDIN:
        names = contest_names()
        return [printed(program, names, text) for text in job["inputs"]]
    kind, _, method = entry.partition(".")
    space = {**(contest_names() if method else {}), "__name__": "program"}
    exec(program, space)
    if method:
        return [getattr(space[kind](), method)(*arguments) for arguments in job["inputs"]]
    return [space[entry](x) for x in job["inputs"]]


def answer(job: dict) -> bytes:
    """Run a program on each input and return the outputs, as JSON.

    The program shares this process and can write what it likes in the place of this answer. That
    gains it nothing: it does not know what is expected, and the comparison is made elsewhere.
    """
    try:
        outputs = outputs_of(job)
        return json.dumps({"outputs": outputs}).encode()
    except MemoryError:
        return b'{"error": "MemoryError"}'  # made without memory
    except BaseException as error:  # SystemExit too: a program that stops early gave no answer
        text = f"{type(error).__name__}: {error}".replace(NO_FILE, "program")
        return json.dumps({"error": text[:300]}).encode()


def run_child(files: list[int], limits: dict[str, float], parent: int, rules: Rules) -> None:
    """Read the job, lock the process in, run the program and end."""
    source, outputs = files
    with open(source, "rb") as file:
        file.seek(0)
        job = json.load(file)
    os.dup2(1, 0)  # /dev/null in the place of the socket
    os.dup2(outputs, OUTPUTS)
    os.closerange(OUTPUTS + 1, OPEN_FILES)
    try:
        lock_in(limits, parent, rules)
    except (OSError, ValueError) as error:
        os.write(OUTPUTS, str(error).encode())
        os.abort()  # no program can end so: it can send no signal, not even to itself
    try:
        os.write(OUTPUTS, answer(job))
    finally:
        os._exit(0)


def wait(child: int, seconds: float) -> tuple[bool, int]:
    """Return (was it killed at the wall deadline?, wait status). SIGCHLD must be blocked."""
    deadline = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        left = max(0.0, deadline - time.monotonic())
        if signal.sigtimedwait({signal.SIGCHLD}, left) is None:
            os.kill(child, signal.SIGKILL)
            return True, os.waitpid(child, 0)[1]
    return False, ended[1]


def serve(control: socket.socket, rules: Rules) -> None:
    """Run one program after another, until the other end of the socket is closed."""
    parent = os.getpid()
    while True:
        message, files, _, _ = socket.recv_fds(control, 1000, 2)
        if not message:
            return
        limits = json.loads(message)
        child = os.fork()
        if child == 0:
            run_child(files, limits, parent, rules)
        for file in files:
            os.close(file)
        control.send(json.dumps(wait(child, limits["wall_seconds"])).encode())


def main() -> None:
    """Prepare all that the children share and report "ready", or what is missing."""
    control = socket.socket(fileno=0)
    try:
        for name in MODULES:
            importlib.import_module(name)
        sys.path.clear()
        sys.path_importer_cache.clear()
        time.localtime()  # reads the time zone
        random.seed(0)  # the same program gives the same outputs
        rules = system_call_filter()
        drop_root()
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    except OSError as error:
        control.send(str(error).encode())
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    gc.collect()
    gc.freeze()  # a child's collector then leaves these pages alone, and they stay shared
    control.send(b"ready")
    serve(control, rules)


if __name__ == "__main__":
    main()
