"""The doors for other people's tasks: data sets, files, reasoning-gym, the Hub, and `my_task.py:task`.

`Task.from_dataset` and its like are the functions `from_…` here.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random

import cloudpickle

from r1lab.errors import InputError
from r1lab.sources import hub
from r1lab.sources.gym import open_dataset
from r1lab.sources.rows import hold_out, read_jsonl, read_problems
from r1lab.task import Check, Problem, Reward, Task, normalized, problem_id

Rewards = Mapping[str, Reward | tuple[Reward, float]]
Test = int | str | Path | Iterable[Mapping]  # how many to hold out, or where they are


def from_dataset(
    data: Iterable[Mapping] | Mapping[str, Iterable[Mapping]],
    prompt: str = "question",
    solution: str | None = "answer",
    rewards: Rewards | None = None,
    test: int | Iterable[Mapping] = 64,
    template: str | Callable[[Problem], str] = "chat",
    check: Check | None = None,
    level: str | None = None,
    name: str = "data",
) -> Task:
    """A task of rows: a `datasets.Dataset` or `DatasetDict`, or a list of dicts.

    All columns reach the reward functions. A DatasetDict is trained on its `train` and tested on
    its `test`, where it has one.

    Args:
        prompt, solution, level: names of columns, see `rows.read_problems`.
        rewards: name -> function, or (function, weight); None: accuracy, and a tenth for format.
        test: so many rows are held out; or rows of their own.
    Raises:
        InputError: a column or split is missing, a row cannot be read, or there are too few.
    """
    if isinstance(data, Mapping):
        if "train" not in data:
            raise InputError(f"there is no split 'train' among {', '.join(map(str, data))}.")
        test = data.get("test", data.get("validation", test)) if isinstance(test, int) else test
        data = data["train"]
    problems = read_problems(data, name, prompt, solution, level)
    if isinstance(test, int):
        problems, held = hold_out(problems, test)
    else:
        held = read_problems(test, name, prompt, solution, level)
    return Task(name, problems, held, rewards or rule_rewards(), check, template)


def rule_rewards() -> dict[str, tuple[Reward, float]]:
    """What is paid where nobody says it: the right answer, and a tenth of that for the format."""
    from r1lab import rewards  # slow to import: loaded when a task needs them

    return {"accuracy": (rewards.accuracy, 1.0), "format": (rewards.format, 0.1)}


def from_jsonl(path: str | Path, *, test: Test = 64, **options) -> Task:
    """`from_dataset` of a file with one JSON object a line; `test` may be such a file, too."""
    held = read_rows(test) if isinstance(test, (str, Path)) else test
    return from_dataset(read_jsonl(path), test=held, **{"name": Path(path).stem, **options})


def from_hub(source: str, *, test: Test = 64, **options) -> Task:
    """A task of a data set of the Hub, as `gsm8k:train`, `math:train[:2000]` or `owner/name:split`.

    Sets of `hub.SETS` are read as their schema says; of others, `options` name the columns as in
    `from_dataset`.
    """
    held = read_rows(test) if isinstance(test, (str, Path)) else test
    return from_dataset(hub.load_rows(source), test=held, **{"name": source.partition(":")[0], **options})


def read_rows(source: str | Path) -> list[dict]:
    """The rows of a .jsonl file or, as hub:NAME or NAME, of a set of the Hub."""
    text = str(source)
    return read_jsonl(text) if text.endswith(".jsonl") else hub.load_rows(text.removeprefix("hub:"))


def from_gym(
    name: str, *, test: int = 64, template: str = "chat", rewards: Rewards | None = None, **options
) -> Task:
    """A task of one of reasoning-gym's data sets, judged and paid by its own scorer.

    `options` are that data set's own, as min_terms=2, and `size`, how many items it has. Raises
    InputError where there is no such set or option, or it has no items beyond the test.
    """
    settings = {key: tuple(v) if isinstance(v, list) else v for key, v in options.items()}
    gym = Gym(name, test, tuple(sorted(settings.items())))
    size = len(open_dataset(name, gym.options))
    if not 0 < test < size:
        raise InputError(f"{name} has {size} items, so test={test} of them cannot be held out.")
    return Task(name, gym.draw, gym.tests(), rewards or gym.rewards(), gym.check, template)


@dataclass(frozen=True)
class Gym:
    """One data set of the gym: its first `test` items are held out, others are drawn."""

    name: str
    test: int
    options: tuple[tuple[str, object], ...] = ()

    def problem(self, index: int) -> Problem:
        item = open_dataset(self.name, self.options)[index]
        return Problem(
            id=problem_id(self.name, item["question"]),
            family=f"gym:{self.name}",
            level=1,
            lang="en",
            prompt=item["question"],
            solution=str(item["answer"] or ""),
            meta={"index": index},
        )

    def tests(self) -> list[Problem]:
        return [self.problem(index) for index in range(self.test)]

    def draw(self, seed: int, rollout: int, count: int) -> list[Problem]:
        """Problems of a rollout, none of which is among the tests."""
        rng, drawn, tested = Random(f"{self.name}/{seed}/{rollout}"), [], _questions(self)
        size = len(open_dataset(self.name, self.options))
        for _ in range(20 * count):  # a small set may hold little that is not in the test
            problem = self.problem(rng.randrange(self.test, size))
            if normalized(problem) not in tested:
                drawn.append(problem)
            if len(drawn) == count:
                break
        return drawn

    def score(self, answer: str | None, index: int) -> float:
        dataset = open_dataset(self.name, self.options)
        try:
            return float(dataset.score_answer(answer=answer, entry=dataset[index]))
        except Exception:  # a scorer that breaks on a model's text has not found it right
            return 0.0

    def check(self, completion: str, problem: Problem) -> float:
        """The gym's score of the answer, wherever it is."""
        from r1lab.rewards import parse

        answer = parse(completion, problem.prompt).lenient_answer
        return self.score(answer, problem.meta["index"])

    def accuracy(
        self, prompts: list, completions: list, index: list[int], **columns: object
    ) -> list[float]:
        """The gym's score of the answer in the right format, as a reward."""
        from r1lab.rewards import parse, text_of

        rows = zip(prompts, completions, index, strict=True)
        return [
            self.score(parse(text_of(completion), text_of(prompt)).answer, place)
            for prompt, completion, place in rows
        ]

    def rewards(self) -> dict[str, tuple[Reward, float]]:
        return rule_rewards() | {"accuracy": (self.accuracy, 1.0)}


