"""Seconds of a GRPO step, graded in line and asynchronously: tests that wait, tests that compute.

    python tests/benchmarks/bench_grading.py [--model FOLDER] [--repeats N] [--out FILE.json]

A step asks 16 questions 16 times each, in two processes of one thread, and makes four updates. Each
completion is graded by a program in the sandbox that waits (as tests do that meet a deadline), by
one that computes, or by a reward that waits (as for a judge over a network). Without the wait, a
step is timed first, and each grader then takes about as long in all as sampling did there, or half
as long again. In a repeat each grader grades the same completions in line and asynchronously, one
after the other; every second repeat changes the order. The learning rate is too small to change the
model.

What can be hidden is at most the grading's share of a step in line. Grades that wait are hidden
behind the sampling that goes on after the first completions have ended, and behind the reference
policy's scoring; a wait longer than both is not.

Tests that compute gain little: sampling keeps both cores busy, and what the tests compute beside it
they take from it. The cores have as much to do as before; only where one of them stood idle, because
a process had fewer tokens to draw than the other, is there something to gain.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import tyro
from record import ROOT, record, spread

from r1lab.models.policy import Policy, load_model
from r1lab.rewards import shared_sandbox
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.processes import StopRequest, launch
from r1lab.world.small_world import SmallWorld

PROCESSES, QUESTIONS, GROUP, UPDATES, CAP, TOGETHER = 2, 16, 16, 4, 256, 8
OWN = QUESTIONS * GROUP // PROCESSES  # completions of a process
WAITS = "import time\ndef f(x):\n    time.sleep({seconds})\n    return x"
COMPUTES = (
    "import time\ndef f(x):\n    end = time.process_time() + {seconds}\n"
    "    while time.process_time() < end:\n        pass\n    return x"
)
TESTS = [{"input": 1, "output": 1}]
WAYS = ("in line", "asynchronous")


def by_program(source: str, seconds: float) -> Callable:
    """A reward that runs the program, `seconds` long, once for each completion."""
    program = source.format(seconds=seconds)

    def reward(prompts, completions, **columns):
        futures = [shared_sandbox().submit(program, TESTS) for _ in completions]
        return [float(future.result().verdict == "ok") for future in futures]

    return reward


def by_judge(seconds: float) -> Callable:
    """A reward that waits for so long for each completion, one after the other."""

    def reward(prompts, completions, **columns):
        time.sleep(seconds * len(completions))
        return [1.0] * len(completions)

    return reward


class Bench:
    """One process of a run, whose steps can be repeated."""

    def __init__(self, model: str, world: World):
        policy, tokenizer = load_model(model)
        self.config = GRPOConfig.preset(
            "cpu", questions=QUESTIONS, group_size=GROUP, minibatches=UPDATES, learning_rate=1e-7,
            caps=((0, CAP),),
        )  # fmt: skip
        task = SmallWorld().task()
        self.learner = Learner(self.config, task, Policy(policy), tokenizer, world)
        self.generate, self.sampling = self.learner.sampler.generate, 0.0
        self.learner.sampler.generate = self.timed_generate

    def timed_generate(self, *args, **options):
        began = time.perf_counter()
        drawn = self.generate(*args, **options)
        self.sampling = time.perf_counter() - began
        return drawn

    def step(self, number: int, reward: Callable, grading: str) -> float:
        """Seconds of the run's step `number`, the slowest process's."""
        learner = self.learner
        learner.step = number * UPDATES
        learner.task = replace(learner.task, rewards={"tests": (reward, 1.0)})
        learner.config = replace(
            self.config, rollouts=number + 1, grading=grading,
            grading_rows=TOGETHER if grading == "asynchronous" else 0,
        )  # fmt: skip
        learner.world.gather(None)  # all begin together
        began = time.perf_counter()
        learner.train()
        return max(learner.world.gather(time.perf_counter() - began))


def worker(world: World, stop: StopRequest, model: str, repeats: int, out: Path) -> bool:
    bench = Bench(model, world)
    alone, sampling = [], []
    for number in range(3):  # the first warms up
        alone.append(bench.step(number, by_judge(0.0), "in line"))
        sampling.append(max(bench.learner.world.gather(bench.sampling)))
    each = statistics.mean(sampling[1:]) / OWN
    threads = len(shared_sandbox().zygotes)  # programs of a process that run at the same time
    graders = {
        "tests that wait": by_program(WAITS, each * threads),
        "tests that wait, half as long again": by_program(WAITS, 1.5 * each * threads),
        "a judge that waits": by_judge(each),
        "a judge that waits, half as long again": by_judge(1.5 * each),
        "tests that compute": by_program(COMPUTES, each),
    }
    seconds = {name: {way: [] for way in WAYS} for name in graders}
    for number in range(3, 3 + repeats):
        for name, reward in graders.items():
            for way in WAYS if number % 2 else WAYS[::-1]:
                seconds[name][way].append(bench.step(number, reward, way))
    if bench.learner.world.is_main:
        times = {"no grading": alone[1:], "sampling": sampling[1:], "graders": seconds}
        out.write_text(json.dumps(times))
    return True


def rounded(values: list[float]) -> dict[str, float]:
    return spread([round(value, 3) for value in values])


def main(model: str = str(ROOT / "data" / "zero"), repeats: int = 5, out: Path | None = None) -> None:
    """Time a whole step under both ways to grade.

    Args:
        model: folder of a trained model in Hugging Face format.
        repeats: pairs of steps for each grader.
        out: file for the results as JSON; they are printed in any case.
    """
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        launch(worker, PROCESSES, model, repeats, times, saves=False)
        found = json.loads(times.read_text())
    graders = {}
    for name, seconds in found["graders"].items():
        saved = [1 - a / b for a, b in zip(seconds[WAYS[1]], seconds[WAYS[0]], strict=True)]
        graders[name] = {way: rounded(seconds[way]) for way in WAYS} | {"saved": rounded(saved)}
        print(f"{name}: {statistics.median(saved):.0%} of the step saved", flush=True)
    result = {
        "model": Path(model).name,
        "completions": QUESTIONS * GROUP,
        "step_without_grading": rounded(found["no grading"]),
        "sampling": rounded(found["sampling"]),
        "seconds": graders,
        "repeats": repeats,
    }
    record(result, out)


if __name__ == "__main__":
    tyro.cli(main)
