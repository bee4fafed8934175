"""Data sets of `reasoning-gym`, which makes problems and judges answers to them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from random import Random

from r1lab.errors import InputError
from r1lab.rewards import accuracy, format, parse
from r1lab.task import Problem, Reward, Task, normalized, problem_id

Rewards = Mapping[str, Reward | tuple[Reward, float]]
# What is paid where nobody says it: the right answer, and a tenth of that for the format.
RULES: Rewards = {"accuracy": (accuracy, 1.0), "format": (format, 0.1)}
ITEMS = 100_000  # of each data set, but for
FEWER = {"acre": 500, "word_ladder": 20_000}  # which take no more, or make all of them at once
LEVELS = 5  # at most, from the easiest to the hardest items of a data set
PATIENCE = 30  # seconds for the test problems


@lru_cache
def open_dataset(name: str, **options: object):
    """Open one of the gym's data sets. Raises InputError where there is no such set or option."""
    import reasoning_gym  # a hundred data sets, which take seconds to import
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, 5, 0.4) or sorted(DATASETS)[:5]
        raise InputError(
            f"reasoning-gym has no data set {name!r}; the nearest of its {len(DATASETS)} are "
            f"{', '.join(near)}."
        )
    try:
        usual = {"seed": 0, "size": FEWER.get(name, ITEMS)}
        return reasoning_gym.create_dataset(name, **usual | options)
    except Exception as error:  # each set checks its options in its own way
        raise InputError(f"reasoning-gym does not make {name!r} of {options} ({error}).") from error


@dataclass(frozen=True)
class Gym:
    """One data set of the gym: its first `test` items are held out, others are drawn."""

    name: str
    test: int
    options: tuple[tuple[str, object], ...]

    @property
    def items(self):
        return open_dataset(self.name, **dict(self.options))

    def problem(self, index: int) -> Problem:
        item = _item(self, index)
        asked, answer = item["question"], str(item["answer"] or "")
        name, family = problem_id(self.name, asked), f"gym:{self.name}"
        level = level_of(item["metadata"])
        return Problem(name, family, level, "en", asked, answer, meta={"index": index})

    @property
    def tests(self) -> list[Problem]:
        return [self.problem(index) for index in range(self.test)]

    def refuse_what_cannot_teach(self) -> None:
        """Raise InputError where items take too long to make, or the scorer takes any text for right."""
        started = time.monotonic()
        for index in range(self.test):
            if _item(self, index)["answer"] and self.score("no answer", index) == 1:
                raise InputError(f"the scorer of {self.name} takes any text for right; use another set.")
            if time.monotonic() - started > PATIENCE:
                raise InputError(
                    f"{self.name} made {index + 1} of {self.test} test problems in {PATIENCE} s; give a "
                    "smaller test, or options of the data set that make easier problems."
                )

    def draw(self, seed: int, rollout: int, count: int) -> list[Problem]:
        """Draw a rollout's problems, none of which is among the tests."""
        rng, tested = Random(f"{self.name}/{seed}/{rollout}"), _questions(self)
        tries = range(20 * count)  # a small set may hold little that is not in the test
        drawn = (self.problem(rng.randrange(self.test, len(self.items))) for _ in tries)
        return list(islice((one for one in drawn if normalized(one) not in tested), count))

    def score(self, answer: str | None, index: int) -> float:
        try:
            return float(self.items.score_answer(answer=answer, entry=_item(self, index)))
        except Exception:  # a scorer that breaks on a model's text has not found it right
            return 0.0

    def check(self, completion: str, problem: Problem) -> float:
        """Score the answer as the gym does, wherever it is."""
        return self.score(parse(completion).lenient_answer, problem.meta["index"])

    def accuracy(
        self, prompts: list, completions: list, index: list[int], **columns: object
    ) -> list[float]:
        """Score the answers in the right format as the gym does: the reward."""
        rows = zip(completions, prompts, index, strict=True)
        return [self.score(parse(text, prompt).answer, place) for text, prompt, place in rows]


@lru_cache(maxsize=2**13)
def _item(gym: Gym, index: int) -> dict:
    return gym.items[index]  # made again each time, in some sets in seconds


def level_of(metadata: Mapping) -> int:
    """Return the set's difficulty, or the place, from 1 to LEVELS, of the first of its attributes that
    the item has a number for in the range of that attribute; 1 where there is neither."""
    difficulty = metadata.get("difficulty") or {}
    if not isinstance(difficulty, Mapping):
        return int(difficulty)
    for name, values in difficulty.items():
        if name == "difficulty" and isinstance(values, int):
            return values
        number = metadata.get(name)
        if isinstance(number, int) and isinstance(values, Sequence) and len(values) == 2:
            low, high = values
            place = int((number - low) * LEVELS // max(LEVELS, high - low + 1))
            return 1 + min(max(place, 0), LEVELS - 1)
    return 1


@lru_cache
def _questions(gym: Gym) -> frozenset[str]:
    return frozenset(map(normalized, gym.tests))


def from_gym(
    name: str, *, test: int = 64, template: str = "chat", rewards: Rewards | None = None,
    examples: Sequence[Sequence[str]] = (), chat_template_kwargs: Mapping = {}, **options,
) -> Task:  # fmt: skip
    """Make a task of one of reasoning-gym's data sets, judged and paid by its own scorer.

    `options` are that data set's own, as min_terms=2, and `size`, how many items it has. Raises
    InputError where there is no such set or option, it has no items beyond the test, or it cannot teach.
    """
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    gym = Gym(name, test, tuple(sorted(settings.items())))
    if not 0 < test < len(gym.items):
        raise InputError(
            f"{name} has {len(gym.items)} items, so test={test} of them cannot be held out."
        )
    gym.refuse_what_cannot_teach()
    paid = rewards or {**RULES, "accuracy": (gym.accuracy, 1.0)}
    return Task(
        name, gym.draw, gym.tests, paid, gym.check, template,
        examples=examples, chat_template_kwargs=chat_template_kwargs,
    )  # fmt: skip
