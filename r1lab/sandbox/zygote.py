"""The clean process of the sandbox: it forks one locked-in child for each program.

A script of its own, started without site packages and with an empty environment, so that no child
inherits anything of the process that trains: `fork` copies memory, and this memory holds Python's
standard library and nothing else. A job (program and inputs) is read by the child that runs it,
never here: no child finds another one's program. Python starts once; a fork takes a millisecond.

Standard input is a socket. Each message brings two files: the job to read, with its limits, and an
empty one for the outputs. The answer is the child's wait status.
"""

import contextlib
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
import types

# Loaded here, once, because a program can open no file: what computes on data in memory. The rest
# of the standard library is refused by name, as its use would be: files, network, processes, threads.
MODULES = (
    "__future__ abc array ast atexit base64 binascii bisect bz2 calendar cmath codecs collections "
    "collections.abc colorsys configparser contextlib contextvars copy copyreg csv dataclasses datetime "
    "decimal difflib dis enum errno fileinput fnmatch fractions functools getopt graphlib hashlib heapq "
    "hmac html html.parser inspect io ipaddress itertools json keyword linecache locale logging lzma "
    "marshal math numbers operator pathlib pickle platform pprint queue quopri random re reprlib "
    "sched secrets shlex stat statistics string stringprep struct symtable textwrap time timeit token "
    "tokenize tomllib traceback types typing unicodedata urllib.parse uuid warnings weakref "
    "xml.etree.ElementTree zlib "
    "_strptime encodings.ascii encodings.cp1252 encodings.hex_codec encodings.idna encodings.latin_1 "
    "encodings.punycode encodings.rot_13 encodings.utf_16 encodings.utf_32 encodings.utf_8_sig"
).split()
# What programs find there without importing it, as on the contests' own sites.
AT_HAND = (
    "sys string re datetime collections heapq bisect copy math random statistics itertools functools "
    "operator io json builtins typing"
).split()
STDIN = "stdin(_)"  # the call of a whole program, from standard input to standard output
# The system calls that a child may make once it is locked in: memory, waiting, random numbers, the
# time, writing to a file that is already open, and the end. Any other call ends the process, and
# so what is not in this list needs no rule: files, sockets, processes, signals, tracing.
SYSTEM_CALLS = (
    "brk mmap mremap munmap mprotect madvise futex write clock_gettime clock_nanosleep gettimeofday "
    "restart_syscall rt_sigreturn getrandom getpid exit exit_group"
).split()
KILL_PROCESS, ALLOW = ctypes.c_uint32(0x80000000), ctypes.c_uint32(0x7FFF0000)  # seccomp.h
SET_PARENT_DEATH_SIGNAL = 1  # prctl.h
NOBODY = 65534
Rules = tuple[ctypes.CDLL, ctypes.c_void_p]  # libseccomp and its filter
OPEN_FILES = 16  # of this process; a child keeps four: /dev/null three times and its outputs
OUTPUTS = 3
AS_IN_CONTESTS = 50_000  # digits of a printed number, and depth of recursion (LiveCodeBench's harness)
NO_FILE = "<\ud800>"  # a program's file name: no file, as Python would open it for an error's text


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


def drop_root():
    """Become `nobody`: the kernel's limits and permissions do not bind root."""
    if os.geteuid() == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        except OSError as error:
            raise OSError("root cannot become an ordinary user here; start it as one") from error


def lock_in(limits: dict[str, float], parent: int, rules: Rules):
    """Remove from this process all that a program does not need; none of it can be regained.

    Raises OSError or ValueError where the kernel refuses one of the steps.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for kind, most in (
        (resource.RLIMIT_AS, limits["memory_mb"] * 2**20),
        (resource.RLIMIT_FSIZE, limits["output_kb"] * 2**10),
        (resource.RLIMIT_CPU, int(limits["cpu_seconds"]) + 2),  # behind the finer timer below
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    signal.setitimer(signal.ITIMER_PROF, limits["cpu_seconds"])  # computing time, then SIGPROF
    signal.setitimer(signal.ITIMER_REAL, limits["wall_seconds"])  # the wall deadline, then SIGALRM
    library, filters = rules
    if ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL) or os.getppid() != parent:
        raise OSError("the child would outlive its parent")
    if error := library.seccomp_load(filters):  # sets no_new_privs first
        raise OSError(-error, "the kernel takes no filter of system calls (seccomp)")


class Forbidden(ImportError):
    """Part of the standard library that no program gets: `judge` makes a verdict of this name."""


def refuse(module: str, *rest: object):
    """Refuse a module of the standard library; `import` asks here when it is nowhere else."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise Forbidden(f"no {module} for a program: it gets no files, network, processes or threads")


