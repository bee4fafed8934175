"""`check.NAME(your_function)`: is an exercise solved, and if not, which property fails?

A check prints one line, "NAME: right" or a sentence with your own numbers, and returns True or
False. It compares properties, so any right way to write the function is right.
"""

from r1lab.lab.check import exercises  # noqa: F401
from r1lab.lab.check.engine import EXERCISES

globals().update(EXERCISES)
__all__ = ["names", *EXERCISES]


def names() -> list[str]:
    """All exercises that have a check."""
    return sorted(EXERCISES)
