"""Comparison of expressions by math-verify, in a process that ends when its time is up."""

import gc
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)
SECONDS = 3.0  # of computing time, for one comparison
EXTRA_BYTES = 2 << 30  # what the worker may allocate beyond what it starts with


class Worker:
    """One process that compares expressions, started when first needed and again after a deadline.

    math-verify's own time limit is a signal to the main thread. Here the kernel ends the process
    when its time is up, so that the limit holds on any thread and within one long multiplication,
    and it counts computing time: a busy machine changes no reward."""

    def __init__(self) -> None:
        self.pool, self.lock = None, threading.Lock()

    def same_value(self, gold: str, answer: str, relation: bool) -> bool | None:
        with self.lock:
            if self.pool is None:
                method = "fork" if sys.platform == "linux" else "spawn"
                context = multiprocessing.get_context(method)
                self.pool = ProcessPoolExecutor(1, context, _start_worker)
            try:
                return self.pool.submit(_same_in_worker, gold, answer, relation).result()
            except BrokenProcessPool:
                self.pool.shutdown(wait=False)
                self.pool = None
            except Exception:  # whatever math-verify or sympy makes of a model's text
                logger.debug("math-verify failed on %r against %r", answer, gold, exc_info=True)
            return False


def _start_worker() -> None:
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


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _same_in_worker(gold: str, answer: str, relation: bool) -> bool | None:
    from r1lab.rewards import algebra  # sympy is slow to import, and the small world never needs it

    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        return algebra.same_value(gold, answer, relation)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


_worker = Worker()
os.register_at_fork(after_in_child=_worker.__init__)  # a forked child has no worker of its own yet


@lru_cache(maxsize=4096)
def same_value(gold: str, answer: str, relation: bool) -> bool | None:
    """`algebra.same_value`; what takes too long, or breaks math-verify, is not the same."""
    return _worker.same_value(gold, answer, relation)
