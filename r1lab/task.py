"""A task: what is asked, how an answer is checked and paid, and on what a policy is tested."""

import hashlib
import inspect
import pkgutil
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache, partial
from pathlib import Path

from r1lab.errors import InputError
from r1lab.files import SHIPPED, Row, read_rows, write_rows


@dataclass(frozen=True)
class Problem:
    """One question that can be graded.

    `prompt` is the bare question, without any template. `meta` holds what the family's own
    checker needs (for `signs`: the numbers and the target).
    """

    id: str
    family: str
    level: int
    lang: str
    prompt: str
    solution: str
    tests: list | None = None
    meta: dict = field(default_factory=dict)


# How a family judges an answer by rules of its own, as a function of (answer, meta) or, so that every
# process finds it, its name. Where there is none, the answer's value is compared with the solution's.
CHECKERS: dict[str, str | Callable[[str, dict], bool]] = {
    "signs": "r1lab.world.puzzles:SIGNS.check",
    "countdown": "r1lab.world.puzzles:COUNTDOWN.check",
    "gpqa": "r1lab.sources.hub:verify_choice",
}


def gold_answer(problem: Problem) -> str:
    """Return the problem's solution, of Countdown found now where it was not stored; "" where there is
    none."""
    if problem.solution or problem.family != "countdown":
        return problem.solution
    return pkgutil.resolve_name("r1lab.sources.hub:solve_countdown")(problem.meta)


def checker(family: str | None) -> Callable[[str, dict], bool] | None:
    """Find the family's entry in CHECKERS, as a function."""
    check = CHECKERS.get(family)
    return pkgutil.resolve_name(check) if isinstance(check, str) else check


def columns_of(problems: Sequence[Problem]) -> dict[str, list]:
    """Lay the problems out as columns for reward functions: their fields, and each key of their `meta`."""
    names = ("solution", "family", "level", "lang", "meta", "tests")
    columns = {name: [getattr(problem, name) for problem in problems] for name in names}
    extra = sorted({key for problem in problems for key in problem.meta} - columns.keys())
    return columns | {key: [problem.meta.get(key) for problem in problems] for key in extra}


TYPES = {column.name: column.type for column in fields(Problem)}
REQUIRED = tuple(TYPES)[:6]  # the fields without a default


def problem_id(family: str, prompt: str) -> str:
    """Make a stable name: two problems with the same question have the same id."""
    return f"{family}-{hash_of(prompt)[:12]}"


def save_problems(problems: list[Problem], path: str | Path):
    """Write one JSON object a line."""
    write_rows(Path(path), map(asdict, problems))


def load_problems(path: str | Path) -> list[Problem]:
    """Read a file as `save_problems` writes it. Raises InputError as `files.read_rows`."""
    return read_rows(path, REQUIRED, problem_of, complete=True)


def problem_of(row: Row) -> Problem:
    """Make a problem of its fields; other columns are left out. Raises ValueError: one is of a wrong type."""
    known = {name: row[name] for name in TYPES if name in row}
    for name, value in known.items():
        if not isinstance(value, TYPES[name]):
            raise ValueError(f"{name} is {value!r}, of type {type(value).__name__}")
    return Problem(**known)


def held_out_ids(folder: str | Path = SHIPPED) -> frozenset[str]:
    """Read the ids of all problems in the folder's test sets, `test_*.jsonl`: no stage may train on them.

    Raises:
        InputError: the folder holds no test set, or one is malformed.
    """
    sets = sorted(Path(folder).glob("test_*.jsonl"))
    if not sets:
        raise InputError(
            f"{folder} holds no test set (test_*.jsonl), so nothing says what to keep out of "
            "training; restore it, or run python -m tests.tools.testsets in the repository's root."
        )
    return frozenset(problem.id for path in sets for problem in load_problems(path))


Draw = Callable[[int, int, int], list[Problem]]  # (seed, rollout, count) -> the rollout's problems
Check = Callable[[str, Problem], bool | float | None]  # of a completion; None: it cannot tell
Scores = list[float | None]  # a reward's, one for each completion; None: it cannot be scored
Reward = Callable[..., Scores]  # TRL's signature: (prompts, completions, **columns) -> scores
Rewards = Mapping[str, Reward | tuple[Reward, float]]  # by name, alone or with a weight


