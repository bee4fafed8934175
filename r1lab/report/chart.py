"""What all charts share: the look, and the small helpers that draw, label and save.

No pyplot anywhere: a `Figure` made here belongs to the caller, can be drawn in a thread, and
leaves no global state behind. Colours are Okabe and Ito's, which people with the common colour
blindnesses can distinguish; their yellow is left out because it cannot be read on white.
"""

from __future__ import annotations

import functools
import io
import textwrap
from statistics import fmean

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvPX"
GREY = "#6b6b6b"

# Every series differs in colour, line style and marker, so that a grey print still reads.
# markevery spaces the markers along the line: a long run is not a carpet of dots.
STYLE = {
    "axes.prop_cycle": cycler(color=OKABE_ITO)
    + cycler(linestyle=["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), "-"])
    + cycler(marker=list(MARKERS))
    + cycler(markevery=[0.08] * 7),
    "figure.figsize": (6.4, 4.0),
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "savefig.dpi": 141,
    "font.size": 11,
    "text.color": "#222222",
    "axes.facecolor": "white",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.labelcolor": "#222222",
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "lines.linewidth": 2.0,
    "lines.markersize": 5.0,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


def styled(draw):
    """Run a drawing function under `STYLE`, whatever the caller's settings are."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> Figure | None:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapper


def panels(heights: tuple[int, ...] = (1,)) -> tuple[Figure, list[Axes]]:
    """A figure with one panel per entry of `heights` (relative), stacked, sharing the x axis."""
    width, height = matplotlib.rcParams["figure.figsize"]
    figure = Figure(figsize=(width, height if len(heights) == 1 else 1.2 * height))
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    return figure, list(axes[:, 0])


def finish(ax: Axes, title: str, ylabel: str, top: float | None = None) -> None:
    """Put 0 on the y axis, name the lines, label the axes and put the finding above."""
    below = [value for line in ax.get_lines() for value in line.get_ydata() if value < 0]
    ax.set_ylim(min(below, default=0), top)
    label_ends(ax)
    ax.set_title(textwrap.fill(title, 58))
    ax.set_ylabel(ylabel)
    if ax.get_subplotspec().is_last_row():
        ax.set_xlabel("policy updates (steps)")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def label_ends(ax: Axes) -> None:
    """Write each labelled line's name at its right end, pushed apart where they would touch.

    Lines that end at one height are named in the order in which they came there.
    """
    lines = sorted(named_lines(ax), key=lambda line: list(line.get_ydata())[::-1])
    if not lines:
        return
    low, high = ax.get_ylim()
    right = max(line.get_xdata()[-1] for line in lines)
    gap = (high - low) * 0.3 / ax.figure.get_figheight()  # about one line of text, in data units
    heights = spread([line.get_ydata()[-1] for line in lines], gap)
    for line, height in zip(lines, heights, strict=True):
        ax.annotate(
            line.get_label(), (right, height), xytext=(8, 0), textcoords="offset points",
            va="center", color=line.get_color(), fontsize=10, annotation_clip=False,
        )  # fmt: skip


def spread(values: list[float], gap: float) -> list[float]:
    """Ascending positions at least `gap` apart, each group centred on the values it stands for.

    >>> spread([0.0, 0.0, 10.0], 2.0)
    [-1.0, 1.0, 10.0]
    """
    groups: list[list[float]] = []
    for value in values:
        groups.append([value])
        while len(groups) > 1 and (
            fmean(groups[-1]) - fmean(groups[-2]) < gap * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last = groups.pop()
            groups[-1] += last
    return [fmean(g) + gap * (i - (len(g) - 1) / 2) for g in groups for i in range(len(g))]


def named_lines(ax: Axes) -> list[Line2D]:
    """The lines drawn with a label and at least one point."""
    return [
        line
        for line in ax.get_lines()
        if not line.get_label().startswith("_") and len(line.get_ydata())
    ]


def png_bytes(figure: Figure) -> bytes:
    """The figure as an opaque PNG, in `STYLE` whatever the caller's settings are.

    256 colours (by median cut) are all that a chart needs, and a third of the bytes.
    """
    buffer, small = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(STYLE):  # ticks are made while drawing, so the style counts here
        figure.savefig(buffer, format="png", facecolor="white", transparent=False)
    with Image.open(buffer) as drawn:
        reduced = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        reduced.save(small, "PNG", optimize=True, dpi=drawn.info["dpi"])
    return small.getvalue()


def alt_text(figure: Figure) -> str:
    """One or two sentences for each panel: its title, what is drawn, each line's two ends."""
    sentences = []
    for ax in figure.axes:
        ends = "; ".join(
            f"{line.get_label()} from {line.get_ydata()[0]:.3g} to {line.get_ydata()[-1]:.3g}"
            for line in named_lines(ax)
        )
        title, what = " ".join(ax.get_title(loc="left").split()), " ".join(ax.get_ylabel().split())
        sentences += [title, f"Line chart of {what}" + (f": {ends}" if ends else "")]
    return " ".join(f"{sentence}." for sentence in sentences if sentence)
