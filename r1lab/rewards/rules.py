"""The rewards that need no model (paper, v2 section 2.2): accuracy and format.

Accuracy has two readings. The strict one is what training pays for; the lenient one finds the
answer blind to format, so that learning tags is never taken for learning to reason.
"""

from r1lab.rewards.deadline import same_value
from r1lab.rewards.guard import equivalent
from r1lab.rewards.parsing import parse, text_of
from r1lab.rewards.programs import code
from r1lab.task import checker


def correct(
    completion: str,
    solution: str | None,
    family: str | None = None,
    meta: dict | None = None,
    lenient: bool = False,
    question: str = "",
) -> bool | None:
    """Is the completion's answer right? None: there is no readable gold answer to judge it by.

    A family with a checker of its own decides (`task.CHECKERS`); for all others the answer must be
    a clean way to write the solution, by math-verify behind `guard.py`."""
    if not solution or not solution.strip():
        return None
    parsed = parse(completion, question)
    answer = parsed.lenient_answer if lenient else parsed.answer
    if not answer:
        return False
    if check := checker(family):
        return check(answer, meta or {})
    return equivalent(solution, answer, same_value, question)


def accuracy(
    prompts: list, completions: list, solution: list, tests: list | None = None, **columns: object
) -> list[float | None]:
    """The strict accuracy reward, in TRL's signature: 1.0 right, 0.0 wrong, None not to be judged.

    Columns read, all of one entry per completion: `solution`; `tests`, by which the program in the
    answer is run; `family` and `meta` for rows with a checker of their own; `unit`, what the
    question counts, where the prompt does not say it."""
    scores = code(prompts, completions, tests)
    unknown = [None] * len(completions)
    families, metas, units = (columns.get(name) or unknown for name in ("family", "meta", "unit"))
    rows = zip(prompts, completions, solution, families, metas, units, strict=True)
    for row, (prompt, completion, gold, family, meta, unit) in enumerate(rows):
        if scores[row] is None and gold is not None:
            question = f"{text_of(prompt)} {unit or ''}"
            verdict = correct(text_of(completion), str(gold), family, meta, question=question)
            scores[row] = None if verdict is None else float(verdict)
    return scores


def format(prompts: list, completions: list, **columns: object) -> list[float | None]:
    """1.0 where the completion is well formed (see `Parsed`), else 0.0. TRL's signature."""
    rows = zip(prompts, completions, strict=True)
    return [float(parse(answer, text_of(prompt)).well_formed) for prompt, answer in rows]
