"""The cases of the golden record: small runs of everything that learns, and what comes out.

All that the record knows of the package's interface stands here. A case takes an empty folder and
returns what JSON can hold: metrics without times, and hashes of what is too long to print. When an
interface changes, the case is rewritten and its record stays.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import load_from_disk
from safetensors.torch import load_file

import r1lab
from r1lab.grpo import LossConfig
from r1lab.stages import benchmarks
from r1lab.evaluation.measure import MEASURES, Evaluation
from r1lab.files import read_rows
from r1lab.world.skills import measure_skills
from r1lab.models.policy import load_policy
from r1lab.sampling import TorchSampler
from r1lab.search.prm import PRMConfig, train_prm
from r1lab.search.tree import held_out_puzzles
from r1lab.stages.cold_start import ColdStart
from r1lab.stages.distill import Distill
from r1lab.stages.from_samples import run_sampled
from r1lab.stages.reasoning import REASONING
from r1lab.stages.rejection import Rejection, random_arm
from r1lab.stages.scenarios import SCENARIOS
from r1lab.task import load_problems, save_problems
from r1lab.training.checkpoint import list_checkpoints
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel
from r1lab.training.rl import grpo
from r1lab.training.run import Run
from r1lab.world.small_world import SmallWorld

Case = Callable[[Path], dict]
CASES: dict[str, Case] = {}
QUICK: list[str] = []  # the part that `make test` replays
CLOCKS = {"elapsed", "seconds"}
# Two rollouts of two updates, with steps so long that ratios are clipped in the second one.
SHORT = {
    "rollouts": 2, "questions": 8, "group_size": 8, "minibatches": 2, "learning_rate": 5e-4,
    "warmup_steps": 1, "caps": ((0, 64), (2, 96)), "reference_every": 2, "eval_every": 1,
    "eval_samples": 2, "eval_problems": 1, "final_samples": 2, "sample_rows": 16, "processes": 1,
}  # fmt: skip
WORLD = {one.name for one in fields(SmallWorld)}  # settings of what is asked and paid

# Two objectives are compared while accuracy still rises steeply; a whole run would cost too much.
FEW = {"rollouts": 14, "final_samples": 8, "eval_every": 14}

# What differs in each arm from the configuration that all of them share.
ARMS: dict[str, dict] = {
    "true": {},
    "random": {"arm": "random"},
    "format": {"arm": "format"},
    "tiny": {"model": "data/tiny"},
    "noskill": {"model": "data/noskill"},
    "grpo": FEW,
    "ppo-0.95": {**FEW, "advantage": "gae", "gae_lambda": 0.95},
    "ppo-1.0": {**FEW, "advantage": "gae", "gae_lambda": 1.0},
    "per-answer": {**FEW, "loss": LossConfig(aggregation="sequence")},
    "no-std": {**FEW, "divide_by_std": False},
    "equal-clip": {**FEW, "loss": LossConfig(clip_low=0.2, clip_high=0.2)},
}


def case(name: str, quick: bool = False) -> Callable[[Case], Case]:
    """Put a function among the cases, under this name."""

    def put(function: Case) -> Case:
        CASES[name] = function
        if quick:
            QUICK.append(name)
        return function

    return put


# What comes out of a run


def digest(value: object) -> str:
    """A hash of what JSON can hold."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_hash(tensors) -> str:
    """A hash of named tensors in their order, as float32."""
    found = hashlib.sha256()
    for _, tensor in tensors:
        found.update(tensor.detach().float().contiguous().numpy().tobytes())
    return found.hexdigest()


def array_hash(values: np.ndarray) -> str:
    """A hash of an array's numbers as float64."""
    return hashlib.sha256(np.asarray(values, dtype=float).tobytes()).hexdigest()


def without_times(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name not in CLOCKS} for row in rows]


def learned(run: Run) -> dict:
    """Of a run that trained: metrics of every update or rollout, and the weights after it."""
    found = {
        "metrics": without_times(run.metrics),
        "weights": weights_hash(load_policy(run.model)[0].named_parameters()),
    }
    critic = run.model / "critic.safetensors"
    if critic.exists():
        found["critic"] = weights_hash(sorted(load_file(critic).items()))
    return found


def evaluated(result: Evaluation) -> dict:
    """Of an evaluation: all completions, and each measure of each of them."""
    return {
        "completions": digest(result.completions),
        "measures": {name: array_hash(result[name]) for name in MEASURES},
    }


