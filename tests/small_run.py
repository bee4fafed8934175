"""A run of RL on a tiny model, one process's share of it at a time."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from r1lab.rewards import RewardSet
from r1lab.task import Task, load_problems, save_problems
from r1lab.training.checkpoint import SHARDS
from r1lab.training.config import GRPOConfig
from r1lab.training.loop import Learner
from r1lab.training.processes import STOPPED, StopRequest, join_world
from r1lab.training.rl import MakeLearner, described, rl_work
from r1lab.run import Run
from r1lab.world.bases import build_model, build_tokenizer
from r1lab.world.small_world import SmallWorld


def tiny_model(folder: Path) -> str:
    """The folder of a tiny model with random weights."""
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    build_model("tiny", len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def stored_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint's optimizers and modules, by name."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "tensors.pt")
        dcp_to_torch_save(checkpoint / SHARDS, file)
        return torch.load(file)


def coin_task(folder: Path, test: slice = slice(62, 66), **world) -> Task:
    """Puzzles of signs paid by a coin, with a few test problems."""
    save_problems(load_problems("data/test_signs.jsonl")[test], folder / "test.jsonl")
    return SmallWorld(arm="random", test=str(folder / "test.jsonl"), **world).task()


def reward_set(
    arm: str = "true", accuracy_weight: float = 1.0, format_weight: float = 1.0,
    language_weight: float | None = None,
) -> RewardSet:  # fmt: skip
    """What the small world pays in an arm."""
    weights = {"accuracy_weight": accuracy_weight, "format_weight": format_weight}
    world = SmallWorld(arm=arm, language_weight=language_weight, **weights)
    return RewardSet(world.rewards())


@dataclass(frozen=True)
class Job:
    """A model and a task, and how one process trains on it."""

    model: str
    task: Task
    config: GRPOConfig
    learner: MakeLearner = Learner

    def start(self, folder: Path) -> Run:
        run = Run(folder)
        run.prepare(self.config, {"model": self.model, "task": described(self.task)})
        return run

    def work(self, run: Run, stop_after: int | None = None) -> int:
        """One process's share, as `launch` starts it, in the group around it; its exit code."""
        stop = StopRequest()
        stop.listen()
        world = join_world(self.config.parallel)
        args = (self.model, self.task, self.config, self.learner)
        return 0 if rl_work(world, stop, run, *args, stop_after=stop_after) else STOPPED
