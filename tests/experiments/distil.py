"""Five ways to teach a small student: lesson 08's experiment.

R1's samples (SFT), the student's own attempts paid by the rule (RL), or its own attempts graded by
R1 token by token (on-policy distillation, `notebooks/on_policy.py`). Two more arms begin where SFT
ended, with RL and with R1's grades, and spend as much again.

Counted is the student's learning: what SFT costs is the limit of each other arm. R1's sampling for
SFT is paid once for all students and is left out, as in the chain; that R1 reads what this student
writes serves this student alone and is counted.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from on_policy import OnPolicyDistillation
from r1lab.evaluation.estimators import pass_at_k
from r1lab.evaluation.measure import Evaluation
from r1lab.models.policy import load_model
from r1lab.stages.rl_stages import RLStage
from r1lab.stages.sft_stages import Distill, student_rl_stage
from r1lab.task import Task
from r1lab.training.loop import Learner
from r1lab.training.recorder import first_of_each_level
from r1lab.training.rl import grpo
from tests.experiments.next_steps import Kept, RLTrial, reuse_base, start, tabulate
from tests.experiments.settings import SFT, ZERO, harvest_config, rl_stage, sft_config

SAMPLES = 64
TRIES = (1, 4, 16, 64)
SAMPLING = {
    "mixture": {"signs/1": 0.3, "signs/2": 0.8, "signs/3": 2.0, "signs/4": 2.0, "signs/5": 2.0},
    "lang_weights": {"en": 0.6, "zh": 0.4},
    "filters": ["not truncated", "format", "correct", "one language", "no repetition"],
    "chunks": 2, "questions": 192, "samples": 4, "per_question": 2, "temperature": 1.0,
    "max_tokens": 448, "template": "small",
}  # fmt: skip
# R1-Zero's own recipe; its curve is not needed. A shorter cap would end the searches of level 5.
RL = {"caps": [[0, 448]], "eval_every": 1_000, "final_samples": SAMPLES}
ON_POLICY = {
    "questions": 24, "group_size": 2, "minibatches": 2, "learning_rate": 3e-4,
    "loss": {**ZERO["loss"], "beta": 0.0},
}  # fmt: skip


@dataclass(frozen=True)
class Distil(RLTrial):
    """What the arms have in common.

    Attributes:
        base, teacher: the student before it learns, and R1.
        on_policy: what on-policy distillation changes of `rl`.
        problems: so many of each of `levels` are asked, each 64 times.
    """

    base: str = "data/small"
    teacher: str = "data/r1"
    samples: int = SAMPLES
    rl: dict[str, Any] = field(default_factory=lambda: RL)
    on_policy: dict[str, Any] = field(default_factory=lambda: ON_POLICY)
    sampling: dict[str, Any] = field(default_factory=lambda: SAMPLING)
    sft: dict[str, Any] = field(
        default_factory=lambda: {
            **SFT, "epochs": 5, "tokens_per_step": 2_048, "learning_rate": 3e-3
        }
    )
    problems: int = 8
    levels: tuple[int, ...] = (3, 4, 5)

    @property
    def distillation(self) -> Distill:
        """R1's samples, and how the student reads them."""
        return Distill(
            self.teacher, self.base, harvest_config(self.sampling, seed=self.seed),
            sft_config(self.sft, seed=self.seed, processes=self.processes), self.processes,
        )  # fmt: skip


def distil(config: Distil = Distil(), folder: Path = Path("runs/distil")) -> Kept:
    """Train and measure the arms; each row of the table is against SFT.

    RL measures the model that it starts from: the student, and the one that SFT has made.
    """
    load_model(config.base)  # a missing one is reported before the folder is made
    start(config, folder)
    taught = config.distillation.run("sft", runs=folder)
    graded = rl_stage({**ZERO, **config.rl, **config.on_policy})
    grader = partial(OnPolicyDistillation, teacher=config.teacher)
    arms = {
        "rl": (config.base, config.stage, Learner),
        "on_policy": (config.base, graded, grader),
        "sft_rl": (taught.model, config.stage, Learner),
        "sft_on_policy": (taught.model, graded, grader),
    }
    evaluations, before = {}, {"rl": "student", "sft_rl": "sft"}
    asked_by = {"on_policy": "rl", "sft_on_policy": "sft_rl"}  # the same start, which is asked once
    for arm, (model, stage, learner) in arms.items():
        limited = student_rl_stage(taught.summary, config.base, stage)
        limited = limited.with_rl(seed=config.seed, processes=config.processes)
        if arm in asked_by:
            reuse_base(folder / asked_by[arm], folder / arm)
        task = task_of(limited, config)
        run = grpo(model, task, limited.rl, arm, runs=folder, learner=learner)
        evaluations[arm] = Evaluation.load(run.folder / "eval_final.npz")
        if arm in before:
            evaluations[before[arm]] = Evaluation.load(run.folder / "eval_base.npz")
    measured = {arm: row_values(evaluation) for arm, evaluation in evaluations.items()}
    levels = evaluations["sft"].levels
    return tabulate(measured, "sft", dict.fromkeys(measured["sft"], levels), folder)


def task_of(stage: RLStage, config: Distil) -> Task:
    """What the stage asks, measured on the first problems of some levels."""
    task = stage.world.task()
    asked = [problem for problem in task.test if problem.level in config.levels]
    return replace(task, test=first_of_each_level(asked, config.problems))


def row_values(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """One value for each problem of each row of the table."""
    right = evaluation["correct"]
    samples = right.shape[1]
    return {f"pass_at_{k}": pass_at_k(samples, right.sum(axis=1), k) for k in TRIES}
