"""A run inside a lesson: what it did, as rows of numbers, and live while it trains."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import fmean

from IPython.display import display
from ipywidgets import Image

from r1lab.evaluation.measure import measure
from r1lab.models.policy import load_policy
from r1lab.report.figures import draw, png_bytes
from r1lab.task import Task
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience

SHOWN = {"pass_at_1": "correct", "reflection": "reflection", "attempts": "attempts"}


class Watch:
    """What `Learner.train` calls after each rollout: one row of numbers each, kept in `rows`.

    The rows carry the names of `metrics.jsonl`, so that the figures of `r1lab.report` draw them.
    In a live notebook a chart of the rewards grows while the run goes on; interrupting the run
    loses none of the rows. With R1LAB_STATIC=1 nothing is shown.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.rows: list[dict] = []
        self.chart = None
        if os.environ.get("R1LAB_STATIC") != "1":
            self.chart = Image(format="png", width=720)
            display(self.chart)

    def __call__(self, rollout: int, experience: Experience, updates: list[dict]) -> bool:
        """Note the rollout's numbers; never ends the run."""
        task, problems = self.learner.task, experience.problems
        shown = measure(problems, experience.completions, check=task.check, attempts=task.attempts)
        self.rows.append(
            {
                "kind": "train",
                "step": self.learner.step,
                **experience.statistics(),
                **{name: fmean(one[key] for one in shown) for name, key in SHOWN.items()},
                **{name: fmean(update[name] for update in updates) for name in updates[0]},
            }
        )
        if self.chart is not None:
            self.chart.value = png_bytes(draw("reward_parts", self.rows))
        return False


def train(model: str | Path, task: Task, config: GRPOConfig) -> tuple[Learner, list[dict]]:
    """Train in this kernel, without a run folder; the learner, and one row for each rollout."""
    learner = Learner(config, task, *load_policy(model), World())
    watch = Watch(learner)
    learner.train(watch)
    return learner, watch.rows
