"""Environments of `verifiers`: asked once, judged by their own rewards. Against the package itself."""

import pytest

from r1lab import Task
from r1lab.errors import InputError
from r1lab.rewards import RewardSet, validate
from r1lab.sources.gym import Environment
from r1lab.task import columns_of, normalized

vf = pytest.importorskip("verifiers.v1", reason="verifiers is not installed: pip install verifiers")


class Sum(vf.TaskData):
    answer: str


class Adding(vf.Task[Sum]):
    @vf.reward(weight=1.0)
    async def right(self, trace) -> float:
        return float(self.data.answer in trace.last_reply.split())

    @vf.reward(weight=0.25)
    async def brief(self, task, trace) -> float:
        return float(len(trace.last_reply) < 12)


class Sums(vf.Taskset[Adding, vf.TasksetConfig]):
    change: dict = {}
    kind = Adding

    def load(self):
        for n in range(12):
            row = {"prompt": f"What is {n} + 1?", "answer": str(n + 1), "system_prompt": "Be brief."}
            yield self.kind(Sum(**{**row, **self.change}), self.config.task)


def taskset(kind=Adding, **change) -> Sums:
    made = type("Sums", (Sums,), {"change": change, "kind": kind})
    return made(vf.TasksetConfig(id="sums"))


def test_a_task_asks_what_the_taskset_asks_and_pays_what_it_pays():
    task = Task.from_verifiers(taskset(), test=4)
    assert len(task.test) == 4 and len(task.problems) == 8 and task.template == "plain"
    assert not {normalized(p) for p in task.problems} & {normalized(p) for p in task.test}
    [problem] = task.draw(0, 0, 1)
    assert problem.prompt.startswith("Be brief.\n\nWhat is ")
    right = str(problem.meta["index"] + 1)
    said = {  # what is only thought is not answered
        f"<think> so </think> {right}": 1.25, f"the answer I find is {right}": 1.0,
        f"<think> {right} </think> none": 0.25, f"so <think> {right}": 0.25,
    }  # fmt: skip
    assert [task.check(text, problem) for text in said] == list(said.values())
    totals, _ = RewardSet(task.rewards)(
        prompts=[""] * 4, completions=list(said), **columns_of([problem] * 4)
    )  # fmt: skip
    assert totals == list(said.values())
    validate(RewardSet(task.rewards), list(task.test), task.check)
    messages = [{"role": "user", "content": "What is 1 + 1?"}]
    asked = Environment("sums", list(taskset(prompt=messages, system_prompt=None))).problem(0)
    assert asked.prompt == "What is 1 + 1?"


class WithRuntime(Adding):
    @vf.reward
    async def ran(self, runtime) -> float:
        return 1.0


class WithTools(Adding):
    toolsets = classmethod(lambda cls, config: ["a server"])


class Shared(Sums):
    toolsets = classmethod(lambda cls, config: ["a server"])


TURNS = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]


@pytest.mark.parametrize(("source", "words"), [
    (taskset(WithTools), "task 0 of Sums .*it needs tools"),
    (Shared(vf.TasksetConfig(id="sums")), "Shared has tools"),
    (taskset(WithRuntime), "it needs a runtime"),
    (taskset(image="python:3.11"), "it needs a container"),
    (taskset(prompt=TURNS), "several turns"),
    (taskset(prompt=None), "task 0 of Sums cannot be asked"),
    (taskset(prompt=" "), "the question is empty"),
    (type("BestOfN", (), {"taskset": taskset()})(), "BestOfN may have several agents or turns"),
    (taskset().take(1), "1 different questions, so test=4"),
])  # fmt: skip
def test_what_cannot_be_asked_once_is_one_sentence(source, words):
    with pytest.raises(InputError, match=words) as error:
        Task.from_verifiers(source, test=4)
    assert "\n" not in str(error.value)
