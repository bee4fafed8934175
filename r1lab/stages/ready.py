"""What must hold before a chain starts or goes on, checked before anything is computed."""

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from r1lab.errors import InputError
from r1lab.stages.benchmarks import cannot_run_programs
from r1lab.stages.from_samples import model_folder
from r1lab.stages.pipeline import STAGES, Chain, R1Config
from r1lab.stages.preferences import finished
from r1lab.task import Task
from r1lab.training.processes import default_processes

# What is wanted of a chain -> the stage that must be finished before.
BEFORE = dict(zip(STAGES[1:], STAGES[:-1], strict=True)) | dict.fromkeys(
    ("the control arms", "hacking"), "dev3"
)
# The settings of RL -> the stage that they are of.
RL = {"zero": "zero", "reasoning": "dev2", "scenarios": "r1", "student_rl": "student_rl"}


def open_chain(
    config: R1Config, name: str, wanted: str = STAGES[0], runs: Path = Path("runs"),
    task: Task | None = None,
) -> Chain:  # fmt: skip
    """The chain `runs/name`, ready for `wanted`; without programs where none can be run.

    Args:
        wanted: the stage to start with, or another key of BEFORE.
    Raises:
        InputError: the stage before is not finished, other settings than the chain's would
            overwrite its reward models, or a stage cannot train with these settings.
    """
    chain = Chain(config, name, runs, task)
    if wanted in BEFORE:
        _check_finished(chain, BEFORE[wanted], wanted)
    _check_reward_models(chain)
    for stage in (getattr(config, field) for field in RL):
        stage.rl.check(config.processes or default_processes(stage.rl.questions))
    why = "" if task else cannot_run_programs()
    if not why:
        return chain
    Console().print(Text(f"RL asks for no programs: {why}"))
    return replace(chain, config=without_programs(config, chain.folder))


def without_programs(config: R1Config, folder: Path) -> R1Config:
    """RL that asks for no programs, but where a stage of the folder had them: that one is as it was.

    The fine-tuned stages leave them out themselves, and store why."""
    for field, stage in RL.items():
        stored = folder / stage / "config.json"
        if not (stored.exists() and '"programs/' in stored.read_text(encoding="utf-8")):
            asked = getattr(config, field)
            kept = {
                name: without(getattr(asked.world, name)) for name in ("mixture", "late_mixture")
            }
            config = replace(config, **{field: asked.with_world(**kept)})
    return config


def without(mixture: dict[str, float]) -> dict[str, float]:
    """The mixture without programs."""
    return {kind: weight for kind, weight in mixture.items() if not kind.startswith("programs/")}


def _check_finished(chain: Chain, before: str, wanted: str) -> None:
    run = chain.folder / before
    if not (run / "summary.json").exists():
        state = "stopped on the way" if (run / "config.json").exists() else "was not started"
        raise InputError(
            f"before {wanted} comes {before}, which in {chain.folder} {state}; finish it with "
            f"r1lab r1 --name {chain.name} --to {before}, and the options that the chain was given."
        )
    model_folder(str(run), wanted)


def _check_reward_models(chain: Chain) -> None:
    """Refuse other settings than those of the chain's reward models before any work, not after."""
    config = chain.config
    asked = replace(config.preferences, seed=config.seed, backbone=config.base)
    for summary in chain.folder.glob("reward_models/*/summary.json"):
        writers = json.loads(summary.read_text(encoding="utf-8"))["config"]["writers"]
        finished(replace(asked, writers=tuple(writers)), summary.parent)
