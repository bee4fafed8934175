"""Two next steps, tried in small: RL and SFT in one loss, and prompts that vary in training.

The paper trains by SFT and by RL one after the other, and finds R1 sensitive to how it is asked
(v2 section 6). The ledger runs them (`python -m tests.experiments --only one-loss`), and `more_data`'s
two, each for one seed in a folder of its own; what is finished there is left as it is, and other
settings are refused.
"""

import json
import math
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from r1lab.evaluation.estimators import bootstrap_ci, paired_bootstrap
from r1lab.evaluation.measure import evaluate
from r1lab.files import whole, write_text
from r1lab.models.policy import load_model, load_tokenizer
from r1lab.stages.benchmarks import REASONING, measure_work
from r1lab.stages.rl_stages import RLStage
from r1lab.task import Problem, Task, load_problems
from r1lab.training.distributed import World
from r1lab.training.sft import load_documents
from r1lab.training.estimate import open_model
from r1lab.training.loop import Learner
from r1lab.training.processes import StopRequest, default_processes, launch
from r1lab.training.recorder import first_of_each_level
from r1lab.training.rl import grpo
from r1lab.run import Run
from r1lab.training.sft import sft
from r1lab.world.words import SAID
from wordings import NAMES, USUAL, asking
from wordings import wordings as other_wordings
from tests.experiments.chain import levels_of
from tests.experiments.settings import SFT, ZERO, rl_stage, sft_config
from tests.experiments.taught import TaughtLearner

ROWS = (*REASONING, "helpfulness", "safety")
# Of each kind, words around the question and other words for it, some are never trained on.
TRAINED = (USUAL, "please", "step by step", "turned round")
HELD_OUT = tuple(name for name in NAMES if name not in TRAINED)
Measured = dict[str, dict[str, ndarray]]  # arm -> row -> one value per problem
Kept = dict[str, ndarray]  # the same by ARM/ROW, and levels/ROW: what the ledger keeps


@dataclass(frozen=True)
class Trial:
    """What every next step has. `samples`: answers to each question that is measured."""

    samples: int = 4
    seed: int = 0
    processes: int = 0


@dataclass(frozen=True)
class RLTrial(Trial):
    """One whose arms are trained by RL. `rl`: what all of them change of R1-Zero's settings."""

    base: str = "data/base"
    rl: dict[str, Any] = field(
        default_factory=lambda: {
            "rollouts": 22, "caps": [[0, 448]], "eval_every": 11, "final_samples": 4
        }
    )  # fmt: skip

    @property
    def stage(self) -> RLStage:
        """What the arms ask and pay, and how they learn."""
        own = {"seed": self.seed, "processes": self.processes}
        return rl_stage({**ZERO, **self.rl, **own})


@dataclass(frozen=True)
class OneLoss(RLTrial):
    """RL and SFT in one loss, against one after the other and against RL alone.

    RL asks puzzles of signs; the demonstrations hold all that R1 should know. Each arm of RL sees
    the same number of rollouts as the arm of one after the other, and "one_loss" the same number of
    demonstrations, at RL's learning rate; "sft_then_one_loss" sees them twice.

    Attributes:
        chain: the folder of a chain whose Dev3 is finished: its data set.
        weight: of the demonstrations' loss where it is one with that of RL.
    """

    chain: str = "runs/r1"
    sft: dict[str, Any] = field(default_factory=lambda: SFT)
    weight: float = 1.0

    @property
    def data(self) -> str:
        return f"{self.chain}/dev3/data"


@dataclass(frozen=True)
class Asked:
    """What is asked in several ways: `problems` of each level of `file`, each `samples` times."""

    file: str = "data/test_signs.jsonl"
    problems: int = 24
    samples: int = 4
    max_tokens: int = 448
    seed: int = 0


@dataclass(frozen=True)
class Wordings(RLTrial):
    """Questions asked in several wordings during RL, against the usual one alone.

    Attributes:
        base: of either architecture (`r1lab pretrain --preset llama` makes the other one).
        problems: so many of each level are asked, in every wording.
    """

    problems: int = 24


def start(config: Trial, folder: Path) -> None:
    """Make the experiment's folder: what is trained and measured there has these settings.

    Raises InputError where it was started with other ones.
    """
    run = Run(folder)
    run.prepare(config, resume=run.started)


def one_loss(config: OneLoss = OneLoss(), folder: Path = Path("runs/one_loss")) -> Kept:
    """Train and measure the arms; each row of the table is against SFT and then RL."""
    examples = len(load_documents(config.data, load_tokenizer(config.base), "small"))
    start(config, folder)
    tuning = sft_config(config.sft, seed=config.seed, processes=config.processes)
    taught = sft(config.base, config.data, tuning, "sft", runs=folder).model
    rl, task = config.stage.rl, config.stage.world.task()
    both = partial(
        TaughtLearner, data=config.data, weight=config.weight,
        rows=math.ceil(tuning.epochs * examples / rl.steps),
    )  # fmt: skip
    arms = {
        "sft_then_rl": (taught, Learner),
        "one_loss": (config.base, both),
        "sft_then_one_loss": (taught, both),
        "rl": (config.base, Learner),
    }
    models = {"sft": taught}
    for arm, (model, learner) in arms.items():
        models[arm] = grpo(model, task, rl, arm, runs=folder, learner=learner).model
    measured = measure(config, models, folder, ROWS)
    return tabulate(measured, "sft_then_rl", {row: levels_of(row) for row in ROWS}, folder)


