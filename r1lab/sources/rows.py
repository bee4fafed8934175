"""Rows as people have them, read as problems: columns of any name, conversations."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from random import Random

from r1lab.errors import InputError, reason
from r1lab.rewards import parse
from r1lab.task import CHECKERS, REQUIRED, Problem, normalized, problem_id, problem_of

# Where a column of the default's name is missing, the first of these that is there.
USUAL = {"prompt": ("question", "prompt", "problem", "messages"), "solution": ("answer", "solution")}
NEVER_PASSED = ("prompts", "completions", "self")  # names that a reward function gets its own values by


def read_problems(
    rows: Iterable[Mapping], name: str, prompt: str = "question", solution: str | None = "answer",
    level: str | None = None,
) -> list[Problem]:  # fmt: skip
    """Read rows as problems of the family `name`; `meta` holds all of a row's columns.

    Rows that have the fields of a Problem (as `task.save_problems` stores them) are taken as such.

    Args:
        prompt: column of the question: text, or a conversation in roles and contents.
        solution: column of the right answer: text or a number. None: there is no such column.
        level: column of the difficulty, if any.
    Raises:
        InputError: a column is missing, or a row cannot be read.
    """
    name = f"own {name}" if name in CHECKERS else name  # which judge other problems
    rows = [dict(row) for row in rows]
    columns = list(dict.fromkeys(chain(*rows)))
    read = problem_of
    if not set(REQUIRED) <= set(columns):
        asked, given = _column(columns, prompt, "prompt"), None
        conversation = rows and not isinstance(rows[0].get(asked), str)  # which may end in the answer
        if solution and not (conversation and {solution, *USUAL["solution"]}.isdisjoint(columns)):
            given = _column(columns, solution, "solution")
        read = partial(_problem, name=name, asked=asked, given=given, level=level)
    return read_each(rows, read, name)


def read_each(rows: Iterable[Mapping], read: Callable, name: str, hint: str = "") -> list:
    """Read every row. Raises InputError naming the one that cannot be read."""
    problems = []
    for number, row in enumerate(rows, start=1):
        try:
            problems.append(read(row))
        except Exception as error:  # a reader may fail in any way on columns of another kind
            raise InputError(
                f"{name}, row {number}: cannot be read ({reason(error)}); its columns are "
                f"{', '.join(row)}{hint}."
            ) from error
    return problems


def _problem(row, name, asked, given, level):
    """Make a problem of a row whose columns have these names."""
    question, reply = read_question(row.get(asked))
    return Problem(
        id=problem_id(name, question),
        family=name,
        level=int(re.findall(r"\d+", str(row[level]))[0]) if level else 1,
        lang=row.get("lang") or "en",
        prompt=question,
        solution=_answer(row.get(given) if given else reply),
        tests=row["tests"] if isinstance(row.get("tests"), list) else None,
        meta={key: row[key] for key in row if key not in NEVER_PASSED},
    )


def _column(columns, wanted, role):
    """Find the column wanted, or one that means the same where the name is only the default."""
    for column in (wanted, *USUAL[role]) if wanted in USUAL[role] else (wanted,):
        if column in columns:
            return column
    raise InputError(
        f"there is no column {wanted!r}; the columns are {', '.join(columns) or 'none'}: say which of "
        f"them is the {role}, as {role}=NAME."
    )


def read_question(value: object) -> tuple[str, str]:
    """Read the question, and what a conversation answers to it ("" where it does not)."""
    messages = [{"role": "user", "content": value}] if isinstance(value, str) else list(value)
    reply = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
    if any(message["role"] == "assistant" for message in messages):
        raise ValueError("a conversation of several turns, of which one can be asked")
    text = "\n\n".join(message["content"] for message in messages)
    if not text.strip():
        raise ValueError("the question is empty")
    return text, reply


def final_answer(solution: str) -> str:
    """Take the answer out of a worked solution: what follows ####, or the last box. A text that has
    neither is the answer."""
    _, mark, last = solution.rpartition("####")
    if mark:
        return re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", last.strip())  # of 1,234
    return (parse(solution).boxed or [solution])[-1]


def _answer(value):
    """Write the right answer as text: numbers as people write them."""
    if isinstance(value, str):
        return final_answer(value)
    if value is None or str(value) == "nan":  # an empty cell
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def hold_out(problems: Sequence[Problem], test: int) -> tuple[list[Problem], list[Problem]]:
    """Split into (for training, for the test): so many different questions, drawn with seed 0.

    Raises InputError where there are too few.
    """
    different = list({normalized(problem): problem for problem in problems}.values())
    if not 0 < test < len(different):
        raise InputError(
            f"there are {len(different)} different questions, so test={test} of them cannot be held "
            f"out; give a number from 1 to {len(different) - 1}, or test rows of their own."
        )
    held = set(Random(0).sample(range(len(different)), test))
    training = [problem for place, problem in enumerate(different) if place not in held]
    return training, [different[place] for place in sorted(held)]
