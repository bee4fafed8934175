"""The dashboard: curves of a run and the group it learns from, live or from the run's folder.

Training goes on in a thread and writes an ordinary run folder; the dashboard shows what stands
there, and nothing else. After a restart of the kernel `show_run` shows the same.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from ipywidgets import HTML, Button, HBox, Image, IntSlider, VBox
from matplotlib.figure import Figure
from torch import nn

from r1lab.errors import InputError
from r1lab.lab.display import html_table
from r1lab.lab.inspector import score_tokens, tokens_html
from r1lab.lab.widgets import DRAWING, one_sentence
from r1lab.models.policy import load_policy
from r1lab.report.chart import png_bytes, styled
from r1lab.report.figures import points, smooth
from r1lab.report.folder import Row, RunFolder, read_run
from r1lab.sources.templates import apply_template
from r1lab.task import Task
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.processes import StopRequest
from r1lab.training.recorder import Recorder
from r1lab.training.rl import default_learner, described, open_learner
from r1lab.training.run import Run
from r1lab.training.progress import Progress

PERIOD = 0.2  # seconds from one drawing to the next, at least
CURVES = {  # key in the metrics: title and unit
    "reward": ("Reward", "mean per answer"),
    "tokens_mean": ("Length", "tokens per answer"),
    "entropy": ("Entropy", "nats per token"),
    "kl": ("KL to the reference", "nats per token"),
}


class RunView(VBox):
    """What a run's folder holds: curves, a group of answers, and the tokens of one of them.

    Args:
        run: the folder.
        models: folders of a policy and of its reference, which score the tokens of the answer.
    """

    def __init__(
        self, run: str | Path, models: Sequence[str | Path] = (), controls: Sequence[Button] = ()
    ) -> None:
        self.run, self.found = Path(run), None
        self.models = [load_policy(model) for model in models]
        self.status, self.table, self.text = HTML(), HTML(), HTML()
        self.picture = Image(format="png", width=720)
        self.rollout = _counter("rollout", "Whose groups to show; at the end, the newest")
        self.group = _counter("question", "Which of the groups stored of this rollout")
        self.answer = _counter("answer", "Whose tokens to show; the best is first")
        chosen = [self.rollout, self.group, self.answer][: 3 if models else 2]
        for slider in chosen:
            slider.observe(lambda _: self.show_group(), "value")
        bar = HBox([*controls, self.status])
        super().__init__([bar, self.picture, HBox(chosen), self.table, self.text])

    def say(self, text: str) -> None:
        self.status.value = f'<span role="status">{html.escape(text)}</span>'

    def refresh(self) -> None:
        """Read the folder again and draw it. Raises InputError where it holds no run."""
        found = read_run(self.run)
        with DRAWING:
            figure = dashboard_figure(found.metrics)
            png = png_bytes(figure)
        newest = self.found is None or self.rollout.value == len(_groups(self.found))
        self.found, self.picture.value = found, png
        self.say(figure.get_label())
        count = len(_groups(found))
        self.rollout.max = max(2, count)
        if newest and count:
            self.rollout.value = count
        self.show_group()

    def show_group(self) -> None:
        rollouts = _groups(self.found) if self.found else []
        if not rollouts:
            self.table.value = "<p>No group of answers is stored yet.</p>"
            return
        number = min(self.rollout.value, len(rollouts))
        groups = rollouts[number - 1]
        self.group.max = max(2, len(groups))
        which = min(self.group.value, len(groups))
        group = groups[which - 1]
        place = f"Rollout {number}, step {group[0]['step']}, question {which} of {len(groups)} stored"
        self.table.value = group_html(group, place)
        if self.models:
            self.answer.max = max(2, len(group))
            self.text.value = self.tokens_of(group[min(self.answer.value, len(group)) - 1])

    def tokens_of(self, row: Row) -> str:
        [(policy, tokenizer), (reference, _)] = self.models
        config = self.found.config
        template = config.get("task", {}).get("settings", config).get("template", "small")
        prompt = apply_template(template, row["prompt"], tokenizer)
        ended = row.get("finish") == "stop"
        return tokens_html(
            score_tokens(policy, reference, tokenizer, prompt, row["completion"], ended=ended)
        )


def _counter(name: str, tip: str) -> IntSlider:
    return IntSlider(1, min=1, max=2, description=name, tooltip=tip)


class Dashboard(RunView):
    """A run in a thread of this kernel, with Start and Stop.

    Stop is heard between two layers of the model, so in a fraction of a second; what the rollout in
    hand has done is dropped. Start goes on from the last checkpoint, as `r1lab zero --resume`.
    """

    def __init__(
        self, model: str, task: Task, config: GRPOConfig, run: str | Path, overwrite: bool = False
    ) -> None:
        config.check(1)
        about = {"model": model, "task": described(task)}
        Run(run).prepare(config, about, resume=False, overwrite=overwrite)
        self.model, self.task, self.config, self.heard = model, task, config, threading.Event()
        self.thread: threading.Thread | None = None
        self.next_drawing = 0.0
        self.start = Button(description="Start", tooltip="Train, from the last checkpoint on")
        self.stop = Button(description="Stop", tooltip="End the training now", disabled=True)
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.end())
        super().__init__(run, controls=(self.start, self.stop))
        self.say("Press Start.")
        if (self.run / "metrics.jsonl").exists():
            self.refresh()
        self.show_group()

    def begin(self) -> None:
        if self.thread is None or not self.thread.is_alive():
            self.heard.clear()
            self.start.disabled, self.stop.disabled = True, False
            self.thread = threading.Thread(target=self._work, daemon=True)
            self.thread.start()

    def end(self) -> None:
        self.say("Stopping ...")
        self.stop.disabled = True
        self.heard.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the run has ended; False if it goes on after so many seconds."""
        if self.thread is not None:
            self.thread.join(seconds)
        return self.thread is None or not self.thread.is_alive()

    def _work(self) -> None:
        self.say("Loading the model ...")
        ended = "The run broke off"
        try:
            self._train()
            ended = "All rollouts are done"
        except Stopped:
            ended = "Stopped"
        except InputError as error:
            ended = str(error)
        except Exception as error:  # a thread has nobody else to tell
            ended = f"The run broke off: {type(error).__name__}: {error}"
            raise
        finally:
            self.say(f"{ended}.")
            if (self.run / "metrics.jsonl").exists():
                self.refresh()
                self.say(f"{ended}. {_words(self.found.metrics)}")
            self.start.disabled, self.stop.disabled = False, True

    def _train(self) -> None:
        config, run = self.config, Run(self.run)
        learner, clock = open_learner(
            World(), run, self.model, self.task, config, default_learner
        )
        quiet = Progress(config.steps, run.name, enabled=False)
        recorder = Recorder(run, learner, clock, quiet, StopRequest())

        def after_rollout(*rollout) -> bool:
            done = recorder(*rollout)
            began = time.monotonic()
            if began > self.next_drawing:
                self.refresh()
                now = time.monotonic()  # a fifth of the time for drawing, at most
                self.next_drawing = now + max(PERIOD, 4 * (now - began))
            return done

        with listening(self.heard, learner), closing(recorder.board):
            self.say("Sampling the first answers ...")
            learner.train(after_rollout)


