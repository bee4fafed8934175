"""Puzzles of signs in plain English, for a real language model: the task and the cold start of lesson 13.

    r1lab zero --model smollm2 --task notebooks/english_puzzles.py:task --name english

A question gives two to four numbers and a target. The model answers in sentences, one attempt a line.
Rules write the examples of the cold start, as people of different patience would: most guess or try
once, and few go on to the end. So skill and habit stay apart, as in the small world.
"""

import itertools
import random
import re
from collections.abc import Iterator
from functools import cache

from r1lab import Problem, Task
from r1lab.rewards import parse
from r1lab.task import problem_id
from r1lab.world.puzzles import Attempt

LEVELS = (1, 2, 3)  # level n has n + 1 numbers, and 2^n ways to choose the signs
TESTED = 24  # held-out puzzles of each level
QUESTION = "Use + or - between the numbers {numbers}, in this order, to get {target}."
# How people work: how many attempts they are ready to make, and the share of them in percent.
PATIENCE = {0: 30, 1: 40, 2: 14, 4: 8, 8: 8}
LINE = re.compile(r"Let me try (\d+(?: [+-] \d+)+)\. (.*?)We need (-?\d+), so (no|that works)\.")


def expressions(numbers: list[int]) -> list[str]:
    """Write every choice of signs in order: all plus first, and the last sign changes fastest."""
    first, *rest = map(str, numbers)
    patterns = itertools.product("+-", repeat=len(rest))
    return [" ".join([first, *itertools.chain(*zip(signs, rest))]) for signs in patterns]


def value(expression: str) -> int:
    """Work out a chain of sums such as "9 + 5 - 1"."""
    return sum(int(term) for term in re.findall(r"[+-]?\d+", expression.replace(" ", "")))


@cache
def puzzles(level: int) -> tuple[list[Problem], list[Problem]]:
    """Split all puzzles of a level, of numbers from 1 to 9, into those to train on and the held-out ones.

    Exactly one choice of signs answers each.
    """
    problems = []
    for numbers in itertools.product(range(1, 10), repeat=level + 1):
        answers: dict[int, list[str]] = {}
        for expression in expressions(list(numbers)):
            answers.setdefault(value(expression), []).append(expression)
        for target, right in answers.items():
            if len(right) == 1:
                question = QUESTION.format(numbers=", ".join(map(str, numbers)), target=target)
                meta = {"numbers": list(numbers), "target": target}
                name = problem_id("english", question)
                problems.append(Problem(name, "english", level, "en", question, right[0], meta=meta))
    random.Random(level).shuffle(problems)
    return problems[TESTED:], problems[:TESTED]


def draw(seed: int, rollout: int, count: int) -> list[Problem]:
    """Draw the puzzles of a rollout, each level with the same chance."""
    rng = random.Random(f"english/{seed}/{rollout}")
    return [rng.choice(puzzles(rng.choice(LEVELS))[0]) for _ in range(count)]


def attempt_line(expression: str, target: int) -> str:
    """Write an attempt with each step: "Let me try 9 + 5. 9 + 5 = 14. We need 4, so no."."""
    first, *rest = expression.split()
    steps, total = [], int(first)
    for sign, number in zip(rest[::2], rest[1::2]):
        after = value(f"{total}{sign}{number}")
        steps.append(f"{total} {sign} {number} = {after}.")
        total = after
    verdict = "that works" if total == target else "no"
    return f"Let me try {expression}. {' '.join(steps)} We need {target}, so {verdict}."


def write_answer(rng: random.Random, problem: Problem) -> str:
    """Write an answer as a person of some patience does; half of them try the signs in order."""
    tried, target = expressions(problem.meta["numbers"]), problem.meta["target"]
    if rng.random() < 0.5:
        rng.shuffle(tried)
    [patience] = rng.choices(list(PATIENCE), list(PATIENCE.values()))
    lines, said = [], rng.choice(tried)
    for said in tried[:patience]:
        lines.append(attempt_line(said, target))
        if said == problem.solution:
            break
    thinking = "\n".join(lines) or "I will guess."
    return f"<think>\n{thinking}\n</think>\n<answer> {said} </answer>"


def cold_start(count: int, seed: int = 0) -> Iterator[dict[str, str]]:
    """Write examples to fine-tune on. No held-out puzzle is among them."""
    rng = random.Random(f"cold start/{seed}")
    for problem in draw(seed, -1, count):
        yield {"prompt": problem.prompt, "completion": write_answer(rng, problem)}


def solves(answer: str | None, numbers: list[int], target: int) -> bool:
    """Does the answer use the numbers in their order, with signs that reach the target?"""
    compact = (answer or "").replace(" ", "")
    if not re.fullmatch(r"\d+(?:[+-]\d+)+", compact):
        return False
    return [int(number) for number in re.findall(r"\d+", compact)] == numbers and value(compact) == target


def is_right(completion: str, problem: Problem) -> bool:
    """The check: everything that says pass@1 asks it."""
    return solves(parse(completion).answer, problem.meta["numbers"], problem.meta["target"])


def rightness(completions: list[str], numbers: list, target: list, **columns) -> list[float]:
    """The reward: 1 for a right answer, and nothing else."""
    answers = [parse(completion).answer for completion in completions]
    return [float(solves(*row)) for row in zip(answers, numbers, target, strict=True)]


def find_attempts(problem: Problem, completion: str) -> list[Attempt]:
    """Read the attempts of an answer, for everything that counts or shows them."""
    attempts = []
    for expression, steps, target, verdict in LINE.findall(completion):
        first, *rest = expression.split()
        moves = tuple(zip(rest[::2], map(int, rest[1::2])))
        totals = tuple(map(int, re.findall(r"= (-?\d+)", steps)))
        attempts.append(Attempt(int(first), moves, totals, int(target), verdict == "that works"))
    return attempts


task = Task(
    "english puzzles", draw, [problem for level in LEVELS for problem in puzzles(level)[1]],
    {"right": rightness}, check=is_right, template="chat", attempts=find_attempts,
)  # fmt: skip
