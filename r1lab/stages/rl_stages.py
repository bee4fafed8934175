"""The stages of reinforcement learning: a world that asks and pays, and how the policy learns.

R1-Zero is such a stage with its defaults (`RLStage()`); the two others of R1 are REASONING, which
starts from Dev1 and gives Dev2, and SCENARIOS, which starts from Dev3 and gives R1.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from r1lab.errors import InputError
from r1lab.files import read_toml
from r1lab.rewards import shared_sandbox
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
        task = task or self.possible(Run(runs / name)).world.task()
        return grpo(model, task, self.rl, name, runs=runs)

    def possible(self, run: Run) -> "RLStage":
        """The stage without programs where none can be run safely, unless the run started with them."""
        if run.started and "programs/" in str(run.config):
            return self
        names = ("mixture", "late_mixture")
        stage = self.with_world(**{name: runnable(getattr(self.world, name)) for name in names})
        if stage != self:
            Console().print(Text(f"RL asks for no programs: {cannot_run_programs()}"))
        return stage

    def with_world(self, **changes) -> "RLStage":
        return replace(self, world=replace(self.world, **changes))

    def with_rl(self, **changes) -> "RLStage":
        return replace(self, rl=replace(self.rl, **changes))


def cannot_run_programs() -> str | None:
    """Say why no program can be run safely on this system; None where they can."""
    try:
        shared_sandbox()
    except InputError as error:
        return str(error)
    return None


def runnable(mixture: dict[str, float]) -> dict[str, float]:
    """The mixture, without programs where none can be run safely."""
    others = {kind: share for kind, share in mixture.items() if not kind.startswith("programs/")}
    return others if others != mixture and cannot_run_programs() else mixture


MIXTURES = read_toml(__file__, "mixtures")
# Stage 2, reinforcement learning for reasoning in one language (v2 section 3.2.1). The share of the
# thinking's words that are of the question's language is added directly to accuracy and format (eq. 7).
REASONING = RLStage(
    SmallWorld(mixture=MIXTURES["reasoning"], language_weight=1.0),
    # Half the rollouts of R1-Zero: Dev1 starts where habits are already there.
    GRPOConfig.preset("cpu", rollouts=22, caps=((0, 448),), eval_every=11, final_samples=4),
)

# Stage 4, reinforcement learning for all scenarios (v2 section 3.2.2): reasoning keeps its rewards.
# Chat, unsafe requests and the reward models that judge them come in for the last quarter only, as
# the paper's 400 of 1,700 steps: longer exposure hacks the reward models.
SCENARIOS = REASONING.with_world(
    late_mixture={"chat/1": 14.0, "unsafe/1": 4.0},  # half of the questions asked then
    late_from=15,
).with_rl(
    rollouts=20,
    eval_every=10,
    temperature=0.7,  # the paper's: higher gave incoherent text in this stage
)
