"""The dashboard: curves of a run and the group it learns from, live or from the run's folder.

Training goes on in a thread and writes an ordinary run folder. The dashboard shows what that folder
holds, and nothing else, so that after a restart of the kernel `show_run` shows the same.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from ipywidgets import HTML, Button, GridBox, HBox, Image, IntSlider, VBox

from r1lab.errors import InputError
from r1lab.lab.display import html_table
from r1lab.lab.inspector import score_tokens, tokens_html
from r1lab.lab.widgets import DRAWING, one_sentence
from r1lab.models.policy import load_policy
from r1lab.report.figures import draw, png_bytes
from r1lab.run import Row, Run
from r1lab.sources.templates import apply_template
from r1lab.task import Task
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest
from r1lab.training.rl import described, rl_work

PERIOD = 0.2  # seconds from one drawing to the next, at least
CURVES = ("accuracy", "reward_parts", "length", "entropy", "drift")  # of report's figures


class RunView(VBox):
    """What a run's folder holds: curves, a group of answers, and the tokens of one of them.

    Args:
        run: the folder.
        models: folders of a policy and of its reference, which score the tokens of the answer.
    """

    def __init__(
        self, run: str | Path, models: Sequence[str | Path] = (), controls: Sequence[Button] = ()
    ) -> None:
        self.run, self.rollouts, self.words = Run(run), [], ""
        self.models = [load_policy(model) for model in models]
        self.status, self.table, self.text = HTML(), HTML(), HTML()
        self.pictures = {name: Image(format="png", width=355) for name in CURVES}
        self.rollout = _counter("rollout", "Whose groups to show; at the end, the newest")
        self.group = _counter("question", "Which of the groups stored of this rollout")
        self.answer = _counter("answer", "Whose tokens to show; the best is first")
        chosen = [self.rollout, self.group, self.answer][: 3 if models else 2]
        for slider in chosen:
            slider.observe(lambda _: self.show_group(), "value")
        pictures = GridBox(
            list(self.pictures.values()), layout={"grid_template_columns": "360px 360px"}
        )
        bar = HBox([*controls, self.status])
        super().__init__([bar, pictures, HBox(chosen), self.table, self.text])

    def say(self, text: str) -> None:
        self.status.value = f'<span role="status">{html.escape(text)}</span>'

    def refresh(self) -> None:
        """Read the folder again and draw it. Raises InputError where it holds no run."""
        rows, samples, config = self.run.measured, self.run.samples, self.run.config
        findings = []
        for name, picture in self.pictures.items():
            with DRAWING:
                figure = draw(name, rows, config)
                if figure is not None:
                    picture.value = png_bytes(figure)
                    findings.append(figure.axes[0].get_title(loc="left"))
        newest = self.rollout.value >= len(self.rollouts)
        self.rollouts = _groups(samples)
        self.words = f"Step {rows[-1]['step']}: {'. '.join(findings)}."
        self.say(self.words)
        if newest and self.rollouts:
            _choose(self.rollout, self.rollouts, last=True)
        self.show_group()

    def show_group(self) -> None:
        if not self.rollouts:
            self.table.value = "<p>No group of answers is stored yet.</p>"
            return
        groups = _choose(self.rollout, self.rollouts)
        group = _choose(self.group, groups)
        place = f"Rollout {self.rollout.value}, step {group[0]['step']}, question {self.group.value}"
        self.table.value = group_html(group, f"{place} of {len(groups)} stored")
        if self.models:
            self.text.value = self.tokens_of(_choose(self.answer, group))

    def tokens_of(self, row: Row) -> str:
        [(policy, tokenizer), (reference, _)] = self.models
        config = self.run.config
        template = config.get("task", {}).get("settings", config).get("template", "small")
        prompt = apply_template(template, row["prompt"], tokenizer)
        ended = row.get("finish") == "stop"
        return tokens_html(
            score_tokens(policy, reference, tokenizer, prompt, row["completion"], ended=ended)
        )


def _counter(name: str, tip: str) -> IntSlider:
    return IntSlider(1, min=1, max=2, description=name, tooltip=tip)


def _choose(slider: IntSlider, things: Sequence, last: bool = False):
    """The thing that the slider is at, after the slider fits how many there are."""
    slider.max = max(2, len(things))
    slider.value = len(things) if last else min(slider.value, len(things))
    return things[slider.value - 1]


class Dashboard(RunView):
    """A run in a thread of this kernel, with Start and Stop.

    Stop is obeyed at the end of the rollout in hand, which is saved. Start goes on from there, as
    `r1lab zero --resume` does.
    """

    def __init__(
        self, model: str | Path, task: Task, config: GRPOConfig, run: str | Path,
        overwrite: bool = False,
    ) -> None:  # fmt: skip
        config.check(1)
        folder = Run(run)
        about = {"model": str(model), "task": described(task)}
        folder.prepare(config, about, resume=True, overwrite=overwrite)
        self.work = partial(rl_work, run=folder, model=str(model), task=task, config=config)
        self.thread: threading.Thread | None = None
        self.start = Button(description="Start", tooltip="Train, from the last checkpoint on")
        self.stop = Button(description="Stop", tooltip="End after this rollout", disabled=True)
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.end())
        super().__init__(run, controls=(self.start, self.stop))
        self.say("Press Start.")
        self.draw()

    def begin(self) -> None:
        if self.thread is None or not self.thread.is_alive():
            self.start.disabled, self.stop.disabled = True, False
            self.say("Loading the model, and asking it the test problems ...")
            self.request, self.ended = StopRequest(), "The run broke off"
            self.thread = threading.Thread(target=self._follow, daemon=True)
            self.thread.start()

    def end(self) -> None:
        self.say("Stopping after this rollout ...")
        self.stop.disabled = True
        self.request.set()

    def draw(self) -> None:
        """Show the folder as it is; what is shown stays where it holds nothing new to read yet."""
        with suppress(InputError):  # no line yet, or one that is half written
            self.refresh()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the run has ended; False if it goes on after this number of seconds."""
        if self.thread is not None:
            self.thread.join(seconds)
        return self.thread is None or not self.thread.is_alive()

    def _follow(self) -> None:
        """Train in another thread, and draw meanwhile, for at most a fifth of the time."""
        trainer = threading.Thread(target=self._train, daemon=True)
        trainer.start()
        pause = PERIOD
        while trainer.is_alive():
            trainer.join(pause)
            began = time.monotonic()
            if not self.request.is_set():
                self.draw()
            pause = max(PERIOD, 4 * (time.monotonic() - began))
        self.draw()
        self.say(f"{self.ended}. {self.words}")
        self.start.disabled, self.stop.disabled = False, True

    def _train(self) -> None:
        try:
            done = self.work(World(), self.request)
            self.ended = "All rollouts are done" if done else "Stopped"
        except InputError as error:
            self.ended = str(error).rstrip(".")
        except Exception as error:  # a thread has nobody else who hears of it
            self.ended = f"The run broke off: {type(error).__name__}: {error}"
            raise


