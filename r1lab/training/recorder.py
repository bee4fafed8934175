"""What a run of RL writes down: metrics, samples, evaluations, checkpoints, and how it ends."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib import import_module

from torch.utils.tensorboard import SummaryWriter

from r1lab.evaluation.measure import Evaluation, evaluate, measure
from r1lab.machine import provenance
from r1lab.run import MetricsLog, Run
from r1lab.task import Problem, checker
from r1lab.training.checkpoint import checkpoint_path
from r1lab.training.config import GRPOConfig
from r1lab.training.loop import Learner
from r1lab.training.processes import Progress, StopRequest, peak_memory_gb
from r1lab.training.rollout import Experience

SAMPLED = 0.45  # what a token of an evaluation costs, beside one that is trained on, too: in data/runs/zero
SAMPLED_MEASURES = ("correct", "reflection", "mixed", "attempts", "repeats", "searches", "in_order")


@contextmanager
def tracking(name: str, run: Run) -> Iterator[Callable]:
    """Open a run in trackio or Weights & Biases ("wandb") for metrics; with no name they go nowhere."""
    if not name:
        yield lambda row, step: None
        return
    options = {"project": "r1lab", "name": run.name, "config": run.config, "resume": "allow"}
    if name == "wandb":  # which finds a run again by its id, trackio by its name
        options["id"] = run.name
    opened = import_module(name).init(**options)
    try:
        yield lambda row, step: opened.log(row, step=step)
    finally:
        opened.finish()


class Recorder:
    """Writes a run folder as the run goes on. Only the main process writes; all evaluate."""

    def __init__(
        self, run: Run, learner: Learner, clock: dict[str, float], progress: Progress,
        stop: StopRequest, stop_after: int | None, track: Callable
    ):  # fmt: skip
        self.run = run
        self.learner = learner
        self.progress = progress
        self.stop = stop
        self.track = track
        self.clock = Counter(clock)
        self.notes = {}
        self.started = time.monotonic() - self.clock["wall_seconds"]
        self.rollout_started = time.monotonic()
        self.rollouts_left = math.inf if stop_after is None else stop_after
        if learner.world.is_main:
            self.metrics = MetricsLog(run.folder / "metrics.jsonl", learner.step)
            self.samples = MetricsLog(run.folder / "samples.jsonl", learner.step)
            self.board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=learner.step or None)
            if learner.step:  # what was done before says nothing of today's speed
                progress.initial = progress.n = self._work()[0]

    @property
    def finished(self) -> bool:
        """Is the last rollout done, or the compute that the run may take spent?"""
        config = self.learner.config
        return self.learner.step >= config.steps or 0 < config.flops_limit <= self.clock["flops"]

    def __call__(self, rollout: int, experience: Experience, updates: list[dict]) -> bool:
        """After each rollout. True when it was the last, or the user asked to stop."""
        learner = self.learner
        config = learner.config
        done = rollout + 1
        seconds = time.monotonic() - self.rollout_started
        self.clock.update(train_seconds=seconds, flops=learner.flops(experience))
        if learner.world.is_main:
            self._write_rollout(experience, updates, seconds)
        self.rollouts_left -= 1
        ends = learner.world.any(self.stop.is_set() or self.rollouts_left <= 0) or self.finished
        if not ends and done % config.eval_every == 0:
            some = first_of_each_level(learner.task.test, config.eval_problems)
            self.evaluate(f"evals/step-{learner.step:06d}.npz", some, config.eval_samples)
        if ends or done % config.checkpoint_every == 0:
            self.clock["wall_seconds"] = time.monotonic() - self.started
            learner.save(self.run.folder, {"clock": dict(self.clock)})
        self._show_progress()
        self.rollout_started = time.monotonic()
        return ends

    def _work(self):
        learner = self.learner
        return work(learner.config, learner.task.test, 1.0 + self.run.evals[0]["mean_tokens"], learner.step)

    def _show_progress(self):
        if self.learner.world.is_main:
            done, self.progress.total = self._work()
            step = f"{self.learner.step}/{self.learner.config.steps}"
            self.progress.show(done, step=step, **self.notes)

    def _write_rollout(self, experience, updates, seconds):
        learner = self.learner
        task = learner.task
        problems = experience.problems
        texts = experience.completions
        shown = measure(problems, texts, experience.prompts, check=task.check, attempts=task.attempts)
        checkable = sum(bool(one.solution or task.check or checker(one.family)) for one in problems)
        total = {name: sum(float(one[name]) for one in shown) for name in SAMPLED_MEASURES}
        row = {
            **experience.statistics(),
            "pass_at_1": total["correct"] / max(1, checkable),
            "reflection": total["reflection"] / len(shown),
            "mixing": total["mixed"] / len(shown),
            "repeats": total["repeats"] / max(1, total["attempts"]),
            "in_order": total["in_order"] / max(1, total["searches"]),
            **{name: sum(update[name] for update in updates) / len(updates) for name in updates[0]},
            "ratio_max": max(update["ratio_max"] for update in updates),
            "cap": learner.config.cap(learner.step - 1),
            "seconds": round(seconds, 2),
        }
        self._write_metrics("train", row | {"elapsed": round(self.clock["train_seconds"], 2)})
        self.notes |= {"accuracy": f"{row['pass_at_1']:.0%}", "tokens": f"{row['tokens_mean']:.0f}"}
        advantages = experience.advantages.flatten().tolist()
        for place, problem in enumerate(problems[: learner.config.sample_rows]):
            self._write_sample(
                problem, completion=texts[place],
                rewards={name: scores[place] for name, scores in experience.rewards.items()},
                advantage=advantages[place], finish=experience.finish[place]
            )  # fmt: skip

    def _write_metrics(self, kind, row):
        step = self.learner.step
        self.metrics.write({"kind": kind, "step": step, **row})
        numbers = {f"{kind}/{name}": v for name, v in row.items() if isinstance(v, int | float)}
        for numbered in numbers.items():
            self.board.add_scalar(*numbered, step)
        self.track(numbers, step)

    def _write_sample(self, problem, **shown):
        place = {"step": self.learner.step, "source_run": self.run.name}
        self.samples.write(asdict(problem) | shown | place)

    def evaluate(self, name: str, problems: Sequence[Problem], k: int):
        """Ask the present policy, once: a resumed run finds the answers in the file of this name."""
        learner = self.learner
        file = self.run.folder / name
        config = learner.config
        world = learner.world
        if world.any(file.exists()):
            result = Evaluation.load(file)
        else:
            learner.sample_from(learner.policy)
            result = evaluate(
                learner.sampler, learner.tokenizer, replace(learner.task, test=problems), k=k,
                temperature=config.temperature, max_tokens=config.cap(config.steps),
                seed=config.seed, world=world
            )  # fmt: skip
        if world.is_main and learner.step not in (row["step"] for row in self.run.evals):
            file.parent.mkdir(exist_ok=True)
            result.save(file)
            self._write_evaluation(problems, result)
            self._show_progress()
        self.rollout_started = time.monotonic()

    def _write_evaluation(self, problems, result):
        summary = result.summary()
        self._write_metrics("eval", summary)
        self.notes["held-out"] = f"{summary['pass_at_1']:.0%}"
        for problem in first_of_each_level(problems, 1):
            row = result.ids.index(problem.id)
            self._write_sample(
                problem, completion=result.completions[row][0],
                rewards={name: float(result[name][row][0]) for name in ("correct", "format")},
                advantage=None, finish="length" if result["truncated"][row][0] else "stop"
            )  # fmt: skip

    def summarize(self):
        """Write `summary.json`; fractions lie between 0 and 1."""
        learner = self.learner
        folder = self.run.folder
        memory = sum(learner.world.gather(peak_memory_gb()))
        if learner.world.is_main:
            self.run.write("summary.json", {
                "name": self.run.name,
                "task": learner.task.name,
                "arm": learner.task.settings.get("arm", "true"),
                "seed": learner.config.seed,
                "steps": learner.step,
                **{
                    name: Evaluation.load(folder / f"eval_{name}.npz").summary()
                    for name in ("base", "final")
                },
                "wall_seconds": round(time.monotonic() - self.started, 1),
                "train_seconds": round(self.clock["train_seconds"], 1),
                "peak_memory_gb": round(memory, 2),
                "flops": self.clock["flops"],
                "checkpoint": str(checkpoint_path(self.run.folder, learner.step)),
                **provenance()
            })  # fmt: skip


def work(config: GRPOConfig, test: Sequence[Problem], first: float, step: int) -> tuple[float, float]:
    """Predict how much of a run's work is done at a step, and how much it is in all, in tokens.

    Equal steps take longer and longer, and evaluations take time, too. Answers are expected to grow
    from the `first` tokens, the base's, to a third of the last cap, as in data/runs/zero.
    """
    growth = max(1.0, config.cap(config.steps) / 3 / first)
    some = len(first_of_each_level(test, config.eval_problems)) * config.eval_samples
    tested = SAMPLED * len(test) * config.final_samples
    rows = config.rollouts * (config.questions * config.group_size + SAMPLED * some / config.eval_every)

    def until(share):
        return first * (tested + rows * share * (1 + (growth - 1) * share / 2))

    return until(step / config.steps), until(1) + first * growth * tested


def first_of_each_level(problems: Sequence[Problem], count: int) -> list[Problem]:
    """The first `count` problems of each level, in their order; all of them for 0."""
    seen = Counter()
    chosen = []
    for problem in problems:
        seen[problem.level] += 1
        if count == 0 or seen[problem.level] <= count:
            chosen.append(problem)
    return chosen
