"""`r1lab doctor`: what this machine lacks, or what is wrong with a model or a run."""

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from r1lab.doctor import course, steps
from r1lab.doctor.trial import examine, trial_config
from r1lab.errors import InputError
from r1lab.files import PACKAGE, SHIPPED, read_rows
from r1lab.models.policy import load_policy
from r1lab.run import Run, machine
from r1lab.stages.rl_stages import PRESETS, Zero, stored_zero
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.processes import default_processes


ILL = 1  # the exit code of an illness that was found
SUPPORTED = ("3.11", "3.12")  # of Python
MARKS = {True: "ok", False: "fix", None: "note"}
DISK_GB = 2.0  # a run's checkpoints, samples and figures, with room to spare


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
        table = Table("what", "", "found", "to do")
        for check in checks:
            table.add_row(check.name, MARKS[check.ok], check.found, check.advice)
        console.print(table)
        return ILL if any(check.ok is False for check in checks) else 0
    own = {"task": task, "test": test, "template": template, "reward": reward}
    report = diagnose(target, preset, **{name: given for name, given in own.items() if given})
    found = [one for one in report if one.evidence]
    for number, ill in enumerate(found, 1):
        console.print(Text(f"{number}. {ill.name}: {ill.evidence}", style="bold"))
        console.print(Padding(Text(f"{ill.cause}\nTo do: {ill.fix}"), (0, 0, 0, 3)))
    if len(found) > 1:
        console.print("Fix the first one first: it may be the reason for others.")
    names = "; ".join(one.name for one in report)
    console.print(Text(f"Looked for {len(report)} illnesses: {names}.", style="dim"))
    console.print(f"{len(found) or 'Nothing'} found.")
    return ILL if found else 0


@dataclass(frozen=True)
class Diagnosis:
    """What was looked for, why it happens, what to do; and the numbers that say so, "" if none do."""

    name: str
    cause: str
    fix: str
    evidence: str


def judge(rules: list[Callable], measured: object) -> list[Diagnosis]:
    """Ask each rule. Its name, and the paragraphs of its docstring, are the diagnosis' text."""
    report = []
    for rule in rules:
        name = rule.__name__.replace("_", " ")
        cause, fix = (" ".join(text.split()) for text in rule.__doc__.split("\n\n"))
        report.append(Diagnosis(name, cause, fix, rule(measured) or ""))
    return report


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
        if preset not in PRESETS:
            raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}.")
        return try_two_steps(replace(PRESETS[preset], model=str(target), **changes))
    followed = judge(course.RULES, course.measure(read_rows(metrics, ("kind", "step"))))
    run, stored = Run(target), stored_zero(Run(target))
    newest = [stored.model, *run.checkpoints][-1]
    tried = try_two_steps(replace(stored, model=str(newest), **changes))
    return followed[: -course.VERDICTS] + tried + followed[-course.VERDICTS :]


def try_two_steps(run: Zero) -> list[Diagnosis]:
    """Train two small steps with these settings, in this process, and judge them."""
    learner = Learner(trial_config(run.rl), run.open_task(), *load_policy(run.model), World())
    try:
        return judge(steps.RULES, examine(learner))
    except InputError:
        raise
    except Exception as error:  # whatever an ill run raises is what is wrong with it
        fix = "Fix what the message names; if it speaks of grad, look for detached log-probs."
        cause = "The run stops with an exception before two steps are done."
        return [Diagnosis("a step fails", cause, fix, f"{type(error).__name__}: {error}")]


@dataclass(frozen=True)
class Check:
    """One line of the report. `ok`: True good, False to be fixed, None worth knowing."""

    name: str
    ok: bool | None
    found: str
    advice: str


def environment_report() -> list[Check]:
    """Say what this machine has, in the order in which it matters; nothing is changed."""
    here, stored, python = machine(), Run(SHIPPED / "runs/zero"), "%d.%d" % sys.version_info[:2]
    summary = stored.summary if stored.finished else {}
    total, cores, processes = here["memory_gb"], here["cores"], default_processes()
    free, disk = free_memory_gb(total), shutil.disk_usage(Path.cwd()).free / 2**30
    needed, minutes = summary.get("peak_memory_gb", 0.0), summary.get("wall_seconds", 0.0) / 60
    same, others = packages()
    lines = [
        ("Python", python in SUPPORTED, here["versions"]["python"],
         f"make the environment with Python {' or '.join(SUPPORTED)}"),
        ("packages", True if same and not others else None, f"{same} as tested{''.join(others[:4])}",
         "pip install -c constraints.txt -e . gets those"),
        ("cores", cores > 1 or None, f"{cores} ({here['cpu']}): a run starts {processes} processes of "
         f"{max(1, cores // processes)} thread(s)", "a run takes twice as long as on two"),
        ("memory", free >= needed, f"{free:.1f} GB free of {total:.1f}",
         f"a run needs {needed:.1f} GB: close programs, or give it fewer --questions"),
        ("disk", disk >= DISK_GB, f"{disk:.1f} GB free", f"free {DISK_GB:.0f} GB for checkpoints"),
        ("GPU", bool(here["gpu"]) or None, here["gpu"] or "none",
         "not needed here; --preset paper and those of Qwen2.5 on GPUs do not run without"),
        ("base model", (SHIPPED / "base/model.safetensors").is_file(), "data/base",
         "missing: r1lab pretrain makes it"),
        ("runs here", True, "every lesson and every cpu preset; the stored run took "
         f"{minutes:.0f} minutes", ""),
    ]  # fmt: skip
    return [Check(name, ok, found, "" if ok else advice) for name, ok, found, advice in lines]


def packages() -> tuple[int, list[str]]:
    """Count the installed versions that are the tested ones, and list the others."""
    pins = PACKAGE.parent / "constraints.txt"  # a wheel has none
    text = pins.read_text(encoding="utf-8") if pins.is_file() else ""
    same, others = 0, []
    for name, tested in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        try:
            installed = version(name).split("+")[0]
        except PackageNotFoundError:  # no matter here: r1lab would not have been imported
            continue
        same += installed == tested
        if installed != tested:
            others.append(f", {name} {installed} (tested: {tested})")
    return same, others


def free_memory_gb(total: float) -> float:
    """Return what is free without swapping; the total where the system does not say."""
    info = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+)", info.read_text()) if info.is_file() else None
    return int(found[1]) / 2**20 if found else total
