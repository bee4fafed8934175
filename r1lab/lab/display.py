"""Figures with alternative text, in one style."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

import matplotlib
from IPython.display import display
from matplotlib import pyplot
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.report.figures import STYLE, png_bytes

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
    caption = " ".join((caption or alt).split())
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
    print(f"Figure: {caption}")


def _require_words(figure: Figure) -> None:
    """Panels that share an axis may leave its label to one; without axes none is needed, and a
    colour bar has one axis only."""
    titles = figure.get_suptitle()
    for ax in figure.axes:
        titles += ax.get_title() + ax.get_title(loc="left") + ax.get_title(loc="right")
        shared_x, shared_y = ax.get_shared_x_axes(), ax.get_shared_y_axes()
        x = any(one.get_xlabel() for one in shared_x.get_siblings(ax))
        y = any(one.get_ylabel() for one in shared_y.get_siblings(ax))
        if ax.axison and ax.get_label() != "<colorbar>" and not (x and y):
            raise InputError("Label both axes of every panel, with units, before showing a figure.")
    if not titles:
        raise InputError("Give the figure a title that says what it shows.")


def html_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of texts as HTML; what a model wrote in a cell stays text."""
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in head)]
    for row in rows:
        lines.append("".join(f"<td>{html.escape(cell)}</td>" for cell in row))
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
