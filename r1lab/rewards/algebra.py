"""Equality of two expressions by math-verify, in a process that ends when its time is up.

math-verify's own time limit is a signal to the main thread. Here the kernel ends the process when its
time is up, so that the limit holds on any thread and within one long multiplication, and it counts
computing time: a busy machine changes no reward. The small world never needs math-verify, and sympy is
slow to import, so only the worker's functions import them.
"""

import gc
import logging
import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from zlib import crc32

logger = logging.getLogger(__name__)
SECONDS = 3.0  # of computing time, for one comparison
EXTRA_BYTES = 2 << 30  # what the worker may allocate beyond what it starts with


class Unreadable(Exception):
    """The gold answer cannot be read, so nothing can be graded against it."""


class Worker:
    """One process that compares expressions, started when first needed and again after a deadline."""

    def __init__(self):
        self.pool, self.lock = None, threading.Lock()


_worker = Worker()
os.register_at_fork(after_in_child=_worker.__init__)  # a forked child has no worker of its own yet


@lru_cache(maxsize=4096)
def same_value(gold: str, answer: str, relation: bool = False) -> bool:
    """Compare two answers. What takes too long, or breaks math-verify, is not equal.

    With `relation` both are left sides of `... = 0`, which say the same if their quotient is any
    constant. Raises Unreadable where `gold` cannot be read."""
    with _worker.lock:
        if _worker.pool is None:
            context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
            _worker.pool = ProcessPoolExecutor(1, context, _start)
        try:
            return _worker.pool.submit(_compare, gold, answer, relation).result()
        except Unreadable:
            raise
        except BrokenProcessPool:
            _worker.pool = None
        except Exception:  # whatever math-verify or sympy makes of a model's text
            logger.debug("math-verify failed on %r against %r", answer, gold, exc_info=True)
        return False


def _start():
    """Set the limits of the worker, which also ends when its parent is gone."""
    gc.freeze()  # what the parent left to collect is the parent's: it may wait for its threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in (signal.SIGTERM, signal.SIGPROF):
        signal.signal(name, signal.SIG_DFL)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + EXTRA_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import math_verify  # here, so that no comparison's time is spent on it

    logging.getLogger(math_verify.__name__).setLevel(logging.ERROR)  # it warns of a timeout of None


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _compare(gold, answer, relation):
    """Compare in the worker, against the clock.

    math-verify compares differences with an absolute tolerance, so that 1/2004! equals 1/2006! to it:
    the quotient, at three fixed points of the variables, must be 1 (or a constant) as well."""
    from math_verify import verify
    from sympy import N, Rational

    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        wanted, given = expression(gold), expression(answer)
        if wanted is None:
            raise Unreadable(gold)
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
        return relation or verify([wanted], [given], timeout_seconds=None)
    except (TypeError, ZeroDivisionError):  # no number at one of the points
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
