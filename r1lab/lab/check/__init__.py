"""`check.NAME(your_function)`: is an exercise solved, and if not, which property fails?

A check prints one line, "NAME: right" or a sentence with your own numbers, and returns True or
False. It compares properties, so any right way to write the function is right.
"""

from r1lab.lab.check.engine import EXERCISES, make_check

globals().update({name: make_check(name) for name in EXERCISES})
__all__ = ["names", *EXERCISES]


def names() -> list[str]:
    """All exercises that have a check."""
    return sorted(EXERCISES)
