"""Figures with alternative text, one style for all of them, progress that stays out of the file."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

import matplotlib
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure
from rich.progress import track

from r1lab.errors import InputError
from r1lab.report.chart import STYLE, png_bytes

Item = TypeVar("Item")
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
    alt, caption = (" ".join((text or "").split()) for text in (alt, caption))
    if not alt:
        raise InputError("show() needs `alt`: what the figure says to one who cannot see it.")
    _require_words(figure)
    for line in (line for ax in figure.axes for line in ax.lines):
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
    print(f"Figure: {caption or alt}")


def progress(iterable: Iterable[Item], total: int | None = None, label: str = "") -> Iterator[Item]:
    """Yield the items behind a progress bar, and end with one line such as "training: 40 of 40".

    With R1LAB_STATIC=1 (the notebook build and the tests) there is no bar, so that what is stored
    is the same on every machine. The last line never tells a time.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    items = iterable
    if os.environ.get("R1LAB_STATIC") != "1":
        items = track(iterable, description=label, total=total, transient=True)
    done = 0
    for done, item in enumerate(items, 1):
        yield item
    count = str(done) if total is None else f"{done} of {total}"
    print(f"{label}: {count}" if label else count)


def _require_words(figure: Figure) -> None:
    """Panels that share an axis may leave its label to one; without axes none is needed, and a
    colour bar has one axis only."""
    for ax in figure.axes:
        columns = ax.get_shared_x_axes().get_siblings(ax)
        rows = ax.get_shared_y_axes().get_siblings(ax)
        labels = any(one.get_xlabel() for one in columns), any(one.get_ylabel() for one in rows)
        if ax.axison and ax.get_label() != "<colorbar>" and not all(labels):
            raise InputError("Label both axes of every panel, with units, before showing a figure.")
    places = ("left", "center", "right")
    titles = [ax.get_title(loc=place) for ax in figure.axes for place in places]
    if not any([figure.get_suptitle(), *titles]):
        raise InputError("Give the figure a title that says what it shows.")
