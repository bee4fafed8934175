"""Explorers: pictures whose numbers a reader drags, drawn at once by the browser that shows them.

Each is a page of its own in the folder `explorers`: NAME.html draws, and NAME.svg is what it shows
before anything has moved (`python -m tests.tools.stills` writes it). The tree search still redraws in
Python: what its figure shows is also in words in its label, `figure.get_label()`.
"""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from IPython.display import display
from ipywidgets import HTML, Button, Dropdown, FloatSlider, GridBox, Image, IntSlider, VBox, Widget
from jinja2 import Environment, PackageLoader
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from r1lab.errors import InputError
from r1lab.report.figures import GREY, OKABE_ITO, png_bytes, styled
from r1lab.search.tree import Tree, mcts

EXPLORERS = Path(__file__).with_name("explorers")
FRAME = Environment(autoescape=True, loader=PackageLoader("r1lab.lab", "")).get_template("frame.html")
BLUE, ORANGE = OKABE_ITO[:2]
SHADES = colormaps["cividis"]
DRAWING = threading.Lock()  # matplotlib's settings are global, and callbacks run in threads


def explorer(name: str, **data) -> None:
    """Display an explorer: advantages, clip, interval, kl or vote; `data` replaces its first numbers.

    Where no script may run (GitHub, a notebook that is not trusted) it shows its still picture, and
    says so. Raises InputError where there is no such explorer.
    """
    alone = page(name, **data)
    still = (EXPLORERS / f"{name}.svg").read_text("utf-8")
    words = [html.unescape(re.search(f"<{part}>(.*?)</{part}>", still)[1]) for part in ("title", "desc")]
    alt = ". ".join(words)
    encoded = base64.b64encode(still.encode()).decode("ascii")
    shown = FRAME.render(title=words[0], alt=alt, still=encoded, page=alone)
    display({"text/html": shown, "text/plain": f"Explorer: {alt}"}, raw=True)


def page(name: str, **data) -> str:
    """Return the explorer as a page that needs no other file. Raises InputError where there is none."""
    names = sorted(path.stem for path in EXPLORERS.glob("*.html"))
    if name not in names:
        raise InputError(f"There is no explorer {name!r}; choose one of {', '.join(names)}.")
    files = [EXPLORERS / file for file in (f"{name}.html", "kit.css", "kit.js")]
    text, style, script = (path.read_text("utf-8") for path in files)
    given = json.dumps(data).replace("<", "\\u003c")  # no text of the data may end the script
    text = text.replace('<link rel="stylesheet" href="kit.css">', f"<style>{style}</style>")
    start = f"<script>window.given = {given};\n{script}</script>"
    return text.replace('<script src="kit.js"></script>', start)


class Explorer(VBox):
    """Controls over a drawing function, with the figure and its words under them.

    Args:
        draw: called with every control's value by name; the figure's label holds its words.
        controls: sliders and lists at the values where they begin; Reset returns there.
    """

    def __init__(self, draw: Callable[..., Figure], **controls: Widget) -> None:
        self.draw, self.controls = draw, controls
        self.picture, self.words = Image(format="png", width=720), HTML()
        self.start = {control: control.value for control in controls.values()}
        self.reset = Button(description="Reset", tooltip="Back to the values at the beginning")
        self.reset.on_click(self.put_back)
        for control in self.start:
            control.observe(self.redraw, "value")
        grid = GridBox([*self.start], layout={"grid_template_columns": "360px 360px"})
        super().__init__([self.reset, grid, self.picture, self.words])
        self.redraw()

    def put_back(self, _button: Button) -> None:
        for control, value in self.start.items():
            control.value = value

    def redraw(self, _change: object = None) -> None:
        with DRAWING:
            figure = self.draw(**{name: control.value for name, control in self.controls.items()})
            self.picture.value = png_bytes(figure)
        self.words.value = f'<p role="status">{html.escape(figure.get_label())}</p>'


def tree_explorer(tree: Tree, values: Mapping[str, Sequence[float]]) -> Explorer:
    """Step through an MCTS of this tree, with one of several values and any c."""
    most = len(tree.names) - 1
    return Explorer(
        lambda guide, step, c: tree_figure(tree, values[guide], step=step, c=c),
        guide=Dropdown(options=list(values), description="value", tooltip="What guides it"),
        step=IntSlider(most, min=0, max=most, description="nodes", tooltip="Written so far"),
        c=FloatSlider(1.0, min=0.0, max=4.0, description="c", tooltip="Weight of what is rarely visited"),
    )


@styled
def tree_figure(
    tree: Tree, values: Sequence[float], *, step: int | None = None, c: float = 1.0
) -> Figure:
    """An MCTS of the whole tree after `step` nodes (default: until the right leaf is written).

    Filled: written, numbered in order; the shade is the value. The right leaf has an orange ring.
    """
    written = mcts(tree, values, budget=10**9, c=c).written[:step]
    x, y, seen = [], [0] * len(tree.names), Counter()
    for node, children in enumerate(tree.children):
        for child in children:
            y[child] = y[node] + 1
    for depth in y:  # each depth's nodes share its width
        seen[depth] += 1
        x.append((seen[depth] - 0.5) / y.count(depth))
    figure = Figure(figsize=(7.2, 3.6))
    ax = figure.subplots()
    ax.grid(False)
    for node, children in enumerate(tree.children):
        for child in children:
            color = "black" if child in written else "#c4c4c4"
            ax.plot([x[node], x[child]], [y[node], y[child]], color=color, linestyle="-", marker="")
    shades = [SHADES(value) if node in written else "white" for node, value in enumerate(values)]
    rings = [ORANGE if right else GREY for right in tree.right]
    ax.scatter(x, y, 210, color=shades, edgecolors=rings, linewidths=2, zorder=2)
    for number, node in enumerate(written, 1):
        ink = "white" if values[node] < 0.5 else "black"
        ax.text(x[node], y[node], number, color=ink, fontsize=7.5, ha="center", va="center")
    leaf = [not children for children in tree.children]
    tokens, tried = (sum(of[node] for node in written) for of in (tree.cost, leaf))
    found = "found" if any(tree.right[node] for node in written) else "not found"
    finding = f"{tokens} tokens, {tried} of {sum(leaf)} attempts: {found}"
    ax.set(title=finding, xlabel="attempts, from all plus (left) to all minus (right)",
           ylabel="signs chosen", xticks=[], yticks=y)  # fmt: skip
    ax.invert_yaxis()
    figure.colorbar(ScalarMappable(cmap=SHADES), ax=ax, label="value of a written node")
    names = ", ".join(tree.names[node] for node in written)
    figure.set_label(f"{finding}. Written in this order: {names or 'nothing yet'}.")
    return figure

