"""What lessons use: figures that carry words, claims of the ledger, and a run that is watched."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from statistics import fmean

import matplotlib
from IPython.display import display
from ipywidgets import Image
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.evaluation.measure import measure
from r1lab.files import SHIPPED
from r1lab.models.policy import load_policy
from r1lab.report.claims import expected, load_ledger, numbers, select
from r1lab.report.figures import STYLE, draw, png_bytes
from r1lab.sources.templates import prompt_of
from r1lab.task import Task
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience

FEW_POINTS = 20  # a line of no more shows each; longer ones are marked at the style's distances


def style() -> None:
    """Set the lab's look for every figure that follows; call it once, at the top of a notebook."""
    matplotlib.rcParams.update(STYLE)


def show(figure: Figure, *, alt: str, caption: str | None = None) -> None:
    """Display a figure with its alternative text, print one line under it, and close it.

    The text goes into the output's metadata, where converters find it, and into its plain-text
    form, which terminals show and strict nbval compares. JupyterLab reads out neither, therefore
    the printed line: the caption, or without one the text itself.

    Args:
        figure: made by pyplot or not.
        alt: what a reader who cannot see the figure has to know.
        caption: one line on what to see.
    Raises:
        InputError: no `alt`, a panel without labels on both axes, or no title.
    """
    alt = " ".join(alt.split())
    if not alt:
        raise InputError("show() needs `alt`: what the figure says to one who cannot see it.")
    _require_words(figure)
    for ax in figure.axes:
        for line in ax.lines:
            if len(line.get_xdata(orig=False)) <= FEW_POINTS:
                line.set_markevery(1)
    png = base64.b64encode(png_bytes(figure)).decode("ascii")
    width = round(100 * figure.get_figwidth())  # on screen; the image has more pixels than that
    display(
        {"image/png": png, "text/plain": f"Figure: {alt}"},
        metadata={"image/png": {"alt": alt, "width": width}},
        raw=True,
    )
    pyplot.close(figure)
    print("Figure:", *(caption or alt).split())


def _require_words(figure: Figure) -> None:
    """Panels that share an axis may leave its label to one; without axes none is needed, and a
    colour bar has one axis only."""
    titles = figure.get_suptitle()
    for ax in figure.axes:
        titles += ax.get_title() + ax.get_title(loc="left") + ax.get_title(loc="right")
        x = any(map(Axes.get_xlabel, ax.get_shared_x_axes().get_siblings(ax)))
        y = any(map(Axes.get_ylabel, ax.get_shared_y_axes().get_siblings(ax)))
        if ax.axison and ax.get_label() != "<colorbar>" and not (x and y):
            raise InputError("Label both axes of every panel, with units, before showing a figure.")
    if not titles:
        raise InputError("Give the figure a title that says what it shows.")


def ledger(*names: str) -> None:
    """Print what three seeds say of claims: expected, effect with its 95 % interval, each seed.

    Args:
        names: ids of claims, or of an experiment for all of its claims.
    Raises:
        InputError: there is no such claim.
    """
    claims = load_ledger(SHIPPED / "claims.json")["claims"]
    for claim in (claim for name in names for claim in select(claims, name).values()):
        print(f"{claim['statement']}: {claim['verdict'].upper()}")
        if "effect" in claim:
            effect, seeds = numbers(claim)
            print(f"    expected {expected(claim)}; found {effect}, by seed {seeds}")


class Watch:
    """What `Learner.train` calls after each rollout: one row of numbers each, kept in `rows`.

    The rows carry the names of `metrics.jsonl`, so that the figures of `r1lab.report` draw them.
    In a live notebook a chart of the rewards grows while the run goes on; interrupting the run
    loses none of the rows. With R1LAB_STATIC=1 nothing is shown.
    """

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.rows: list[dict] = []
        self.chart = None
        if os.environ.get("R1LAB_STATIC") != "1":
            self.chart = Image(format="png", width=720)
            display(self.chart)

    def __call__(self, rollout: int, experience: Experience, updates: list[dict]) -> bool:
        """Note the rollout's numbers; never ends the run."""
        task, problems = self.learner.task, experience.problems
        prompts = [prompt_of(task, problem, self.learner.tokenizer) for problem in problems]
        texts = experience.completions
        shown = measure(problems, texts, prompts, check=task.check, attempts=task.attempts)
        row = {"kind": "train", "step": self.learner.step} | experience.statistics()
        row["pass_at_1"] = fmean(one["correct"] for one in shown)
        for name in ("reflection", "attempts"):
            row[name] = fmean(one[name] for one in shown)
        for name in updates[0]:
            row[name] = fmean(update[name] for update in updates)
        self.rows.append(row)
        if self.chart is not None:
            self.chart.value = png_bytes(draw("reward_parts", self.rows))
        return False


def train(model: str | Path, task: Task, config: GRPOConfig) -> tuple[Learner, list[dict]]:
    """Train in this kernel, without a run folder; the learner, and one row for each rollout."""
    learner = Learner(config, task, *load_policy(model), World())
    watch = Watch(learner)
    learner.train(watch)
    return learner, watch.rows