def wordings(config: Wordings = Wordings(), folder: Path = Path("runs/wordings")) -> Kept:
    """Train and measure both arms; "lost" is what the held-out wordings cost, in points."""
    load_model(config.base)  # a missing one is reported before the folder is made
    start(config, folder)
    world, rl = config.stage.world, config.stage.rl
    tasks = {"varied": varied(world.task()), "usual": world.task()}
    models = {
        arm: grpo(config.base, task, rl, arm, runs=folder).model for arm, task in tasks.items()
    }
    models["base"] = Path(config.base)
    asked = Asked(world.test, config.problems, config.samples, rl.cap(rl.steps), config.seed)
    measured = {
        arm: ask(config, asked, NAMES, model, folder / f"{arm}.npz") for arm, model in models.items()
    }
    rows = (*NAMES, "held out", "lost")
    levels = dict.fromkeys(rows, measured["usual"]["levels"])
    values = {arm: {row: row_of(row, own) for row in rows} for arm, own in measured.items()}
    return tabulate(values, "usual", levels, folder)


def varied(task: Task, names: Sequence[str] = TRAINED) -> Task:
    """The task with each question asked in one of these wordings, drawn by seed and rollout."""

    def draw(seed: int, rollout: int, count: int) -> list[Problem]:
        rng = random.Random(f"wordings/{seed}/{rollout}")
        drawn = task.draw(seed, rollout, count)
        return [in_wording(problem, rng.choice(names)) for problem in drawn]

    return replace(task, problems=draw, settings={**task.settings, "wordings": list(names)})


def in_wording(problem: Problem, name: str) -> Problem:
    """The problem asked in the wording of this name; as usual where it has no other wordings."""
    if name == USUAL or problem.lang not in SAID["rephrased"].get(problem.family, {}):
        return problem
    return replace(problem, prompt=other_wordings(problem)[name])


def measure(
    config: Trial, models: dict[str, Path], folder: Path, rows: Sequence[str]
) -> Measured:
    """The benchmarks of each arm's model, measured once, in `folder/ARM`."""
    measured = {}
    for arm, model in models.items():
        if not (folder / arm / "benchmarks.json").exists():  # written last
            (folder / arm).mkdir(exist_ok=True)
            launch(
                measure_work, config.processes or default_processes(), Run(folder / arm), model,
                config.samples, config.seed, None, saves=False,
            )  # fmt: skip
        with np.load(folder / arm / "values.npz") as values:
            measured[arm] = {row: values[row] for row in rows}
    return measured


def reuse_base(first: Path, second: Path) -> None:
    """Both arms start from the same model, which is asked once."""
    asked = first / "eval_base.npz"
    if asked.exists() and not (second / asked.name).exists():
        second.mkdir(exist_ok=True)
        shutil.copy(asked, second)


def tabulate(
    measured: Measured, control: str, levels: dict[str, Int[ndarray, "problem"]], folder: Path
) -> Kept:
    """Print and keep the table of all rows, each arm against the control; the values behind it."""
    table = {
        row: {arm: against(found[row], measured[control][row], own)
              for arm, found in measured.items()}
        for row, own in levels.items()
    }  # fmt: skip
    report(table, folder)
    values = {f"{arm}/{row}": found[row] for arm, found in measured.items() for row in levels}
    return values | {f"levels/{row}": own for row, own in levels.items()}


def row_of(row: str, found: dict[str, ndarray]) -> Float[ndarray, "problem"]:
    """Accuracy in one wording; in those never trained on; and how far these are below the usual."""
    if row in found:
        return found[row]
    others = np.mean([found[name] for name in HELD_OUT], axis=0)
    return others if row == "held out" else found[USUAL] - others


def ask(
    config: Trial, asked: Asked, ways: Sequence[str], model: Path, file: Path
) -> dict[str, ndarray]:
    """Accuracy of each problem by the way it is asked, and its level: measured once, in `file`."""
    if not file.exists():
        processes = config.processes or default_processes()
        launch(asking_work, processes, asked, tuple(ways), model, file, saves=False)
    with np.load(file) as values:
        return dict(values)


def asking_work(
    world: World, stop: StopRequest, asked: Asked, ways: Sequence[str], model: Path, file: Path
) -> bool:
    """One process's share of a measurement: accuracy (lenient) of each problem in each way."""
    sampler, tokenizer, _ = open_model(model)
    problems = first_of_each_level(load_problems(asked.file), asked.problems)
    found = {"levels": np.array([problem.level for problem in problems])}
    for name in ways:
        answers = evaluate(
            sampler, tokenizer, problems, k=asked.samples, max_tokens=asked.max_tokens,
            seed=asked.seed, template=asking(name), world=world,
        )  # fmt: skip
        found[name] = answers["correct"].mean(axis=1)
    if world.is_main:
        with whole(file) as partial_file, open(partial_file, "wb") as out:
            np.savez_compressed(out, **found)
    return True


def against(
    own: Float[ndarray, "problem"], other: Float[ndarray, "problem"], levels: ndarray
) -> dict:
    """Mean and difference, with intervals, over the problems that both have a value for."""
    both = np.isfinite(own) & np.isfinite(other)
    if not both.any():
        return {}
    value, *ci95 = bootstrap_ci(own[both], levels[both])
    difference, *difference_ci95 = paired_bootstrap(own[both], other[both], levels[both])
    return {"value": value, "ci95": ci95, "difference": difference,
            "difference_ci95": difference_ci95, "n": int(both.sum())}  # fmt: skip


def report(table: dict[str, dict[str, dict]], folder: Path) -> None:
    """Print the table, and keep it."""
    write_text(folder / "summary.json", json.dumps(table, indent=1))
    for row, arms in table.items():
        for arm, cell in arms.items():
            if cell:
                low, high = cell["difference_ci95"]
                print(f"{row:14} {arm:18} {cell['value']:6.3f}   "
                      f"{cell['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")  # fmt: skip
