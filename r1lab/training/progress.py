"""The progress that a person sees."""

import sys
import threading
import time

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.progress import TimeRemainingColumn


class Progress:
    """A bar with elapsed and remaining time; a line now and then when nobody watches a terminal.

    Nothing is shown of a run in another than the main thread: it has a dashboard.
    """

    def __init__(self, total: int, label: str, done: int = 0, enabled: bool = True):
        enabled = enabled and threading.current_thread() is threading.main_thread()
        self.total, self.label, self.enabled = total, label, enabled
        self.started, self.first = time.monotonic(), done
        self.last_line = self.started
        self.bar = None
        if enabled and sys.stderr.isatty():
            self.bar = RichProgress(
                TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )  # fmt: skip
            self.task = self.bar.add_task(label, total=total, completed=done, note="")

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *exc) -> None:
        if self.bar:
            self.bar.stop()

    def update(self, done: int, **notes: str) -> None:
        """Show how far it is, with a few current numbers."""
        note = " ".join(f"{key} {value}" for key, value in notes.items())
        if self.bar:
            self.bar.update(self.task, completed=done, note=note)
        elif self.enabled and (done == self.total or time.monotonic() - self.last_line > 20):
            self.last_line = time.monotonic()
            elapsed = self.last_line - self.started
            left = elapsed / max(1, done - self.first) * (self.total - done)
            print(
                f"{self.label} {done}/{self.total}  {elapsed:.0f} s, {left:.0f} s left  {note}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
