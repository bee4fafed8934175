"""Data sets of `reasoning-gym`, which makes problems and judges answers to them."""

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
ITEMS = 100_000  # of each data set


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
        return reasoning_gym.create_dataset(name, **{"seed": 0, "size": ITEMS, **options})
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
        item = self.items[index]
        asked, answer = item["question"], str(item["answer"] or "")
        name, family = problem_id(self.name, asked), f"gym:{self.name}"
        return Problem(name, family, 1, "en", asked, answer, meta={"index": index})

    @property
    def tests(self) -> list[Problem]:
        return [self.problem(index) for index in range(self.test)]

    def draw(self, seed: int, rollout: int, count: int) -> list[Problem]:
        """Draw a rollout's problems, none of which is among the tests."""
        rng, tested = Random(f"{self.name}/{seed}/{rollout}"), _questions(self)
        tries = range(20 * count)  # a small set may hold little that is not in the test
        drawn = (self.problem(rng.randrange(self.test, len(self.items))) for _ in tries)
        return list(islice((one for one in drawn if normalized(one) not in tested), count))

    def score(self, answer: str | None, index: int) -> float:
        try:
            return float(self.items.score_answer(answer=answer, entry=self.items[index]))
        except Exception:  # a scorer that breaks on a model's text has not found it right
            return 0.0

    def check(self, completion: str, problem: Problem) -> float:
        """Score the answer as the gym does, wherever it is."""
        return self.score(parse(completion).lenient_answer, problem.meta["index"])

    def accuracy(self, completions: list, index: list[int], **columns: object) -> list[float]:
        """Score the answers in the right format as the gym does: the reward."""
        rows = zip(completions, index, strict=True)
        return [self.score(parse(completion).answer, place) for completion, place in rows]


@lru_cache
def _questions(gym: Gym) -> frozenset[str]:
    return frozenset(map(normalized, gym.tests))


def from_gym(
    name: str, *, test: int = 64, template: str = "chat", rewards: Rewards | None = None,
    examples: Sequence[tuple[str, str]] = (), chat_template_kwargs: Mapping = {}, **options,
) -> Task:  # fmt: skip
    """Make a task of one of reasoning-gym's data sets, judged and paid by its own scorer.

    `options` are that data set's own, as min_terms=2, and `size`, how many items it has. Raises
    InputError where there is no such set or option, or it has no items beyond the test.
    """
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    gym = Gym(name, test, tuple(sorted(settings.items())))
    if not 0 < test < len(gym.items):
        raise InputError(
            f"{name} has {len(gym.items)} items, so test={test} of them cannot be held out."
        )
    paid = rewards or {**RULES, "accuracy": (gym.accuracy, 1.0)}
    return Task(
        name, gym.draw, gym.tests, paid, gym.check, template,
        examples=examples, chat_template_kwargs=chat_template_kwargs,
    )  # fmt: skip
