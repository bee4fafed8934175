"""The rewards that need no model (paper, v2 section 2.2): accuracy, programs' tests, and format.

Accuracy has two readings. The strict one is what training pays for; the lenient one finds the
answer blind to format, so that learning tags is never taken for learning to reason. A program is run
in the sandbox against its test cases, and the result is binary, as in the paper.
"""

import os
import re
from concurrent.futures import Future
from functools import cache
from textwrap import dedent

from r1lab.files import read_toml
from r1lab.machine import cores
from r1lab.rewards.guard import equivalent
from r1lab.rewards.languages import WORDLESS
from r1lab.rewards.parsing import Message, Parsed, parse, text_of
from r1lab.rewards.spelling import settle
from r1lab.sandbox import Outcome, Sandbox
from r1lab.task import Scores, checker

PATTERNS = read_toml(__file__, "program")
CHOICES = PATTERNS.pop("choices")
FENCE, OPENED, LINES, USEFUL, AGAIN, LAST_FUNCTION = (
    re.compile("".join(parts)) for parts in PATTERNS.values()
)
SMALL_WORLD = (*WORDLESS, "signs", "countdown", "programs")  # families


@cache
def shared_sandbox() -> Sandbox:
    """Return the sandbox of this process, started when first needed; it ends with the process.

    Raises InputError where programs cannot be run safely on this system."""
    return Sandbox(cores())


os.register_at_fork(after_in_child=shared_sandbox.cache_clear)  # a forked child has its own


def program_of(
    completion: Message, lenient: bool = False, prompt: str = "", tests: list | None = None
) -> str | None:
    """Return the program that a completion answers with, or None: the one final `<answer>`, or else
    a fenced block after the thinking, which may start at the end of the prompt. Of several blocks it
    is the last that the first of CHOICES fits; `tests` have the names that a program must define.

    `lenient` finds it blind to format; where nothing marks it, it is the last lines of code, or what
    begins with the last `def`."""
    parsed = parse(completion, prompt)
    answer = parsed.lenient_answer if lenient else parsed.answer
    text = answer if parsed.has_answer_tag else parsed.final.partition("<think>")[0]
    text = (text or "").replace("\r\n", "\n")
    if opened := OPENED.search(prompt):
        text = f"{opened[0]}\n{text}"
    elif text.count("```") % 2 and USEFUL.search((LINES.match(text.lstrip()) or [""])[0]):  # its end alone
        text = f"```python\n{text}"
    first = next(iter(tests or ()), {})
    entry = first.get("entry", "f") if isinstance(first, dict) else first
    names = "|".join(re.findall(r"\w+", str(entry)))
    fences = [fence for fence in FENCE.finditer(text) if fence["program"].strip()]
    for choice in CHOICES:
        wanted = re.compile(choice.replace("NAMES", names), re.MULTILINE)
        if fitting := [fence for fence in fences if wanted.search(fence[0])]:
            return dedent(fitting[-1]["program"])
    if parsed.has_answer_tag or not lenient:
        return answer if parsed.has_answer_tag else None  # a box holds no program
    runs = list(filter(USEFUL.search, LINES.findall(text)))
    if not runs or AGAIN.search(runs[-1]):
        runs = LAST_FUNCTION.findall(text)
    return runs[-1] if runs else text.strip() and answer or None


def submit(
    prompts: list, completions: list, tests: list, lenient: bool = False
) -> list[Future[Outcome] | None]:
    """Start grading and return at once, so that the next samples can be drawn meanwhile.

    None for a row without tests; an answer without a program is an empty program, an error."""
    return [
        shared_sandbox().submit(program_of(answer, lenient, prompt, cases) or "", cases) if cases else None
        for prompt, answer, cases in zip(map(text_of, prompts), completions, tests, strict=True)
    ]


def code(prompts: list, completions: list, tests: list | None = None, **columns: object) -> Scores:
    """1.0 if the answer's program passes all of its tests, else 0.0; None for a row without tests.

    TRL's signature. Column read: `tests`, each a list of `{"input": x, "output": y}` on the
    function `f`, or of another form of `Sandbox.submit`. Raises InputError where programs cannot be
    run safely."""
    futures = submit(prompts, completions, tests or [None] * len(completions))
    return [future and float(future.result().verdict == "ok") for future in futures]


def leniently(completion: str, family: str | None, meta: dict | None, question: str = "") -> Parsed:
    """Parse for the lenient reading. In the small world, as in its stored runs, thinking that is cut
    off has its last words as its answer."""
    small = family in SMALL_WORLD and "operators" not in (meta or {})
    return parse(text_of(completion).replace("<think>", "\n" if small else "<think>"), question)


def correct(
    completion: Message,
    solution: str | None,
    family: str | None = None,
    meta: dict | None = None,
    lenient: bool = False,
    question: str = "",
) -> bool | None:
    """Tell whether the completion's answer is right. None: no readable gold answer to judge it by.

    A family with a checker of its own decides (`task.CHECKERS`); for all others the answer must be
    a clean way to write the solution, by math-verify behind `guard.py`. The lenient reading takes
    words around the value away as well. `question` may be the whole prompt that was sent."""
    check = checker(family)
    if not check and not (solution or "").strip():
        return None
    parsed = leniently(completion, family, meta, question) if lenient else parse(completion, question)
    answer = parsed.lenient_answer if lenient else parsed.answer
    if not answer:
        return False
    if check:
        right = check(answer, meta or {})
        return right or lenient and "operators" in (meta or {}) and check(settle(answer, "expression"), meta)
    readings = parsed.readings(lenient, sentence="=" not in solution)  # else of another letter
    verdicts = [equivalent(solution, reading, question) for reading in readings]
    return None if None in verdicts else any(verdicts)


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
    return [float(parse(*row).well_formed) for row in zip(completions, prompts, strict=True)]
