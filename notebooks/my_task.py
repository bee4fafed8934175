"""A task of your own in one file: sums of three numbers, paid by how near an answer comes.

    r1lab zero --task notebooks/my_task.py:task
"""

import re

from r1lab import Task

rows = [
    {"question": f"compute {a}+{b}-{c}", "answer": a + b - c}
    for a in range(10, 20)
    for b in range(10, 20)
    for c in range(1, 5)
]


def last_number(completion):
    """The last whole number of an answer; None where there is none."""
    numbers = re.findall(r"-?\d+", completion)
    return int(numbers[-1]) if numbers else None


def is_right(completion, problem):
    """The check: everything that says pass@1 asks it."""
    return last_number(completion) == problem.meta["answer"]


def nearness(completions, answer, **columns):
    """The reward: 1 for the right number, less the further away it is. All columns come along."""
    numbers = [last_number(completion) for completion in completions]
    return [
        0.0 if number is None else 1 / (1 + abs(number - right))
        for number, right in zip(numbers, answer)
    ]


task = Task.from_dataset(
    rows, rewards={"nearness": nearness}, check=is_right, test=64, template="small", name="three"
)
