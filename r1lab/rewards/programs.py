"""The reward for programs: does the program in the answer pass its tests, run in the sandbox?

Paper: v2 section 2.2, where code is compiled and run against test cases, and the result is binary.
"""

import os
import re
from concurrent.futures import Future
from functools import cache

from r1lab.rewards.parsing import parse, text_of
from r1lab.sandbox import Outcome, Sandbox

FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
LAST_FUNCTION = re.compile(r"\bdef\b(?:(?!\bdef\b).)*", re.DOTALL)


@cache
def shared_sandbox() -> Sandbox:
    """The sandbox of this process, started when first needed; it ends with the process.

    Raises InputError where programs cannot be run safely on this system."""
    return Sandbox()


os.register_at_fork(after_in_child=shared_sandbox.cache_clear)  # a forked child has its own


def program_of(completion: str, lenient: bool = False) -> str | None:
    """The program that a completion answers with, or None: the one final `<answer>`, or else the
    last fenced block after the thinking. `lenient` finds it blind to format; where
    nothing marks it, from the last `def` on."""
    parsed = parse(completion)
    answer = parsed.lenient_answer if lenient else parsed.answer
    if parsed.has_answer_tag:
        blocks = FENCE.findall(answer or "")
    else:
        blocks = FENCE.findall(parsed.final)
        if not lenient:
            answer = None  # a box holds no program
        elif not blocks:
            blocks = LAST_FUNCTION.findall(parsed.final)
    return blocks[-1] if blocks else answer or None


def submit(
    completions: list, tests: list, lenient: bool = False
) -> list[Future[Outcome] | None]:
    """Start grading and return at once, so that the next samples can be drawn meanwhile.

    None for a row without tests; an answer without a program is an empty program, an error."""
    futures: list[Future[Outcome] | None] = [None] * len(completions)
    for row, (completion, cases) in enumerate(zip(completions, tests, strict=True)):
        if cases:
            program = program_of(text_of(completion), lenient) or ""
            futures[row] = shared_sandbox().submit(program, cases)
    return futures


def code(
    prompts: list, completions: list, tests: list | None = None, **columns: object
) -> list[float | None]:
    """1.0 if the answer's program passes all of its tests, else 0.0; None for a row without tests.

    TRL's signature. Column read: `tests`, each a list of `{"input": x, "output": y}` on the
    function `f`. Raises InputError where programs cannot be run safely."""
    futures = submit(completions, tests or [None] * len(completions))
    return [future and float(future.result().verdict == "ok") for future in futures]
