"""Charts in the lab's look, and the paper's figures, drawn from the rows of a run's `metrics.jsonl`.

A title is computed from the numbers. It says "rises" or "falls" only where the 95 % intervals of the
first and the last evaluation do not overlap. There is no pyplot: a `Figure` made here belongs to the
caller, can be drawn in a thread, and leaves no global state behind.
"""

import io
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from r1lab.evaluation.table import measure_of
from r1lab.files import read_toml
from r1lab.run import Row

LOOK = Path(__file__).with_name("style.mplstyle")
STYLE = matplotlib.rc_params_from_file(LOOK, use_default_template=False)
styled = matplotlib.rc_context(STYLE)  # a decorator: draw in this look, whatever the caller's settings
SERIES = STYLE["axes.prop_cycle"].by_key()
OKABE_ITO, MARKERS = 9 * tuple(SERIES["color"]), 9 * SERIES["marker"]  # again, for many lines
GREY = "#6b6b6b"

Rows = Sequence[Row]
PEAKS = ("kl", "clip_fraction", "truncated")  # what matters is how high they went, not where they ended


@dataclass(frozen=True)
class Panel:
    """A part of a figure: what its axis shows, and its lines, each "kind of row/key" -> name.

    `about` is the line of which the title speaks, `top` where the axis ends, `height` relative to other
    panels; `bands` adds the 95 % intervals, `marks` are settings whose changes are marked; the lines of a
    `shaded` one go from dark to light.
    """

    axis: str
    lines: Mapping[str, str]
    about: int = -1
    top: float | None = None
    height: int = 1
    bands: bool = False
    marks: Sequence[str] = ()
    shaded: bool = False

    def color(self, i: int) -> str | tuple:
        """The color of its line number i."""
        last = max(1, len(self.lines) - 1)
        return matplotlib.colormaps["viridis"](0.75 * i / last) if self.shaded else OKABE_ITO[i]


FIGURES = read_toml(__file__, "figures")
CAPTIONS = {name: figure["caption"] for name, figure in FIGURES.items()}


def panels_of(name: str, rows: Rows) -> list[Panel]:
    """List the panels of a figure. Some lines depend on what the rows hold."""
    keys = [key for row in rows for key in row]
    votes = Counter(key for key in keys if re.fullmatch(r"cons_at_\d+", key)).most_common(1)
    levels = sorted({int(level) for row in rows for level in row.get("by_level", {})})
    measured = {
        "accuracy": {f"eval/{key}": measure_of(key).name.split(" ")[0] for key in ("pass_at_1", *dict(votes))},
        "accuracy_by_level": {f"eval/level {level}": f"level {level}" for level in levels},
        "reward_parts": {f"train/{key}": key[7:] for key in sorted(set(keys)) if key.startswith("reward/")},
    }.get(name, {})
    return [Panel(**panel | {"lines": measured | panel["lines"]}) for panel in FIGURES[name]["panels"]]


@styled
def draw(name: str, rows: Rows, config: Mapping = {}) -> Figure | None:
    """Draw a figure by its name in CAPTIONS; None where the rows do not hold what it shows. With a
    run's settings `config`, it marks where the length cap was raised and the reference refreshed."""
    rows = [row | spread_levels(row) for row in rows]
    chosen = panels_of(name, rows)
    for panel in chosen:
        if not any(points(rows, line)[0] for line in panel.lines):
            return None
    figure, axes = panels([panel.height for panel in chosen])
    for ax, panel in zip(axes, chosen):
        for i, (line, label) in enumerate(panel.lines.items()):
            draw_line(ax, rows, line, label, i, color=panel.color(i))
            if panel.bands:
                draw_band(ax, rows, line, i)
        finish(ax, finding(rows, list(panel.lines)[panel.about]), panel.axis, panel.top)
        mark_changes(ax, rows[-1]["step"], {mark: config[mark] for mark in panel.marks if mark in config})
    return figure


def spread_levels(row: Row) -> Row:
    """Put each level's pass@1 and its interval under keys of their own."""
    levels, keys = row.get("by_level", {}), {"": "pass_at_1", "_ci95": "ci95"}.items()
    return {f"level {name}{end}": levels[name].get(key) for name in levels for end, key in keys}


def points(rows: Rows, line: str) -> tuple[list[int], list]:
    """Return steps and values of a line, "kind of row/key", where the rows have it."""
    kind, _, key = line.partition("/")
    here = [row for row in rows if row["kind"] == kind and row.get(key) is not None]
    return [row["step"] for row in here], [row[key] for row in here]


def smooth(values: Sequence[float]) -> list[float]:
    """Average over about a twentieth of the run around each value; windows are shorter at the ends."""
    half = len(values) // 40
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def finding(rows: Rows, line: str) -> str:
    """Say in one sentence what the numbers of a line show, from its first value to its last."""
    kind, _, key = line.partition("/")
    title, text = measure_of(key).title, measure_of(key).text
    steps, values = points(rows, line)
    if not steps:
        return title
    if key in PEAKS:
        return f"{title}: mean {text(fmean(values))}, highest {text(max(values))}"
    ends = smooth(values) if kind == "train" else values
    first, last = text(ends[0]), text(ends[-1])
    if len(steps) == 1:
        return f"{title}: {first} at step {steps[0]}"
    bounds = points(rows, f"{line}_ci95")[1]
    if len(bounds) < len(steps):
        return f"{title}: from {first} to {last} in {steps[-1]} steps"
    (low, high), (lowest, highest) = bounds[0], bounds[-1]
    if low <= highest and lowest <= high:
        return f"{title}: {first} to {last}, intervals overlap"
    verb = "rises" if ends[0] < ends[-1] else "falls"
    return f"{title} {verb} from {first} to {last} in {steps[-1]} steps"


