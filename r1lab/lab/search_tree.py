"""A search tree to look at: what was written, in which order, and what its value model said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ipywidgets import Dropdown, IntSlider
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from r1lab.lab.widgets import ORANGE, Explorer, slider
from r1lab.report.figures import GREY, styled
from r1lab.search.tree import Tree, mcts

SHADES = colormaps["cividis"]


def tree_explorer(tree: Tree, values: Mapping[str, Sequence[float]]) -> Explorer:
    """Step through an MCTS of this tree, with one of several values and any c."""
    most = len(tree.names) - 1
    return Explorer(
        lambda guide, step, c: tree_figure(tree, values[guide], step=step, c=c),
        guide=Dropdown(options=list(values), description="value", tooltip="What guides it"),
        step=IntSlider(most, min=0, max=most, description="nodes", tooltip="Written so far"),
        c=slider("c", 1.0, 0.0, 4.0, 0.1, "Weight of what is likely and rarely visited"),
    )


@styled
def tree_figure(
    tree: Tree, values: Sequence[float], *, step: int | None = None, c: float = 1.0
) -> Figure:
    """An MCTS of the whole tree after `step` nodes (default: until the right leaf is written).

    Filled: written, numbered in order; the shade is the value. The right leaf has an orange ring.
    """
    written = mcts(tree, values, budget=10**9, c=c).written[:step]
    order = {node: str(number) for number, node in enumerate(written, 1)}
    x, y = _places(tree)
    figure = Figure(figsize=(7.2, 3.6))
    ax = figure.subplots()
    ax.grid(False)
    for node, children in enumerate(tree.children):
        for child in children:
            color, width = ("black", 2) if child in order else ("#c4c4c4", 1)
            ax.plot([x[node], x[child]], [y[node], y[child]], color=color, linewidth=width,
                    linestyle="-", marker="", zorder=1)  # fmt: skip
    for node in range(1, len(tree.names)):
        ring, width = (ORANGE, 3.0) if tree.right[node] else (GREY, 0.8)
        shade, ink = SHADES(values[node]), "white" if values[node] < 0.5 else "#222222"
        ax.scatter(x[node], y[node], 210, color=shade if node in order else "white",
                   edgecolors=ring, linewidths=width, zorder=2)  # fmt: skip
        ax.text(x[node], y[node], order.get(node, ""), color=ink, fontsize=7.5, zorder=3,
                horizontalalignment="center", verticalalignment="center")  # fmt: skip
    tokens = sum(tree.cost[node] for node in written)
    leaves = sum(not children for children in tree.children)
    tried = sum(not tree.children[node] for node in written)
    found = "found" if any(tree.right[node] for node in written) else "not found"
    finding = f"{tokens} tokens, {tried} of {leaves} attempts: {found}"
    ax.set(title=finding, xlabel="attempts, from all plus (left) to all minus (right)",
           ylabel="signs chosen", ylim=(max(y) + 0.5, -0.3), xticks=[],
           yticks=range(max(y) + 1))  # fmt: skip
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
        below = [place(child, depth + 1) for child in tree.children[node]]
        x[node] = sum(below) / len(below) if below else float(next(leaves))
        return x[node]

    place(0, 0)
    return x, y
