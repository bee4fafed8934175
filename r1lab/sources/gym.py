"""Environments, which make problems and judge answers to them: of `reasoning-gym` and of `verifiers`."""

import asyncio
import inspect
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib import import_module
from itertools import islice
from random import Random

from r1lab.errors import InputError
from r1lab.rewards import accuracy, format, parse
from r1lab.sources.rows import hold_out, read_question
from r1lab.task import Problem, Rewards, Task, normalized, problem_id

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
        return Problem(name, family, level_of(item["metadata"]), "en", asked, answer, meta={"index": index})

    @property
    def tests(self) -> list[Problem]:
        return [self.problem(index) for index in range(self.test)]

    def refuse_what_cannot_teach(self):
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
def _item(gym, index):
    return gym.items[index]  # made again each time, in some sets in seconds


def level_of(metadata: Mapping) -> int:
    """Return the set's difficulty, or the place, from 1 to LEVELS, of the first of its attributes that
    the item has a number for in the range of that attribute; 1 where there is neither."""
    difficulty = metadata.get("difficulty") or {}
    if not isinstance(difficulty, Mapping):
        return int(difficulty)
    for name, values in difficulty.items():
        match metadata.get(name), values:
            case _, int(level) if name == "difficulty":
                return level
            case int(number), (low, high):
                place = int((number - low) * LEVELS // max(LEVELS, high - low + 1))
                return 1 + min(max(place, 0), LEVELS - 1)
    return 1


@lru_cache
def _questions(gym):
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


# Environments of `verifiers` (`verifiers.v1`) that ask once and judge the text of the answer.


@dataclass(frozen=True)
class Environment:
    """The tasks of a taskset, each of which scores answers to itself."""

    name: str
    tasks: list

    def problem(self, index: int) -> Problem:
        task = self.tasks[index]
        asked = task.data.prompt
        try:
            if needs := _needs(task):
                raise ValueError(f"it needs {needs}")
            question, _ = read_question(asked if isinstance(asked, str) else [dict(one) for one in asked])
        except (ValueError, TypeError) as error:
            why = f"cannot be asked once and judged by its answer ({error})"
            raise InputError(f"task {index} of {self.name} {why}.") from error
        prompt = "\n\n".join(filter(None, [task.data.system_prompt, question]))
        return Problem(problem_id(self.name, prompt), self.name, 1, "en", prompt, "", meta={"index": index})

    def score(self, completion: str, index: int) -> float:
        """Sum the task's rewards, by their weights, for what follows the thinking."""
        task, v1 = self.tasks[index], import_module("verifiers.v1")
        thinking, _, reply = completion.rpartition("</think>")
        asked = v1.UserMessage(content=task.data.prompt_text)
        said = v1.AssistantMessage(content=reply.partition("<think>")[0], reasoning_content=thinking)
        nodes = [v1.MessageNode(message=asked), v1.MessageNode(message=said, parent=0, sampled=True)]
        of_task = v1.TraceTask(type=type(task).__name__, data=task.data)
        trace = v1.Trace(task=of_task, agent=v1.AgentInfo(config=v1.AgentConfig()), nodes=nodes)
        with ThreadPoolExecutor(1) as thread:  # a notebook's own has an event loop already
            thread.submit(asyncio.run, task.score(trace)).result()
        return trace.reward

    def check(self, completion: str, problem: Problem) -> float:
        return self.score(completion, problem.meta["index"])

    def reward(self, completions: list, index: list[int], **columns: object) -> list[float]:
        return [self.score(*row) for row in zip(completions, index, strict=True)]


def _needs(task):
    """Say what a task needs besides a question and the text of an answer; "" for nothing."""
    judges = [*task.hooks("reward"), *(judge.score for judge in task.plugged_judges())]
    runtimes = [inspect.signature(judge).parameters.get("runtime") for judge in judges]
    needs = {
        "tools": task.toolsets(task.config),
        "a container": task.NEEDS_CONTAINER or task.data.image,
        "a runtime": any(one is not None and one.default is one.empty for one in runtimes),
    }
    return " and ".join(name for name, needed in needs.items() if needed)


def from_verifiers(source, *, test: int = 64, limit: int = 10_000, template: str = "plain", **asking) -> Task:
    """Make a task of a taskset of `verifiers.v1`, or of an environment with one agent, judged and paid
    by its own rewards. Needs the package, which r1lab does not install.

    Args:
        test: so many tasks are held out.
        limit: at most this many of its first tasks are read.
        asking: more fields of the task.
    Raises:
        InputError: it has tools, several turns or agents, needs a container, or has too few tasks.
    """
    taskset, name = getattr(source, "taskset", source), type(source).__name__
    if taskset is not source and name != "SingleAgentEnv":
        raise InputError(f"{name} may have several agents or turns; give an environment that asks once.")
    if taskset.toolsets(taskset.config):
        raise InputError(f"{name} has tools, which r1lab does not call; give an environment without.")
    environment = Environment(name, list(islice(taskset, limit)))
    training, held = hold_out([environment.problem(index) for index in range(len(environment.tasks))], test)
    paid = {"environment": (environment.reward, 1.0)}
    return Task(name, training, held, paid, environment.check, template, **asking)
