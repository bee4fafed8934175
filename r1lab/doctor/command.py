"""`r1lab doctor`: what this machine lacks, or what is wrong with a model or a run."""

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, NamedTuple

import psutil
import tyro
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from r1lab.doctor import course, steps
from r1lab.doctor.trial import trial_config
from r1lab.errors import InputError, require_known
from r1lab.evaluation.table import Table
from r1lab.files import SHIPPED, read_rows, read_toml
from r1lab.models.policy import Policy, load_start
from r1lab.machine import machine
from r1lab.run import Run
from r1lab.stages.rl_stages import PRESETS, Zero, stored_zero
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.processes import default_processes


ILL = 1  # the exit code of an illness that was found
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")  # of Python
MARKS = {True: "ok", False: "fix", None: "note"}
DISK_GB = 2.0  # a run's checkpoints, samples and figures, with room to spare
FINDINGS = read_toml(__file__, "findings")  # by illness: its cause, what to do, and the numbers that show it


def doctor(
    target: Annotated[str | None, tyro.conf.Positional] = None, preset: str = "cpu", task: str = "",
    test: str = "", template: str = "", reward: tuple[str, ...] = (),
) -> int:  # fmt: skip
    """Say what is wrong, why, and what to do. Exit code 0: nothing; 1: something was found.

    Args:
        target: a run's folder, or a model (folder or Hub id); without it, this machine.
        preset: the settings that a model is tried with, in two real steps.
        task: a task of your own in place of the preset's or the run's: my_task.py:task, gym:NAME,
            hub:NAME[:SPLIT], or a file of problems (.jsonl).
        test, template, reward: as in `r1lab zero`.
    """
    console = Console(highlight=False)
    if target is None:
        checks = environment_report()
        rows = [(check.name, MARKS[check.ok], check.measured, check.advice) for check in checks]
        console.print(Table(("what", "", "found", "to do"), rows))
        return ILL if any(check.ok is False for check in checks) else 0
    options = {"task": task, "test": test, "template": template, "reward": reward}
    illnesses = diagnose(target, preset, **{name: given for name, given in options.items() if given})
    for number, ill in enumerate(illnesses, 1):
        console.print(Text(f"{number}. {ill.name}: {ill.evidence}", style="bold"))
        console.print(Padding(Text(f"{ill.cause}\nTo do: {ill.fix}"), (0, 0, 0, 3)))
    if len(illnesses) > 1:
        console.print("Fix the first one first: it may be the reason for others.")
    console.print(f"{len(illnesses) or 'Nothing'} found, of {len(FINDINGS)} known illnesses.")
    return ILL if illnesses else 0


class Diagnosis(NamedTuple):
    """What was found, why it happens, what to do; and the numbers that say so."""

    name: str
    cause: str
    fix: str
    evidence: str


def judge(rules: dict[str, Callable], facts: SimpleNamespace) -> list[Diagnosis]:
    """Ask each rule about the facts, which fill the gaps in the evidence of those that hold."""
    diagnoses = []
    for name, holds in rules.items():
        if holds(facts):
            text = FINDINGS[name]
            evidence = text["evidence"].format_map(vars(facts))
            diagnoses.append(Diagnosis(name, text["cause"], text["fix"], evidence))
    return diagnoses


def diagnose(target: str | Path, preset: str = "cpu", **changes) -> list[Diagnosis]:
    """Say what is wrong with a run (its folder), or would be in one that starts from a model.

    A run is read from its metrics, then two steps are tried from its newest checkpoint, or from
    its base where it has none; nothing is written. The first illness that is found may be the reason
    for the rest.

    Args:
        target: a run folder, or a model's folder or Hub id.
        preset: the settings to try a model with; a run has its own.
        changes: of what `Zero` holds: another task, test, template or reward.

    Raises:
        InputError: there is no such preset, model or run, or its settings cannot train.
    """
    metrics = Path(target) / "metrics.jsonl"
    if not metrics.is_file():
        require_known(preset, PRESETS, "preset")
        return try_two_steps(replace(PRESETS[preset], model=str(target), **changes))
    run = Run(target)
    followed = course.measure(read_rows(metrics, ("kind", "step")))
    tried = try_two_steps(replace(stored_zero(run, changes.get("task", "")), **changes), next(reversed(run.checkpoints), None))
    return judge(course.CAUSES, followed) + tried + judge(course.EFFECTS, followed)


def try_two_steps(run: Zero, checkpoint: Path | None = None) -> list[Diagnosis]:
    """Train two small steps with these settings, in this process, and judge them.

    Args:
        checkpoint: of the run, to start from in place of its model.
    """
    model, tokenizer = load_start(run.model, run.rl.lora, run.rl.seed, checkpoint)
    learner = Learner(trial_config(run.rl), run.open_task(), Policy(model), tokenizer, World())
    try:
        return judge(steps.RULES, steps.examine(learner, run.rl))
    except InputError:
        raise
    except Exception as error:  # whatever an ill run raises is what is wrong with it
        return judge({"a step fails": lambda _: True}, SimpleNamespace(error=error))


class Check(NamedTuple):
    """One line of the report. `ok`: True good, False to be fixed, None worth knowing."""

    name: str
    ok: bool | None
    measured: str
    advice: str


def environment_report() -> list[Check]:
    """Say what this machine has, in the order in which it matters; nothing is changed."""
    here = machine()
    python = "%d.%d" % sys.version_info[:2]
    stored = Run(SHIPPED / "runs/zero").summary
    total = here["memory_gb"]
    cores = here["cores"]
    processes = default_processes()
    free = min(total, psutil.virtual_memory().available / 2**30)  # a container may have less
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    needed = stored["peak_memory_gb"]
    minutes = stored["wall_seconds"] / 60
    lines = [
        ("Python", python in SUPPORTED, here["versions"]["python"],
         f"make the environment with Python {SUPPORTED[0]} to {SUPPORTED[-1]}"),
        ("cores", cores > 1 or None, f"{cores} of {os.cpu_count()} ({here['cpu']}): a run starts {processes} processes of "
         f"{max(1, cores // processes)} thread(s)", "a run takes twice as long as on two"),
        ("memory", free >= needed, f"{free:.1f} GB free of {total:.1f}",
         f"a run needs {needed:.1f} GB: close programs, or give it fewer --questions"),
        ("disk", disk >= DISK_GB, f"{disk:.1f} GB free", f"free {DISK_GB:.0f} GB for checkpoints"),
        ("GPU", bool(here["gpu"]) or None, here["gpu"] or "none",
         "not needed here; --preset paper and those of Qwen2.5 on GPUs do not run without"),
        ("runs here", True, "every lesson and every cpu preset; the stored run took "
         f"{minutes:.0f} minutes", ""),
    ]  # fmt: skip
    return [Check(name, ok, measured, "" if ok else advice) for name, ok, measured, advice in lines]
