"""What a run of RL writes down: metrics, samples, evaluations, checkpoints, and how it ends."""

import math
import time
from dataclasses import asdict
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from r1lab.evaluation.measure import Evaluation, evaluate, measure, merge
from r1lab.files import read_rows
from r1lab.task import Problem
from r1lab.training.loop import Learner, group_statistics
from r1lab.training.processes import StopRequest
from r1lab.training.progress import Progress
from r1lab.training.rollout import Experience
from r1lab.run import MetricsLog, Run

SAMPLED_MEASURES = ("correct", "reflection", "mixed", "attempts", "repeats", "searches", "in_order")


class Recorder:
    """Writes a run folder as the run goes on. Only the main process writes; all evaluate."""

    def __init__(
        self, run: Run, learner: Learner, clock: dict[str, float], progress: Progress,
        stop: StopRequest, stop_after: int | None = None,
    ):  # fmt: skip
        self.run, self.learner, self.task = run, learner, learner.task
        self.progress, self.stop = progress, stop
        self.clock, self.started = clock, time.monotonic()
        self.rollout_started = self.started
        self.stopped = False
        self.rollouts_left = math.inf if stop_after is None else stop_after
        self.latest: dict[str, float] = {}
        if learner.world.is_main:
            at = learner.step or None  # a run that goes on
            self.metrics = MetricsLog(run.folder / "metrics.jsonl", at)
            self.samples = MetricsLog(run.folder / "samples.jsonl", at)
            self.board = SummaryWriter(str(run.folder / "tensorboard"), purge_step=at)

    @property
    def finished(self) -> bool:
        """Is the last rollout done, or the compute that the run may take spent?"""
        config = self.learner.config
        spent = 0 < config.flops_limit <= self.clock.get("flops", 0)
        return spent or self.learner.step >= config.steps

    def __call__(self, rollout: int, experience: Experience, updates: list[dict]) -> bool:
        """After each rollout. True when it was the last, or the user asked to stop."""
        config, learner = self.learner.config, self.learner
        seconds = time.monotonic() - self.rollout_started
        self.clock["train_seconds"] += seconds
        self.clock["flops"] = self.clock.get("flops", 0) + learner.flops(experience)
        if learner.world.is_main:
            self._write_training(rollout, experience, updates, seconds)
        self.rollouts_left -= 1
        self.stopped = learner.world.any(self.stop.is_set() or self.rollouts_left <= 0)
        last = self.finished
        if not last and (rollout + 1) % config.eval_every == 0 and not self.stopped:
            self.evaluate_some()
        if last or self.stopped or (rollout + 1) % config.checkpoint_every == 0:
            self.save()
        self.progress.update(learner.step, **self._notes())
        self.start_rollout()
        return self.stopped or last

    def start_rollout(self) -> None:
        """Start the clock of a rollout."""
        self.rollout_started = time.monotonic()

    def save(self) -> None:
        self.stop_clock()
        self.learner.save(self.run.folder, {"clock": dict(self.clock)})

    def stop_clock(self) -> None:
        """Add the time since the last call to the run's."""
        now = time.monotonic()
        self.clock["wall_seconds"] += now - self.started
        self.started = now

    def _write_training(
        self, rollout: int, experience: Experience, updates: list[dict], seconds: float
    ) -> None:
        learner, group = self.learner, self.learner.config.group_size
        problems = [problem for problem in experience.problems for _ in range(group)]
        task = self.task
        shown = measure(problems, experience.completions, check=task.check, attempts=task.attempts)
        checkable = sum(bool(problem.solution or task.check) for problem in problems)
        total = {name: sum(float(one[name]) for one in shown) for name in SAMPLED_MEASURES}
        row = {
            "kind": "train",
            "step": learner.step,
            "elapsed": round(self.clock["train_seconds"], 2),
            **group_statistics(experience),
            "pass_at_1": total["correct"] / max(1, checkable),
            "reflection": total["reflection"] / len(shown),
            "mixing": total["mixed"] / len(shown),
            "repeats": total["repeats"] / max(1, total["attempts"]),
            "in_order": total["in_order"] / max(1, total["searches"]),
            **{name: sum(u[name] for u in updates) / len(updates) for name in updates[0]},
            "ratio_max": max(u["ratio_max"] for u in updates),
            "cap": learner.config.cap(learner.step - 1),
            "seconds": round(seconds, 2),
        }
        self._log(row)
        self.latest = row
        advantages = experience.advantages.flatten().tolist()
        for index in range(min(learner.config.sample_rows, len(shown))):
            rewards = {name: values[index] for name, values in experience.rewards.items()}
            self._write_sample(
                problems[index], experience.completions[index], rewards, advantages[index],
                experience.finish[index],
            )  # fmt: skip

    def _write_sample(
        self, problem: Problem, completion: str, rewards: dict, advantage: float | None, finish: str
    ) -> None:
        self.samples.write(
            {
                **asdict(problem),
                "completion": completion,
                "rewards": rewards,
                "advantage": advantage,
                "finish": finish,
                "step": self.learner.step,
                "source_run": self.run.name,
            }
        )

    def _log(self, row: dict) -> None:
        self.metrics.write(row)
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step":
                self.board.add_scalar(f"{row['kind']}/{name}", value, row["step"])

    def evaluate_some(self) -> None:
        """A point of the curve, on the first problems of each level."""
        config = self.learner.config
        chosen = first_of_each_level(self.task.test, config.eval_problems)
        result = self._evaluate(chosen, config.eval_samples)
        if self.learner.world.is_main:
            folder = self.run.folder / "evals"
            folder.mkdir(exist_ok=True)
            result.save(folder / f"step-{self.learner.step:06d}.npz")
            self._log_evaluation(chosen, result)

    def evaluate_all(self, file: Path) -> Evaluation:
        """The whole test set, once: a resumed run finds it in `file`."""
        problems = list(self.task.test)
        found = self.learner.world.any(file.exists())
        if found:
            result = Evaluation.load(file)
        else:
            result = self._evaluate(problems, self.learner.config.final_samples)
        if self.learner.world.is_main and not self._has_evaluation(self.learner.step):
            result.save(file)
            self._log_evaluation(problems, result)
        return result

    def _has_evaluation(self, step: int) -> bool:
        path = self.metrics.path
        rows = read_rows(path) if path.exists() else []
        return any(row["kind"] == "eval" and row["step"] == step for row in rows)

    def _evaluate(self, problems: list[Problem], k: int) -> Evaluation:
        learner, task = self.learner, self.task
        config, world = learner.config, learner.world
        learner.sample_from(learner.policy)
        share = evaluate(
            learner.sampler, learner.tokenizer, problems, k=k, temperature=config.temperature,
            max_tokens=config.cap(config.steps), seed=config.seed, template=task.template,
            shard=(world.rank, world.size), check=task.check, attempts=task.attempts,
        )  # fmt: skip
        return merge(world.gather(share))

    def _log_evaluation(self, problems: list[Problem], result: Evaluation) -> None:
        summary = result.summary()
        self._log({"kind": "eval", "step": self.learner.step, **summary})
        self.latest = {**self.latest, "held_out": summary["pass_at_1"]}
        levels: set[int] = set()
        for row, problem in enumerate(problems):
            if problem.level not in levels:
                levels.add(problem.level)
                finish = "length" if result["truncated"][row][0] else "stop"
                parts = {name: float(result[name][row][0]) for name in ("correct", "format")}
                self._write_sample(problem, result.completions[row][0], parts, None, finish)

    def _notes(self) -> dict[str, str]:
        row = self.latest
        notes = {}
        if "held_out" in row:
            notes["held-out"] = f"{row['held_out']:.0%}"
        if "pass_at_1" in row:
            notes["accuracy"] = f"{row['pass_at_1']:.0%}"
            notes["tokens"] = f"{row['tokens_mean']:.0f}"
            notes["reflection"] = f"{row['reflection']:.1f}"
        return notes


def first_of_each_level(problems: list[Problem], count: int) -> list[Problem]:
    """The first `count` problems of each level, in their order; all of them for 0."""
    seen: dict[int, int] = {}
    chosen = []
    for problem in problems:
        seen[problem.level] = seen.get(problem.level, 0) + 1
        if count == 0 or seen[problem.level] <= count:
            chosen.append(problem)
    return chosen
