"""From a model or a run folder to a list of diagnoses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from r1lab.doctor import course, steps
from r1lab.doctor.history import Course, measure
from r1lab.doctor.trial import Findings, examine, trial_config
from r1lab.errors import InputError
from r1lab.files import read_rows
from r1lab.models.policy import load_policy
from r1lab.stages.zero import PRESETS, Zero, stored_zero
from r1lab.task import Task
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.run import Run


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, why, what to do, and the numbers that say so."""

    name: str
    cause: str
    fix: str
    evidence: str


@dataclass(frozen=True)
class Report:
    """What was looked for, and what of it was found; the first may be the reason for the rest."""

    looked_for: list[str]
    found: list[Diagnosis]


def judge(rules: list[Callable], measured: Findings | Course) -> Report:
    """Ask each rule. Its name, and the paragraphs of its docstring, are the diagnosis' text."""
    found = []
    for rule in rules:
        if evidence := rule(measured):
            cause, fix = (" ".join(text.split()) for text in rule.__doc__.split("\n\n"))
            found.append(Diagnosis(_name(rule), cause, fix, evidence))
    return Report([_name(rule) for rule in rules], found)


def _name(rule: Callable) -> str:
    return rule.__name__.replace("_", " ")


def diagnose(target: str | Path, preset: str = "cpu") -> Report:
    """Say what is wrong with a run (its folder), or would be in one that starts from a model.

    A run is read from its metrics, then two steps are tried from its newest checkpoint, or from
    its base where it has none; nothing is written.

    Args:
        target: a run folder, or a model's folder or Hub id.
        preset: the settings to try a model with; a run has its own.

    Raises:
        InputError: there is no such preset, model or run, or its settings cannot train.
    """
    run = Path(target)
    if not (run / "metrics.jsonl").is_file():
        if preset not in PRESETS:
            raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}.")
        return try_two_steps(replace(PRESETS[preset], model=str(target)))
    rows = read_rows(run / "metrics.jsonl", ("kind", "step"))
    stored, followed = stored_zero(Run(run)), judge(course.RULES, measure(rows))
    newest = [stored.model, *Run(run).checkpoints][-1]
    tried = try_two_steps(replace(stored, model=str(newest)))
    return Report(followed.looked_for + tried.looked_for, followed.found + tried.found)


def try_two_steps(run: Zero, task: Task | None = None) -> Report:
    """Train two small steps with these settings, in this process, and judge them.

    Args:
        task: asked in place of the one that the settings name.
    """
    config = trial_config(run.rl)
    learner = Learner(config, task or run.open_task(), *load_policy(run.model), World())
    try:
        measured = examine(learner)
    except InputError:
        raise
    except Exception as error:  # whatever an ill run raises is what is wrong with it
        fix = "Fix what the message names; if it speaks of grad, look for detached log-probs."
        cause = "The run stops with an exception before two steps are done."
        ill = Diagnosis("a step fails", cause, fix, f"{type(error).__name__}: {error}")
        return Report([ill.name], [ill])
    return judge(steps.RULES, measured)