def draw_line(ax: Axes, rows: Rows, line: str, name: str, i: int, **look):
    """Draw evaluations as a line with markers, training as a pale line under its running mean."""
    kind, _, key = line.partition("/")
    steps, raw = points(rows, line)
    values = [measure_of(key).value(value) for value in raw]
    look = {
        "color": OKABE_ITO[i], "marker": MARKERS[i] if kind == "eval" else "", "markevery": 1,
        "linestyle": "-", "clip_on": False,  # a marker at 100 % is a whole marker
    } | look  # fmt: skip
    if kind == "train":
        ax.plot(steps, values, **look, linewidth=0.7, alpha=0.35)
        values = smooth(values)
    ax.plot(steps, values, **look, label=name or "_")


def draw_band(ax: Axes, rows: Rows, line: str, i: int):
    """Draw the 95 % intervals of a line in percent."""
    steps, bounds = points(rows, f"{line}_ci95")
    low, high = ([100 * bound[side] for bound in bounds] for side in (0, 1))
    ax.fill_between(steps, low, high, color=OKABE_ITO[i], alpha=0.15, linewidth=0)


def mark_changes(ax: Axes, last: int, config: Mapping):
    """Mark a raised length cap by a dashed line, named above, and a refreshed reference by a triangle."""
    for step, cap in config.get("caps", [])[1:]:
        if step <= last:
            ax.axvline(step, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
            ax.annotate(
                f"cap {cap}", (step, 1), xycoords=("data", "axes fraction"), xytext=(0, 2),
                textcoords="offset points", ha="center", fontsize=9, color=GREY,
            )  # fmt: skip
            ax.set_title(ax.get_title(loc="left"), pad=20)
    if 0 < (every := config.get("reference_every", 0)) <= last:
        steps = range(every, last + 1, every)
        ax.plot(
            steps, [0] * len(steps), "^", transform=ax.get_xaxis_transform(), color=GREY, markevery=1,
            markersize=7, clip_on=False, zorder=5,
        )  # fmt: skip
        if label := ax.get_xlabel():
            ax.set_xlabel(f"{label};  ▲ reference refreshed")


def panels(heights: Sequence[int] = (1,)) -> tuple[Figure, list[Axes]]:
    """Make a figure with one panel per relative height, stacked, sharing the x axis."""
    figure = Figure(figsize=(6.4, 4.0 if len(heights) == 1 else 4.8))
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    return figure, list(axes[:, 0])


def finish(ax: Axes, title: str, ylabel: str, top: float | None = None):
    """Put 0 on the y axis, name the lines, label the axes and put the finding above."""
    ax.set_ylim(min(0, ax.dataLim.y0), top)
    label_ends(ax)
    ax.set(title=textwrap.fill(title, 58), ylabel=ylabel)
    if ax.get_subplotspec().is_last_row():
        ax.set_xlabel("policy updates (steps)")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def label_ends(ax: Axes):
    """Write each line's name at its right end, pushed apart where they would touch, and at one height
    in the order in which the lines came there."""
    lines = sorted(named_lines(ax), key=lambda line: list(line.get_ydata())[::-1])
    low, high = ax.get_ylim()
    gap = (high - low) * 0.3 / ax.figure.get_figheight()  # about one line of text, in data units
    heights = spread([line.get_ydata()[-1] for line in lines], gap)
    right = max((line.get_xdata()[-1] for line in lines), default=0)
    for line, height in zip(lines, heights):
        ax.annotate(
            line.get_label(), (right, height), xytext=(8, 0), textcoords="offset points",
            va="center", color=line.get_color(), fontsize=10, annotation_clip=False,
        )  # fmt: skip


def spread(values: list[float], gap: float) -> list[float]:
    """Find ascending positions at least `gap` apart, each group centred on the values it stands for:
    0, 0 and 10 with a gap of 2 become -1, 1 and 10."""
    groups: list[list[float]] = []  # of values less their due distance from the first
    for i, value in enumerate(values):
        groups.append([value - gap * i])
        while len(groups) > 1 and fmean(groups[-1]) < fmean(groups[-2]):
            last = groups.pop()
            groups[-1] += last
    level = [fmean(group) for group in groups for _ in group]
    return [height + gap * i for i, height in enumerate(level)]


def named_lines(ax: Axes) -> list[Line2D]:
    """Return the lines drawn with a label and at least one point."""
    drawn = [line for line in ax.get_lines() if len(line.get_ydata())]
    return [line for line in drawn if not line.get_label().startswith("_")]


def png_bytes(figure: Figure) -> bytes:
    """Paint the figure as an opaque PNG, in `STYLE` whatever the caller's settings are.

    256 colours (by median cut) are all that a chart needs, and a third of the bytes.
    """
    buffer, small = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE):  # ticks are made while drawing, so the style counts here
        figure.savefig(buffer, format="png")
    with Image.open(buffer) as drawn:
        reduced = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        reduced.save(small, "PNG", optimize=True, dpi=drawn.info["dpi"])
    return small.getvalue()


def alt_text(figure: Figure) -> str:
    """Describe each panel in one or two sentences: its title, what is drawn, each line's two ends."""
    sentences = []
    for ax in figure.axes:
        ends = "; ".join(
            f"{line.get_label()} from {line.get_ydata()[0]:.3g} to {line.get_ydata()[-1]:.3g}"
            for line in named_lines(ax)
        )
        title, what = (" ".join(text.split()) for text in (ax.get_title(loc="left"), ax.get_ylabel()))
        sentences += [title, f"Line chart of {what}" + (f": {ends}" if ends else "")]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)