class Stopped(Exception):
    """Somebody pressed Stop."""


@contextmanager
def listening(stop: threading.Event, learner: Learner) -> Iterator[None]:
    """Within: once `stop` is set, the next linear layer that runs, forward or back, raises Stopped."""

    def check(*_) -> None:
        if stop.is_set():
            raise Stopped

    def after(module: nn.Module, inputs: tuple, output) -> None:
        check()
        if output.requires_grad:
            output.register_hook(check)

    models = [learner.policy, *learner.modules.values()]
    layers = {layer for model in models for layer in model.modules() if isinstance(layer, nn.Linear)}
    handles = [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def train_live(
    model: str, task: Task, config: GRPOConfig, run: str | Path, overwrite: bool = False
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


@styled
def dashboard_figure(rows: Sequence[Row]) -> Figure:
    """Reward, length, entropy and KL of the training answers over steps; bold: running mean."""
    figure = Figure(figsize=(7.2, 4.2))
    for ax, (key, (title, unit)) in zip(figure.subplots(2, 2).flat, CURVES.items(), strict=True):
        parts = {key: "total"}
        if key == "reward":
            names = {name for row in rows for name in row if name.startswith("reward/")}
            parts |= {name: name.partition("/")[2] for name in sorted(names)}
        for name, label in parts.items():
            steps, values = points(rows, "train", name)
            [line] = ax.plot(steps, smooth(values), markevery=0.2, markersize=4, label=label)
            ax.plot(steps, values, color=line.get_color(), linewidth=0.7, alpha=0.35, marker="",
                    linestyle="-")  # fmt: skip
        ax.set(ylabel=unit, xlabel="policy updates (steps)")
        ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
        now = f" {values[-1]:.3g}" if len(parts) == 1 and values else ""
        ax.set_title(f"{title}{now}", fontsize=11)
    figure.axes[0].legend(fontsize=8)
    figure.set_label(_words(rows))
    return figure


def _words(rows: Sequence[Row]) -> str:
    """The last numbers of each curve."""
    last = {key: points(rows, "train", key) for key in CURVES}
    if not last["reward"][0]:
        return "No rollout is finished yet."
    numbers = "; ".join(
        f"{CURVES[key][0]} {values[-1]:.3g} {CURVES[key][1]}"
        for key, (_, values) in last.items() if values
    )  # fmt: skip
    return f"Step {last['reward'][0][-1]}: {numbers}."


def _groups(found: RunFolder) -> list[list[list[Row]]]:
    """Each rollout's groups as far as stored, those that differ in reward first, best answers first."""
    trained = [row for row in found.samples if row.get("advantage") is not None]
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
