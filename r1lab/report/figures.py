"""The paper's figures, drawn from the rows of a run's `metrics.jsonl`.

A title says what the numbers say and is computed from them; "rises" and "falls" are used only where
the 95 % intervals of the first and the last evaluation do not overlap.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.evaluation.table import measure_of
from r1lab.report.chart import GREY, MARKERS, OKABE_ITO, finish, panels, styled
from r1lab.run import Row

Rows = Sequence[Row]
EVAL, TRAIN = "eval", "train"
PEAKS = ("kl", "clip_fraction", "truncated")  # what matters is how high they went, not where they ended


@dataclass(frozen=True)
class Panel:
    """A part of a figure: what its axis shows, and its lines, each (kind of row, key, name).

    Attributes:
        about: the line of which the title speaks.
        top: where the axis ends.
        height: relative to the other panels.
        bands: also draw the 95 % intervals.
        marks: settings that changed on the way and are marked: "caps", "reference_every".
    """

    axis: str
    lines: Sequence[tuple[str, str, str]]
    about: int = -1
    top: float | None = None
    height: int = 1
    bands: bool = False
    marks: Sequence[str] = ()


def accuracy(rows: Rows) -> Panel:
    """pass@1, and the vote of the most usual k, which may differ between evaluations."""
    votes = Counter(key for row in rows for key in row if re.fullmatch(r"cons_at_\d+", key))
    keys = ["pass_at_1", *(key for key, _ in votes.most_common(1))]
    lines = [(EVAL, key, measure_of(key).name.split(" ")[0]) for key in keys]
    axis, marks = "held-out problems solved (%)", ("caps", "reference_every")
    return Panel(axis, lines, about=0, top=100.0, bands=True, marks=marks)


def levels(rows: Rows) -> Panel:
    """pass@1 at each level of difficulty, as `spread_levels` names it."""
    found = sorted({int(level) for row in rows for level in row.get("by_level", {})})
    names = [f"level {level}" for level in found]
    return Panel("pass@1 (%)", [(EVAL, name, name) for name in names], top=100.0)


def reward_parts(rows: Rows) -> Panel:
    """The parts of the training answers' reward, and the total."""
    parts = sorted({key for row in rows for key in row if key.startswith("reward/")})
    lines = [(TRAIN, key, key.removeprefix("reward/")) for key in parts]
    return Panel("reward per answer", [*lines, (TRAIN, "reward", "total")])


# What one sees, and the panels; where the lines depend on the rows, a function of them.
FIGURES: dict[str, tuple[str, Sequence[Panel | Callable[[Rows], Panel]]]] = {
    "accuracy": (
        "One answer (pass@1) and a majority vote (cons@k), with 95 % bands. The paper's Fig. 1.",
        [accuracy],
    ),
    "accuracy_by_level": ("The same pass@1, level by level, from easy (dark) to hard.", [levels]),
    "length": ("No reward asks for length. Below: answers cut because of the cap.", [
        Panel("tokens per answer (tokens)",
              [(TRAIN, "tokens_mean", "in training"), (EVAL, "mean_tokens", "held out")],
              height=3, marks=("caps",)),
        Panel("cut off at\nthe cap (%)", [(TRAIN, "truncated", "")]),
    ]),
    "reflection": ("Words such as wait, but, however; no reward counts them.", [
        Panel("reflective words per answer (words)",
              [(TRAIN, "reflection", "in training"), (EVAL, "reflection_per_answer", "held out")]),
    ]),
    "reward_parts": ("What the training answers earned; pale: each step.", [reward_parts]),
    "habits": ("How the policy searches and writes, whether it is right or wrong.", [
        Panel("share (%)", [(EVAL, "mixing", "mix languages"), (EVAL, "repeats", "repeats"),
                            (EVAL, "in_order", "in order")]),
    ]),
    "entropy": ("How undecided the policy is at a token; near 0 it explores no more.", [
        Panel("entropy (nats per token)", [(TRAIN, "entropy", "")]),
    ]),
    "drift": ("How far the policy is from its reference; how often the clip held it.", [
        Panel("KL (nats per token)", [(TRAIN, "kl", "")], marks=("reference_every",)),
        Panel("tokens clipped (%)", [(TRAIN, "clip_fraction", "")], marks=("reference_every",)),
    ]),
}  # fmt: skip


@styled
def draw(name: str, rows: Rows, config: Mapping = {}) -> Figure | None:
    """One of FIGURES; None where the rows do not hold what it shows.

    The settings `config` mark where the length cap was raised and the reference refreshed.
    """
    rows = [row | spread_levels(row) for row in rows]
    chosen = [panel(rows) if callable(panel) else panel for panel in FIGURES[name][1]]
    for panel in chosen:
        if not any(points(rows, kind, key)[0] for kind, key, _ in panel.lines):
            return None
    figure, axes = panels(tuple(panel.height for panel in chosen))
    for ax, panel in zip(axes, chosen, strict=True):
        for i, (kind, key, label) in enumerate(panel.lines):
            look = {}
            if key.startswith("level "):
                shade = 0.75 * i / max(1, len(panel.lines) - 1)
                look["color"] = matplotlib.colormaps["viridis"](shade)
            draw_line(ax, rows, kind, key, label, i, **look)
            if panel.bands:
                draw_band(ax, rows, key, i)
        finish(ax, finding(rows, *panel.lines[panel.about][:2]), panel.axis, panel.top)
        mark_changes(ax, rows, {mark: config[mark] for mark in panel.marks if mark in config})
    return figure


