"""A run that is watched: training in the notebook's own kernel, with a chart that grows."""

import os
from pathlib import Path
from statistics import fmean

from IPython.display import display
from ipywidgets import Image

from r1lab.evaluation.measure import measure
from r1lab.models.policy import Policy, load_start
from r1lab.report.figures import draw, png_bytes
from r1lab.task import Task
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience


class Watch:
    """What `Learner.train` calls after each rollout: one row of numbers each, kept in `rows`.

    The rows carry the names of `metrics.jsonl`, so that the figures of `r1lab.report` draw them.
    In a live notebook a chart of the rewards grows while the run goes on; interrupting the run
    loses none of the rows. With R1LAB_STATIC=1 nothing is shown.
    """

    def __init__(self, learner: Learner):
        self.learner = learner
        self.rows = []
        self.chart = None
        if os.environ.get("R1LAB_STATIC") != "1":
            self.chart = Image(format="png", width=720)
            display(self.chart)

    def __call__(self, rollout: int, experience: Experience, updates: list[dict]) -> bool:
        """Note the rollout's numbers; never ends the run."""
        task, problems = self.learner.task, experience.problems
        texts, prompts = experience.completions, experience.prompts
        shown = measure(problems, texts, prompts, check=task.check, attempts=task.attempts)
        row = {"kind": "train", "step": self.learner.step} | experience.statistics()
        row["pass_at_1"] = fmean(one["correct"] for one in shown)
        for name in ("reflection", "attempts"):
            row[name] = fmean(one[name] for one in shown)
        for name in updates[0]:
            row[name] = fmean(update[name] for update in updates)
        self.rows.append(row)
        if self.chart is not None:
            self.chart.value = png_bytes(draw("reward_parts", self.rows))
        return False


def train(model: str | Path, task: Task, config: GRPOConfig) -> tuple[Learner, list[dict]]:
    """Train in this kernel, without a run folder; the learner, and one row for each rollout."""
    start, tokenizer = load_start(model, config.lora, config.seed)
    learner = Learner(config, task, Policy(start), tokenizer, World())
    watch = Watch(learner)
    learner.train(watch)
    return learner, watch.rows
