"""A search tree to look at: what was written, in which order, and what its value model said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ipywidgets import Dropdown, IntSlider
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from r1lab.lab.widgets import ORANGE, Explorer, slider
from r1lab.report.chart import GREY, styled
from r1lab.search.tree import Tree, mcts

SHADES = colormaps["cividis"]


def tree_explorer(tree: Tree, values: Mapping[str, Sequence[float]]) -> Explorer:
    """Step through an MCTS of this tree, with one of several values and any c."""
    most = len(tree.names) - 1
    controls = {
        "guide": Dropdown(options=list(values), description="value", tooltip="What guides it"),
        "step": IntSlider(most, min=0, max=most, description="nodes", tooltip="Written so far"),
        "c": slider("c", 1.0, 0.0, 4.0, 0.1, "Weight of what is likely and seldom visited"),
    }
    return Explorer(
        lambda guide, step, c: tree_figure(tree, values[guide], step=step, c=c), controls
    )


@styled
def tree_figure(
    tree: Tree, values: Sequence[float], *, step: int | None = None, c: float = 1.0
) -> Figure:
    """An MCTS of the whole tree after `step` nodes (default: until the right leaf is written).

    Filled: written, numbered in order; the shade is the value. The right leaf has an orange ring.
    """
    search = mcts(tree, values, budget=10**9, c=c)
    written = search.written[:step]
    order = {node: number for number, node in enumerate(written, 1)}
    x, y = _places(tree)
    figure = Figure(figsize=(7.2, 3.6))
    ax = figure.subplots()
    ax.grid(False)
    for node, own in enumerate(tree.children):
        for child in own:
            look = {"color": "black"} if child in order else {"color": "#c4c4c4", "linewidth": 1}
            ax.plot([x[node], x[child]], [y[node], y[child]], "-", marker="", zorder=1, **look)
    for node in range(1, len(tree.names)):
        shade = SHADES(values[node]) if node in order else "white"
        ring = ORANGE if tree.right[node] else GREY
        ax.scatter(x[node], y[node], 210, color=shade, edgecolors=ring, zorder=2,
                   linewidths=3.0 if tree.right[node] else 0.8)  # fmt: skip
        ink = "white" if node in order and values[node] < 0.5 else "#222222"
        ax.annotate(str(order.get(node, "")), (x[node], y[node]), ha="center", va="center",
                    fontsize=7.5, color=ink, zorder=3)  # fmt: skip
    spent = sum(tree.cost[node] for node in written)
    leaves = sum(not own for own in tree.children)
    tried = sum(not tree.children[node] for node in written)
    found = any(tree.right[node] for node in written)
    finding = f"{spent} tokens, {tried} of {leaves} attempts: {'found' if found else 'not found'}"
    ax.set(title=finding, xlabel="attempts, from all plus (left) to all minus (right)",
           ylabel="signs chosen", ylim=(max(y) + 0.5, -0.3))  # fmt: skip
    ax.set_xticks([])
    ax.set_yticks(range(max(y) + 1))
    bar = figure.colorbar(
        ScalarMappable(cmap=SHADES), ax=ax, label="value of a written node", fraction=0.03, pad=0.01
    )
    bar.outline.set_visible(False)
    names = ", ".join(tree.names[node] for node in written)
    figure.set_label(f"{finding}. Written in this order: {names or 'nothing yet'}.")
    return figure


def _places(tree: Tree) -> tuple[list[float], list[int]]:
    """Where each node is drawn: leaves side by side, a parent over the middle of its children."""
    x, y = [0.0] * len(tree.names), [0] * len(tree.names)
    leaves = iter(range(len(tree.names)))

    def place(node: int, depth: int) -> float:
        y[node] = depth
        own = [place(child, depth + 1) for child in tree.children[node]]
        x[node] = sum(own) / len(own) if own else float(next(leaves))
        return x[node]

    place(0, 0)
    return x, y
