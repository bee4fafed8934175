"""How much cold start? R1's first two stages with few examples and with many: lessons 04 and 05.

R1-Zero (`data/zero`) is sampled once for each seed, and its answers are made readable, as in the
chain. The base reads the first 30, 100, 300 or 1,000 of them, all, or none; that is Dev1. Each Dev1
then gets the same RL twice, with the language reward and without. The chain's own cold start has all
examples, so it cannot show what the paper saw with fewer.

The world is puzzles of signs alone. A step of fine-tuning reads 1,024 tokens, fewer than the chain's,
so that 30 examples are more than one step.

A pilot of Dev1 alone, on seed 9, said where to ask: right were 1, 15, 70, 73 and 73 % after 30, 100,
300, 1,000 and all examples, 20 % before any, and R1-Zero's 71 %; of the words 68 % were in the question's
language before any, then 86, 94, 98, 100 and 100 %, and R1-Zero's 67 %. After 100 examples both can rise.
"""

import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from r1lab import evaluate
from r1lab.evaluation.measure import Evaluation
from r1lab.rewards import count_languages, parse
from r1lab.run import Run
from r1lab.stages.samples import store_data
from r1lab.stages.sft_stages import ColdStart
from r1lab.task import Problem, Task
from r1lab.training.recorder import first_of_each_level
from r1lab.training.rl import grpo
from r1lab.training.sft import sft
from tests.experiments.next_steps import Kept, RLTrial, reuse_base, start, tabulate
from tests.experiments.settings import CHAIN, SFT, harvest_config, sft_config

EXAMPLES = (0, 30, 100, 300, 1_000)
ALL = "all"
ROWS = ("accuracy", "language", "one language", "tokens")
SAMPLING = {
    **CHAIN["cold_start"]["sampling"],
    "mixture": {"signs/1": 0.5, "signs/2": 1.0, "signs/3": 2.0, "signs/4": 2.0, "signs/5": 0.5},
}
RL = {"rollouts": 12, "questions": 16, "caps": [[0, 320]], "eval_every": 1_000, "final_samples": 4}


@dataclass(frozen=True)
class ColdStarts(RLTrial):
    """What the arms have in common.

    Attributes:
        zero: the model whose answers are the examples.
        examples: so many are read in an arm; all of them in one more.
        problems: so many of each of `levels` are asked, each `samples` times.
    """

    zero: str = "data/zero"
    examples: tuple[int, ...] = EXAMPLES
    rl: dict[str, Any] = field(default_factory=lambda: RL)
    sampling: dict[str, Any] = field(default_factory=lambda: SAMPLING)
    sft: dict[str, Any] = field(default_factory=lambda: {**SFT, "epochs": 3, "tokens_per_step": 1_024})
    problems: int = 24
    levels: tuple[int, ...] = (2, 3, 4, 5)

    @property
    def cold_start(self) -> ColdStart:
        """The arm that reads all examples; its data are those of the others."""
        tuning = sft_config(self.sft, seed=self.seed, processes=self.processes)
        return ColdStart(
            self.zero, self.base, harvest_config(self.sampling, seed=self.seed), tuning, self.processes
        )


def cold_starts(config: ColdStarts = ColdStarts(), folder: Path = Path("runs/cold_starts")) -> Kept:
    """Train and measure all arms; each row of the table is against R1-Zero."""
    start(config, folder)
    models = developed(config, folder)
    evaluations = {}
    for examples, model in models.items():
        for arm, weight in ((f"dev2_{examples}", 1.0), (f"plain_{examples}", 0.0)):
            task = task_of(config, weight)
            reuse_base(folder / f"dev2_{examples}", folder / arm)
            run = grpo(model, task, config.stage.rl, arm, runs=folder)
            evaluations[arm] = Evaluation.load(run.folder / "eval_final.npz")
        evaluations[f"dev1_{examples}"] = Evaluation.load(run.folder / "eval_base.npz")
    evaluations["zero"] = asked_once(config, task, folder / "zero.npz")
    measured = {arm: row_values(task.test, found) for arm, found in evaluations.items()}
    return tabulate(measured, "zero", dict.fromkeys(ROWS, evaluations["zero"].levels), folder)


def developed(config: ColdStarts, folder: Path) -> dict[str, Path]:
    """Dev1 by the number of its examples, as text; "0" is the base itself."""
    from datasets import load_from_disk  # takes seconds to import

    whole = config.cold_start.run(ALL, runs=folder)
    rows = load_from_disk(str(whole.folder / "data")).to_list()
    random.Random(f"cold starts/{config.seed}").shuffle(rows)
    models = {"0": Path(config.base)}
    for count in config.examples[1:]:
        data = folder / f"data_{count}"
        if not data.exists():
            store_data(rows[:count], data, config, config.zero, examples=count)
        models[str(count)] = sft(config.base, data, config.cold_start.sft, f"dev1_{count}", runs=folder).model
    return models | {ALL: whole.model}


def task_of(config: ColdStarts, language_weight: float) -> Task:
    """What is asked and paid, and the first problems of some levels to measure by."""
    task = config.stage.with_world(language_weight=language_weight).world.task()
    asked = [problem for problem in task.test if problem.level in config.levels]
    return replace(task, test=first_of_each_level(asked, config.problems))


def asked_once(config: ColdStarts, task: Task, file: Path) -> Evaluation:
    """R1-Zero's own answers to the same problems."""
    if not file.exists():
        cap = config.stage.rl.cap(0)
        evaluate(
            config.zero, task, config.rl["final_samples"], max_tokens=cap, seed=config.seed,
            processes=config.processes,
        ).save(file)  # fmt: skip
    return Evaluation.load(file)


def row_values(problems: list[Problem], evaluation: Evaluation) -> dict[str, np.ndarray]:
    """One value for each problem of each row; NaN where no sample has thought in words."""
    words = [languages(problem, texts) for problem, texts in zip(problems, evaluation.completions)]
    right, tokens = (evaluation[name].mean(axis=1) for name in ("correct", "tokens"))
    return dict(zip(ROWS, (right, *np.transpose(words), tokens)))


def languages(problem: Problem, completions: list[str]) -> tuple[float, float]:
    """Of the completions that think in words: the mean share of the question's language, and how
    many use that language alone."""
    counts = [count_languages(parse(text).thinking) for text in completions]
    shares = [count[problem.lang] / count.total() for count in counts if count.total()]
    if not shares:
        return np.nan, np.nan
    return float(np.mean(shares)), float(np.mean([share == 1 for share in shares]))
