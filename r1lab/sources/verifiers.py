"""Environments of `verifiers` (`verifiers.v1`) that ask once and judge the text of the answer."""

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from itertools import islice

from r1lab.errors import InputError
from r1lab.sources.rows import hold_out, read_question
from r1lab.task import Problem, Task, problem_id


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
        named = problem_id(self.name, prompt), self.name
        return Problem(*named, 1, "en", prompt, "", meta={"index": index})

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


def _needs(task) -> str:
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
    problems = [environment.problem(index) for index in range(len(environment.tasks))]
    training, held = hold_out(problems, test)
    paid = {"environment": (environment.reward, 1.0)}
    return Task(name, training, held, paid, environment.check, template, **asking)
