"""The stages of reinforcement learning: a world that asks and pays, and how the policy learns.

R1-Zero is such a stage with its defaults (`RLStage()`), and `Zero` a run of it on any model and task:
reinforcement learning on a base model and nothing else (v2 §2). The two others of R1 are REASONING,
which starts from Dev1 and gives Dev2, and SCENARIOS, which starts from Dev3 and gives R1.

A preset of `Zero` names a model, a task and how to learn. That of a GPU, and so of every Qwen model,
has not run on any GPU yet; the tests take two steps of each on a shipped model and local files.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from r1lab.errors import InputError
from r1lab.files import read_toml
from r1lab.rewards import shared_sandbox
from r1lab.run import Run, from_json
from r1lab.sources import load_task
from r1lab.task import Task
from r1lab.training.config import TABLES, GRPOConfig
from r1lab.training.rl import grpo
from r1lab.world.small_world import SmallWorld

Flat = tyro.conf.arg(name="")  # on the command line, options without a prefix


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
            print(f"RL asks for no programs: {cannot_run_programs()}")
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


SETTINGS = read_toml(__file__, "stages")
REASONING = from_json(RLStage(), SETTINGS["reasoning"])
SCENARIOS = from_json(REASONING, SETTINGS["scenarios"])


@dataclass(frozen=True)
class Zero:
    """A run of RL on one model.

    Attributes:
        model: a folder or Hub id.
        task: what is asked in place of the small world: my_task.py:task, gym:NAME,
            hub:NAME[:SPLIT], or a file of problems (.jsonl).
        test: held-out problems: a file, or of a task hub:NAME:SPLIT; the task's own if empty.
        template: a name of `sources.templates`, and after it arguments for the model's chat template,
            as 'chat {"enable_thinking": false}'; the task's own if empty.
        reward: paid besides, as my.py:function.
        world: what the small world asks and pays.
        rl: how the policy learns.
    """

    model: str = "data/base"
    task: str = ""
    test: str = ""
    template: str = ""
    reward: tuple[str, ...] = ()
    world: Annotated[SmallWorld, Flat] = SmallWorld()
    rl: Annotated[GRPOConfig, Flat] = field(default_factory=lambda: GRPOConfig.preset("cpu"))

    def open_task(self) -> Task:
        """What is asked. Raises InputError where there is no such task, or it cannot be read."""
        if self.task:
            return load_task(self.task, self.test, self.template, self.reward)
        test, template = self.test or self.world.test, self.template or self.world.template
        return load_task(replace(self.world, test=test, template=template).task(), rewards=self.reward)


def stored_zero(run: Run, given: str = "") -> Zero:
    """The model, task and settings that a run folder names; the task may be `given`, as `Zero` has it.

    Raises InputError where they are damaged, or the task was a notebook's and is not given.
    """
    config = run.config
    old = config | {"test": config.get("eval_file", SmallWorld.test)}  # of runs before tasks
    task = config.get("task", {"name": "small world", "settings": old})
    try:
        rl = GRPOConfig.of_run(config)
        if given:
            return Zero(config["model"], given, rl=rl)
        if task["name"] == "small world":
            return Zero(config["model"], world=from_json(SmallWorld(), task["settings"]), rl=rl)
        if not task["settings"]:
            raise InputError(
                f"only the notebook or script that made the task {task['name']!r} of {run.folder} knows "
                "it; give it again, as in r1lab.Run(folder, task) or r1lab doctor --task my_file.py:name."
            )
        return Zero(config["model"], **task["settings"], rl=rl)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{run.folder}/config.json: not the settings of a run ({error}).") from error


_presets: dict[str, Zero] = {}
for _name, _table in TABLES.items():
    _presets[_name] = from_json(_presets.get(_table.get("like"), Zero(rl=GRPOConfig())), _table)
PRESETS = {name: one for name, one in _presets.items() if "model" in TABLES[name]}