def train_live(
    model: str | Path, task: Task, config: GRPOConfig, run: str | Path, overwrite: bool = False
) -> Dashboard | None:
    """A dashboard that trains a model on a task in the folder `run`, or goes on with the run there.

    Args:
        overwrite: delete what the folder holds.
    """
    with one_sentence():
        return Dashboard(model, task, config, run, overwrite)


def show_run(
    run: str | Path, policy: str | Path | None = None, reference: str | Path | None = None
) -> RunView | None:
    """The dashboard of a run from its folder, finished or not, with a button to read it again.

    Args:
        policy, reference: folders of models, as data/zero and data/base; with them, the tokens of
            an answer are shown, too, coloured by how much more likely training made them.
    """
    with one_sentence():
        again = Button(description="Refresh", tooltip="Read the folder again")
        models = [model for model in (policy, reference) if model is not None]
        view = RunView(run, models, (again,))
        view.refresh()

        def reread(_button: Button) -> None:
            try:
                view.refresh()
            except InputError as error:
                view.say(str(error))

        again.on_click(reread)
        return view


def _groups(samples: list[Row]) -> list[list[list[Row]]]:
    """Each rollout's groups as far as stored, those that differ in reward first, best answers first."""
    trained = [row for row in samples if row.get("advantage") is not None]
    rollouts = []
    for _, rows in groupby(trained, key=itemgetter("step")):
        groups = [
            sorted(group, key=lambda row: -row["advantage"])
            for _, group in groupby(rows, key=itemgetter("id"))
        ]
        groups.sort(key=lambda group: not any(row["advantage"] for row in group))
        rollouts.append(groups)
    return rollouts


def group_html(group: Sequence[Row], place: str) -> str:
    """A table of one group's answers with what each was paid."""
    parts = list(group[0]["rewards"])
    rows = []
    for row in group:
        paid = [row["rewards"].get(part) for part in parts]
        scores = ["–" if value is None else f"{value:g}" for value in paid]
        cut = " […]" if row.get("finish") == "length" else ""
        rows.append([f"{row['advantage']:+.2f}", *scores, row["completion"] + cut])
    return (
        '<div style="background:white;color:#222;padding:8px;max-width:720px;max-height:24em;'
        f'overflow:auto;white-space:pre-wrap" tabindex="0"><p>{html.escape(place)}: '
        f"<b>{html.escape(group[0]['prompt'])}</b>. Advantage in stds of the group; […]: cut off at "
        f"the cap.</p>{html_table(['advantage', *parts, 'answer'], rows)}</div>"
    )
