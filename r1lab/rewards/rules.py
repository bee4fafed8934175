"""The rewards that need no model (paper, v2 section 2.2): accuracy, programs' tests, and format.

Accuracy has two readings. The strict one is what training pays for; the lenient one finds the
answer blind to format, so that learning tags is never taken for learning to reason. A program is run
in the sandbox against its test cases, and the result is binary, as in the paper.
"""

import os
import re
from concurrent.futures import Future
from functools import cache

from r1lab.rewards.guard import equivalent
from r1lab.rewards.parsing import parse, text_of
from r1lab.sandbox import Outcome, Sandbox
from r1lab.task import Scores, checker

FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)
LAST_FUNCTION = re.compile(r"\bdef\b(?:(?!\bdef\b).)*", re.DOTALL)


@cache
def shared_sandbox() -> Sandbox:
    """Return the sandbox of this process, started when first needed; it ends with the process.

    Raises InputError where programs cannot be run safely on this system."""
    return Sandbox()


os.register_at_fork(after_in_child=shared_sandbox.cache_clear)  # a forked child has its own


def program_of(completion: str | list[dict[str, str]], lenient: bool = False) -> str | None:
    """Return the program that a completion answers with, or None: the one final `<answer>`, or else
    the last fenced block after the thinking. `lenient` finds it blind to format; where nothing marks
    it, from the last `def` on."""
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


def submit(completions: list, tests: list, lenient: bool = False) -> list[Future[Outcome] | None]:
    """Start grading and return at once, so that the next samples can be drawn meanwhile.

    None for a row without tests; an answer without a program is an empty program, an error."""
    return [
        shared_sandbox().submit(program_of(completion, lenient) or "", cases) if cases else None
        for completion, cases in zip(completions, tests, strict=True)
    ]


def code(prompts: list, completions: list, tests: list | None = None, **columns: object) -> Scores:
    """1.0 if the answer's program passes all of its tests, else 0.0; None for a row without tests.

    TRL's signature. Column read: `tests`, each a list of `{"input": x, "output": y}` on the
    function `f`. Raises InputError where programs cannot be run safely."""
    futures = submit(completions, tests or [None] * len(completions))
    return [future and float(future.result().verdict == "ok") for future in futures]


def correct(
    completion: str | list[dict[str, str]],
    solution: str | None,
    family: str | None = None,
    meta: dict | None = None,
    lenient: bool = False,
    question: str = "",
) -> bool | None:
    """Tell whether the completion's answer is right. None: no readable gold answer to judge it by.

    A family with a checker of its own decides (`task.CHECKERS`); for all others the answer must be
    a clean way to write the solution, by math-verify behind `guard.py`."""
    check = checker(family)
    if not check and not (solution or "").strip():
        return None
    parsed = parse(completion, question)
    answer = parsed.lenient_answer if lenient else parsed.answer
    if not answer:
        return False
    if check:
        return check(answer, meta or {})
    return equivalent(solution, answer, question)


def accuracy(
    prompts: list, completions: list, solution: list, tests: list | None = None, **columns: object
) -> Scores:
    """The strict accuracy reward, in TRL's signature: 1.0 right, 0.0 wrong, None not to be judged.

    Columns read, all of one entry per completion: `solution`; `tests`, by which the program in the
    answer is run; `family` and `meta` for rows with a checker of their own. A unit that the answer
    names must be the solution's or the prompt's."""
    scores = code(prompts, completions, tests)
    unknown = [None] * len(completions)
    families, metas = (columns.get(name) or unknown for name in ("family", "meta"))
    rows = zip(prompts, completions, solution, families, metas, strict=True)
    for row, (prompt, completion, gold, family, meta) in enumerate(rows):
        if scores[row] is None and gold is not None:
            verdict = correct(completion, str(gold), family, meta, question=text_of(prompt))
            scores[row] = None if verdict is None else float(verdict)
    return scores


def format(prompts: list, completions: list, **columns: object) -> Scores:
    """1.0 where the completion is well formed (see `Parsed`), else 0.0. TRL's signature."""
    rows = zip(prompts, completions, strict=True)
    return [float(parse(answer, text_of(prompt)).well_formed) for prompt, answer in rows]