@lru_cache
def _questions(gym: Gym) -> frozenset[str]:
    return frozenset(normalized(problem) for problem in gym.tests())


for _door in (from_dataset, from_jsonl, from_hub, from_gym):
    setattr(Task, _door.__name__, staticmethod(_door))


def load_task(
    task: str | Task, test: str = "", template: str = "", rewards: Sequence[str] = ()
) -> Task:
    """The task that a command line names: my_task.py:task, gym:NAME, hub:SET or a .jsonl file.

    Args:
        test: other problems to test on: hub:SET or a .jsonl file.
        template: in place of the task's own.
        rewards: paid besides, each as my.py:function.
    Raises:
        InputError: there is no such thing, or it cannot be loaded.
    """
    opened = task if isinstance(task, Task) else _open(task, test)
    more = {source.rpartition(":")[2]: load_object(source, "a reward") for source in rewards}
    changes = {"rewards": {**opened.rewards, **more}}
    if template:
        changes["template"] = template
    if not isinstance(task, Task):
        changes["settings"] = {
            "task": task, "test": test, "template": template, "reward": list(rewards),
        }  # fmt: skip
    return replace(opened, **changes)


def _open(source: str, test: str) -> Task:
    kind, _, name = source.partition(":")
    if kind == "hub":
        return from_hub(name, test=test or 64)
    if source.endswith(".jsonl"):
        return from_jsonl(source, test=test or 64)
    if kind == "gym" and not test:
        return from_gym(name)
    if kind == "gym":
        raise InputError(f"{source} has test problems of its own, which its scorer knows; leave out {test}.")
    task = load_object(source, "a task")
    if not isinstance(task, Task):
        raise InputError(f"{source} is of type {type(task).__name__}; it must be a Task.")
    return replace(task, test=read_problems(read_rows(test), task.name)) if test else task


def load_object(source: str, what: str):
    """What a Python file calls by a name, given as FILE.py:NAME.

    Raises InputError where the file is missing or does not import, or has no such name.
    """
    path, _, name = source.rpartition(":")
    if not path.endswith(".py"):
        raise InputError(
            f"{source!r} names no {what.split()[-1]}; give {what} as my_file.py:name"
            + (", gym:NAME, hub:NAME or a .jsonl file." if what == "a task" else ".")
        )
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; {what} is given as my_file.py:name.")
    module = _import(Path(path).resolve())
    if not hasattr(module, name):
        names = [one for one in vars(module) if not one.startswith("_")]
        raise InputError(f"{path} has no {name!r}; it has {', '.join(names) or 'no names'}.")
    return getattr(module, name)


def _import(path: Path):
    """The file as a module; a second time the same one."""
    name = str(path)  # that of no module that can be imported
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    cloudpickle.register_pickle_by_value(module)  # for processes that did not load the file
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's file raises
        del sys.modules[name]
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise InputError(f"{path} does not import ({why}).") from error
    return module
