"""The dashboard: curves of a run and the group it learns from, live or from the run's folder.

Training goes on in a thread and writes an ordinary run folder; the dashboard shows what stands
there, and nothing else. After a restart of the kernel `show_run` shows the same.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path

from ipywidgets import HTML, Button, HBox, Image, IntSlider, VBox
from matplotlib.figure import Figure
from torch import nn

from r1lab.errors import InputError
from r1lab.lab.widgets import BLUE, DRAWING, ORANGE, one_sentence
from r1lab.report.chart import png_bytes, styled
from r1lab.report.figures import points, smooth
from r1lab.report.folder import Row, RunFolder, read_run
from r1lab.task import held_out_ids, load_problems
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import StopRequest, World
from r1lab.training.loop import Learner
from r1lab.training.record import Recorder
from r1lab.training.run import open_learner, prepare_folder, rewards_of
from r1lab.training.runs import Progress

PERIOD = 0.2  # seconds from one drawing to the next, at least
CURVES = {  # key in the metrics: title and unit
    "reward": ("Reward", "mean per answer"),
    "tokens_mean": ("Length", "tokens per answer"),
    "entropy": ("Entropy", "nats per token"),
    "kl": ("KL to the reference", "nats per token"),
}


class RunView(VBox):
    """What a run's folder holds: curves, and a table of one group of answers."""

    def __init__(self, run: str | Path, controls: Sequence[Button] = ()) -> None:
        self.run, self.found = Path(run), None
        self.status, self.table = HTML(), HTML()
        self.picture = Image(format="png", width=720)
        self.rollout = IntSlider(1, min=1, max=2, description="rollout",
                                 tooltip="Whose groups to show; at the end, the newest")  # fmt: skip
        self.group = IntSlider(1, min=1, max=2, description="question",
                               tooltip="Which of the groups stored of this rollout")  # fmt: skip
        for slider in (self.rollout, self.group):
            slider.observe(lambda _: self.show_group(), "value")
        chosen = HBox([self.rollout, self.group])
        super().__init__([HBox([*controls, self.status]), self.picture, chosen, self.table])

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
        step, groups = rollouts[number - 1]
        self.group.max = max(2, len(groups))
        which = min(self.group.value, len(groups))
        where = f"Rollout {number}, step {step}, question {which} of {len(groups)} stored"
        self.table.value = group_html(groups[which - 1], where)


class Dashboard(RunView):
    """A run in a thread of this kernel, with Start and Stop.

    Stop is heard between two layers of the model, so in a fraction of a second; what the rollout in
    hand has done is dropped. Start goes on from the last checkpoint, as `r1lab zero --resume`.
    """

    def __init__(self, config: GRPOConfig, run: str | Path, overwrite: bool = False) -> None:
        config.check(1)
        prepare_folder(Path(run), config, resume=False, overwrite=overwrite)
        self.config, self.heard = config, threading.Event()
        self.thread: threading.Thread | None = None
        self.next_drawing = 0.0
        self.start = Button(description="Start", tooltip="Train, from the last checkpoint on")
        self.stop = Button(description="Stop", tooltip="End the training now", disabled=True)
        self.start.on_click(lambda _: self.begin())
        self.stop.on_click(lambda _: self.end())
        super().__init__(run, (self.start, self.stop))
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
        config = self.config
        learner, clock = open_learner(config, self.run, World())
        rewards = rewards_of(config)
        test_set = load_problems(config.eval_file)
        quiet = Progress(config.steps, self.run.name, enabled=False)
        recorder = Recorder(
            self.run, learner, test_set, rewards, clock, quiet, StopRequest()
        )

        def after_rollout(*rollout) -> bool:
            done = recorder(*rollout)
            began = time.monotonic()
            if began > self.next_drawing:
                self.refresh()
                now = time.monotonic()  # a fifth of the time for drawing, at most
                self.next_drawing = now + max(PERIOD, 4 * (now - began))
            return done

        held_out = held_out_ids() | {problem.id for problem in test_set}
        with listening(self.heard, learner), closing(recorder.board):
            self.say("Sampling the first answers ...")
            learner.train(
                lambda rollout: config.problems(rollout, exclude=held_out),
                rewards,
                after_rollout,
            )


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

    models = [value for value in vars(learner).values() if isinstance(value, nn.Module)]
    layers = {layer for model in models for layer in model.modules() if isinstance(layer, nn.Linear)}
    handles = [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def train_live(
    config: GRPOConfig, run: str | Path, overwrite: bool = False
) -> Dashboard | None:
    """A dashboard that trains `config` in the folder `run`, or goes on with the run there.

    Args:
        overwrite: delete what the folder holds.
    """
    with one_sentence():
        return Dashboard(config, run, overwrite)


def show_run(run: str | Path) -> RunView | None:
    """The dashboard of a run from its folder, finished or not, with a button to read it again."""
    with one_sentence():
        again = Button(description="Refresh", tooltip="Read the folder again")
        view = RunView(run, (again,))
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
        parts = [key]
        if key == "reward":
            parts += sorted({name for row in rows for name in row if name.startswith("reward/")})
        for name in parts:
            steps, values = points(rows, "train", name)
            [line] = ax.plot(steps, smooth(values), markevery=0.2, markersize=4,
                             label=name.partition("/")[2] or "total")  # fmt: skip
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


def _groups(found: RunFolder) -> list[tuple[int, list[list[Row]]]]:
    """Each rollout's step with the groups stored of it, those that differ in reward first."""
    trained = [row for row in found.samples if row.get("advantage") is not None]
    rollouts = []
    for step, rows in groupby(trained, key=lambda row: row["step"]):
        groups = [list(group) for _, group in groupby(rows, key=lambda row: row["id"])]
        groups.sort(key=lambda group: not any(row["advantage"] for row in group))
        rollouts.append((step, groups))
    return rollouts


def group_html(group: Sequence[Mapping], where: str) -> str:
    """A table of one group's answers, the largest advantage first."""
    parts = list(group[0]["rewards"])
    head = "".join(f"<th>{html.escape(part)}</th>" for part in ("advantage", *parts, "answer"))
    lines = []
    for row in sorted(group, key=lambda row: -row["advantage"]):
        scores = "".join(f"<td>{_score(row['rewards'].get(part))}</td>" for part in parts)
        color = BLUE if row["advantage"] > 0 else ORANGE if row["advantage"] < 0 else "#ddd"
        answer = html.escape(row["completion"]) + (" […]" if row.get("finish") == "length" else "")
        lines.append(
            f'<tr><td style="border-left:6px solid {color};padding-left:4px">'
            f'{row["advantage"]:+.2f}</td>{scores}<td style="text-align:left;white-space:pre-wrap">'
            f"{answer}</td></tr>"
        )
    return (
        '<div style="background:white;color:#222;padding:8px;max-width:720px;max-height:24em;'
        f'overflow:auto" tabindex="0"><p>{html.escape(where)}: '
        f"<b>{html.escape(group[0]['prompt'])}</b>. Advantage in stds of the group; […]: cut off at "
        f'the cap.</p><table style="border-spacing:6px 2px"><tr>{head}</tr>{"".join(lines)}'
        "</table></div>"
    )


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"
