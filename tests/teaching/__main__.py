"""Print a paper from the examination bank: `python -m tests.teaching --help`."""

import random
import sys
from functools import partial

import tyro

from r1lab.cli import exit_code
from r1lab.errors import InputError
from tests.teaching import questions


def shown(number: int, question: dict, answers: bool) -> str:
    """A question in Markdown; on demand with its name, model answer and rubric."""
    name = f", {question['id']}" if answers else ""
    head = f"**{number}.** ({question['points']} points{name})"
    parts = [f"{head} {question['ask']}"]
    if answers:
        marks = "\n".join(f"- {points}: {what}" for points, what in question["rubric"])
        parts += [question["answer"], marks]
    return "\n\n".join(parts)


def main(
    lessons: tuple[str, ...] = (),
    levels: tuple[int, ...] = (1, 2, 3),
    count: int | None = None,
    seed: int = 0,
    answers: bool = False,
) -> None:
    """Print questions as Markdown.

    Args:
        lessons: numbers of lessons, such as 01 01b 03; all of them when none is named.
        levels: which levels of difficulty.
        count: how many, drawn at random; all of them by default.
        seed: another one draws other questions.
        answers: add model answers and rubrics, for the one who marks.
    """
    numbers = {question["lesson"].split("_")[0] for question in questions()}
    if unknown := set(lessons) - numbers:
        raise InputError(f"There is no lesson {min(unknown)}; there are {', '.join(sorted(numbers))}.")
    chosen = [one for one in questions() if one["level"] in levels]
    chosen = [one for one in chosen if not lessons or one["lesson"].split("_")[0] in lessons]
    if count is not None:
        if not 0 < count <= len(chosen):
            raise InputError(f"{count} questions cannot be drawn from {len(chosen)}: give a number from 1 to that.")
        picked = random.Random(seed).sample(range(len(chosen)), count)
        chosen = [chosen[place] for place in sorted(picked)]
    print("\n\n".join(shown(number, one, answers) for number, one in enumerate(chosen, 1)))
    print(f"\n{sum(one['points'] for one in chosen)} points in {len(chosen)} questions")


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, main, description=__doc__)))