def names_of(module: str) -> dict:
    """Make an empty module for a program to run in and return its names."""
    sys.modules[module] = types.ModuleType(module)
    return vars(sys.modules[module])


def contest_names() -> dict:
    """Make the names that a program of a contest starts with: all of AT_HAND's, then the modules."""
    names = names_of("__main__")
    stars = [f"from {name} import *" for name in AT_HAND]
    exec("\n".join([*stars, *(f"import {name}" for name in AT_HAND), "quit = exit"]), names)
    return names


def printed(program: object, text: str) -> str:
    """Return what a whole program prints when `text` is its standard input."""
    sys.stdin = given = io.TextIOWrapper(io.BytesIO(text.encode()))
    sys.stdout = written = io.TextIOWrapper(io.BytesIO())
    names = contest_names()
    names["open"] = lambda file, *rest, **more: given if file == 0 else open(file, *rest, **more)
    with contextlib.suppress(SystemExit):  # an ordinary way to end
        exec(program, names)
    written.flush()
    return written.buffer.getvalue().decode(errors="replace")


def outputs_of(job: dict) -> list:
    """Return what a program gives for each input `_` of its call: `f(_)`, `Class().method(*_)`,
    `eval(_)` where each input is an expression, or `STDIN`."""
    program, call = compile(job["program"], NO_FILE, "exec"), job["call"]
    if call == STDIN:
        return [printed(program, text) for text in job["inputs"]]
    names = contest_names() if "." in call else names_of("program")
    exec(program, names)
    exec(f"_call = lambda _: {call}", names)
    return list(map(names["_call"], job["inputs"]))


def answer(job: dict) -> bytes:
    """Run a program on each input and return the outputs, as JSON.

    The program shares this process and can write what it likes in the place of this answer. That
    gains it nothing: it does not know what is expected, and the comparison is made elsewhere.
    """
    try:
        outputs = outputs_of(job)
        return json.dumps({"outputs": outputs}).encode()
    except MemoryError:
        return b'{"error": "MemoryError: it ran out of memory"}'  # made without memory
    except BaseException as error:  # SystemExit too: a program that stops early gave no answer
        text = f"{type(error).__name__}: {error}".replace(NO_FILE, "program")
        return json.dumps({"error": text[:300]}).encode()


def run_child(files: list[int], parent: int, rules: Rules):
    """Read the job, lock the process in, run the program and end."""
    source, outputs = files
    with open(source, "rb") as file:
        file.seek(0)
        job = json.load(file)
    os.dup2(1, 0)  # /dev/null in the place of the socket
    os.dup2(outputs, OUTPUTS)
    os.closerange(OUTPUTS + 1, OPEN_FILES)
    try:
        lock_in(job["limits"], parent, rules)
    except (OSError, ValueError) as error:
        os.write(OUTPUTS, str(error).encode())
        os.abort()  # no program can end so: it can send no signal, not even to itself
    try:
        os.write(OUTPUTS, answer(job))
    finally:
        os._exit(0)


def serve(control: socket.socket, rules: Rules):
    """Run one program after another, until the other end of the socket is closed."""
    parent = os.getpid()
    while True:
        message, files, _, _ = socket.recv_fds(control, 1000, 2)
        if not message:
            return
        child = os.fork()
        if child == 0:
            run_child(files, parent, rules)
        for file in files:
            os.close(file)
        control.send(str(os.waitpid(child, 0)[1]).encode())


def main():
    """Prepare all that the children share and report "ready", or what is missing."""
    control = socket.socket(fileno=0)
    try:
        sys.modules["_hashlib"] = None  # OpenSSL is large; Python's own hashes are not
        for name in MODULES:
            importlib.import_module(name)
        del sys.modules["threading"]  # `queue` and `logging` hold it; a program is refused it
        sys.path.clear()
        sys.path_importer_cache.clear()
        sys.meta_path.append(types.SimpleNamespace(find_spec=refuse))
        sys.set_int_max_str_digits(AS_IN_CONTESTS)
        sys.setrecursionlimit(AS_IN_CONTESTS)
        time.localtime()  # reads the time zone
        random.seed(0)  # the same program gives the same outputs
        most = resource.getrlimit(resource.RLIMIT_STACK)[1]
        resource.setrlimit(resource.RLIMIT_STACK, (most, most))  # deep recursion needs it
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        rules = system_call_filter()
        drop_root()
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    except OSError as error:
        control.send(str(error).encode())
        return
    gc.collect()
    gc.freeze()  # a child's collector then leaves these pages alone, and they stay shared
    control.send(b"ready")
    serve(control, rules)


if __name__ == "__main__":
    main()
