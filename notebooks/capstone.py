"""What lesson 14 measures with, its board, and the command that repeats an entry.

    python notebooks/capstone.py reward mine.py:rewards
    python notebooks/capstone.py fault mine.py:arm
    python notebooks/capstone.py claim mine.py:claim

Each trains two arms on three seeds and prints the entry. `--enter NAME` writes it onto the board, the
file leaderboard.jsonl beside this one.
"""

import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import numpy as np
import tyro
import watched

from r1lab import GRPOConfig, Problem, Task
from r1lab.cli import exit_code
from r1lab.doctor import try_two_steps
from r1lab.errors import InputError
from r1lab.evaluation.estimators import Estimate, paired_bootstrap
from r1lab.evaluation.measure import evaluate
from r1lab.evaluation.table import Cell
from r1lab.files import SHIPPED, read_rows
from r1lab.lab import table
from r1lab.rewards import accuracy, format
from r1lab.sampling import TorchSampler
from r1lab.sources import load_object
from r1lab.world import sample_problem
from r1lab.world.small_world import SmallWorld

BASE = SHIPPED / "base"
BOARD = Path(__file__).with_name("leaderboard.jsonl")
FIELDS = ("choice", "name", "points", "low", "high", "seeds", "counts", "command")
SEEDS = (0, 1, 2)
OURS = {"accuracy": accuracy, "format": (format, 0.1)}
SETTINGS = GRPOConfig.preset(
    "cpu", rollouts=8, questions=8, group_size=16, minibatches=2, learning_rate=3e-4,
    warmup_steps=2, caps=((0, 128),), seed=0,
)  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """What is asked and paid, and how the policy learns."""

    task: Task
    settings: GRPOConfig = SETTINGS


@dataclass(frozen=True)
class Claim:
    """A sentence that the treatment beats the control, written down before any run."""

    sentence: str
    treatment: Arm
    control: Arm


@dataclass(frozen=True)
class Comparison:
    """Two arms after training, on the same seeds and test problems.

    Attributes:
        yours, ours: the share of right answers, [seed, problem].
        rows: of each arm the training's numbers by rollout, for the first seed.
    """

    yours: np.ndarray
    ours: np.ndarray
    rows: dict[str, list[dict]]

    @property
    def gain(self) -> Estimate:
        """Yours less ours in shares, with the 95 % interval over problems, seeds pooled."""
        one_level = np.zeros(self.yours.shape[1], int)
        return paired_bootstrap(self.yours, self.ours, one_level, seed=0)

    @property
    def each(self) -> list[float]:
        """The gain of each seed."""
        return (self.yours - self.ours).mean(axis=1).tolist()


def draw(rng: random.Random, count: int, plus: bool, for_test: bool = False) -> list[Problem]:
    """Draw different puzzles of three numbers: those that plus signs alone solve, or none of them."""
    drawn = {}
    while len(drawn) < count:
        problem = sample_problem(rng, "signs", 2, "en", for_test=for_test)
        if ("-" not in problem.solution) == plus:
            drawn[problem.prompt] = problem
    return list(drawn.values())


def trap() -> Arm:
    """96 puzzles to train on, of which plus signs alone solve 72, and 32 to test, of which they solve none."""
    rng = random.Random(0)
    asked = draw(rng, 72, plus=True) + draw(rng, 24, plus=False)
    held_out = draw(rng, 32, plus=False, for_test=True)
    return Arm(Task("trap", asked, held_out, OURS, template="small"))


