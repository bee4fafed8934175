"""What questions of lesson 14 hold that JSON cannot: puzzles, and rewards that are asked.

It imports nothing of the lab, because it is loaded beside the functions that learners hand in.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Puzzle:
    """A problem, as far as an exercise looks at it."""

    meta: dict


@dataclass(frozen=True)
class Reward:
    """A reward that pays 1 for a completion with the answer, if it has at most `longest` characters."""

    answer: str
    longest: int

    def __call__(self, prompts: list, completions: list, **columns) -> list[float]:
        return [float(self.answer in text and len(text) <= self.longest) for text in completions]

    @property
    def __name__(self) -> str:
        return f"a reward that pays for {self.answer!r} up to {self.longest} characters"


MAKERS = {"puzzle": Puzzle, "reward": lambda about: Reward(*about)}