def spread_levels(row: Row) -> Row:
    """Each level's pass@1 and its interval under keys of their own."""
    spread = {}
    for level, cell in row.get("by_level", {}).items():
        spread[f"level {level}"] = cell["pass_at_1"]
        spread[f"level {level}_ci95"] = cell.get("ci95")
    return spread


@styled
def compare(arms: Mapping[str, Sequence[Rows]], key: str = "pass_at_1") -> Figure:
    """One measure of the evaluations for several arms: each seed thin, the mean of seeds thick.

    Args:
        arms: the metrics of each seed's run, by arm.
        key: of a measure that the evaluations hold.
    Raises:
        InputError: an arm without runs, or whose runs share no evaluated step.
    """
    figure, (ax,) = panels()
    measure, ends = measure_of(key), []
    for i, (arm, runs) in enumerate(arms.items()):
        seeds = [dict(zip(*points(run, EVAL, key), strict=True)) for run in runs]
        steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
        if not steps:
            raise InputError(f"Arm {arm!r}: its runs share no evaluated step with `{key}`.")
        for run in runs:
            draw_line(ax, run, EVAL, key, "", i, linewidth=0.9, alpha=0.6, marker="")
        means = [fmean(seed[step] for seed in seeds) for step in steps]
        rows = [{"kind": EVAL, "step": step, key: mean} for step, mean in zip(steps, means)]
        draw_line(ax, rows, EVAL, key, arm, i, linewidth=2.8)
        ends.append(f"{arm} {measure.text(means[-1])}".replace(" ", "\N{NO-BREAK SPACE}"))
    title = f"{measure.title} at the end: {', '.join(ends)}"
    finish(ax, title, measure.axis, 100.0 if measure.unit == "%" else None)
    return figure


def points(rows: Rows, kind: str, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of `key` in the rows of one kind that have it.

    Raises:
        InputError: a value that is not a number.
    """
    here = [row for row in rows if row["kind"] == kind and row.get(key) is not None]
    for row in here:
        if not isinstance(row[key], int | float):
            raise InputError(f"Metrics, {kind} row of step {row['step']}: `{key}` is no number.")
    return [row["step"] for row in here], [float(row[key]) for row in here]


def smooth(values: Sequence[float]) -> list[float]:
    """Centred running mean over about a twentieth of the run; shorter windows at the ends."""
    half = len(values) // 40
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def finding(rows: Rows, kind: str, key: str) -> str:
    """What the numbers say of `key`, in one line, from its first value to its last."""
    measure = measure_of(key)
    steps, values = points(rows, kind, key)
    if not steps:
        return measure.title
    if key in PEAKS:
        mean, highest = measure.text(fmean(values)), measure.text(max(values))
        return f"{measure.title}: mean {mean}, highest {highest}"
    ends = smooth(values) if kind == TRAIN else values
    first, last = measure.text(ends[0]), measure.text(ends[-1])
    if len(steps) == 1:
        return f"{measure.title}: {first} at step {steps[0]}"
    bands = [row.get(f"{key}_ci95") for row in rows if row["kind"] == kind and key in row]
    verb = ": from"
    if bands[0] and bands[-1]:
        (low, high), (lowest, highest) = bands[0], bands[-1]
        if low <= highest and lowest <= high:
            return f"{measure.title}: {first} to {last}, intervals overlap"
        verb = " rises from" if ends[0] < ends[-1] else " falls from"
    return f"{measure.title}{verb} {first} to {last} in {steps[-1]} steps"


def draw_line(ax: Axes, rows: Rows, kind: str, key: str, name: str, i: int, **look) -> None:
    """One series. Evaluations: a line with markers. Training: pale, its running mean over it."""
    measure, (steps, raw) = measure_of(key), points(rows, kind, key)
    values = [measure.value(value) for value in raw]
    look = {"color": OKABE_ITO[i], "marker": MARKERS[i], "linestyle": "-", "markevery": 1} | look
    look["clip_on"] = False  # a marker at 100 % is a whole marker
    if kind == TRAIN:
        look["marker"] = ""
        ax.plot(steps, values, **look | {"linewidth": 0.7, "alpha": 0.35, "linestyle": "-"})
        values = smooth(values)
    ax.plot(steps, values, **look, label=name or "_")


def draw_band(ax: Axes, rows: Rows, key: str, i: int) -> None:
    """The 95 % intervals of a measure."""
    here = [row for row in rows if row.get(f"{key}_ci95")]
    low, high = ([100 * row[f"{key}_ci95"][side] for row in here] for side in (0, 1))
    steps = [row["step"] for row in here]
    ax.fill_between(steps, low, high, color=OKABE_ITO[i], alpha=0.15, linewidth=0)


def mark_changes(ax: Axes, rows: Rows, config: Mapping) -> None:
    """A dashed line, named above the panel, where the length cap was raised; a triangle on the axis,
    explained below, where the reference was refreshed."""
    last, every = rows[-1]["step"], config.get("reference_every", 0)
    for step, cap in config.get("caps", [])[1:]:
        if step <= last:
            ax.axvline(step, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
            ax.annotate(
                f"cap {cap}", (step, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
                textcoords="offset points", ha="center", fontsize=9, color=GREY,
            )  # fmt: skip
            ax.set_title(ax.get_title(loc="left"), pad=20)
    if steps := list(range(every, last + 1, every)) if every else []:
        ax.plot(
            steps, [0] * len(steps), transform=ax.get_xaxis_transform(), color=GREY, markevery=1,
            linestyle="", marker="^", markersize=7, clip_on=False, zorder=5,
        )  # fmt: skip
        if label := ax.get_xlabel():
            ax.set_xlabel(f"{label};  ▲ reference refreshed")
