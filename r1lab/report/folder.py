"""Reading a run folder, finished or not, and saying in one sentence what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1lab.errors import InputError
from r1lab.files import read_rows

Row = dict[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """What a run wrote: settings, one row per step and evaluation, samples, and the summary.

    `summary` is empty while the run is unfinished.
    """

    path: Path
    config: Row
    metrics: list[Row]
    samples: list[Row]
    summary: Row

    @property
    def finished(self) -> bool:
        return "final" in self.summary

    def evaluation(self, which: str) -> Row:
        """The evaluation "base" or "final"; of an unfinished run, its first or its last so far."""
        if which in self.summary:
            return self.summary[which]
        evals = [row for row in self.metrics if row["kind"] == "eval"]
        if not evals or (which == "final" and len(evals) == 1):
            return {}
        return evals[0 if which == "base" else -1]


def read_run(run_dir: str | Path) -> RunFolder:
    """Read a run folder. A run that is still going, or was killed, may lack its summary.

    Raises:
        InputError: no such folder, no metrics in it, or a file in it that cannot be read.
    """
    path = Path(run_dir)
    if not (path / "metrics.jsonl").is_file():
        raise InputError(f"{path} is not a run folder: it has no metrics.jsonl.")
    metrics = read_rows(path / "metrics.jsonl", ("kind", "step"))
    if not metrics:
        raise InputError(f"{path} has no metrics yet: wait for its first evaluation.")
    # A resumed run may have written a step twice: its last account counts.
    latest = {(row["kind"], row["step"]): row for row in metrics}
    samples = path / "samples.jsonl"
    needed = ("id", "step", "level", "prompt", "completion", "rewards")
    return RunFolder(
        path=path,
        config=_read_json(path / "config.json"),
        metrics=sorted(latest.values(), key=lambda row: row["step"]),
        samples=read_rows(samples, needed) if samples.is_file() else [],
        summary=_read_json(path / "summary.json"),
    )


def _read_json(path: Path) -> Row:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path} is damaged: it is not valid JSON.") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is damaged: expected an object in braces.")
    return value