def healthy() -> Arm:
    """The small world's puzzles of three and four numbers, in English, with 32 to test."""
    world = SmallWorld(mixture={"signs/2": 1.0, "signs/3": 1.0}, lang_weights={"en": 1.0})
    task = world.task()
    english = [problem for problem in task.test if problem.lang == "en"]
    held_out = [problem for level in (2, 3) for problem in english if problem.level == level]
    return Arm(replace(task, test=held_out[:: len(held_out) // 32][:32]))


def train(arm: Arm, examined: Task, seed: int) -> tuple[np.ndarray, list[dict]]:
    """Train the base; the share of right answers to each test problem of `examined`, and the run's rows."""
    learner, rows = watched.train(BASE, arm.task, replace(arm.settings, seed=seed))
    return right_answers(learner.policy.model, learner.tokenizer, examined), rows


def right_answers(model, tokenizer, task: Task) -> np.ndarray:
    """The share of eight answers to each test problem that is right."""
    result = evaluate(TorchSampler(model, tokenizer), tokenizer, task, k=8, max_tokens=192, seed=0)
    return result.accuracies()["pass_at_1"]


def compare(yours: Arm, ours: Arm, seeds: Sequence[int] = SEEDS) -> Comparison:
    """Train both arms on each seed. Both answer the test problems of ours, judged by its check."""
    shares, rows = {}, {}
    for name, arm in (("yours", yours), ("ours", ours)):
        trained = [train(arm, ours.task, seed) for seed in seeds]
        shares[name] = np.stack([right for right, _ in trained])
        rows[name] = trained[0][1]
    return Comparison(**shares, rows=rows)


def ask_doctor(arm: Arm) -> list:
    """What `r1lab doctor` names in two steps of this arm, from the base."""
    run = SimpleNamespace(model=str(BASE), rl=arm.settings, open_task=lambda: arm.task)
    return try_two_steps(run)


Choice = Literal["reward", "fault", "claim"]


def arms(choice: Choice, given: object) -> tuple[Arm, Arm]:
    """Both arms of an entry. Raises InputError where what is given cannot be one."""
    wanted = {"reward": dict, "fault": Arm, "claim": Claim}[choice]
    if not isinstance(given, wanted):
        kind = type(given).__name__
        raise InputError(f"an entry for {choice!r} is a {wanted.__name__}, and this is of type {kind}.")
    if choice == "reward":
        ours = trap()
        return replace(ours, task=replace(ours.task, rewards=given)), ours
    return (given, healthy()) if choice == "fault" else (given.treatment, given.control)


def measured(choice: Choice, given: object, seeds: Sequence[int] = SEEDS) -> dict:
    """Measure an entry: its points, and whether it counts.

    It counts where three seeds or more and the whole interval lie on its side, and of a fault where
    the doctor names nothing.
    """
    yours, ours = arms(choice, given)
    named = [ill.name for ill in ask_doctor(yours)] if choice == "fault" else []
    result, side = compare(yours, ours, seeds), -1 if choice == "fault" else 1
    each = [round(100 * side * gain, 1) for gain in result.each]
    mean, *bounds = (round(100 * side * value, 1) for value in result.gain)
    low, high = sorted(bounds)
    shown = len({*seeds}) >= 3 and min(each) > 0 and low > 0
    return {
        "choice": choice, "points": mean, "low": low, "high": high, "seeds": each,
        "counts": shown and not named, "named": named,
    }  # fmt: skip


def enter(entry: dict, board: Path = BOARD):
    """Write an entry onto the board, in place of an earlier one of its name."""
    others = [row for row in entries(board) if (row["choice"], row["name"]) != (entry["choice"], entry["name"])]
    lines = [json.dumps(row, ensure_ascii=False) for row in [*others, entry]]
    board.write_text("\n".join(lines) + "\n", encoding="utf-8")


def entries(board: Path = BOARD) -> list[dict]:
    """The board's entries. Raises InputError where a row is no entry."""
    return read_rows(board, FIELDS) if board.is_file() else []


def show_board(board: Path = BOARD):
    """Display the board, each choice with its best entry first."""
    rows = []
    for entry in sorted(entries(board), key=lambda row: (row["choice"], not row["counts"], -row["points"])):
        interval = f"{entry['low']:.0f} to {entry['high']:.0f}"
        rows.append({
            "choice": entry["choice"], "entry": entry["name"],
            "points": Cell(f"{entry['points']:.0f}", interval),
            "each seed": ", ".join(f"{gain:.0f}" for gain in entry["seeds"]),
            "counts": "yes" if entry["counts"] else "not yet",
        })  # fmt: skip
    table(rows, "The board, in points of right answers")


def main(
    choice: Annotated[Choice, tyro.conf.Positional], source: Annotated[str, tyro.conf.Positional],
    seeds: tuple[int, ...] = SEEDS, enter_as: Annotated[str, tyro.conf.arg(name="enter")] = "",
):  # fmt: skip
    """Measure an entry of the capstone, and print it.

    Args:
        choice: reward, fault or claim.
        source: what is entered, as mine.py:NAME.
        seeds: fewer than three are for a first look.
        enter_as: the name under which it goes onto the board.
    """
    os.environ["R1LAB_STATIC"] = "1"  # no charts in a terminal
    entry = measured(choice, load_object(source, "reward"), seeds)
    command = f"python notebooks/capstone.py {choice} {source}"
    entry |= {"name": enter_as or source, "command": command}
    print(json.dumps(entry, ensure_ascii=False))
    if enter_as:
        enter(entry)


if __name__ == "__main__":
    import capstone  # by the name by which an entry's file imports it

    sys.exit(exit_code(partial(tyro.cli, capstone.main, description=__doc__)))
