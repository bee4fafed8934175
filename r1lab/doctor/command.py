"""`r1lab doctor`: the environment, or what is wrong with a model or a run."""

from typing import Annotated

import tyro
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from r1lab.doctor.diagnose import diagnose
from r1lab.doctor.environment import environment_report

ILL = 1  # the exit code of an illness that was found
MARKS = {True: "ok", False: "fix", None: "note"}


def doctor(target: Annotated[str | None, tyro.conf.Positional] = None, preset: str = "cpu") -> int:
    """Say what is wrong, why, and what to do. Exit code 0: nothing; 1: something was found.

    Args:
        target: a run's folder, or a model (folder or Hub id); without it, this machine.
        preset: the settings that a model is tried with, in two real steps.
    """
    console = Console(highlight=False)
    if target is None:
        checks = environment_report()
        table = Table("what", "", "found", "to do")
        for check in checks:
            table.add_row(check.name, MARKS[check.ok], check.found, check.advice)
        console.print(table)
        return ILL if any(check.ok is False for check in checks) else 0
    report = diagnose(target, preset)
    for number, ill in enumerate(report.found, 1):
        console.print(Text(f"{number}. {ill.name}: {ill.evidence}", style="bold"))
        console.print(Padding(Text(f"{ill.cause}\nTo do: {ill.fix}"), (0, 0, 0, 3)))
    if len(report.found) > 1:
        console.print("Fix the first one first: it may be the reason for others.")
    looked_for = f"Looked for {len(report.looked_for)} illnesses: {'; '.join(report.looked_for)}."
    console.print(Text(looked_for, style="dim"))
    console.print("Nothing found." if not report.found else f"{len(report.found)} found.")
    return ILL if report.found else 0
