"""Equality of two expressions by math-verify, in a process that ends when its time is up.

math-verify's own time limit is a signal to the main thread. Here the kernel ends the process when its
time is up, so that the limit holds on any thread and within one long multiplication, and it counts
computing time: a busy machine changes no reward. The small world never needs math-verify, and sympy is
slow to import, so only the worker's functions import them.
"""

import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from zlib import crc32

SECONDS = 3.0  # of computing time, for one comparison
MAX_BYTES = 5 << 29  # of address space, where the system can limit it (macOS cannot)
COMMAND = (sys.executable, "-P", __file__)  # this file as a program: no package of ours is imported


class Unreadable(Exception):
    """The gold answer cannot be read, so nothing can be graded against it."""


class Worker:
    """A process that compares expressions, started when first needed and again after a deadline.

    It is a fresh one on every system: a fork of a process with threads may wait for ever."""

    def __init__(self):
        self.process, self.lock = None, threading.Lock()

    def ask(self, *question: object) -> bool | None:
        """Return what `_compare` says; False where the process ends before it has an answer.

        Raises RuntimeError where it ends by itself, as it does where math-verify is missing."""
        pipe = subprocess.PIPE
        with self.lock:
            process = self.process or subprocess.Popen(
                COMMAND, stdin=pipe, stdout=pipe, text=True, start_new_session=True
            )
            self.process = None  # until it has answered: Ctrl-C must leave no answer for the next question
            with suppress(BrokenPipeError):  # it was killed since
                print(json.dumps(question), file=process.stdin, flush=True)
            if reply := process.stdout.readline():
                self.process = process
                return json.loads(reply)
            if process.wait() >= 0:
                raise RuntimeError(f"{' '.join(COMMAND)} ended; it needs math-verify, see its message above")
            return False


_worker = Worker()
os.register_at_fork(after_in_child=_worker.__init__)  # a forked child has no worker of its own yet


@lru_cache(maxsize=4096)
def same_value(gold: str, answer: str, relation: bool = False) -> bool:
    """Compare two answers. What takes too long, or breaks math-verify, is not equal.

    With `relation` both are left sides of `... = 0`, which say the same if their quotient is any
    constant. Raises Unreadable where `gold` cannot be read."""
    equal = _worker.ask(gold, answer, relation, SECONDS)
    if equal is None:
        raise Unreadable(gold)
    return equal


def _serve():
    """Answer the questions on standard input, until its other end is closed with the parent."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    import math_verify  # here, so that no comparison's time is spent on it

    logging.getLogger(math_verify.__name__).setLevel(logging.ERROR)  # it warns of a timeout of None
    for line in sys.stdin:
        print(json.dumps(_compare(*json.loads(line))), file=answers, flush=True)


def _compare(gold, answer, relation, seconds):
    """Compare in the worker, against the clock; None where `gold` cannot be read.

    math-verify compares differences with an absolute tolerance, so that 1/2004! equals 1/2006! to it:
    the quotient, at three fixed points of the variables, must be 1 (or a constant) as well."""
    from math_verify import verify
    from sympy import N, Rational

    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        wanted, given = expression(gold), expression(answer)
        if wanted is None:
            return None
        if given is None:
            return False
        quotient, values = given / wanted, []
        for scale in (2**29, -(2**30), 2**31):
            at = {
                symbol: Rational(crc32(f"{symbol.name} {scale}".encode()), scale)
                for symbol in quotient.free_symbols
            }
            values.append(complex(N(quotient.subs(at), 20)))
        target = values[0] if relation else 1
        if not all(abs(value - target) <= 1e-9 * abs(target) for value in values) or target == 0:
            return False
        return relation or bool(verify([wanted], [given], timeout_seconds=None))
    except Exception:  # whatever math-verify or sympy makes of a model's text; no number at a point
        return False
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def latex(text: str) -> str:
    """Write typed notation as LaTeX, with exact fractions for decimals and radians for degrees."""
    text = re.sub(r"(\d+(?:\.\d+)?)°", r"(\1\\cdot\\frac{\\pi}{180})", text.replace("*", r"\cdot "))
    text = re.sub(r"\d*\.\d+", lambda m: "\\frac{%d}{%d}" % Fraction(m[0]).as_integer_ratio(), text)
    text = re.sub(r"\\frac\s*(\\pi|\w)", r"\\frac{\1}", text)
    text = re.sub(r"(\\frac\{[^{}]*\})\s*(\\pi|\w)", r"\1{\2}", text)
    for _ in range(3):
        text = re.sub(r"(\\sqrt|\^)\s*\(([^()]*)\)", r"\1{\2}", text)
    return text


def expression(text: str) -> object:
    """Read the text as an expression of sympy; None where it is none."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from sympy import Expr, I, Symbol

    plain = NormalizationConfig(basic_latex=True, malformed_operators=True, boxed="none")
    config = LatexExtractionConfig(normalization_config=plain)
    parsed = parse(f"${latex(text)}$", [config], fallback_mode="no_fallback", parsing_timeout=None)
    if not parsed or not isinstance(parsed[0], Expr):
        return None
    # Whether math-verify takes a letter for a real number depends on the letters beside it.
    letters = parsed[0].free_symbols
    return parsed[0].subs({s: I if s.name == "i" else Symbol(s.name) for s in letters})


if __name__ == "__main__":
    _serve()
