"""Stage 1 of the paper: R1-Zero, reinforcement learning on a base model and nothing else (v2 §2).

A preset names a model, a task and how to learn. That of a GPU, and so of every Qwen model, has not
run on any GPU yet; the tests take two steps of each on a shipped model and local files.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from r1lab.errors import InputError
from r1lab.sources import load_task
from r1lab.task import Task
from r1lab.training.config import TABLES, GRPOConfig
from r1lab.run import Run, from_json
from r1lab.world.small_world import SmallWorld


Flat = tyro.conf.arg(name="")  # on the command line, options without a prefix


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


def stored_zero(run: Run) -> Zero:
    """The model, task and settings that a run folder names.

    Raises InputError where they are damaged, or the task was a notebook's and cannot be opened.
    """
    config = run.config
    old = config | {"test": config.get("eval_file", SmallWorld.test)}  # of runs before tasks
    task = config.get("task", {"name": "small world", "settings": old})
    try:
        rl = GRPOConfig.of_run(config)
        if task["name"] == "small world":
            return Zero(config["model"], world=from_json(SmallWorld(), task["settings"]), rl=rl)
        if not task["settings"]:
            raise InputError(
                f"only the notebook or script that made the task {task['name']!r} of {run.folder} knows "
                "it; give it again, as in r1lab.Run(folder, task)."
            )
        return Zero(config["model"], **task["settings"], rl=rl)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{run.folder}/config.json: not the settings of a run ({error}).") from error


_presets: dict[str, Zero] = {}
for _name, _table in TABLES.items():
    _presets[_name] = from_json(_presets.get(_table.get("like"), Zero(rl=GRPOConfig())), _table)
PRESETS = {name: one for name, one in _presets.items() if "model" in TABLES[name]}
