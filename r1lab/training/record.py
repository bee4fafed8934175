"""What a run writes down: metrics, samples, evaluations, checkpoints, and how it ends."""

import math
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from r1lab.evaluation.measure import Evaluation, evaluate, measure, merge
from r1lab.evaluation.rows import read_rows
from r1lab.rewards import RewardSet
from r1lab.task import Problem
from r1lab.training.compute import rl_flops, training_flops
from r1lab.training.distributed import StopRequest
from r1lab.training.experience import Experience
from r1lab.training.loop import Learner, group_statistics
from r1lab.training.runs import MetricsLog, Progress
from r1lab.world import find_attempts

SAMPLED_MEASURES = ("correct", "reflection", "mixed", "attempts", "repeats", "searches", "in_order")


class Recorder:
    """Writes a run folder as the run goes on. Only the main process writes; all evaluate."""

    def __init__(
        self, run: Path, learner: Learner, test_set: list[Problem], rewards: RewardSet,
        clock: dict[str, float], progress: Progress, stop: StopRequest,
        stop_after: int | None = None,
    ):  # fmt: skip
        self.run, self.learner, self.test_set, self.rewards = run, learner, test_set, rewards
        self.progress, self.stop = progress, stop
        self.clock, self.started = clock, time.monotonic()
        self.rollout_started = self.started
        self.stopped = False
        self.rollouts_left = math.inf if stop_after is None else stop_after
        self.latest: dict[str, float] = {}
        self.parameters = learner.policy.model.num_parameters()
        if learner.world.is_main:
            at = learner.step or None  # a run that goes on
            self.metrics = MetricsLog(run / "metrics.jsonl", at)
            self.samples = MetricsLog(run / "samples.jsonl", at)
            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=at)

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
        self.clock["flops"] = self.clock.get("flops", 0) + self._flops(experience)
        if learner.world.is_main:
            self._write_training(experience, updates, seconds)
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

    def _flops(self, experience: Experience) -> int:
        """Of the rollout and its updates: the answers, the demonstrations beside them, the critic,
        which reads each answer before it learns from it."""
        learner, config, tokens = self.learner, self.learner.config, sum(experience.lengths)
        rescored = experience.rollout_logps is not None
        flops = rl_flops(self.parameters, tokens, config.loss.beta > 0, rescored)
        if learner.demonstrations.documents:
            for step in range(learner.step - config.minibatches, learner.step):
                read = learner.demonstrations.of_step(step)
                flops += training_flops(self.parameters, sum(len(p) + len(c) for p, c in read))
        if critic := learner.modules.get("critic"):
            flops += rl_flops(sum(part.numel() for part in critic.parameters()), tokens)
        return flops

    def start_rollout(self) -> None:
        """Start the clock of the first rollout."""
        self.rollout_started = time.monotonic()

    def save(self) -> None:
        now = time.monotonic()
        self.clock["wall_seconds"] += now - self.started
        self.started = now
        self.learner.save(self.run, {"clock": dict(self.clock)})

    def _write_training(self, experience: Experience, updates: list[dict], seconds: float) -> None:
        learner = self.learner
        shown = measure(
            self._row_problems(experience), experience.completions, attempts=find_attempts
        )
        checkable = sum(bool(problem.solution) for problem in self._row_problems(experience))
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
        for index in range(min(learner.config.sample_rows, len(shown))):
            rewards = {name: values[index] for name, values in experience.rewards.items()}
            self._write_sample(
                self._row_problems(experience)[index], experience.completions[index], rewards,
                experience.advantages.flatten()[index].item(), experience.finish[index],
            )  # fmt: skip

    def _row_problems(self, experience: Experience) -> list[Problem]:
        group = self.learner.config.group_size
        return [problem for problem in experience.problems for _ in range(group)]

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
        seen: dict[int, int] = {}
        chosen = []
        for problem in self.test_set:
            seen[problem.level] = seen.get(problem.level, 0) + 1
            if config.eval_problems == 0 or seen[problem.level] <= config.eval_problems:
                chosen.append(problem)
        result = self._evaluate(chosen, config.eval_samples)
        if self.learner.world.is_main:
            folder = self.run / "evals"
            folder.mkdir(exist_ok=True)
            result.save(folder / f"step-{self.learner.step:06d}.npz")
            self._log_evaluation(chosen, result)

    def evaluate_all(self, file: Path) -> Evaluation:
        """The whole test set, once: a resumed run finds it in `file`."""
        found = self.learner.world.any(file.exists())
        if found:
            result = Evaluation.load(file)
        else:
            result = self._evaluate(self.test_set, self.learner.config.final_samples)
        if self.learner.world.is_main and not self._has_evaluation(self.learner.step):
            result.save(file)
            self._log_evaluation(self.test_set, result)
        return result

    def _has_evaluation(self, step: int) -> bool:
        path = self.metrics.path
        rows = read_rows(path) if path.exists() else []
        return any(row["kind"] == "eval" and row["step"] == step for row in rows)

    def _evaluate(self, problems: list[Problem], k: int) -> Evaluation:
        learner = self.learner
        config, world = learner.config, learner.world
        learner.sample_from(learner.policy)
        return merge(
            world.gather(
                evaluate(
                    learner.sampler, learner.tokenizer, problems, k=k,
                    temperature=config.temperature, max_tokens=config.cap(config.steps),
                    seed=config.seed, template=config.template, shard=(world.rank, world.size),
                    attempts=find_attempts,
                )  # fmt: skip
            )
        )

    def _log_evaluation(self, problems: list[Problem], result: Evaluation) -> None:
        summary = result.summary()
        self._log({"kind": "eval", "step": self.learner.step, **summary})
        self.latest = {**self.latest, "held_out": summary["pass_at_1"]}
        by_level: set[int] = set()
        for problem, completions, truncated in zip(
            problems, result.completions, result["truncated"], strict=True
        ):
            if problem.level not in by_level:
                by_level.add(problem.level)
                finish = "length" if truncated[0] else "stop"
                [right] = measure([problem], completions[:1])
                parts = {name: float(right[name]) for name in ("correct", "format")}
                self._write_sample(problem, completions[0], parts, None, finish)

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


def peak_memory_gb() -> float:
    """Of this process, since it started."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