@dataclass(frozen=True)
class Task:
    """What is asked, how it is checked and paid, and on what a policy is tested.

    Attributes:
        problems: all training problems, each asked once an epoch; or a function of
            (seed, rollout, count) that draws those of a rollout.
        test: held out. A training problem whose normalized prompt is among them is never asked.
        rewards: name -> function, or (function, weight). TRL's signature; the columns are the
            problem's fields and every key of its `meta`, and `step` and `rollout`.
        check: is a completion right? Everything that says pass@1 asks it. None: the accuracy
            reader of `rewards`.
        template: a name of `sources.templates`, or a function from a problem to its prompt.
        attempts: reads the attempts that a completion makes at a problem, where it makes any.
        settings: what the task was made of, as JSON can hold it; stored with a run.
        examples: questions with their answers, shown before each question.
        chat_template_kwargs: arguments for the model's chat template, as {"enable_thinking": False}.
    """

    name: str
    problems: Sequence[Problem] | Draw
    test: Sequence[Problem]
    rewards: Rewards
    check: Check | None = None
    template: str | Callable[[Problem], str] = "chat"
    attempts: Callable[[Problem, str], list] | None = None
    settings: Mapping = field(default_factory=dict)
    examples: Sequence[Sequence[str]] = ()
    chat_template_kwargs: Mapping = field(default_factory=dict)

    def draw(self, seed: int, rollout: int, count: int) -> list[Problem]:
        """Draw the problems of a rollout: the same on every process and after every resume.

        Raises InputError where too few are left that are not held out.
        """
        if callable(self.problems):
            drawn = self._not_held_out(self.problems(seed, rollout, count))
        else:
            pool = self._pool
            places = range(rollout * count, (rollout + 1) * count) if pool else ()
            drawn = [pool[_order(seed, at // len(pool), len(pool))[at % len(pool)]] for at in places]
        if len(drawn) < count:
            raise InputError(
                f"the task {self.name!r} drew {len(drawn)} of {count} problems that are not in its test "
                "set; ask other problems, or test on others."
            )
        return drawn

    @cached_property
    def _pool(self):
        return self._not_held_out(self.problems)

    @cached_property
    def _held_out(self):
        return frozenset(normalized(problem) for problem in self.test)

    def _not_held_out(self, problems):
        return [problem for problem in problems if normalized(problem) not in self._held_out]

    def fingerprint(self) -> str:
        """Hash its problems, rewards and check: a task with another hash cannot resume a run."""
        drawn = self.problems(0, 0, 8) if callable(self.problems) else self.problems
        template = source_of(self.template) if callable(self.template) else self.template
        parts = [repr(list(drawn)), repr(list(self.test)), source_of(self.check), template]
        parts += [repr(shown) for shown in (self.examples, self.chat_template_kwargs) if shown]
        for name, reward in self.rewards.items():
            function, weight = reward if isinstance(reward, tuple) else (reward, 1.0)
            parts.append(f"{name} {weight} {source_of(function)}")
        return hash_of("\n".join(parts))


def normalized(problem: Problem) -> str:
    """Return the question without regard to case and white space."""
    return " ".join(problem.prompt.split()).casefold()


@lru_cache(maxsize=4)
def _order(seed, epoch, size):
    return random.Random(f"{seed}/{epoch}").sample(range(size), size)


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_of(function: Callable | None) -> str:
    """Return the text of a user's function, with the numbers and words that it has from around it; of
    the package's own, which may be rewritten, the name. Of a partial also its arguments, and of a callable
    object its class and how it prints: what a call may change is no part of it."""
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
    if isinstance(function, partial):
        parts = [source_of(function.func), function.args, function.keywords]
    elif function is None or name.startswith("r1lab."):
        parts = [name]
    elif not hasattr(function, "__qualname__"):
        parts = [source_of(type(function)), function]
    else:
        try:
            cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
            parts = [inspect.getsource(function), *(one for one in cells if isinstance(one, (int, float, str)))]
        except (OSError, TypeError, ValueError):  # made by C code, or around what is not there yet
            parts = [name]
    return re.sub(r" at 0x\w+", "", " ".join(map(str, parts)))  # an address is another in each process
