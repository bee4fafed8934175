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
from r1lab.training.config import CACHES, MACHINES, GRPOConfig
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
        rl = from_json(GRPOConfig(), config)
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


# R1-Zero on a data set of the Hub: what is trained on, and what is tested on.
HUB = {
    "countdown": ("countdown34:train[:16384]", "countdown34:train[-512:]"),
    "gsm8k": ("gsm8k:train", "gsm8k:test"),
    "math": ("math:train", "math500:test"),
}


def recipe(preset: str, size: str, data: str) -> Zero:
    """R1-Zero of Qwen2.5 on a data set of the Hub."""
    train, test = (f"hub:{source}" for source in HUB[data])
    rl = GRPOConfig.preset(preset)
    return Zero(f"Qwen/Qwen2.5-{size}", task=train, test=test, template="r1_zero", rl=rl)


PRESETS: dict[str, Zero] = {
    "cpu": Zero(),
    "paper": Zero(
        model="deepseek-ai/DeepSeek-V3-Base",
        world=SmallWorld(template="r1_zero", format_weight=1.0),  # "equal weight"
        rl=GRPOConfig.preset("paper"),
    ),
    # A real language model on two cores: sums in plain English, of which before training it gets 36 %
    # (two one-digit terms), 4 and 8 % right (data/runs/smollm2). It is an instruct model: not
    # R1-Zero. Without an example it never writes the tags, and no reward comes.
    "smollm2": Zero(
        model="smollm2",
        world=SmallWorld(
            mixture={"gym_sums/1": 2.0, "gym_sums/2": 1.0, "gym_sums/3": 1.0},
            lang_weights={"en": 1.0},
            template="chat_example",
            test="data/test_gym_sums.jsonl",
        ),
        rl=GRPOConfig.preset("smollm2"),
    ),
} | {f"{data}-{size}": recipe(data, size.upper(), data) for data in HUB for size in ("0.5b", "1.5b")}
for model in CACHES:
    for name in (f"{model}-{machine}" for machine in MACHINES):
        PRESETS[name] = recipe(name, model.removeprefix("qwen2.5-").upper(), "countdown")
