"""What every stage of reinforcement learning is: a world that asks and pays, and how to learn."""

from dataclasses import dataclass, replace
from pathlib import Path

from r1lab.task import Task
from r1lab.training.config import GRPOConfig
from r1lab.training.rl import grpo
from r1lab.run import Run
from r1lab.world.small_world import SmallWorld


@dataclass(frozen=True)
class RLStage:
    """`world` is what is asked and paid, `rl` how the policy learns."""

    world: SmallWorld = SmallWorld()
    rl: GRPOConfig = GRPOConfig.preset("cpu")

    def run(self, model: str | Path, name: str, runs: Path, task: Task | None = None) -> Run:
        """Train the model in `runs/name`, or go on there.

        Args:
            task: asked in place of the small world.
        """
        return grpo(model, task or self.world.task(), self.rl, name, runs=runs)

    def with_world(self, **changes) -> "RLStage":
        return replace(self, world=replace(self.world, **changes))

    def with_rl(self, **changes) -> "RLStage":
        return replace(self, rl=replace(self.rl, **changes))