def reinforced(run: Run) -> dict:
    """Of a run of reinforcement learning: also the base's evaluation and the stored samples."""
    names = ("id", "completion", "rewards", "advantage", "finish")
    return {
        **learned(run),
        "base": evaluated(Evaluation.load(run.folder / "eval_base.npz")),
        "samples": digest([[row[name] for name in names] for row in run.samples]),
        "flops": run.summary["flops"],
    }


# How a run is made small


def alone() -> None:
    """Train in this process, as torchrun would with one, and not in a new one."""
    os.environ.update(RANK="0", WORLD_SIZE="1")


def on_two_cores() -> None:
    """Two workers with one thread each, however many cores there are."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def few_problems(name: str, of_each_level: int) -> list:
    """The first held-out problems of each level of a family."""
    seen: dict[int, int] = {}
    found = []
    for problem in load_problems(f"data/test_{name}.jsonl"):
        seen[problem.level] = seen.get(problem.level, 0) + 1
        if seen[problem.level] <= of_each_level:
            found.append(problem)
    return found


def train(folder: Path, stop_after: int | None = None, **changes) -> Run:
    """Two rollouts of `make zero` with changes, evaluated on ten problems.

    Among the changes are the `model`, and settings of the world and of the learner.
    """
    file = folder / "test.jsonl"
    save_problems(few_problems("signs", 2), file)
    model = changes.pop("model", "data/base")
    world = SmallWorld(test=str(file), **{n: v for n, v in changes.items() if n in WORLD})
    learner = {name: value for name, value in changes.items() if name not in WORLD}
    config = GRPOConfig.preset("cpu", **(SHORT | learner))
    return grpo(model, world.task(), config, "run", runs=folder, stop_after=stop_after)


def train_alone(folder: Path, **changes) -> dict:
    """The same, in this process."""
    alone()
    return reinforced(train(folder, **changes))


# Arms of the ledger


def arm(name: str, folder: Path) -> dict:
    changes = {key: value for key, value in ARMS[name].items() if key not in SHORT}
    return train_alone(folder, **changes)


for _name in ARMS:
    case(f"arm-{_name}", quick=_name in ("true", "ppo-0.95"))(partial(arm, _name))


# Settings of the loop


@case("lag", quick=True)
def lag(folder: Path) -> dict:
    return train_alone(folder, lag=1)


@case("packing", quick=True)
def packing(folder: Path) -> dict:
    return train_alone(folder, pack=True, microbatch_tokens=256)


def grading(how: str, folder: Path) -> dict:
    mixture = {"signs/1": 1.0, "programs/1": 1.0, "logic/1": 1.0}
    changes = {"mixture": mixture, "grading": how, "grading_rows": 5, "language_weight": 0.2}
    return train_alone(folder, **changes)


case("grading-in-line")(partial(grading, "in line"))
case("grading-asynchronous", quick=True)(partial(grading, "asynchronous"))


@case("resume")
def resume(folder: Path) -> dict:
    """Stopped after one rollout, and gone on with."""
    alone()
    train(folder, stop_after=1)
    return reinforced(train(folder))


@case("two-processes", quick=True)
def two_processes(folder: Path) -> dict:
    on_two_cores()
    return reinforced(train(folder, processes=2))


@case("two-processes-sharded")
def two_processes_sharded(folder: Path) -> dict:
    """FSDP2, over gloo."""
    on_two_cores()
    return reinforced(train(folder, processes=2, parallel=Parallel(shard=True)))


# make zero


def stored_zero() -> list[dict]:
    return without_times(Run("data/runs/zero").metrics)


def zero(folder: Path, stop_after: int | None = None) -> Run:
    """make zero, as a person gets it, or its first rollouts."""
    on_two_cores()
    config = GRPOConfig.preset("cpu", processes=2)
    return grpo("data/base", SmallWorld().task(), config, "zero", runs=folder, stop_after=stop_after)


@case("zero-begins")
def zero_begins(folder: Path) -> dict:
    """The first two rollouts of make zero. Are they as in data/runs/zero?"""
    run = zero(folder, stop_after=2)
    rows = without_times(run.metrics)
    stored = stored_zero()[: len(rows)]
    same = [old.items() <= new.items() for old, new in zip(stored, rows, strict=True)]
    return {"as stored": same, **learned(run)}


def whole_zero(folder: Path) -> list[dict]:
    """All rows of make zero."""
    return without_times(zero(folder).metrics)
