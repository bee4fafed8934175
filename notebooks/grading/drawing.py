"""What questions are drawn with: a table of sources, random tensors, random choices."""

import random
from collections.abc import Callable
from typing import NamedTuple


class Source(NamedTuple):
    """Where questions of an exercise come from."""

    draw: Callable  # (random numbers, size) -> arguments; sizes of one question fit those of another
    rights: tuple[Callable, ...]  # right functions, of which any may be written
    clear: Callable  # (arguments) -> is there one answer only, with no rounding at stake?


SOURCES: dict[str, Source] = {}


def source(*rights: Callable, clear: Callable = lambda *args: True) -> Callable:
    """Register a function that draws arguments, beside the right functions."""

    def register(draw):
        SOURCES[draw.__name__] = Source(draw, rights, clear)
        return draw

    return register


def tensor(rng: random.Random, *shape: int, low: float = -2.0, high: float = 2.0, digits: int = 2) -> dict:
    """A tensor of random numbers of a few digits."""

    def numbers(sizes):
        if not sizes:
            return round(rng.uniform(low, high), digits)
        return [numbers(sizes[1:]) for _ in range(sizes[0])]

    return {"tensor": numbers(shape)}


def some(rng: random.Random, choices: list, least: int = 0, most: int = 6) -> list:
    return rng.choices(choices, k=rng.randint(least, most))
