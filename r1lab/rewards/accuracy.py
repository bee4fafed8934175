"""The accuracy reward, in its strict reading, and the lenient one that evaluation sets beside it.

Paper: v2 section 2.2, "accuracy rewards". The strict reading is what training pays for; the lenient
one finds the answer blind to format, so that learning tags is never taken for learning to reason.
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
from functools import lru_cache
from pathlib import Path

from r1lab import world
from r1lab.rewards.guard import equivalent

logger = logging.getLogger(__name__)
SECONDS = 3.0  # of computing time, for one comparison by math-verify
EXTRA_BYTES = 2 << 30  # what the worker may allocate beyond what it starts with
DOUBT = re.compile(
    r"\b(?:not|never|maybe|perhaps|probably|possibly|likely|approximately|about|roughly|nearly|"
    r"almost|guess|might|could|either|or|wrong|incorrect)\b|n['’]t", re.I)


class Worker:
    """One process that compares expressions, started when first needed and again after a deadline.

    math-verify's own time limit is a signal to the main thread. Here the kernel ends the process
    when its time is up, so that the limit holds on any thread and within one long multiplication,
    and it counts computing time: a busy machine changes no reward."""

    def __init__(self) -> None:
        self.pool, self.lock = None, threading.Lock()

    def same_value(self, gold: str, answer: str, relation: bool) -> bool | None:
        """`algebra.same_value`; what takes too long, or breaks math-verify, is not the same."""
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
    """Sets the limits of the worker, which also ends when its parent is gone."""
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
def _same_value(gold: str, answer: str, relation: bool) -> bool | None:
    return _worker.same_value(gold, answer, relation)


def text_of(message: str | list[dict[str, str]]) -> str:
    """The text of a prompt or completion, also in TRL's conversational form (its last message)."""
    return message if isinstance(message, str) else message[-1]["content"]


def boxed(text: str) -> list[tuple[int, int]]:
    r"""Where the contents of each `\boxed{...}` start and end, unclosed ones at the text's end."""
    spans, opened = [], []
    for match in re.finditer(r"\\boxed\s*\{|[{}]", text):
        if match[0] != "}":
            opened.append(match)
        elif opened and (start := opened.pop())[0] != "{":
            spans.append((start.end(), match.start()))
    return spans + [(start.end(), len(text)) for start in opened if start[0] != "{"]


def strict_answer(completion: str) -> str | None:
    r"""The text of the one final `<answer>`; where there is no answer tag, of the one `\boxed{}`
    that ends the completion without a word of doubt in its sentence.

    None: there is no single final answer."""
    if "<answer>" in completion or "</answer>" in completion:
        before, _, rest = completion.partition("<answer>")
        answer, closed, after = rest.partition("</answer>")
        single = closed and "<answer>" not in answer + after and "</answer>" not in before + after
        return answer.strip() or None if single and not after.strip() else None
    final = completion.rpartition("</think>")[2]
    spans = boxed(final)
    if "<think>" in final or len({final[start:end] for start, end in spans}) != 1:
        return None
    start, end = spans[-1]
    sentence = re.split(r"[.!?]\s|\n\n", final[:start])[-1]
    after = re.sub(r"i hope it is correct", "", final[end:], flags=re.I)
    if DOUBT.search(sentence) or re.search(r"[^\s.$)}\]\\*]", after):
        return None
    return final[start:end].strip() or None


def lenient_answer(completion: str) -> str:
    r"""The answer, however it is marked: the last `<answer>`, closed or not; else the last
    `\boxed{}`; else the last expression (or the whole) of the last line after `</think>`."""
    answers = [part.partition("</answer>")[0].strip() for part in completion.split("<answer>")[1:]]
    if answers and answers[-1]:
        return answers[-1]
    if spans := boxed(completion):
        return completion[slice(*spans[-1])].strip()
    final = next((part for part in completion.split("</think>")[::-1] if part.strip()), "")
    lines = [line.strip() for line in re.sub(r"</?\w+>", "\n", final).splitlines() if line.strip()]
    line = lines[-1] if lines else ""
    formulas = re.findall(r"\$([^$]+)\$", line)
    runs = re.findall(r"(?:[-+*/^().,\d\s{}]|\\[a-z]+|(?<![A-Za-z])[b-zB-HJ-Z](?![A-Za-z]))+", line)
    runs = [run.strip(" .,") for run in runs if re.search(r"\d", run)]
    return (formulas or runs or [line])[-1]


def correct(
    completion: str,
    solution: str | None,
    family: str | None = None,
    meta: dict | None = None,
    lenient: bool = False,
    question: str = "",
) -> bool | None:
    """Is the completion's answer right? None: there is no readable gold answer to judge it by.

    A family with a checker of its own decides (`world.verify`); for all others the answer must be a
    clean way to write the solution, by math-verify behind `guard.py`."""
    if not solution or not solution.strip():
        return None
    answer = lenient_answer(completion) if lenient else strict_answer(completion)
    if not answer:
        return False
    if family is not None:
        verdict = world.verify(family, answer, solution, meta or {})
        if verdict is not None:
            return verdict
    return equivalent(solution, answer, _same_value, question)


def accuracy(
    prompts: list, completions: list, solution: list, **columns: object
) -> list[float | None]:
    """The strict accuracy reward, in TRL's signature: 1.0 right, 0.0 wrong, None not to be judged.

    Columns read, all of one entry per completion: `solution`; `family` and `meta` for rows of the
    small world; `unit`, what the question counts, where the prompt does not say it."""
    none = [None] * len(completions)
    families, metas, units = (columns.get(name) or none for name in ("family", "meta", "unit"))
    verdicts = [
        correct(
            text_of(completion), None if gold is None else str(gold), family, meta,
            question=f"{text_of(prompt)} {unit or ''}",
        )
        for prompt, completion, gold, family, meta, unit in zip(
            prompts, completions, solution, families, metas, units, strict=True
        )
    ]  # fmt: skip
    return [None if verdict is None else float(verdict) for verdict in verdicts]
